"""How fast pass@1[8] is: our engine against lm-eval's own Hugging Face backend, on the same model and tasks.

    python -m tests.bench.evaluation --json evaluation.json

Both go through `run_suite`, and differ in the model that it hands to lm-eval. Each runs in fresh processes, in turn; the first
round tries several batch sizes, and each contender keeps its fastest. Time is that of the whole suite: building the tasks,
sampling, grading; imports are left out. On a model of a few words, the responses of both are then compared by chi-square.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from rich.console import Console
from rich.table import Table

from tests.bench.measure import measured
from tests.bench.shapes import SHAPES, Shape

SUITE, BENCHMARK = "gsm", "gsm_symbolic"
REPEATS = 8
QUESTIONS = 32
PROMPT_TOKENS = (80, 120)  # drawn between
NEW_TOKENS = 64
CONTENDERS = ("ours", "hf")
BATCHES = (32, 64, 256)
MODEL = replace(SHAPES["smollm2"], name="evaluation", layers=6, vocabulary=8192)  # minutes are saved, the ratio stays
WORDS = replace(SHAPES["tiny"], name="words", vocabulary=12)  # for the comparison of responses
DRAWS = 2000  # responses a question there, of two tokens
SEED = 0


def evaluate(
    contender: str, shape: dict[str, Any], batch: int, questions: int, repeats: int, new_tokens: int
) -> dict[str, Any]:
    """Seconds of one suite, and its responses by question."""
    import numpy as np
    import torch

    from rlpretrain.data.shards import Example, ShardWriter
    from rlpretrain.evaluation import engine_model
    from rlpretrain.evaluation.run import run_suite
    from rlpretrain.models import use_fast_layers
    from rlpretrain.settings import EvaluateSettings
    from tests.bench.material import model_of, tokenizer_of

    measured_shape = Shape(**shape)
    tokenizer = tokenizer_of(measured_shape)
    model = model_of(measured_shape, tokenizer).eval()
    random = np.random.default_rng(SEED)
    settings = EvaluateSettings(
        suite=SUITE, repeats=repeats, temperature=0.7, max_new_tokens=new_tokens, batch=batch, seed=SEED
    )
    if contender == "hf":
        torch.manual_seed(SEED)
        # Sampled from the whole distribution but for padding, as ours is.
        model.generation_config.update(top_k=0, top_p=1.0, suppress_tokens=[tokenizer.pad_token_id])
    else:
        use_fast_layers(model)
    backend = engine_model.EngineModel if contender == "ours" else _hugging_face
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(engine_model, "EngineModel", backend):
        writer = ShardWriter(Path(folder), "test", 2**20)
        for index in range(questions):
            ids = random.integers(4, measured_shape.vocabulary, random.integers(*PROMPT_TOKENS), dtype=np.int32)
            writer.add(Example(f"q{index}", ids, len(ids), "1", BENCHMARK, tokenizer.decode(ids)))
        writer.close()
        start = time.perf_counter()
        _, samples = run_suite(model, tokenizer, Path(folder), settings)
        seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "responses": [line["responses"] for line in samples[BENCHMARK]],
    }


def _hugging_face(model: Any, tokenizer: Any, settings: Any, opening: list[int], engine: Any) -> Any:
    """What lm-eval itself makes of a model in memory."""
    from lm_eval.models.huggingface import HFLM

    assert not opening
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch, device="cpu")


def _run(contender: str, shape: Shape, *arguments: int) -> dict[str, Any]:
    return measured("tests.bench.evaluation", "evaluate", contender, vars(shape), *arguments)


def compare_speed(repeat: int) -> dict[str, Any]:
    """Every run, the batch size that each contender is fastest with, and the medians there."""
    runs: list[dict[str, Any]] = []

    def take(contender: str, batch: int) -> None:
        result = _run(contender, MODEL, batch, QUESTIONS, REPEATS, NEW_TOKENS)
        runs.append({"contender": contender, "batch": batch, **result, "responses": len(result["responses"])})

    for batch in BATCHES:
        for contender in CONTENDERS:
            take(contender, batch)
    first = {name: [run for run in runs if run["contender"] == name] for name in CONTENDERS}
    fastest = {name: min(tried, key=lambda run: run["seconds"])["batch"] for name, tried in first.items()}
    for _ in range(repeat - 1):
        for contender in CONTENDERS:
            take(contender, fastest[contender])
    medians = {}
    for name, batch in fastest.items():
        chosen = [run for run in runs if run["contender"] == name and run["batch"] == batch]
        medians[name] = {
            "batch": batch,
            **{key: median(run[key] for run in chosen) for key in ("seconds", "peak_bytes")},
        }
    return {"runs": runs, "medians": medians, "ratio": medians["hf"]["seconds"] / medians["ours"]["seconds"]}


def compare_responses() -> dict[str, Any]:
    """Chi-square of the responses' frequencies, question by question; small p-values would mean other distributions."""
    from scipy.stats import chi2_contingency

    questions = 3
    counts: dict[str, list[Counter[str]]] = {
        name: [
            # The Hugging Face backend drops special tokens from its text.
            Counter(" ".join(word for word in text.split() if word.startswith("w")) for text in responses)
            for responses in _run(name, WORDS, 256, questions, DRAWS, 2)["responses"]
        ]
        for name in CONTENDERS
    }
    p_values = []
    for ours, theirs in zip(*counts.values(), strict=True):
        common = {text for text, count in (ours + theirs).items() if count >= 10}
        cells = [[each[text] for text in sorted(common)] for each in (ours, theirs)]
        rest = [DRAWS - sum(row) for row in cells]
        if sum(rest) >= 10:
            cells = [[*row, other] for row, other in zip(cells, rest, strict=True)]
        p_values.append(float(chi2_contingency(cells).pvalue))
    return {"draws": DRAWS, "p_values": p_values}


def _table(speed: dict[str, Any], responses: dict[str, Any]) -> Table:
    table = Table(title=f"pass@1[{REPEATS}] of {QUESTIONS} questions, {NEW_TOKENS} new tokens, medians")
    for column in ("contender", "batch", "seconds", "tokens/s", "peak MiB", "speed against hf"):
        table.add_column(column, justify="right")
    for name, row in speed["medians"].items():
        table.add_row(
            name,
            str(row["batch"]),
            f"{row['seconds']:.2f}",
            f"{QUESTIONS * REPEATS * NEW_TOKENS / row['seconds']:,.0f}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
            f"{speed['medians']['hf']['seconds'] / row['seconds']:.2f}",
        )
    table.caption = (
        f"Same responses: smallest p of {len(responses['p_values'])} questions {min(responses['p_values']):.3f}"
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file for the figures")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each contender at its batch size")
    arguments = parser.parse_args()
    result = {"speed": compare_speed(arguments.repeat), "responses": compare_responses()}
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    Console().print(_table(result["speed"], result["responses"]))


if __name__ == "__main__":
    main()
