"""What a run will take, against sums by hand and the paper's own figures."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pipelines.__main__ import app
from pipelines.plan import GPUS, make_plan
from pipelines.profile import HardwareSettings, load_profile, names
from rlpretrain.errors import UserError

ARMS = ("base", "cpt", "rlp")


@pytest.mark.parametrize("profile", names())
def test_every_profile_can_be_planned(profile: str) -> None:
    options = ["--profile", profile, "--gpu", "h200", "--nodes", "2", "--arms", "all"]
    done = CliRunner().invoke(app, ["plan", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for word in ("pretrain-rlp", "pretrain-rpt", "CPT at equal compute", "Memory a GPU", "16 x h200, 2 nodes"):
        assert word in done.output


def test_sums_by_hand() -> None:
    profile = load_profile("mini")
    plan = make_plan(profile, ARMS, None)
    stages = {stage.name: stage for stage in plan.stages}
    rlp = stages["pretrain-rlp"]
    contexts, thoughts, context, budget, steps = 64, 512, 64, 16, 60
    assert (rlp.read, rlp.sampled) == (steps * contexts * context, steps * thoughts * budget)
    assert plan.size is not None
    blocks, head, attention = plan.size.blocks, plan.size.head, plan.size.attention
    trunk = contexts * context * (2 * blocks + 4 * attention * context / 2)
    tails = thoughts * budget * (2 * blocks + 4 * attention * (context + budget / 2))
    read = thoughts * budget * 2 * head
    # rollout and teacher read the trunk once each, the update trains on it; thoughts are sampled, then trained on
    assert rlp.flops == pytest.approx(steps * (5 * trunk + 4 * tails + 4 * read))
    assert stages["pretrain-cpt"].read == 60 * 64 * 64


def test_a_state_that_cannot_branch_costs_its_document_for_every_thought() -> None:
    change = {"base.architecture.family": "nemotron_h", "base.architecture.pattern": "M*-"}
    hybrid, llama = load_profile("mini", change), load_profile("mini")
    rlp = {
        name: next(stage for stage in make_plan(profile, ARMS, None).stages if stage.name == "pretrain-rlp")
        for name, profile in (("hybrid", hybrid), ("llama", llama))
    }
    sizes = {name: make_plan(profile, ARMS, None).size for name, profile in (("hybrid", hybrid), ("llama", llama))}
    assert sizes["hybrid"] is not None and sizes["llama"] is not None
    a_parameter = {name: rlp[name].flops / sizes[name].blocks for name in rlp}
    assert a_parameter["hybrid"] > 2 * a_parameter["llama"]


def test_the_paper_profile_fits_its_gpus_and_the_papers_budget() -> None:
    for name in ("qwen3-1.7b", "qwen3-14b", "nemotron-nano-12b-v2"):
        profile = load_profile(name)
        plan = make_plan(profile, ARMS, profile.hardware)
        assert profile.hardware is not None
        assert sum(plan.memory.values()) < GPUS[profile.hardware.gpu].memory, name
    plan = make_plan(load_profile("qwen3-1.7b"), ARMS, HardwareSettings(gpu="h100", nodes=4))
    assert plan.equal_compute_tokens == pytest.approx(6e9, rel=0.1)  # "about 6B"
    hours = {stage.name: plan.hours(stage) for stage in plan.stages}
    assert all(hour is not None for hour in hours.values())
    twice = make_plan(load_profile("qwen3-1.7b"), ARMS, HardwareSettings(gpu="h100", nodes=8))
    sft = next(stage for stage in plan.stages if stage.name == "sft-rlp")
    assert plan.hours(sft) == pytest.approx(2 * (twice.hours(sft) or 0))
    evaluation = next(stage for stage in plan.stages if stage.name.startswith("evaluate-rlp"))
    assert plan.hours(evaluation) == twice.hours(evaluation), "one process evaluates, on one GPU"


def test_an_evaluations_limits_are_counted_by_benchmark() -> None:
    def sampled(**changes: object) -> float:
        profile = load_profile("qwen3-1.7b", {f"evaluate.{name}": value for name, value in changes.items()})
        return next(stage for stage in make_plan(profile, ARMS, None).stages if "evaluate-rlp" in stage.name).sampled

    a_response = 3 * load_profile("qwen3-1.7b").evaluate.max_new_tokens  # three evaluations an arm
    # MMLU is asked greedily and four times more; AIME has 30 questions, eight times each.
    assert sampled() - sampled(limit={"mmlu": 42}) == 5 * (14042 - 42) * a_response
    assert sampled() - sampled(limit={"mmlu": 42, "aime25": 10}) == (5 * 14000 + 8 * 20) * a_response
    assert sampled(limit={"aime25": 1000}) == sampled()
    assert sampled(limit=10) == 10 * (5 * 8 + 3 * (1 + 4)) * a_response


def test_an_imported_model_must_be_described() -> None:
    with pytest.raises(UserError, match=r"base\.architecture must describe the imported model"):
        make_plan(load_profile("mini", {"base.initial_model": "someone/model"}), ARMS, None)


def test_an_unknown_gpu_is_told_in_one_line() -> None:
    command = [sys.executable, "-m", "pipelines", "plan", "--profile", "mini", "--gpu", "h900"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: plan: gpu: Input should be 'a100'")
