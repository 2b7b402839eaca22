"""Medians of the samples, and what they say beside each other: against TRL, the FLOP bound, SFT and fewer positions."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.bench.bound import likelihood_bound, step_bound
from tests.bench.plan import Case, Sample
from tests.bench.shapes import SHAPES

PHASES = ("rollout", "score", "teacher", "update")
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """A case, summed up over its samples. Ratios are None where there is nothing to compare with."""

    case: Case
    seconds: float
    fastest: float
    slowest: float
    phases: dict[str, float]
    tokens_per_second: float  # of the tokens a step trains on
    peak_gib: float
    bound_gflop: float
    times_bound: float  # of the time that the bound takes at the measured matmul rate
    update_times_bound: float | None
    trl_over_this: float | None  # TRL's seconds, tuned, over these
    memory_of_trl: float | None  # these peak bytes over TRL's, tuned
    over_sft: float | None  # these seconds over SFT's
    float32_over_this: float | None


def matmul_rates(samples: list[Sample]) -> dict[str, float]:
    """Operations a second by dtype, the median over the run."""
    dtypes = sorted({sample.case.dtype for sample in samples})
    return {d: median(s.flops_per_second for s in samples if s.case.dtype == d) for d in dtypes}


def summarise(samples: list[Sample]) -> list[Row]:
    """A row a case, in the order in which the cases were first measured."""
    by_case: dict[Case, list[Sample]] = {}
    for sample in samples:
        by_case.setdefault(sample.case, []).append(sample)
    rates = matmul_rates(samples)
    return [_row(case, by_case, rates[case.dtype]) for case in by_case]


def _row(case: Case, by_case: dict[Case, list[Sample]], rate: float) -> Row:
    shape = SHAPES[case.shape]
    mine = by_case[case]
    seconds = median(sample.seconds for sample in mine)
    steps = [step for sample in mine for step in sample.steps]
    phases = {name: median(step[name] for step in steps) for name in PHASES if name in steps[0]}
    sft = case.contender == "sft"
    whole = step_bound(shape)
    bound = likelihood_bound(shape) if sft else whole.total

    def ratio(value: Callable[[Sample], float], contender: str, dtype: str = case.dtype) -> float | None:
        """The other case's value over this one's."""
        other = by_case.get(Case(case.shape, contender, dtype))
        if other is None or other is mine or sft:
            return None
        return median(map(value, other)) / median(map(value, mine))

    memory = ratio(lambda sample: sample.peak_bytes, "trl-tuned")
    over_sft = ratio(lambda sample: sample.seconds, "sft")
    return Row(
        case=case,
        seconds=seconds,
        fastest=min(sample.seconds for sample in mine),
        slowest=max(sample.seconds for sample in mine),
        phases=phases,
        tokens_per_second=shape.tokens / seconds,
        peak_gib=median(sample.peak_bytes for sample in mine) / GIB,
        bound_gflop=bound / 1e9,
        times_bound=seconds * rate / bound,
        # TRL scores apart from its update, so that the update's share of the bound is not its own.
        update_times_bound=None if sft or "score" in phases else phases["update"] * rate / whole.update,
        trl_over_this=ratio(lambda sample: sample.seconds, "trl-tuned"),
        memory_of_trl=memory and 1 / memory,
        over_sft=over_sft and 1 / over_sft,
        float32_over_this=ratio(lambda sample: sample.seconds, case.contender, "float32"),
    )


def as_json(rows: list[Row]) -> list[dict[str, object]]:
    return [{**asdict(row.case), **{k: v for k, v in asdict(row).items() if k != "case"}} for row in rows]


def growth(rows: list[Row]) -> list[dict[str, object]]:
    """Our step's cost by positions a document, over K times the cost of one."""
    ours = [row for row in rows if row.case.contender == "ours" and SHAPES[row.case.shape].documents == 1]
    single = {row.case.dtype: row for row in ours if SHAPES[row.case.shape].positions == 1}
    lines = []
    for row in sorted(ours, key=lambda row: (row.case.dtype, SHAPES[row.case.shape].positions)):
        if (one := single.get(row.case.dtype)) is None:
            continue
        positions = SHAPES[row.case.shape].positions
        lines.append(
            {
                "dtype": row.case.dtype,
                "positions": positions,
                "seconds": row.seconds,
                "share_of_separate": row.seconds / (positions * one.seconds),
                "share_of_separate_in_the_bound": row.bound_gflop / (positions * one.bound_gflop),
            }
        )
    return lines


def show(samples: list[Sample], console: Console) -> None:
    """Print the tables."""
    rows = summarise(samples)
    for name in dict.fromkeys(row.case.shape for row in rows):
        console.print(_table(name, [row for row in rows if row.case.shape == name]))
    for dtype, rate in matmul_rates(samples).items():
        console.print(f"matrix products in {dtype}: {rate / 1e9:.0f} GFLOP/s")
    lines = growth(rows)
    if len(lines) > 1:
        table = Table("dtype", "positions", "s/step", "over K steps of one", "the same, in the bound")
        for line in lines:
            table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in line.values()))
        console.print(table)


def _table(name: str, rows: list[Row]) -> Table:
    shape = SHAPES[name]
    bound = step_bound(shape).total / 1e9
    title = (
        f"{name}: {shape.documents} x {shape.length} tokens, {shape.positions} positions, {shape.group} thoughts of "
        f"{shape.thought} tokens; bound {bound:,.0f} GFLOP"
    )
    columns = ("contender", "s/step", "(range)", *PHASES, "tokens/s", "peak GiB", "x bound", "update x bound")
    table = Table(*columns, "TRL/this", "memory/TRL", "/SFT", "fp32/this", title=title, title_justify="left")
    for row in rows:
        ratios = (row.update_times_bound, row.trl_over_this, row.memory_of_trl, row.over_sft, row.float32_over_this)
        table.add_row(
            f"{row.case.contender} {row.case.dtype}",
            f"{row.seconds:.3g}",
            f"{row.fastest:.3g}-{row.slowest:.3g}",
            *(_figure(row.phases.get(phase)) for phase in PHASES),
            f"{row.tokens_per_second:.0f}",
            f"{row.peak_gib:.2f}",
            f"{row.times_bound:.2f}",
            *map(_figure, ratios),
        )
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
