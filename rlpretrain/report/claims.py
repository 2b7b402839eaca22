"""The claims of the small reproduction, each as data, and the rules that decide them from the run's own figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rlpretrain.report.results import ClaimResult, Difference, Figure, Model, Verdict
from rlpretrain.report.words import ARM_NAMES, nats, points

ABOUT_ZERO = 0.1  # nats: a gain up to here counts as "about zero"

Kind = Literal["gain rises", "beats", "not behind"]


@dataclass(frozen=True)
class Claim:
    """A sentence about RLP against ``other`` after ``stage``."""

    name: str
    kind: Kind
    other: str
    stage: str
    statement: str


CLAIMS = (
    Claim(
        "gain-rises",
        "gain rises",
        "base",
        "pretrained",
        "On held-out text, the information gain of thoughts rises under RLP, from about zero or below",
    ),
    Claim("beats-base", "beats", "base", "pretrained", "After pretraining, RLP beats the base model on the average"),
    Claim(
        "beats-cpt",
        "beats",
        "cpt",
        "pretrained",
        "After pretraining, RLP beats CPT on the same documents on the average",
    ),
    Claim(
        "not-behind-base",
        "not behind",
        "base",
        "rlvr",
        "After the same SFT and RLVR, RLP is not behind the base model's arm on the average",
    ),
    Claim(
        "not-behind-cpt",
        "not behind",
        "cpt",
        "rlvr",
        "After the same SFT and RLVR, RLP is not behind CPT on the average",
    ),
)

_RULES: dict[Kind, str] = {
    "gain rises": f"Holds when base's gain is at most {ABOUT_ZERO:g} nats and the {{confidence}} interval of RLP's gain minus "
    "base's lies above zero.",
    "beats": "Holds when the {confidence} interval of the difference, paired by question, lies above zero.",
    "not behind": "Fails when the {confidence} interval of the difference, paired by question, lies wholly below zero. "
    "Holding means that no deficit could be shown; it does not show that RLP is ahead.",
}

Key = tuple[str, str]


def judge(models: Sequence[Model], differences: Sequence[Difference], confidence: float) -> list[ClaimResult]:
    """The verdict on every claim, in the order of CLAIMS."""
    known_models = {(model.arm, model.stage): model for model in models}
    known = {(d.second, d.stage): d for d in differences if d.first == "rlp"}
    return [_judge(claim, known_models, known.get((claim.other, claim.stage)), confidence) for claim in CLAIMS]


def _judge(claim: Claim, models: Mapping[Key, Model], difference: Difference | None, confidence: float) -> ClaimResult:
    decide: Callable[[Claim, Mapping[Key, Model], Difference], _Decision]
    decide = _gain_rises if claim.kind == "gain rises" else _average
    decision = decide(claim, models, difference) if difference else _missing(claim)
    return ClaimResult(
        name=claim.name,
        statement=claim.statement,
        rule=_RULES[claim.kind].format(confidence=f"{100 * confidence:g}%"),
        verdict=decision.verdict,
        unit="nats" if claim.kind == "gain rises" else "points",
        figure=decision.figure,
        by_run=decision.by_run,
        detail=decision.detail,
    )


@dataclass(frozen=True)
class _Decision:
    verdict: Verdict
    figure: Figure | None
    by_run: list[float]
    detail: str


def _missing(claim: Claim) -> _Decision:
    what = {"pretrained": "after pretraining", "sft": "after SFT", "rlvr": "after SFT and RLVR"}[claim.stage]
    return _Decision("not tested", None, [], f"RLP and {ARM_NAMES[claim.other]} were not both evaluated {what}")


def _gain_rises(claim: Claim, models: Mapping[Key, Model], difference: Difference) -> _Decision:
    before = models[claim.other, claim.stage].information_gain
    after = models["rlp", claim.stage].information_gain
    figure = difference.information_gain
    if before is None or after is None or figure is None:
        return _Decision("not tested", None, [], "the gain on held-out text was not measured for both models")
    rises, starts_low = figure.low > 0, before.estimate <= ABOUT_ZERO
    detail = f"{before.estimate:+.2f} to {after.estimate:+.2f} nats: {nats(figure)}"
    if not difference.gain_paired:
        detail += ", not paired: the models were not measured at the same positions"
    if rises and not starts_low:
        detail += "; it rises, but it starts clearly above zero"
    by_run = [b - a for a, b in zip(before.by_run, after.by_run, strict=True)]
    return _Decision("holds" if rises and starts_low else "fails", figure, by_run, detail)


def _average(claim: Claim, models: Mapping[Key, Model], difference: Difference) -> _Decision:
    figure = difference.averages["overall"]
    ours, theirs = (models[arm, claim.stage].averages["overall"].estimate for arm in ("rlp", claim.other))
    detail = f"{100 * ours:.1f}% against {100 * theirs:.1f}%: {points(figure)}"
    holds = figure.low > 0 if claim.kind == "beats" else figure.high >= 0
    return _Decision("holds" if holds else "fails", figure, difference.overall_by_run, detail)
