"""Tables of the page and of its Markdown twin, as plain rows of figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlpretrain.report.evaluations import ARMS, STAGES
from rlpretrain.report.results import ClaimResult, Figure, Model, Results
from rlpretrain.report.words import OVERALL


@dataclass(frozen=True)
class AccuracyTable:
    """Stages by arms by benchmarks: a group of columns a benchmark group, its average first."""

    columns: list[str]  # averages, then each group's benchmarks
    headings: list[tuple[str, int]]  # spanning heading and its number of columns
    stages: list[tuple[str, list[tuple[str, list[Figure]]]]]  # stage -> rows of (arm, a figure a column)


def accuracy_table(results: Results) -> AccuracyTable:
    """Every model's accuracy; models that were not evaluated have no row."""
    groups = sorted(set(results.benchmarks.values()))
    members = {group: [name for name in results.benchmarks if results.benchmarks[name] == group] for group in groups}
    known = results.models[0].averages if results.models else {}
    averages = [OVERALL, *groups, *(name for name in known if name not in (OVERALL, *groups))]
    stages = []
    for stage in STAGES:
        rows = [
            (model.arm, [model.averages[a] for a in averages] + [model.accuracy[n] for g in groups for n in members[g]])
            for model in _of_stage(results, stage)
        ]
        if rows:
            stages.append((stage, rows))
    return AccuracyTable(
        columns=averages + [name for group in groups for name in members[group]],
        headings=[("averages", len(averages)), *((group, len(members[group])) for group in groups)],
        stages=stages,
    )


def gain_rows(results: Results) -> list[Model]:
    """The models whose gain on held-out text was measured, by stage and arm."""
    return [model for stage in STAGES for model in _of_stage(results, stage) if model.information_gain]


def _of_stage(results: Results, stage: str) -> Iterator[Model]:
    known = {(model.arm, model.stage): model for model in results.models}
    return (known[arm, stage] for arm in ARMS if (arm, stage) in known)


@dataclass(frozen=True)
class IntervalBar:
    """A claim's interval as places on a line from 0 to 100: zero, the bounds and the estimate."""

    zero: float
    low: float
    high: float
    estimate: float


def sections(claims: Sequence[ClaimResult]) -> list[tuple[str, list[ClaimResult]]]:
    """Claims by the headings that they stand under, in their order; the first heading's are the page's headline."""
    found: dict[str, list[ClaimResult]] = {}
    for claim in claims:
        found.setdefault(claim.section, []).append(claim)
    return list(found.items())


def interval_bar(claim: ClaimResult, others: Sequence[ClaimResult]) -> IntervalBar | None:
    """Where the claim's interval lies. Claims of one unit share one scale, so that their bars can be compared."""
    if claim.figure is None:
        return None
    shown = [other.figure for other in others if other.figure and other.unit == claim.unit]
    left = min(0.0, *(figure.low for figure in shown))
    right = max(0.0, *(figure.high for figure in shown))
    margin = (right - left) * 0.08 or 1.0
    left, right = left - margin, right + margin

    def place(value: float) -> float:
        return round(100 * (value - left) / (right - left), 2)

    figure = claim.figure
    return IntervalBar(place(0.0), place(figure.low), place(figure.high), place(figure.estimate))
