"""Whole steps and whole stages on vLLM: the trainer, RLP and RLVR, and an evaluation beside the torch engine's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.frame import run_stage
from rlpretrain.artifacts import write_manifest
from rlpretrain.data.shards import Example
from rlpretrain.rollout.engines import thinking_engine
from rlpretrain.settings import ThinkingSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.checkpoints import save_checkpoint
from rlpretrain.training.rewards import InformationGain
from rlpretrain.training.thinking import ThinkingTrainer
from tests.vllm.conftest import SMALL, small_model

THINKING = {
    "steps": 3,
    "batch_contexts": 4,
    "positions": 2,
    "group": 3,
    "max_context": 64,
    "compute_dtype": "float32",
    "thought": {"budget": 6, "temperature": 0.8},
    "optimizer": {"learning_rate": 1e-2},
}
ON_VLLM: dict[str, Any] = {"engine": "vllm", "vllm": SMALL.model_dump()}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("builtin:characters")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    facts = save_checkpoint(small_model("qwen3"), tokenizer, folder, "base", 1, 1)
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    write_manifest(folder, kind="checkpoint", settings={}, inputs={}, seed=0, facts=facts)
    return folder


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def trainer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **changes: Any) -> ThinkingTrainer:
    settings = ThinkingSettings.model_validate({**THINKING, **ON_VLLM, **changes})
    form = ThoughtFormat.build(settings.thought, tokenizer)
    reward = InformationGain(form, settings, tokenizer.eos_token_id)
    return ThinkingTrainer(model, thinking_engine(model, form, settings), tokenizer, form, reward, settings, seed=3)


def documents(tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    texts = [f"{a}+{b}=" for a in range(9) for b in range(9)]
    ids = [[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in texts]
    return [
        Example(text, np.array(tokens, dtype=np.int32), 0, "", "test", text)
        for text, tokens in zip(texts, ids, strict=True)
    ]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_every_step_samples_from_the_weights_that_the_last_one_left(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, family: str
) -> None:
    """At a learning rate at which old weights would show: the sampler never differs from the trainer but by rounding."""
    model = small_model(family, seed=1)
    before = model.get_input_embeddings().weight.detach().clone()
    trainer(model, tokenizer).train(iter(documents(tokenizer)), tmp_path, "rlp")
    assert float((model.get_input_embeddings().weight.detach() - before).abs().max()) > 0.01
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert len(lines) == 3
    for line in lines:
        assert 0 < line["sampler/difference"] < 1e-5 and line["sampler/capped"] == 0
        assert line["sampler/weight"] == pytest.approx(1, abs=1e-5)
        assert {"reward/gain", "thought/length", "thought/cut_off", "loss/surrogate"} <= set(line)


def test_in_bf16_the_sampler_differs_and_is_weighed(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    if not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this processor has no bf16 instructions")
    changes = {"compute_dtype": "bfloat16", "optimizer": {"learning_rate": 1e-4}}
    trainer(small_model("llama", seed=1), tokenizer, **changes).train(iter(documents(tokenizer)), tmp_path, "rlp")
    for line in read_lines(tmp_path / "metrics.jsonl"):
        assert 1e-4 < line["sampler/difference"] < 0.1 and line["sampler/weight"] == pytest.approx(1, abs=0.1)


def test_the_loss_is_the_torch_engines_for_the_same_thoughts(tokenizer: PreTrainedTokenizerBase) -> None:
    ours = trainer(small_model("qwen3", seed=1), tokenizer)
    random = np.random.default_rng(0)
    positions = [p for example in documents(tokenizer)[:4] for p in ours.reward.positions(example, random)]
    rollouts = ours.sample(positions, seed=5)
    ours.reward.begin_step(ours.model)
    sums = [ours.accumulate(positions, rollouts.tokens, None, given)[0] for given in (rollouts.logprobs, None)]
    assert "sampler/weight" in sums[0] and "sampler/weight" not in sums[1]
    assert sums[0]["loss/surrogate"] == pytest.approx(sums[1]["loss/surrogate"], abs=1e-5)


def test_rlp_and_rlvr_run_on_vllm(make_shards: Callable[..., Path], checkpoint: Path, tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "documents", "mini_documents")
    rlp = {"objective": "rlp", "thinking": {**THINKING, **ON_VLLM, "steps": 1}}
    run_stage("pretrain", rlp, {"shards": shards, "checkpoint": checkpoint}, tmp_path / "rlp")
    assert "sampler/difference" in read_lines(tmp_path / "rlp" / "metrics.jsonl")[0]
    problems = make_shards(tmp_path / "problems", "mini_problems")
    rlvr = {"thinking": {**THINKING, **ON_VLLM, "steps": 1}, "answer_pattern": r"</think>\s*(\S+)\s*$"}
    run_stage("reinforce", rlvr, {"shards": problems, "checkpoint": tmp_path / "rlp"}, tmp_path / "rlvr")
    (line,) = read_lines(tmp_path / "rlvr" / "metrics.jsonl")
    assert "reward/correct" in line and "sampler/difference" in line


def test_an_evaluation_has_the_figures_of_the_torch_engines(
    make_shards: Callable[..., Path], checkpoint: Path, tmp_path: Path
) -> None:
    inputs = {
        "checkpoint": checkpoint,
        "benchmarks": make_shards(tmp_path / "benchmarks", "mini_benchmarks", purpose="evaluation"),
        "held_out": make_shards(tmp_path / "held_out", "mini_documents", held_out_fraction=0.5),
    }
    held_out = {"documents": 4, "group": 2, "samples": 2, "max_context": 32, "thought": {"budget": 4}}
    settings = {"suite": "mini", "repeats": 3, "max_new_tokens": 6, "compute_dtype": "float32", "held_out": held_out}
    manifests = {
        name: run_stage("evaluate", {**settings, **chosen}, inputs, tmp_path / name)
        for name, chosen in (("torch", {}), ("vllm", ON_VLLM), ("again", ON_VLLM))
    }
    assert manifests["vllm"].digest == manifests["again"].digest
    figures = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in manifests}
    assert shape(figures["vllm"]) == shape(figures["torch"])
    samples = {name: read_lines(tmp_path / name / "samples" / "sums.jsonl") for name in manifests}
    assert samples["vllm"] != samples["torch"]
    for ours, theirs in zip(samples["vllm"], samples["torch"], strict=True):
        assert ours["id"] == theirs["id"] and len(set(ours["responses"])) == 3
    gain = {name: results["information_gain"] for name, results in figures.items()}
    assert gain["vllm"]["baseline_logprob"] == gain["torch"]["baseline_logprob"], "the model scores in both"


def shape(value: Any) -> Any:
    """Names, lengths and kinds, without the figures."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else type(value)
