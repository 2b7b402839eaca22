"""Run a suite through lm-eval: our tasks, our engine as its model, k sampled answers a question, all of them kept."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.data.shards import Example, read_shards
from rlpretrain.errors import UserError
from rlpretrain.evaluation.averages import group_averages, pass_at_1
from rlpretrain.evaluation.suites import Suite, load_suite
from rlpretrain.models import token_id
from rlpretrain.settings import EvaluateSettings

Samples = dict[str, list[dict[str, Any]]]


def run_suite(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmarks: Path,
    settings: EvaluateSettings,
    thought_open: str = "<think>",
) -> tuple[dict[str, Any], Samples]:
    """The suite's results and, by benchmark, one line a question with its k responses, answers and grades.

    Raises UserError for an unknown suite, or when the evaluation shards lack one of its benchmarks.
    """
    import lm_eval  # takes seconds: only a real evaluation pays
    from lm_eval.api.task import ConfigurableTask

    from rlpretrain.evaluation.engine_model import EngineModel

    suite, template = load_suite(settings.suite)
    items = _items(benchmarks, suite, settings)
    opening = [token_id(tokenizer, thought_open)] if suite.open_thought else []
    engine_model = EngineModel(model, tokenizer, settings, opening)
    samples: Samples = {}
    with tempfile.TemporaryDirectory() as folder:
        tasks = []
        for name in suite.benchmarks:
            data = Path(folder) / f"{name}.json"
            data.write_text("".join(json.dumps(_row(item)) + "\n" for item in items[name]), encoding="utf-8")
            config = {
                **template,
                "task": name,
                "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": folder},
                "repeats": settings.repeats,
                "filter_list": [
                    {"name": "all", "filter": [{"function": "take_first_k", "k": settings.repeats}]}
                ],
                "process_results": _grader(suite, samples.setdefault(name, [])),
            }
            config["generation_kwargs"] = {
                **template["generation_kwargs"],
                "temperature": settings.temperature,
                "max_gen_toks": settings.max_new_tokens,
            }
            tasks.append(ConfigurableTask(config=config))
        lm_eval.simple_evaluate(model=engine_model, tasks=tasks, bootstrap_iters=0, log_samples=False)
    results = {
        name: {"group": group, **pass_at_1([line["correct"] for line in samples[name]]), "no_answer": _no_answer(samples[name])}
        for name, group in suite.benchmarks.items()
    }
    return {"benchmarks": results, "averages": group_averages(results)}, samples


def _items(benchmarks: Path, suite: Suite, settings: EvaluateSettings) -> dict[str, list[Example]]:
    items: dict[str, list[Example]] = {name: [] for name in suite.benchmarks}
    for example in read_shards(benchmarks, "test"):
        if example.source in items and (settings.limit is None or len(items[example.source]) < settings.limit):
            items[example.source].append(example)
    for name, found in items.items():
        if not found:
            raise UserError(f"input 'benchmarks' holds no item of '{name}', which suite '{settings.suite}' needs; shard it")
    return items


def _row(example: Example) -> dict[str, str]:
    return {"id": example.id, "prompt": example.prompt, "answer": example.answer}


def _grader(suite: Suite, kept: list[dict[str, Any]]) -> Callable[[dict[str, str], list[Any]], dict[str, float]]:
    """lm-eval's process_results: gets the k responses of a question as results[0], and keeps every one."""

    def process_results(item: dict[str, str], results: list[Any]) -> dict[str, float]:
        responses = list(results[0])
        answers = [suite.extract(response) for response in responses]
        correct = [answer is not None and _same(answer, item["answer"]) for answer in answers]
        kept.append({**item, "responses": responses, "answers": answers, "correct": correct})
        return {"accuracy": sum(correct) / len(correct)}

    return process_results


def _same(answer: str, reference: str) -> bool:
    """Equal as text, or as numbers."""
    if answer == reference.replace(",", "").strip():
        return True
    try:
        return float(answer) == float(reference.replace(",", ""))
    except ValueError:
        return False


def _no_answer(lines: list[dict[str, Any]]) -> float:
    answers = [answer for line in lines for answer in line["answers"]]
    return round(sum(answer is None for answer in answers) / len(answers), 8)
