"""Tables of the page and of its Markdown twin: rows of cells that carry their text and what they sort by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import stdev

from rlpretrain.report.evaluations import ARMS, STAGES
from rlpretrain.report.ledger import load_ledger
from rlpretrain.report.results import ClaimResult, ComparedFigure, Figure, Model, Results, TrainingWarning
from rlpretrain.report.training import Timings
from rlpretrain.report.words import ARM_NAMES, MARKS, OVERALL, STAGE_NAMES, column_name, compact, training_name

LEVEL = 0.05  # of the corrected tests


@dataclass(frozen=True)
class Cell:
    """``small`` stands below the text, ``sort`` is what a click on the column orders by, ``arm`` gives a coloured mark."""

    text: str
    sort: float | str = ""
    small: str = ""
    arm: str = ""
    tone: str = ""  # strong, code, wrap, up, down
    paper: str = ""  # the paper's figure


@dataclass(frozen=True)
class Table:
    """``words``: how many of the columns, from the left, hold words."""

    name: str
    label: str
    columns: list[str]
    rows: list[list[Cell]]
    words: int = 2
    headings: list[tuple[str, int]] = field(default_factory=list)  # spanning heading and its number of columns


def sections(claims: Sequence[ClaimResult]) -> list[tuple[str, list[ClaimResult]]]:
    """Claims by the headings that they stand under, in their order; the first heading's are the page's headline."""
    found: dict[str, list[ClaimResult]] = {}
    for claim in claims:
        found.setdefault(claim.section, []).append(claim)
    return list(found.items())


@dataclass(frozen=True)
class DecidingFigure:
    """The difference that decided a claim, in words."""

    value: str
    unit: str
    bounds: str


def deciding_figure(claim: ClaimResult) -> DecidingFigure | None:
    """None where a claim was not tested, or not by one difference."""
    if claim.figure is None:
        return None
    scale, form = (100, "+.1f") if claim.unit == "points" else (1, "+.2f")
    return DecidingFigure(f"{scale * claim.figure.estimate:{form}}", claim.unit, _bounds(claim.figure, scale, form))


def ledger_table(heading: str, claims: Sequence[ClaimResult]) -> Table:
    """The claims under one heading."""
    rows = [
        [
            Cell(claim.statement, tone="wrap"),
            Cell(f"{MARKS[claim.verdict]} {claim.verdict}", tone=f"said-{claim.verdict.split()[0]}"),
            Cell(claim.detail, tone="wrap"),
            Cell(claim.paper, tone="wrap narrow"),
        ]
        for claim in claims
    ]
    return Table("ledger", heading, ["claim", "verdict", "this run", "the paper (%)"], rows, words=4)


def accuracy_table(results: Results) -> Table:
    """Stages and arms by averages and benchmarks, the groups side by side, and the paper's figures where it ran the profile."""
    groups = sorted(set(results.benchmarks.values()))
    members = {group: [name for name in results.benchmarks if results.benchmarks[name] == group] for group in groups}
    known = results.models[0].averages if results.models else {}
    averages = [OVERALL, *groups, *(name for name in known if name not in (OVERALL, *groups))]
    names = [name for group in groups for name in members[group]]
    printed = load_ledger().table(results.profile)

    def paper(name: str, model: Model) -> float | None:
        return printed.figure(name, model.arm, model.stage) if printed else None

    return Table(
        "accuracy",
        "Accuracy of every model, in percent",
        ["stage", "arm", *map(column_name, averages + names)],
        [
            [
                *_model_cells(model),
                *(_percent(model.averages[name], paper(name, model), "strong") for name in averages),
                *(_percent(model.accuracy[name], paper(name, model)) for name in names),
            ]
            for model in _in_order(results)
        ],
        headings=[("", 2), ("averages", len(averages)), *((group, len(members[group])) for group in groups)],
    )


