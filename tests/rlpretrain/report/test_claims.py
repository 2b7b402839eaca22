"""Every claim's rule, both ways, on figures made for it."""

import pytest

from rlpretrain.report.claims import CLAIMS, judge
from rlpretrain.report.results import Difference, Figure, GainFigure, Model


def figure(low: float, high: float) -> Figure:
    return Figure(estimate=(low + high) / 2, low=low, high=high)


def model(arm: str, stage: str, gain: float | None = 0.0) -> Model:
    measured = None
    if gain is not None:
        optional = dict.fromkeys(("baseline_logprob", "reasoned_logprob", "thought_length", "cut_off"))
        measured = GainFigure(estimate=gain, low=gain - 0.1, high=gain + 0.1, positions=8, by_run=[gain], **optional)
    return Model(
        arm=arm,
        stage=stage,
        accuracy={},
        averages={"overall": figure(0.4, 0.5)},
        overall_by_run=[0.45],
        information_gain=measured,
        sources=[],
    )


def difference(
    second: str, stage: str, accuracy: Figure, gain: Figure | None = None, paired: bool = True
) -> Difference:
    return Difference(
        first="rlp",
        second=second,
        stage=stage,
        accuracy={},
        averages={"overall": accuracy},
        overall_by_run=[accuracy.estimate],
        information_gain=gain,
        gain_paired=paired,
    )


def verdicts(models: list[Model], differences: list[Difference]) -> dict[str, str]:
    return {claim.name: claim.verdict for claim in judge(models, differences, 0.95)}


EVERY = [model(arm, stage) for arm in ("base", "cpt", "rlp") for stage in ("pretrained", "sft", "rlvr")]


@pytest.mark.parametrize(
    ("low", "high", "beats", "not_behind"),
    [
        (0.01, 0.03, "holds", "holds"),
        (-0.01, 0.03, "fails", "holds"),
        (0.0, 0.03, "fails", "holds"),
        (-0.03, -0.01, "fails", "fails"),
        (-0.03, 0.0, "fails", "holds"),
    ],
)
@pytest.mark.parametrize("other", ["base", "cpt"])
def test_averages(other, low, high, beats, not_behind):
    found = verdicts(EVERY, [difference(other, stage, figure(low, high)) for stage in ("pretrained", "sft", "rlvr")])
    assert (found[f"beats-{other}"], found[f"not-behind-{other}"]) == (beats, not_behind)


@pytest.mark.parametrize(
    ("base_gain", "low", "verdict"),
    [(-0.3, 0.01, "holds"), (0.1, 0.01, "holds"), (0.2, 0.5, "fails"), (-0.3, -0.01, "fails"), (-6.0, 0.5, "holds")],
)
def test_gain(base_gain, low, verdict):
    models = [model("base", "pretrained", base_gain), model("rlp", "pretrained", 0.5)]
    found = judge(models, [difference("base", "pretrained", figure(0, 1), figure(low, low + 1))], 0.95)[0]
    assert found.verdict == verdict and found.unit == "nats"
    assert ("starts clearly above zero" in found.detail) == (base_gain == 0.2)


def test_unpaired_gains_are_said_to_be_so():
    models = [model("base", "pretrained"), model("rlp", "pretrained")]
    found = judge(models, [difference("base", "pretrained", figure(0, 1), figure(0.1, 1), paired=False)], 0.95)[0]
    assert "not paired" in found.detail


def test_what_is_missing_is_not_tested():
    found = judge([model("base", "pretrained"), model("cpt", "pretrained")], [], 0.95)
    assert [claim.verdict for claim in found] == ["not tested"] * len(CLAIMS)
    assert all(claim.figure is None and "not both evaluated" in claim.detail for claim in found)
    models = [model("base", "pretrained", None), model("rlp", "pretrained", None)]
    found = judge(models, [difference("base", "pretrained", figure(0.1, 1))], 0.95)
    assert [claim.verdict for claim in found[:2]] == ["not tested", "holds"]


def test_rules_name_the_confidence():
    assert all("90% interval" in claim.rule for claim in judge(EVERY, [], 0.9))
