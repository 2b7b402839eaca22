"""Run a suite through lm-eval: our tasks, our engine as its model, k sampled answers a question, all of them kept."""

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.answers import AnswerReader, equivalent_answer, same_answer
from rlpretrain.data.shards import Example, read_shards
from rlpretrain.errors import UserError
from rlpretrain.evaluation.averages import average_weights, averaged, no_answer, pass_at_1
from rlpretrain.evaluation.suites import Benchmark, Suite, check_limit, load_suite
from rlpretrain.rollout.engines import build_engine
from rlpretrain.rollout.interface import RolloutEngine
from rlpretrain.settings import EvaluateSettings, ThoughtSettings
from rlpretrain.thoughts import ThoughtFormat

Samples = dict[
    str, list[dict[str, Any]]
]  # benchmark -> a line a question: id, prompt, answer, responses, answers, correct


def run_suite(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmarks: Path,
    settings: EvaluateSettings,
    thought: ThoughtSettings | None = None,
    engine: RolloutEngine | None = None,
) -> tuple[dict[str, Any], Samples]:
    """The suite's figures (`benchmarks` and `averages`), and every response with its answer and grade.

    ``benchmarks`` is a folder of evaluation shards; ``thought`` says which delimiters a thought has; ``engine`` samples,
    by default the settings' own. The same seed gives the same bytes on the CPU. Raises UserError for an unknown suite, for shards that lack one of its benchmarks, and for
    responses that do not fit the model.
    """
    suite, tasks = load_suite(settings.suite)
    items = _items(benchmarks, suite, settings)
    thought = thought or ThoughtSettings()
    opening = ThoughtFormat.build(thought, tokenizer).open_ids if suite.open_thought else ()
    reader = AnswerReader(suite.answer_patterns, thought.open, thought.close, suite.open_thought)
    engine = engine or build_engine(settings.engine, settings.vllm, model)
    # lm-eval takes seconds to import: only a real evaluation pays.
    import lm_eval
    from lm_eval.tasks import TaskManager

    from rlpretrain.evaluation.engine_model import EngineModel, SampledTask

    samples: Samples = {name: [] for name in tasks}
    with tempfile.TemporaryDirectory() as scratch:
        configured = [
            SampledTask(_config(task, items[name], _sampling(suite.benchmarks[name], settings), grader, Path(scratch)))
            for name, task in tasks.items()
            for grader in [_grader(reader, equivalent_answer if suite.symbolic else same_answer, samples[name])]
        ]
        # Not simple_evaluate: it would seed the process's random numbers and run pip and git for its report.
        lm_eval.evaluate(
            EngineModel(model, tokenizer, settings, list(opening), engine),
            TaskManager(include_defaults=False).load(configured),  # the defaults are 13,000 files: half a minute
            bootstrap_iters=0,  # the standard errors are ours
            log_samples=False,  # so are the samples: the grader keeps them
        )
    figures = {name: {"group": suite.groups[name], **_figures(lines)} for name, lines in samples.items()}
    weights = average_weights(suite.groups, suite.averages)
    accuracy = {name: row["accuracy"] for name, row in figures.items()}
    return {"benchmarks": figures, "averages": averaged(accuracy, weights), "weights": weights}, samples


def _sampling(benchmark: Benchmark, settings: EvaluateSettings) -> dict[str, Any]:
    """How the responses to a question are drawn: how many, how warm, how long."""
    if benchmark.greedy:
        return {"repeats": 1, "temperature": 0.0, "max_gen_toks": settings.max_new_tokens}
    repeats = benchmark.repeats or settings.repeats
    return {"repeats": repeats, "temperature": settings.temperature, "max_gen_toks": settings.max_new_tokens}


def _items(benchmarks: Path, suite: Suite, settings: EvaluateSettings) -> dict[str, list[Example]]:
    check_limit(settings, suite)
    items: dict[str, list[Example]] = {name: [] for name in suite.items.values()}
    limits = {name: _limit(settings, name) for name in items}
    for example in read_shards(benchmarks, "test"):
        if example.source in items and len(items[example.source]) < limits[example.source]:
            items[example.source].append(example)
    for name, found in items.items():
        if not found:
            raise UserError(
                f"input 'benchmarks' holds no item of '{name}', which suite '{settings.suite}' needs; shard it"
            )
    return {name: items[source] for name, source in suite.items.items()}


def _limit(settings: EvaluateSettings, source: str) -> float:
    limit = settings.limit.get(source) if isinstance(settings.limit, dict) else settings.limit
    return math.inf if limit is None else limit


def _config(
    task: dict[str, Any],
    items: list[Example],
    sampling: dict[str, Any],
    grader: Callable[[dict[str, str], list[Any]], dict[str, float]],
    scratch: Path,
) -> dict[str, Any]:
    """The task file's configuration with what only a run knows."""
    data = scratch / f"{task['task']}.json"
    rows = [{"id": item.id, "prompt": item.prompt, "answer": item.answer} for item in items]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        **task,
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(scratch)},
        "repeats": sampling["repeats"],
        # lm-eval's default filter, take_first, throws all repeats but one away.
        "filter_list": [{"name": "all", "filter": [{"function": "take_first_k", "k": sampling["repeats"]}]}],
        "process_results": grader,
        "generation_kwargs": {
            **task["generation_kwargs"],
            "temperature": sampling["temperature"],
            "max_gen_toks": sampling["max_gen_toks"],
        },
    }


def _grader(
    reader: AnswerReader, same: Callable[[str, str], bool], kept: list[dict[str, Any]]
) -> Callable[[dict[str, str], list[Any]], dict[str, float]]:
    """lm-eval's process_results: gets the k responses of a question as results[0], and keeps every one."""

    def process_results(item: dict[str, str], results: list[Any]) -> dict[str, float]:
        responses = list(results[0])
        answers = [reader(response) for response in responses]
        correct = [answer is not None and same(answer, item["answer"]) for answer in answers]
        kept.append({**item, "responses": responses, "answers": answers, "correct": correct})
        return {"accuracy": sum(correct) / len(correct)}

    return process_results


def _figures(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **pass_at_1([line["correct"] for line in lines]),
        "no_answer": no_answer([line["answers"] for line in lines]),
    }
