"""The ablations: what changing one setting of RLP does, beside what the paper found; results.json and a page."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rlpretrain.errors import UserError
from rlpretrain.report.claims import Decision, result
from rlpretrain.report.evaluations import Evaluation, Pooled, check_alike, read_evaluation
from rlpretrain.report.figures import rounded_figure
from rlpretrain.report.ledger import Claim, Value, load_ledger
from rlpretrain.report.results import RESULTS_FILE, ClaimResult, Figure, Part, k_in_words
from rlpretrain.report.statistics import Bootstrap
from rlpretrain.report.words import OVERALL, percent, points
from rlpretrain.settings import AblateSettings, SweepSettings

TITLES = {
    "rollouts": ("Thoughts a context", "thoughts"),
    "thought_budget": ("Thought budget", "tokens"),
    "kl_weight": ("Weight of the KL penalty", "beta"),
    "ema_decay": ("Decay of the EMA teacher", "tau"),
    "positions": ("Positions a document", "positions"),
    "corpus": ("Corpus", ""),
    "domains": ("Domains", ""),
}
DEFAULT = "default"  # label of the profile's own settings


class Point(Part):
    """A model that was trained with one value of the setting."""

    value: Value
    label: str
    accuracy: Figure = Field(description="average over the benchmarks, a fraction of 1")
    over_base: Figure = Field(description="minus the base model's, paired by question")
    over_default: Figure = Field(description="minus the default's, paired by question; nothing for the default")
    gain: Figure | None = Field(description="information gain on held-out text, nats")
    thought_length: float | None = Field(description="tokens, on held-out text")
    cut_off: float | None = Field(description="share of thoughts that met the evaluation's budget")


class PaperCurve(Part):
    """What the paper found, as fractions of 1."""

    base: float | None
    default: Value
    values: list[Value]
    accuracy: list[float]


class Sweep(Part):
    """One setting at several values, in their order."""

    name: str
    title: str
    unit: str
    default: Value
    points: list[Point]
    paper: PaperCurve | None = Field(description="none: the paper does not change it")


class Ablations(Part):
    """The whole file."""

    schema_version: Literal[1] = 1
    title: str
    profile: str
    confidence: float
    bootstrap_samples: int
    repeats: int = Field(description="k of pass@1[k], where the suite does not say another")
    samples: list[int] = Field(
        default=[], description="every k of pass@1[k] of the suite; empty where the file is older"
    )
    base: Figure = Field(description="the base model's average accuracy")
    base_gain: Figure | None
    claims: list[ClaimResult]
    sweeps: list[Sweep]

    @property
    def k(self) -> str:
        """k of pass@1[k] in words."""
        return k_in_words(self.samples, self.repeats)


def compare_points(base: Path, evaluations: Sequence[Path], settings: AblateSettings, output: Path) -> dict[str, Any]:
    """Write the comparison of the points' evaluations to ``output``; returns the facts for the manifest.

    Raises UserError when a point's evaluation is missing, there twice, nobody's or cannot be paired with the base model's.
    """
    from rlpretrain.report.ablations_page import ablations_page

    found = collect(read_evaluation(base), [read_evaluation(path) for path in evaluations], settings)
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    (output / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")
    (output / "index.html").write_text(ablations_page(found), encoding="utf-8")
    return {"claims": {claim.name: claim.verdict for claim in found.claims}, "points": len(evaluations)}


def collect(base: Evaluation, evaluations: Sequence[Evaluation], settings: AblateSettings) -> Ablations:
    """All figures of the page."""
    by_label = {evaluation.label: evaluation for evaluation in evaluations}
    counts = Counter(evaluation.label for evaluation in evaluations)
    named = {DEFAULT}.union(*(sweep.points for sweep in settings.sweeps))
    for label, count in counts.items():
        if count > 1 or label not in named:
            wrong = f"{count} evaluations are" if count > 1 else "no ablation has a point for the evaluation that is"
            raise UserError(f"points: {wrong} labelled '{label}'; give one evaluation a point")
    for label, evaluation in by_label.items():
        check_alike(base, evaluation, f"the base model and point '{label}'")
    same_questions = Pooled((base,)).same_questions
    bootstrap = Bootstrap(settings.confidence, settings.bootstrap_samples, settings.seed, same_questions)
    sweeps = [_sweep(sweep, by_label, base, bootstrap) for sweep in settings.sweeps]
    pairs = _Pairs(by_label, bootstrap)
    claims = [
        result(claim, section.title, _decide(claim, sweeps, pairs), settings.confidence)
        for section in load_ledger().sections
        for claim in section.claims
        if claim.sweep
    ]
    return Ablations(
        title=settings.title,
        profile=settings.profile,
        confidence=settings.confidence,
        bootstrap_samples=settings.bootstrap_samples,
        repeats=base.repeats,
        samples=sorted(set(base.samples.values())),
        base=rounded_figure(bootstrap.average(_scores(base), _weights(base))),
        base_gain=_gain(base, bootstrap),
        claims=claims,
        sweeps=sweeps,
    )


def _sweep(
    settings: SweepSettings, by_label: Mapping[str, Evaluation], base: Evaluation, bootstrap: Bootstrap
) -> Sweep:
    labels = {DEFAULT: settings.default, **settings.points}
    missing = sorted(labels.keys() - by_label.keys())
    if missing:
        raise UserError(
            f"ablation '{settings.name}': no evaluation is labelled '{missing[0]}'; give one, or drop the point"
        )
    ordered = sorted(labels, key=lambda label: labels[label]) if _numeric(labels.values()) else list(labels)
    title, unit = TITLES[settings.name]
    paper = load_ledger().sweeps.get(settings.name)
    return Sweep(
        name=settings.name,
        title=title,
        unit=unit,
        default=settings.default,
        points=[_point(label, labels[label], by_label[label], base, by_label[DEFAULT], bootstrap) for label in ordered],
        paper=None
        if paper is None
        else PaperCurve(
            base=None if paper.base is None else paper.base / 100,
            default=paper.default,
            values=list(paper.values),
            accuracy=[round(figure / 100, 6) for figure in paper.figures],
        ),
    )


def _point(
    label: str, value: Value, evaluation: Evaluation, base: Evaluation, default: Evaluation, bootstrap: Bootstrap
) -> Point:
    scores, weights = _scores(evaluation), _weights(evaluation)
    return Point(
        value=value,
        label=label,
        accuracy=rounded_figure(bootstrap.average(scores, weights)),
        over_base=rounded_figure(bootstrap.difference(scores, _scores(base), weights)),
        over_default=rounded_figure(bootstrap.difference(scores, _scores(default), weights)),
        gain=_gain(evaluation, bootstrap),
        thought_length=evaluation.gain_summary.get("thought_length"),
        cut_off=evaluation.gain_summary.get("cut_off"),
    )


def _numeric(values: Any) -> bool:
    return not any(isinstance(value, str) for value in values)


def _scores(evaluation: Evaluation) -> dict[str, list[float]]:
    return Pooled((evaluation,)).scores


def _weights(evaluation: Evaluation) -> dict[str, float]:
    return evaluation.weights[OVERALL]


def _gain(evaluation: Evaluation, bootstrap: Bootstrap) -> Figure | None:
    return rounded_figure(bootstrap.average({"gain": evaluation.gains})) if evaluation.gains else None


class _Pairs:
    """Differences between points, paired by question."""

    def __init__(self, by_label: Mapping[str, Evaluation], bootstrap: Bootstrap) -> None:
        self.by_label, self.bootstrap = by_label, bootstrap

    def __call__(self, first: Point, second: Point) -> Figure:
        """The average accuracy of ``first`` minus that of ``second``."""
        a, b = self.by_label[first.label], self.by_label[second.label]
        return rounded_figure(self.bootstrap.difference(_scores(a), _scores(b), _weights(a)))


def _decide(claim: Claim, sweeps: Sequence[Sweep], pairs: _Pairs) -> Decision:
    sweep = next((sweep for sweep in sweeps if sweep.name == claim.sweep), None)
    if sweep is None:
        return Decision("not tested", "this run does not change it")
    return _RULES[claim.kind](claim, sweep, pairs)


def _best_at(claim: Claim, sweep: Sweep, pairs: _Pairs) -> Decision:
    point = next((point for point in sweep.points if point.value == claim.at), None)
    if point is None:
        return Decision("not tested", f"this run has no point at {shown(claim.at or 0)}")
    leads = {other.value: pairs(other, point) for other in sweep.points if other is not point}
    best = max(leads, key=lambda value: leads[value].estimate)
    detail = (
        f"{_worded(sweep, best)} against {shown(point.value)}: {points(leads[best])}, the largest lead of another value"
    )
    fails = any(figure.low > 0 for figure in leads.values())
    return Decision("fails" if fails else "holds", detail, leads[best])


def _rises(claim: Claim, sweep: Sweep, pairs: _Pairs) -> Decision:
    figure = pairs(sweep.points[-1], sweep.points[0])
    detail = f"{shown(sweep.points[-1].value)} against {_worded(sweep, sweep.points[0].value)}: {points(figure)}"
    return Decision("holds" if figure.low > 0 else "fails", detail, figure)


def _levels_off(claim: Claim, sweep: Sweep, pairs: _Pairs) -> Decision:
    figure = pairs(sweep.points[-1], sweep.points[-2])
    detail = f"{shown(sweep.points[-1].value)} against {_worded(sweep, sweep.points[-2].value)}: {points(figure)}"
    return Decision("fails" if figure.low > 0 else "holds", detail, figure)


def _least_below_base(claim: Claim, sweep: Sweep, pairs: _Pairs) -> Decision:
    least = sweep.points[0]
    detail = f"{_worded(sweep, least.value)} against base: {points(least.over_base)}"
    return Decision("holds" if least.over_base.high < 0 else "fails", detail, least.over_base)


def _all_beat_base(claim: Claim, sweep: Sweep, pairs: _Pairs) -> Decision:
    weakest = min(sweep.points, key=lambda point: point.over_base.low)
    detail = f"the weakest of {len(sweep.points)}, {shown(weakest.value)}: {points(weakest.over_base)}"
    return Decision("holds" if weakest.over_base.low > 0 else "fails", detail, weakest.over_base)


def shown(value: Value) -> str:
    """A value as people write it; kfp hands whole numbers over as floats."""
    return value if isinstance(value, str) else f"{value:g}"


def _worded(sweep: Sweep, value: Value) -> str:
    return f"{shown(value)} {sweep.unit}".strip()


_RULES = {
    "best at": _best_at,
    "rises": _rises,
    "levels off": _levels_off,
    "least below base": _least_below_base,
    "all beat base": _all_beat_base,
}


def ablation_lines(results: dict[str, Any]) -> list[str]:
    """What the command line says at the end of a run: the verdicts, then every point's accuracy."""
    found = Ablations.model_validate(results)
    lines = [""]
    for claim in found.claims:
        if claim.verdict != "not tested":
            lines += [f"{claim.verdict.upper():>10}  {claim.statement}", f"{'':>10}  {claim.detail}"]
    lines += ["", f"Average accuracy in percent, pass@1[{found.k}]; base {percent(found.base)}:"]
    for sweep in found.sweeps:
        lines.append(f"  {sweep.title}")
        for point in sweep.points:
            mark = " (default)" if point.value == sweep.default else ""
            lines.append(f"{shown(point.value):>10}  {percent(point.accuracy)}{mark}")
    return [*lines, ""]
