"""Fake evaluation artifacts: whole folders as the stage `evaluate` leaves them, with chosen skills and gains."""

import json
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlpretrain.artifacts import write_manifest
from rlpretrain.evaluation.averages import average_weights

BENCHMARKS = {
    "sums": "math",
    "differences": "math",
    "mixed": "math",
    "series": "math",
    "units": "science",
    "motion": "science",
    "chemistry": "science",
    "genetics": "science",
}
SKILL = {("base", "pretrained"): 0.30, ("cpt", "pretrained"): 0.33, ("rlp", "pretrained"): 0.52}
SKILL |= {("base", "sft"): 0.45, ("cpt", "sft"): 0.46, ("rlp", "sft"): 0.57}
SKILL |= {("base", "rlvr"): 0.56, ("cpt", "rlvr"): 0.57, ("rlp", "rlvr"): 0.63}
COST = {
    "objective": "rlp",
    "parameters": 1000,
    "steps": 30,
    "read": 900,
    "sampled": 7200,
    "trained": 8100,
    "flops": 6e7,
}
REMOVED = {"contaminated": 7, "duplicates": 3, "too_short": 1, "prompt_too_long": 0}
SHARDS = {
    "documents": {"train": 900, "held_out": 100},
    "tokens": {"train": 45_000, "held_out": 5_000},
    "sources": {"web": 800, "books": 200},
    "removed": REMOVED,
    "ngram": 13,
    "contaminated_by_benchmark": {"sums": 7, "units": 0},
}
BENCHMARK_SHARDS = {
    "documents": {"test": 512},
    "tokens": {"test": 9_000},
    "sources": {"mini": 512},
    "removed": dict.fromkeys(REMOVED, 0),
    "ngram": None,
    "contaminated_by_benchmark": {},
}
GAIN = {"base": -0.12, "cpt": -0.15, "rlp": 0.55}


