"""Every claim's rule, both ways, on figures made for it."""

import pytest

from rlpretrain.evaluation.averages import average_weights
from rlpretrain.evaluation.suites import load_suite
from rlpretrain.report.claims import RULES, judge, pairs
from rlpretrain.report.evaluations import ARMS
from rlpretrain.report.ledger import load_ledger
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
        gain_slices=[],
        cost=None,
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
    assert {claim.verdict for claim in found} == {"not tested"}
    assert all(claim.figure is None and claim.detail for claim in found)
    assert all("not both evaluated" in claim.detail for claim in found if claim.section == "In short")
    models = [model("base", "pretrained", None), model("rlp", "pretrained", None)]
    found = judge(models, [difference("base", "pretrained", figure(0.1, 1))], 0.95)
    assert [claim.verdict for claim in found[:2]] == ["not tested", "holds"]


def test_rules_name_the_confidence():
    found = judge(EVERY, [], 0.9)
    assert all("90% interval" in claim.rule for claim in found if claim.rule != RULES["elsewhere"])


PAPER = load_ledger().tables[0]


def like_the_paper(shift: float = 0.0) -> tuple[list[Model], list[Difference]]:
    """Models with the figures of the paper's first table, RLP's higher by ``shift``, within half a point."""
    stages = ("pretrained", "rlvr")
    models, differences = [], []
    for stage in stages:
        for arm in PAPER.arms:
            averages = {name: PAPER.figure(name, arm, stage) + shift * (arm == "rlp") for name in PAPER.averages}
            averages |= {"overall": averages["overall_as_printed"], "math": averages["math_as_printed"]}
            around = {name: figure(value - 0.005, value + 0.005) for name, value in averages.items()}
            models.append(model(arm, stage).model_copy(update={"averages": around}))
        for first, second in (("rlp", "base"), ("rlp", "cpt"), ("base", "cpt")):

            def gap(name: str, first: str = first, second: str = second, stage: str = stage) -> Figure:
                value = PAPER.figure(name, first, stage) - PAPER.figure(name, second, stage) + shift * (first == "rlp")
                return figure(value - 0.004, value + 0.004)

            averages = {name: gap(name) for name in PAPER.averages}
            averages |= {"overall": averages["overall_as_printed"], "math": averages["math_as_printed"]}
            made = difference(second, stage, averages["overall"])
            accuracy = {name: gap(name) for name in PAPER.rows}
            differences.append(made.model_copy(update={"first": first, "accuracy": accuracy, "averages": averages}))
    return models, differences


def test_the_paper_s_own_figures_uphold_its_claims():
    found = judge(*like_the_paper(), 0.95, "qwen3-1.7b")
    with_figures = [claim for claim in found if claim.figure]
    assert len(with_figures) >= 13 and {claim.verdict for claim in with_figures} == {"holds"}
    assert all("lies inside" in claim.detail for claim in with_figures if claim.paper)
    rows = next(claim for claim in found if claim.name == "rows-qwen3-1.7b")
    assert rows.verdict == "holds" and rows.detail.startswith("of 44 differences 44 have")


def test_another_size_and_another_sign_are_told():
    found = {claim.name: claim for claim in judge(*like_the_paper(-0.02), 0.95, "qwen3-1.7b")}
    assert found["beats-base"].verdict == "holds" and "+5.7 lies outside" in found["beats-base"].detail
    assert found["rows-qwen3-1.7b"].verdict == "fails" and found["math-cpt"].verdict == "fails"
    elsewhere = {claim.name: claim for claim in judge(*like_the_paper(), 0.95, "mini")}
    assert "the paper" not in elsewhere["beats-base"].detail and elsewhere["beats-base"].verdict == "holds"
    assert elsewhere["rows-qwen3-1.7b"].verdict == elsewhere["nemotron"].verdict == "not tested"


def test_the_ledger_is_sound():
    ledger = load_ledger()
    claims = [claim for section in ledger.sections for claim in section.claims]
    assert len({claim.name for claim in claims}) == len(claims)
    assert {arm for pair in pairs() for arm in pair} <= set(ARMS)
    for claim in claims:
        assert bool(claim.reason) == (claim.kind == "elsewhere")
        assert not claim.sweep or claim.sweep in ledger.sweeps
        assert claim.at is None or claim.at in ledger.sweeps[claim.sweep].values
    for sweep in ledger.sweeps.values():
        assert len(sweep.values) == len(sweep.figures) and sweep.default in sweep.values
    suite, _ = load_suite("paper")
    assert set(PAPER.rows) == set(suite.benchmarks)
    averages = average_weights(suite.groups, suite.averages)
    for stage in ("pretrained", "rlvr"):  # what the paper prints follows from its rows
        for arm in PAPER.arms:
            for name in PAPER.averages:
                computed = sum(weight * PAPER.figure(row, arm, stage) for row, weight in averages[name].items())
                assert computed == pytest.approx(PAPER.figure(name, arm, stage), abs=2e-3), (name, arm, stage)