def sampling_table(results: Results) -> Table:
    """How the samples behind the accuracies lie."""
    questions = results.models[0].accuracy if results.models else {}
    names = [f"{column_name(name)} ({row.questions} questions)" for name, row in questions.items()]
    return Table(
        "sampling",
        "Spread over the sampled answers, and answers that could not be read",
        ["stage", "arm", *names],
        [
            [
                *_model_cells(model),
                *(
                    Cell(
                        "" if row.run_spread is None else f"±{_share(row.run_spread)}",
                        row.run_spread or 0,
                        f"{_share(row.no_answer)}% no answer",
                    )
                    for row in model.accuracy.values()
                ),
            ]
            for model in _in_order(results)
        ],
    )


def tested_table(results: Results) -> Table:
    """Every benchmark's difference between two arms, with its test."""
    several = results.runs > 1
    columns = ["stage", "arms", "benchmark", "points", "p", "p, corrected", *(["spread over runs"] * several), "shows"]
    rows = [
        [
            _stage(difference.stage),
            Cell(f"{ARM_NAMES[difference.first]} minus {ARM_NAMES[difference.second]}"),
            Cell(column_name(name)),
            Cell(f"{100 * figure.estimate:+.1f}", figure.estimate, _bounds(figure, 100, "+.1f")),
            Cell(_p(figure.p), figure.p),
            Cell(_p(figure.p_holm), figure.p_holm),
            *([Cell(f"±{100 * stdev(figure.by_run):.1f}", stdev(figure.by_run))] if several else []),
            _shows(figure),
        ]
        for difference in results.differences
        for name, figure in difference.accuracy.items()
    ]
    return Table("tests", "Differences by benchmark, tested", columns, rows, words=3)


def gain_table(results: Results) -> Table:
    """What thoughts do on held-out text, by model."""
    columns = ["stage", "arm", "gain (nats)", "log-prob without", "with a thought", "length (tokens)", "cut off (%)"]
    rows = []
    for model in _in_order(results):
        gain = model.information_gain
        if gain is not None:
            rows.append(
                [
                    *_model_cells(model),
                    Cell(f"{gain.estimate:+.2f}", gain.estimate, _bounds(gain, 1, "+.2f"), tone="strong"),
                    *(
                        Cell("" if value is None else f"{scale * value:{form}}", value or 0)
                        for value, scale, form in (
                            (gain.baseline_logprob, 1, ".2f"),
                            (gain.reasoned_logprob, 1, ".2f"),
                            (gain.thought_length, 1, ".1f"),
                            (gain.cut_off, 100, ".1f"),
                        )
                    ),
                    Cell(f"{gain.positions:,}", gain.positions),
                ]
            )
    return Table("gains", "Information gain on held-out text", [*columns, "positions"], rows)


def cost_table(results: Results, times: Timings) -> Table:
    """What every training took, the arms of a stage side by side."""
    seconds = {(row.arm, row.stage): sum(row.seconds.values()) for row in times.timings}
    by_rlp = {m.stage: m.cost.flops for m in results.models if m.arm == "rlp" and m.cost is not None}
    rows = []
    for model in _in_order(results):
        cost, its_seconds = model.cost, seconds.get((model.arm, model.stage))
        if cost is None:
            continue
        counted = (cost.steps, cost.read, cost.sampled, cost.trained, cost.flops)
        shared = (model.arm, model.stage) == ("base", "pretrained")
        share = cost.flops / by_rlp[model.stage] if by_rlp.get(model.stage) and not shared else None
        rows.append(
            [
                _training(model.arm, model.stage),
                _arm(model.arm),
                *(Cell(compact(value), value) for value in counted),
                Cell("" if share is None else f"{share:.2f}", share or 0),
                Cell("" if its_seconds is None else f"{its_seconds:,.1f}", its_seconds or 0),
            ]
        )
    columns = ["training", "arm", "steps", "read", "sampled", "trained", "FLOPs", "FLOPs / RLP's", "seconds"]
    return Table("cost", "Tokens, FLOPs and seconds of every training", columns, rows)