def write_evaluation(
    folder: Path,
    *,
    arm: str = "rlp",
    stage: str = "pretrained",
    skill: float | None = None,
    gain: float | None = None,
    seed: int = 0,
    questions: int = 64,
    positions: int = 128,
    question_seed: int = 0,
    repeats: int = 4,
    groups: dict[str, str] = BENCHMARKS,
    thoughts: Iterable[dict[str, Any]] | None = None,
    steps: int = 30,
    notes: Mapping[int, Mapping[str, Any]] = {},
    settings: Mapping[str, Any] = {},
    held_out: str = "c" * 64,
) -> Path:
    """One finished evaluation artifact; questions hang on ``question_seed`` alone, so that arms can be paired.

    ``notes`` are what lines of the training's metrics say besides, by step; ``held_out`` is the digest of that text.
    """
    folder.mkdir(parents=True)
    skill = SKILL[arm, stage] if skill is None else skill
    gain = GAIN[arm] if gain is None else gain
    own = random.Random(f"{arm}/{stage}/{seed}")
    benchmarks = {}
    (folder / "samples").mkdir()
    for name, group in groups.items():
        shared = random.Random(f"{question_seed}/{name}")
        hardness = [shared.gauss(0, 0.18) for _ in range(questions)]
        graded = [[own.random() < skill + hard for _ in range(repeats)] for hard in hardness]
        rows = [
            {"id": f"{name}-{question_seed}-{n}", "prompt": "?", "answer": "1", "responses": ["1"], "correct": correct}
            for n, correct in enumerate(graded)
        ]
        (folder / "samples" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        benchmarks[name] = figures(group, graded)
    shared = random.Random(f"positions/{question_seed}")
    per_position = [gain + shared.gauss(0, 0.8) + own.gauss(0, 0.3) for _ in range(positions)]
    results = {
        "schema_version": 1,
        "suite": "mini",
        "repeats": repeats,
        "benchmarks": benchmarks,
        "weights": average_weights(groups, "groups"),
        "averages": {"overall": sum(b["accuracy"] for b in benchmarks.values()) / len(benchmarks)},
        "information_gain": {
            "mean": sum(per_position) / positions,
            "stderr": 0.07,
            "documents": positions,
            "positions": positions,
            "baseline_logprob": -1.4,
            "reasoned_logprob": -1.4 + gain,
            "thought_length": 5.25 if arm == "rlp" else 9.5,
            "cut_off": 0.0 if arm == "rlp" else 0.125,
            "per_position": per_position,
            "kind_per_position": ["number" if n % 3 else "word start" for n in range(positions)],
            "entropy_per_position": [shared.random() for _ in range(positions)],
        },
        "training": COST if (arm, stage) != ("base", "pretrained") else {**COST, "objective": "base"},
        "data": {"training": SHARDS, "benchmarks": BENCHMARK_SHARDS, "held_out": SHARDS},
    }
    (folder / "results.json").write_text(json.dumps(results))
    write_lines(folder / "thoughts.jsonl", sample_thoughts(gain) if thoughts is None else thoughts)
    write_lines(
        folder / "training.jsonl", [row | notes.get(row["step"], {}) for row in training(arm, stage, steps, own)]
    )
    write_lines(
        folder / "training_timings.jsonl", [{"step": n, "time/update": 0.5 + n / 100} for n in range(1, steps + 1)]
    )
    write_manifest(
        folder,
        kind="evaluation",
        settings=settings,
        inputs={"checkpoint": f"{own.getrandbits(256):064x}", "benchmarks": "b" * 64, "held_out": held_out},
        seed=seed,
        facts={"averages": results["averages"]},
        volatile=("training_timings.jsonl",),
    )
    return folder


def figures(group: str, graded: list[list[bool]]) -> dict[str, Any]:
    per_question = [sum(row) / len(row) for row in graded]
    return {
        "group": group,
        "questions": len(graded),
        "accuracy": sum(per_question) / len(graded),
        "stderr": 0.05,
        "run_accuracies": [0.5] * len(graded[0]),
        "run_spread": 0.021,
        "no_answer": 0.034,
        "per_question": per_question,
    }


def sample_thoughts(gain: float) -> list[dict[str, Any]]:
    texts = [
        "8+2=10, 0",
        "0+4=4",
        "then 4",
        "3 km is 3000 m",
        "m = F/a",
        "Aa x Aa: 1 in 4",
        "the",
        "7*6=42",
        "2H2 + O2",
        "so",
    ]
    return [thought_row(n, text, gain - 0.3 + n / 10) for n, text in enumerate(texts)]


def thought_row(number: int, thought: str, gain: float = 1.0, **changes: Any) -> dict[str, Any]:
    """A line of thoughts.jsonl."""
    row = {
        "position": number,
        "document": f"{number:016x}",
        "context": f"Q: a chain of sums, number {number}. 8+2+4 = ",
        "offset": 36,
        "thought": thought,
        "next_token": "4",
        "kind": "number",
        "entropy": 1.5,
        "logprob_with": -1.4 + gain,
        "logprob_without": -1.4,
        "gain": gain,
        "mean_gain": gain - 0.05,
        "length": len(thought),
        "cut_off": number == 6,
    }
    return row | changes


def training(arm: str, stage: str, steps: int, own: random.Random) -> list[dict[str, Any]]:
    if stage == "sft" or (stage == "pretrained" and arm != "rlp"):
        return [
            {"step": n, "loss/nll": 2 * math.exp(-n / 20), "data/read": 640, "optim/grad_norm": 0.5}
            for n in range(1, steps + 1)
        ]
    return [
        {
            "step": n,
            "reward/gain": -0.1 + 0.7 * (1 - math.exp(-n / 12)) + own.gauss(0, 0.04),
            "reward/correct": SKILL[arm, stage] - 0.1 * math.exp(-n / 8) + own.gauss(0, 0.015),
            "thought/length": 9 - 4 * (1 - math.exp(-n / 10)) + own.gauss(0, 0.2),
            "thought/cut_off": 0.15 * math.exp(-n / 8),
            "thought/zero_variance": 0.5 * math.exp(-n / 12),
            "thought/entropy": 0.9 * math.exp(-n / 25) + 0.2,
            "optim/grad_norm": 0.3 + own.random() / 10,
            "data/read": 30,
            "data/sampled": 240,
        }
        for n in range(1, steps + 1)
    ]


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_run(folder: Path, *, keys: Iterable[tuple[str, str]] = tuple(SKILL), **options: Any) -> dict[Any, Path]:
    """A run's evaluations by arm and stage."""
    return {
        (arm, stage): write_evaluation(folder / f"{arm}-{stage}", arm=arm, stage=stage, **options)
        for arm, stage in keys
    }
