"""What a step does with numbers that are not finite, and how a collapse is told."""

import json
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from rlpretrain.data.shards import Example
from rlpretrain.errors import UserError
from rlpretrain.models import new_model
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.settings import (
    ArchitectureSettings,
    LikelihoodSettings,
    OptimizerSettings,
    ThinkingSettings,
    ThoughtSettings,
)
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training import likelihood
from rlpretrain.training.health import LASTING, Health
from rlpretrain.training.precision import MixedPrecision
from rlpretrain.training.rewards import InformationGain
from rlpretrain.training.thinking import ThinkingTrainer

TOKENIZER = load_tokenizer("builtin:characters")
SHAPE = ArchitectureSettings(layers=1, width=16, heads=2, key_value_heads=2, feed_forward=16)


def model() -> PreTrainedModel:
    return new_model(SHAPE, TOKENIZER, seed=1)


def documents() -> Any:
    return cycle([Example(f"doc-{n}", np.array([5, 6 + n, 7, 1], dtype=np.int32), 0) for n in range(4)])


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]


def train(output: Path, steps: int, skips: int, trained: PreTrainedModel) -> int:
    settings = LikelihoodSettings(
        steps=steps,
        batch_documents=2,
        sequence_length=16,
        compute_dtype="float32",
        optimizer=OptimizerSettings(learning_rate=1e-2, max_skipped_steps=skips),
    )
    return likelihood.train_likelihood(trained, documents(), settings, output, "cpt")


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_step_whose_numbers_are_not_finite_is_left_out_with_its_documents_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], poison: str
) -> None:
    """The weights stay as they were before it, and the training goes on."""
    accumulate, calls, before = likelihood.accumulate, [], []

    def poisoned(precision: MixedPrecision, segments: Any, *rest: Any) -> tuple[float, int]:
        compute = precision.compute
        loss, count = accumulate(precision, segments, *rest)
        calls.append(loss)
        if len(calls) == 2:
            before.extend(p.detach().clone() for p in compute.parameters())
            next(compute.parameters()).grad[0] = float("nan" if poison == "gradient" else 1)
            loss = loss if poison == "gradient" else float("inf")
        if len(calls) == 3:
            assert all(torch.equal(p, old) for p, old in zip(compute.parameters(), before, strict=True))
        return loss, count

    monkeypatch.setattr(likelihood, "accumulate", poisoned)
    train(tmp_path, steps=4, skips=1, trained=model())
    assert lines(tmp_path / "skipped.jsonl") == [{"step": 2, "not_finite": [poison], "documents": ["doc-2", "doc-3"]}]
    curves = lines(tmp_path / "metrics.jsonl")
    assert [("loss/nll" in line, line.get("skipped")) for line in curves] == [
        (True, None),
        (False, True),
        (True, None),
        (True, None),
    ]
    assert f"cpt: the {poison} of step 2 is not finite; it is left out" in capsys.readouterr().err


def test_too_many_of_them_end_the_stage_with_one_clear_line(tmp_path: Path) -> None:
    broken = model()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(
        UserError, match=r"cpt: the loss and the gradient of step 3 are not finite, and 2 steps.*skipped.jsonl; lower"
    ):
        train(tmp_path, steps=9, skips=2, trained=broken)
    assert len(lines(tmp_path / "skipped.jsonl")) == 3


def test_a_reward_that_is_not_finite_is_never_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ThinkingSettings(
        steps=2,
        batch_contexts=2,
        group=2,
        max_context=8,
        compute_dtype="float32",
        thought=ThoughtSettings(budget=3),
        optimizer=OptimizerSettings(max_skipped_steps=2),
    )
    form = ThoughtFormat.build(settings.thought, TOKENIZER)
    monkeypatch.setattr(
        "rlpretrain.training.rewards.information_gain", lambda reasoned, baseline: reasoned * float("inf")
    )
    reward = InformationGain(form, settings, TOKENIZER.eos_token_id)
    trained = model()
    before = [parameter.detach().clone() for parameter in trained.parameters()]
    trainer = ThinkingTrainer(trained, TorchEngine(trained), TOKENIZER, form, reward, settings, seed=0)
    trainer.train(documents(), tmp_path, "rlp")
    assert all("reward" in line["not_finite"] for line in lines(tmp_path / "skipped.jsonl"))
    assert all(torch.equal(p, old) for p, old in zip(trained.parameters(), before, strict=True))


def test_a_collapse_is_warned_about_once_it_has_lasted() -> None:
    health, short = Health(), {"thought/length": 1.2, "thought/entropy": 0.5, "thought/cut_off": 0.99}
    for _ in range(LASTING - 1):
        assert health.warnings(short) == [] and health.news() == []
    assert health.warnings(short) == ["thought/length", "thought/cut_off"]
    assert health.news() == [
        "thoughts have shrunk to nothing (thought/length)",
        "nearly all thoughts are cut off by the budget (thought/cut_off)",
    ]
    assert health.warnings(short) == ["thought/length", "thought/cut_off"] and health.news() == []
    assert health.warnings({**short, "thought/length": 4.0, "thought/cut_off": 0.5}) == []


def test_a_step_left_out_is_passed_over() -> None:
    """It has no such metrics: it does not start the count anew, and is neither warned about nor told as news again."""
    health, constant, left_out = Health(), {"thought/zero_variance": 1.0}, {"data/read": 30.0}
    for _ in range(LASTING - 1):
        health.warnings(constant)
        assert health.warnings(left_out) == [] and health.news() == []
    assert health.warnings(constant) == ["thought/zero_variance"] and len(health.news()) == 1
    assert health.warnings(left_out) == [] and health.news() == []
    assert health.warnings(constant) == ["thought/zero_variance"] and health.news() == []


def test_warnings_stand_in_the_metrics(tmp_path: Path) -> None:
    """All thoughts of an untrained model are cut off by a budget of one token."""
    settings = ThinkingSettings(
        steps=LASTING + 1, batch_contexts=2, group=2, max_context=8, thought=ThoughtSettings(budget=1)
    )
    form = ThoughtFormat.build(settings.thought, TOKENIZER)
    trained = model()
    reward = InformationGain(form, settings, TOKENIZER.eos_token_id)
    ThinkingTrainer(trained, TorchEngine(trained), TOKENIZER, form, reward, settings, seed=0).train(
        documents(), tmp_path, "rlp"
    )
    told = [line.get("warnings") for line in lines(tmp_path / "metrics.jsonl")]
    assert told[: LASTING - 1] == [None] * (LASTING - 1) and "thought/length" in told[-1]
