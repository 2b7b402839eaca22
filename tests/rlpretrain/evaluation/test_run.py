"""A whole suite through lm-eval: with an engine that answers from a script, and with a tiny random Llama."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.data.documents import Document
from rlpretrain.data.shards import Example, ShardWriter
from rlpretrain.data.synthetic import BENCHMARKS, GENERATORS
from rlpretrain.errors import UserError
from rlpretrain.evaluation.run import run_suite
from rlpretrain.models import new_model
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.settings import ArchitectureSettings, EvaluateSettings, ThoughtSettings
from rlpretrain.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("builtin:characters")


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    shape = ArchitectureSettings(layers=1, width=16, heads=2, key_value_heads=2, feed_forward=16, max_positions=64)
    return new_model(shape, tokenizer, seed=0)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    items = [(document.source, document.prompt, document.answer) for document in mini_items()]
    return shards(tmp_path_factory.mktemp("mini"), tokenizer, items)


def mini_items() -> list[Document]:
    """Three questions of each benchmark."""
    return list(GENERATORS["mini_benchmarks"](documents=24, split="test", seed=0))


def shards(folder: Path, tokenizer: PreTrainedTokenizerBase, items: list[tuple[str, str, str]]) -> Path:
    """Evaluation shards of (source, prompt, answer)."""
    writer = ShardWriter(folder, "test", 10_000)
    for index, (source, prompt, answer) in enumerate(items):
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="np")["input_ids"][0].astype("int32")
        writer.add(Example(f"item{index}", ids, len(ids), answer, source, prompt))
    writer.close()
    return folder


Script = Callable[[str, int], list[str]]


def scripted(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerBase, script: Script
) -> list[dict[str, Any]]:
    """Make the engine answer ``script(prompt, group)``, each closed by <eos>; returns the calls it gets."""
    calls = []

    def generate(self: TorchEngine, prompts: list[list[int]], **options: Any) -> list[list[list[int]]]:
        texts = [tokenizer.decode(prompt) for prompt in prompts]
        calls.append({"prompts": texts, **options})
        return [
            [
                [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
                for answer in script(text, options["group"])
            ]
            for text in texts
        ]

    monkeypatch.setattr(TorchEngine, "generate", generate)
    return calls


def test_hand_counted_answers(
    mini: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int] = {}

    def script(prompt: str, group: int) -> list[str]:
        source, answer = known[prompt]
        seen[source] = seen.get(source, 0) + 1
        # Of sums' three questions the first is answered right twice, the second once, the third never.
        right = answer if source == "sums" else "wrong"
        return {
            1: [f"12</think>{right}", f"</think> {right}\n", "no end", "</think>"],
            2: ["</think>x", f"<think>a</think>b</think>{right}", f"</think>{right}<think>", "</think>y"],
            3: ["</think>x"] * 4,
        }[seen[source]]

    known = {f"{document.prompt}<think>": (document.source, document.answer) for document in mini_items()}
    calls = scripted(monkeypatch, tokenizer, script)
    results, samples = run_suite(model, tokenizer, mini, EvaluateSettings(suite="mini", max_new_tokens=8, seed=5))

    (call,) = calls  # every benchmark in one batch, the repeats of a question as one group
    assert len(call["prompts"]) == 24 and call["group"] == 4 and call["seed"] == 5
    assert all(prompt.endswith("<think>") for prompt in call["prompts"])
    assert call["stop_ids"] == {tokenizer.eos_token_id} and call["forbidden_ids"] == {tokenizer.pad_token_id}
    sums = results["benchmarks"]["sums"]
    assert sums["group"] == "math" and sums["questions"] == 3
    assert sums["per_question"] == [0.5, 0.25, 0.0]
    assert sums["accuracy"] == 0.25
    assert sums["run_accuracies"] == pytest.approx([1 / 3, 2 / 3, 0, 0])
    assert sums["no_answer"] == pytest.approx(3 / 12)
    assert [line["correct"] for line in samples["sums"]] == [
        [True, True, False, False],
        [False, True, False, False],
        [False, False, False, False],
    ]
    assert samples["sums"][0]["responses"][2:] == ["no end", "</think>"]  # every response is kept, delimiters and all
    assert set(results["benchmarks"]) == set(BENCHMARKS)
    assert results["averages"] == {"math": 0.0625, "science": 0.0, "overall": 0.03125}


def test_gsm_opens_no_thought_and_stops_at_the_next_question(
    tmp_path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [("gsm_symbolic", f"Question: {n}+1?\nAnswer:", str(n + 1)) for n in (1, 1, 2)]  # one question twice
    folder = shards(tmp_path, tokenizer, [*items, ("other", "not of the suite", "0")])
    run_on = " It is\n\n#### 2\nQuestion: 9+9?\nAnswer: 18\n#### 18"
    calls = scripted(monkeypatch, tokenizer, lambda prompt, group: [run_on] * group)
    settings = EvaluateSettings(suite="gsm", repeats=2, max_new_tokens=8)
    results, samples = run_suite(model, tokenizer, folder, settings)
    assert {prompt for call in calls for prompt in call["prompts"]} == {prompt for _, prompt, _ in items}
    assert results["benchmarks"]["gsm_symbolic"]["per_question"] == [1.0, 1.0, 0.0]
    assert {text for line in samples["gsm_symbolic"] for text in line["responses"]} == {" It is\n\n#### 2"}


def test_a_random_model_gives_the_same_bytes_again(
    mini: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    settings = EvaluateSettings(suite="mini", repeats=3, max_new_tokens=6, temperature=1.0, batch=16, limit=2)
    runs = [run_suite(model, tokenizer, mini, settings) for _ in range(2)]
    assert json.dumps(runs[0]) == json.dumps(runs[1])
    results, samples = runs[0]
    assert all(figures["questions"] == 2 for figures in results["benchmarks"].values())
    responses = [line["responses"] for lines in samples.values() for line in lines]
    assert all(len(group) == 3 for group in responses)
    assert any(len(set(group)) == 3 for group in responses), "the repeats of a question are drawn apart"
    other = run_suite(model, tokenizer, mini, settings.model_copy(update={"seed": 1}))
    assert json.dumps(other[1]) != json.dumps(samples)


def test_shards_without_a_benchmark_are_refused(
    tmp_path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    folder = shards(tmp_path, tokenizer, [("sums", "sum 1+1=", "2")])
    with pytest.raises(UserError, match="no item of 'differences', which suite 'mini' needs"):
        run_suite(model, tokenizer, folder, EvaluateSettings(suite="mini"))


def test_a_limit_for_a_benchmark_that_the_suite_lacks_is_refused(
    tmp_path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    folder = shards(tmp_path, tokenizer, [("sums", "sum 1+1=", "2")])
    with pytest.raises(UserError, match="limit: suite 'mini' has no benchmark 'nosuch'; known: "):
        run_suite(model, tokenizer, folder, EvaluateSettings(suite="mini", limit={"nosuch": 3}))


def test_responses_that_do_not_fit_the_model_are_refused(
    mini: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(UserError, match=r"max_new_tokens: 60 after a prompt of \d+ tokens exceeds the model's 64"):
        run_suite(model, tokenizer, mini, EvaluateSettings(suite="mini", max_new_tokens=60))


def test_a_tokenizer_without_the_delimiter_is_refused(
    mini: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(UserError, match="no token '<<'"):
        run_suite(model, tokenizer, mini, EvaluateSettings(suite="mini"), ThoughtSettings(open="<<", close=">>"))
