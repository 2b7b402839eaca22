"""The likelihood trainer: packing changes nothing, prompts are not learned, the warm-up teaches the template alone."""

import json
import math
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from rlpretrain.data.shards import Example
from rlpretrain.models import new_model
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.settings import (
    ArchitectureSettings,
    FormatWarmupSettings,
    LikelihoodSettings,
    OptimizerSettings,
    ThinkingSettings,
    ThoughtSettings,
)
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.likelihood import Segment, accumulate, total_nll, train_likelihood, warm_up_format
from rlpretrain.training.loop import METRICS_FILE, Optimization
from rlpretrain.training.precision import MixedPrecision

TOKENIZER = load_tokenizer("builtin:characters")
SMALL = ArchitectureSettings(layers=2, width=32, heads=4, key_value_heads=2, feed_forward=64)


def model() -> PreTrainedModel:
    return new_model(SMALL, TOKENIZER, seed=1)


def example(tokens: list[int], prompt_length: int = 0) -> Example:
    return Example(str(tokens), np.array(tokens, dtype=np.int32), prompt_length, "", "test", "")


@pytest.mark.parametrize("micro_batch", [1, 3, 64])
def test_documents_side_by_side_do_not_attend_across_each_other(micro_batch: int) -> None:
    """Loss and gradient equal those of the documents one by one, prompts masked."""
    random = np.random.default_rng(0)
    examples = [
        example(random.integers(4, 99, size).tolist(), prompt) for size, prompt in ((9, 0), (5, 3), (7, 2), (2, 0))
    ]
    packed_model, plain_model = model(), model()
    loss, count = accumulate(
        MixedPrecision(packed_model, torch.float32), [Segment.of(e) for e in examples], micro_batch
    )
    terms = []
    for e in examples:
        tokens = torch.tensor(e.tokens.tolist())
        losses = cross_entropy(plain_model(tokens.unsqueeze(0)).logits[0, :-1], tokens[1:], reduction="none")
        terms.append(losses[max(1, e.prompt_length) - 1 :])
    plain = torch.cat(terms)
    plain.mean().backward()
    assert count == len(plain) == 8 + 2 + 5 + 1
    assert loss == pytest.approx(float(plain.detach().mean()), abs=1e-5)
    for one, other in zip(packed_model.parameters(), plain_model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)


def test_a_long_document_is_cut() -> None:
    segment = Segment.of(example(list(range(10, 40)), prompt_length=3)).cut(8)
    assert segment.tokens.tolist() == list(range(10, 18))
    assert segment.learned.tolist() == [False] * 3 + [True] * 5


def test_what_a_long_document_loses_is_counted_and_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = cycle([example([5, 6, 7, 1]), example([8, 9, 1]), example([8, 9, 10, 11, 12, 13, 1]), example([7, 1])])
    settings = LikelihoodSettings(steps=4, batch_documents=2, sequence_length=5, compute_dtype="float32")
    train_likelihood(model(), corpus, settings, tmp_path, "test")
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert [(line["data/read"], line["data/cut"]) for line in lines] == [(7, 0), (7, 2)] * 2
    assert capsys.readouterr().err.count("documents are longer than sequence_length 5") == 1


def test_training_lowers_the_loss_and_counts_tokens(tmp_path: Path) -> None:
    corpus = cycle([example([5, 6, 7, 8, 1]), example([9, 10, 11, 1])])
    trained = model()
    settings = LikelihoodSettings(
        steps=20,
        batch_documents=2,
        sequence_length=16,
        compute_dtype="float32",
        optimizer=OptimizerSettings(learning_rate=1e-2),
    )
    tokens = train_likelihood(trained, corpus, settings, tmp_path, "test")
    assert tokens == 20 * (4 + 3)
    with torch.no_grad():
        loss = total_nll(trained, [Segment.of(e) for e in islice(corpus, 2)]) / (4 + 3)
    assert float(loss) < 0.5 < math.log(99)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.5, 1, 1, 1, 1]), ("linear", [0.5, 1, 1, 0.6, 0.2]), ("cosine", [0.5, 1, 1, 0.6, 0.2])],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    settings = OptimizerSettings(learning_rate=1.0, schedule=schedule, final_learning_rate=0.2, warmup_steps=2)
    optimization = Optimization(model(), settings, steps=5)
    assert [round(optimization.learning_rate(step), 6) for step in range(5)] == expected


def test_warm_up_learns_the_text_around_a_thought_and_not_the_thought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinking = ThinkingSettings(steps=0, max_context=16, thought=ThoughtSettings(budget=4, recap=2))
    form = ThoughtFormat.build(thinking.thought, TOKENIZER)
    batches: list[list[Segment]] = []
    monkeypatch.setattr(
        "rlpretrain.training.likelihood.accumulate",
        lambda compute, segments, *rest: accumulate(compute, batches.append(segments) or segments, *rest),
    )
    warmed = model()
    documents = cycle([example([*range(20, 32), 1]), example([*range(40, 46), 1])])
    settings = FormatWarmupSettings(steps=3, batch_documents=4, learning_rate=1e-3)
    tokens = warm_up_format(warmed, TorchEngine(warmed), TOKENIZER, documents, settings, thinking, 0, tmp_path)
    segments = [segment for batch in batches for segment in batch]
    assert len(segments) == 12 and tokens == sum(int(segment.learned.sum()) for segment in segments)
    for segment in segments:
        ids = segment.tokens.tolist()
        opened, closed = ids.index(form.open_ids[-1]), ids.index(form.close_id)
        after = closed + 1 + form.recap
        assert ids[closed + 1 : after] == ids[max(0, opened - form.recap) : opened] or opened < form.recap
        learned = np.flatnonzero(segment.learned).tolist()
        recap = min(form.recap, opened)
        assert learned == [*range(1, opened), *range(closed + 1 + recap, len(ids))]
