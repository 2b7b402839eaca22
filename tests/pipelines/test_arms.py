"""Which arms a run has, and the settings of those that follow from another arm's."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.arms import DEFAULT_ARMS, equal_compute_tokens, parse_arms
from pipelines.compiling import compiled_text
from pipelines.profile import load_profile
from pipelines.reproduction import reproduction, task_names
from rlpretrain.errors import UserError
from rlpretrain.report.evaluations import ARMS
from rlpretrain.settings import ThinkingSettings


def test_arms_are_named_in_any_order() -> None:
    assert parse_arms("rlp, base") == ("base", "rlp")
    assert parse_arms("all") == ARMS
    assert parse_arms(",".join(DEFAULT_ARMS)) == DEFAULT_ARMS


@pytest.mark.parametrize(
    "text, message",
    [("base,rpl", "unknown arm 'rpl'; known: base, cpt, cpt_flops, rlp, rpt"), ("rlp", "at least two arms")],
)
def test_wrong_arms_are_told_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_arms(text)


def test_the_papers_budget_is_about_six_billion_tokens() -> None:
    read = 170e6  # the paper's input tokens: documents of 2,048 tokens, 512 a step
    paper = ThinkingSettings(steps=round(read / (512 * 2048)))
    assert equal_compute_tokens(paper) == pytest.approx(6e9, rel=0.1)


def test_equal_compute_follows_what_is_set_for_rlp() -> None:
    plain = load_profile("tiny").cpt_flops.likelihood
    longer = load_profile("tiny", {"rlp.thinking.steps": 20}).cpt_flops.likelihood
    assert plain is not None and longer is not None
    # 2 steps x 4 contexts x (2 thoughts x (64 + 16) tokens + 64 read) over 8 documents x 64 tokens a step of CPT
    assert plain.steps == -(-2 * 4 * (2 * 80 + 64) // (8 * 64)) == 4
    assert longer.steps == 35
    own = load_profile("tiny", {"cpt_flops.likelihood.steps": 7, "rlp.thinking.steps": 20})
    assert own.cpt_flops.likelihood is not None and own.cpt_flops.likelihood.steps == 7


def test_what_a_profile_says_of_a_derived_arm_goes_over_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "{extends: tiny, rlp: {thinking: {group: 4}}, rpt: {thinking: {steps: 7}}, cpt_flops: {likelihood: {batch_documents: 2}}}"
    )
    profile = load_profile(str(file), {"rpt.thinking.proxy.share": 0.5})
    thinking, likelihood = profile.rpt.thinking, profile.cpt_flops.likelihood
    assert thinking is not None and thinking.proxy is not None and likelihood is not None
    assert (profile.rpt.objective, thinking.group, thinking.steps, thinking.proxy.share) == ("rpt", 4, 7, 0.5)
    # 2 steps x 4 contexts x (4 thoughts x (64 + 16) tokens + 64 read) over its own 2 documents x 64 tokens a step
    assert likelihood.batch_documents == 2 and likelihood.steps == -(-2 * 4 * (4 * 80 + 64) // (2 * 64))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rpt.thinking.grupo": 1}, "unknown setting 'rpt.thinking.grupo'"),
        ({"cpt_flops": 3}, "cpt_flops: Input should be a valid dictionary"),
        ({"cpt_flops.likelihood.batch_documents": 0}, "cpt_flops.likelihood.batch_documents: .* greater than"),
        ({"rlp.thinking.group": 1}, "profile tiny: rlp.thinking.group: .* greater than"),
        ({"cpt.likelihood": None}, "profile tiny: cpt: objective 'cpt' needs 'likelihood'"),
    ],
)
def test_a_mistake_in_a_derived_arm_is_told_where_it_is(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_profile("tiny", changes)


def test_rpt_is_rlp_with_another_reward_and_other_positions() -> None:
    profile = load_profile("tiny", {"rlp.thinking.group": 6, "rpt.thinking.proxy.share": 0.5})
    assert profile.rpt.objective == "rpt"
    assert profile.rpt.thinking is not None and profile.rlp.thinking is not None
    assert profile.rpt.thinking.group == 6
    assert profile.rpt.thinking.proxy is not None and profile.rpt.thinking.proxy.share == 0.5
    assert profile.rlp.thinking.proxy is None


def tasks(*arms: str) -> set[str]:
    return set(task_names(reproduction("tiny", load_profile("tiny"), arms)).values())


def test_an_arm_brings_its_tasks_and_nothing_else() -> None:
    added = tasks("base", "cpt_flops", "rlp") - tasks("base", "rlp")
    stages = ("pretrained", "sft", "rlvr")
    assert added == {"pretrain-cpt-flops", "sft-cpt-flops", "rlvr-cpt-flops"} | {
        f"evaluate-cpt-flops-{stage}" for stage in stages
    }
    assert "sft-base" not in tasks("cpt", "rlp") and "train-base" in tasks("cpt", "rlp")


def parameters(*arms: str) -> dict[str, Any]:
    return yaml.safe_load(compiled_text(reproduction("tiny", load_profile("tiny"), arms)))["root"]["inputDefinitions"][
        "parameters"
    ]


def test_a_run_has_parameters_for_its_own_arms() -> None:
    assert {"cpt_flops", "rpt"} <= parameters(*ARMS).keys()
    few = parameters("base", "rlp")
    assert not {"cpt", "cpt_flops", "rpt"} & few.keys()
    assert few["rlp"]["defaultValue"]["objective"] == "rlp" and few["seed"]["defaultValue"] == 0
