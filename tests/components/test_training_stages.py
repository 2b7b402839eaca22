"""The stages that train, on tiny models: what each leaves, what stays the same, and wrong inputs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.frame import run_stage
from rlpretrain.artifacts import read_manifest
from rlpretrain.errors import UserError
from rlpretrain.models import load_model

LIKELIHOOD = {"steps": 2, "batch_documents": 4, "sequence_length": 64}
THINKING = {"steps": 2, "batch_contexts": 2, "group": 2, "max_context": 32, "thought": {"budget": 4}}
WARM_UP = {"steps": 1, "batch_documents": 2}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, make_shards: Callable[..., Path]) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shards")
    return {name: make_shards(root / name, f"mini_{name}") for name in ("documents", "sft", "problems")}


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("objective", ["rlp", "rpt"])
def test_thinking_pretraining_leaves_a_model_its_curves_and_thoughts(
    shards: dict[str, Path], checkpoint: Path, tmp_path: Path, objective: str
) -> None:
    inputs = {"shards": shards["documents"], "checkpoint": checkpoint}
    manifests = [
        run_stage("pretrain", {"objective": objective, "thinking": THINKING}, inputs, tmp_path / name) for name in "ab"
    ]
    assert manifests[0].digest == manifests[1].digest
    assert manifests[0].facts["objective"] == objective and manifests[0].facts["steps"] == 2
    curves = read_lines(tmp_path / "a" / "metrics.jsonl")
    wanted = {"reward/mean", "thought/length", "thought/cut_off", "thought/entropy", "optim/grad_norm"}
    assert [line["step"] for line in curves] == [1, 2] and all(wanted <= set(line) for line in curves)
    thoughts = read_lines(tmp_path / "a" / "thoughts.jsonl")
    assert len(thoughts) == 4 and {"context", "thought", "next_token", "reward"} <= set(thoughts[0])
    assert load_model(tmp_path / "a" / "model").num_parameters() == manifests[0].facts["parameters"]


def test_a_kl_penalty_is_offered_and_off(shards: dict[str, Path], checkpoint: Path, tmp_path: Path) -> None:
    """It is nothing at the model it starts from, and holds the model back once that has moved."""
    optimizer = {"learning_rate": 1e-2}
    inputs = {"shards": shards["documents"], "checkpoint": checkpoint}
    penalties, weights = {}, {}
    for weight in (0.0, 5.0):
        thinking = {**THINKING, "steps": 3, "kl_weight": weight, "optimizer": optimizer}
        run = tmp_path / str(weight)
        manifest = run_stage("pretrain", {"objective": "rlp", "thinking": thinking}, inputs, run)
        weights[weight] = manifest.files["model/model.safetensors"].sha256
        penalties[weight] = [line.get("loss/kl") for line in read_lines(run / "metrics.jsonl")]
    assert penalties[0.0] == [None] * 3
    first, *later = penalties[5.0]
    assert abs(first) < 1e-6 and all(penalty > 1e-4 for penalty in later)
    assert weights[0.0] != weights[5.0]


def test_a_new_base_model_depends_on_the_seed(shards: dict[str, Path], tmp_path: Path) -> None:
    architecture = {"layers": 1, "width": 16, "heads": 2, "key_value_heads": 2, "feed_forward": 16}
    settings = {"objective": "base", "likelihood": LIKELIHOOD, "architecture": architecture}
    digests = [
        run_stage("pretrain", {**settings, "seed": seed}, {"shards": shards["documents"]}, tmp_path / name)
        .files["model/model.safetensors"]
        .sha256
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_format_warm_up_is_part_of_the_base(shards: dict[str, Path], checkpoint: Path, tmp_path: Path) -> None:
    settings = {"objective": "base", "likelihood": LIKELIHOOD, "thinking": THINKING, "format_warmup": WARM_UP}
    inputs = {"shards": shards["documents"], "checkpoint": checkpoint}
    manifest = run_stage("pretrain", settings, inputs, tmp_path / "out")
    assert manifest.facts["steps"] == 3
    assert [line["step"] for line in read_lines(tmp_path / "out" / "metrics.jsonl")] == [1, 2, 1]


def test_post_training(shards: dict[str, Path], checkpoint: Path, tmp_path: Path) -> None:
    sft = run_stage(
        "finetune", {"likelihood": LIKELIHOOD}, {"shards": shards["sft"], "checkpoint": checkpoint}, tmp_path / "sft"
    )
    assert sft.facts["objective"] == "sft"
    settings = {"thinking": THINKING, "answer_pattern": r"</think>\s*(\S+)\s*$"}
    inputs = {"shards": shards["problems"], "checkpoint": tmp_path / "sft"}
    rlvr = run_stage("reinforce", settings, inputs, tmp_path / "rlvr")
    assert rlvr.inputs["checkpoint"] == read_manifest(tmp_path / "sft").digest
    assert "reward/correct" in read_lines(tmp_path / "rlvr" / "metrics.jsonl")[0]


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "reinforce"])
def test_shards_of_another_tokenizer_are_refused(
    make_shards: Callable[..., Path], checkpoint: Path, tmp_path: Path, stage: str
) -> None:
    settings = {
        "pretrain": {"objective": "cpt", "likelihood": LIKELIHOOD},
        "finetune": {"likelihood": LIKELIHOOD},
        "reinforce": {"thinking": THINKING},
    }[stage]
    other = make_shards(tmp_path / "other", "mini_documents", tokens=("<extra>",))
    with pytest.raises(UserError, match="'shards' was tokenised with another tokenizer"):
        run_stage(stage, settings, {"shards": other, "checkpoint": checkpoint}, tmp_path / "out")


def test_rlp_needs_a_base_model(shards: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'rlp' starts from a base model"):
        run_stage(
            "pretrain", {"objective": "rlp", "thinking": THINKING}, {"shards": shards["documents"]}, tmp_path / "out"
        )


def test_problems_without_an_answer(shards: dict[str, Path], checkpoint: Path, tmp_path: Path) -> None:
    inputs = {"shards": shards["documents"], "checkpoint": checkpoint}
    with pytest.raises(UserError, match="answer"):
        run_stage("reinforce", {"thinking": THINKING}, inputs, tmp_path / "out")


@pytest.mark.parametrize(("data", "sequence_length"), [("problems", 64), ("sft", 8)])
def test_nothing_to_learn(
    shards: dict[str, Path], checkpoint: Path, tmp_path: Path, data: str, sequence_length: int
) -> None:
    """Problems are all prompt; a row shorter than every prompt cuts the completions off."""
    settings = {"likelihood": {**LIKELIHOOD, "sequence_length": sequence_length}}
    with pytest.raises(UserError, match="sft: no document of step 1 has a token to learn"):
        run_stage("finetune", settings, {"shards": shards[data], "checkpoint": checkpoint}, tmp_path / "out")
