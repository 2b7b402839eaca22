"""The claims of the small reproduction, each with the rule that decides it from the run's own figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rlpretrain.report.evaluations import Evaluation, Key
from rlpretrain.report.statistics import Bootstrap, Interval

Verdict = Literal["holds", "fails", "not tested"]


@dataclass(frozen=True)
class Claim:
    """A sentence, its verdict, and the figure that decided it."""

    name: str
    statement: str
    rule: str
    verdict: Verdict
    figure: Interval | None
    detail: str


def judge(evaluations: Mapping[Key, Evaluation], bootstrap: Bootstrap) -> list[Claim]:
    """The verdict on every claim."""
    return [
        _gain_rises(evaluations, bootstrap),
        _beats(evaluations, bootstrap, "base"),
        _beats(evaluations, bootstrap, "cpt"),
        _not_behind(evaluations, bootstrap, "base"),
        _not_behind(evaluations, bootstrap, "cpt"),
    ]


def _gain_rises(evaluations: Mapping[Key, Evaluation], bootstrap: Bootstrap) -> Claim:
    statement = "Information gain of thoughts on held-out text rises under RLP, from about zero or below"
    rule = "the interval of RLP's gain minus base's, paired by position, lies above zero, and base's gain is at most 0.1 nat"
    base, rlp = (evaluations.get((arm, "pretrained")) for arm in ("base", "rlp"))
    if base is None or rlp is None or not base.gains or len(base.gains) != len(rlp.gains):
        return Claim("gain-rises", statement, rule, "not tested", None, "held-out gains of base and RLP are missing")
    figure = bootstrap.difference({"gain": rlp.gains}, {"gain": base.gains})
    before, after = bootstrap.mean(base.gains), bootstrap.mean(rlp.gains)
    verdict: Verdict = "holds" if figure.low > 0 and before.estimate <= 0.1 else "fails"
    detail = f"{before.estimate:+.2f} to {after.estimate:+.2f} nats, {figure.estimate:+.2f} [{figure.low:+.2f}, {figure.high:+.2f}]"
    return Claim("gain-rises", statement, rule, verdict, figure, detail)


def _beats(evaluations: Mapping[Key, Evaluation], bootstrap: Bootstrap, other: str) -> Claim:
    name = f"beats-{other}"
    statement = f"After pretraining, RLP beats {other} on the average over benchmarks"
    rule = "the interval of the paired difference lies above zero"
    figure = _difference(evaluations, bootstrap, other, "pretrained")
    if figure is None:
        return Claim(name, statement, rule, "not tested", None, f"RLP and {other} were not both evaluated after pretraining")
    return Claim(name, statement, rule, "holds" if figure.low > 0 else "fails", figure, _points(figure))


def _not_behind(evaluations: Mapping[Key, Evaluation], bootstrap: Bootstrap, other: str) -> Claim:
    name = f"not-behind-{other}"
    statement = f"After the same SFT and RLVR, RLP is not behind {other}"
    rule = "the interval of the paired difference does not lie below zero"
    figure = _difference(evaluations, bootstrap, other, "rlvr")
    if figure is None:
        return Claim(name, statement, rule, "not tested", None, f"RLP and {other} were not both evaluated after RLVR")
    return Claim(name, statement, rule, "holds" if figure.high >= 0 else "fails", figure, _points(figure))


def _difference(
    evaluations: Mapping[Key, Evaluation], bootstrap: Bootstrap, other: str, stage: str
) -> Interval | None:
    first, second = evaluations.get(("rlp", stage)), evaluations.get((other, stage))
    if first is None or second is None:
        return None
    return bootstrap.difference(first.scores, second.scores)


def _points(figure: Interval) -> str:
    return f"{100 * figure.estimate:+.1f} points [{100 * figure.low:+.1f}, {100 * figure.high:+.1f}]"