def data_table(results: Results) -> Table:
    """The text behind every stage, and what was left out of it."""
    reasons = list(results.data[0].removed) if results.data else []
    splits = sorted({split for row in results.data for split in row.documents}, reverse=True)
    rows = []
    for row in results.data:
        found = ", ".join(f"{column_name(name)} {n}" for name, n in row.contaminated_by_benchmark.items() if n)
        rows.append(
            [
                Cell(row.role, tone="strong"),
                *(
                    Cell(f"{row.documents[split]:,}", row.documents[split], f"{compact(row.tokens[split])} tokens")
                    if split in row.documents
                    else Cell("", 0)
                    for split in splits
                ),
                *(
                    Cell(f"{row.removed[name]:,}", row.removed[name], found if name == "contaminated" else "")
                    for name in reasons
                ),
                Cell(f"{row.cut:,}", row.cut),
                Cell("" if row.ngram is None else str(row.ngram), row.ngram or 0),
                Cell(", ".join(f"{name} ({count:,})" for name, count in row.text_sources.items()), tone="wrap"),
            ]
        )
    columns = ["read for", *(split.replace("_", "-") for split in splits), *map(column_name, reasons)]
    return Table(
        "data", "Text read and removed", [*columns, "cut short", "n-gram (words)", "sources (documents)"], rows, words=1
    )


def provenance_table(results: Results) -> Table:
    """Which artifacts and which code the figures come from."""
    names = ("checkpoint", "benchmarks", "held_out")
    rows = [
        [
            *_model_cells(model),
            Cell(str(source.run), source.run),
            Cell(str(source.seed), source.seed),
            *(
                Cell(digest[:12], tone="code")
                for digest in (source.digest, *(source.inputs.get(name, "") for name in names), source.code_version)
            ),
        ]
        for model in _in_order(results)
        for source in model.sources
    ]
    columns = ["stage", "arm", "run", "seed", "evaluation", "checkpoint", "benchmarks", "held-out text", "code"]
    return Table("provenance", "Provenance", columns, rows)


def warnings_table(results: Results) -> Table:
    """What the trainings warned of; without rows where all went well."""
    several = results.runs > 1
    rows = [
        [
            _training(row.arm, row.stage),
            _arm(row.arm),
            Cell(row.sign, small="" if row.metric is None else f"({row.metric})", tone="wrap narrow"),
            *([Cell(str(row.run), row.run)] if several else []),
            *(Cell(f"{count:,}", count) for count in (row.steps, row.first, row.last)),
        ]
        for row in warnings_in_order(results)
    ]
    columns = ["training", "arm", "what was seen", *(["run"] if several else []), "steps", "first", "last"]
    return Table("warnings", "Warnings from training", columns, rows, words=3)


def warnings_in_order(results: Results) -> list[TrainingWarning]:
    """By stages and arms, as every table is."""
    return [
        row
        for stage in STAGES
        for arm in ARMS
        for row in results.training_warnings
        if (row.arm, row.stage) == (arm, stage)
    ]


def _in_order(results: Results) -> Iterator[Model]:
    known = {(model.arm, model.stage): model for model in results.models}
    return (known[arm, stage] for stage in STAGES for arm in ARMS if (arm, stage) in known)


def _model_cells(model: Model) -> tuple[Cell, Cell]:
    return _stage(model.stage), _arm(model.arm)


def _stage(stage: str) -> Cell:
    return Cell(STAGE_NAMES[stage], _place(stage))


def _place(stage: str) -> int:
    return 1 + STAGES.index(stage)


def _training(arm: str, stage: str) -> Cell:
    shared = (arm, stage) == ("base", "pretrained")
    return Cell(training_name(arm, stage), 0 if shared else _place(stage))


def _arm(arm: str) -> Cell:
    return Cell(ARM_NAMES[arm], ARMS.index(arm), arm=arm)


def _percent(figure: Figure, paper: float | None, tone: str = "") -> Cell:
    said = "" if paper is None else f"paper {100 * paper:.2f}"
    return Cell(f"{100 * figure.estimate:.1f}", figure.estimate, _bounds(figure, 100, ".1f"), tone=tone, paper=said)


def _bounds(figure: Figure, scale: float, form: str) -> str:
    return f"[{scale * figure.low:{form}}, {scale * figure.high:{form}}]"


def _share(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.1f}"


def _p(value: float) -> str:
    return f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def _shows(figure: ComparedFigure) -> Cell:
    if figure.p_holm >= LEVEL:
        return Cell("no difference shown", 0)
    return Cell("▲ ahead", 1, tone="up") if figure.estimate > 0 else Cell("▼ behind", -1, tone="down")
