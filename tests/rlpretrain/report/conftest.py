"""Fake evaluation artifacts: whole folders as the stage `evaluate` leaves them, with chosen skills and gains."""

import json
import math
import random
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

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
) -> Path:
    """One finished evaluation artifact; questions hang on ``question_seed`` alone, so that arms can be paired."""
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
        },
    }
    (folder / "results.json").write_text(json.dumps(results))
    write_lines(folder / "thoughts.jsonl", sample_thoughts(gain) if thoughts is None else thoughts)
    write_lines(folder / "training.jsonl", training(arm, stage, steps, own))
    write_manifest(
        folder,
        kind="evaluation",
        settings={},
        inputs={"checkpoint": f"{own.getrandbits(256):064x}", "benchmarks": "b" * 64, "held_out": "c" * 64},
        seed=seed,
        facts={},
    )
    return folder


def figures(group: str, graded: list[list[bool]]) -> dict[str, Any]:
    per_question = [sum(row) / len(row) for row in graded]
    return {
        "group": group,
        "questions": len(graded),
        "accuracy": sum(per_question) / len(graded),
        "stderr": 0.05,
        "run_accuracies": [],
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
    return [
        {
            "document": f"{n:016x}",
            "context": f"Q: a chain of sums, number {n}. 8+2+4 = ",
            "thought": text + "</think>",
            "next_token": "4",
            "logprob_with": -1.7 + gain + n / 10,
            "logprob_without": -1.4,
            "gain": gain - 0.3 + n / 10,
            "cut_off": n == 6,
        }
        for n, text in enumerate(texts)
    ]


def training(arm: str, stage: str, steps: int, own: random.Random) -> list[dict[str, Any]]:
    if stage == "sft" or (stage == "pretrained" and arm != "rlp"):
        return [{"step": n, "loss/nll": 2 * math.exp(-n / 20)} for n in range(1, steps + 1)]
    return [
        {
            "step": n,
            "reward/gain": -0.1 + 0.7 * (1 - math.exp(-n / 12)) + own.gauss(0, 0.04),
            "reward/correct": SKILL[arm, stage] - 0.1 * math.exp(-n / 8) + own.gauss(0, 0.015),
            "thought/length": 9 - 4 * (1 - math.exp(-n / 10)) + own.gauss(0, 0.2),
            "thought/cut_off": 0.15 * math.exp(-n / 8),
            "thought/entropy": 0.9 * math.exp(-n / 25) + 0.2,
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


@pytest.fixture
def evaluation(tmp_path: Path) -> Callable[..., Path]:
    """Writes one evaluation: evaluation("name", arm=..., stage=..., ...)."""
    return lambda name, **options: write_evaluation(tmp_path / name, **options)


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., dict[Any, Path]]:
    """Writes a run's evaluations: run_of("name", keys=[(arm, stage), ...], ...)."""
    return lambda name, **options: write_run(tmp_path / name, **options)


def find_chromium() -> str:
    """Chromium's path. The page is tested in a real browser; without one the test fails rather than passing unseen."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    pytest.fail("no Chromium found: install Debian's package with `apt-get install chromium`", pytrace=False)


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., str]:
    """Opens a page from disk in headless Chromium and returns its document after its scripts ran."""

    def dump(page: Path, *options: str) -> str:
        command = [
            find_chromium(),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--virtual-time-budget=10000", f"--user-data-dir={tmp_path / 'browser'}", *options),
            *("--dump-dom", page.as_uri()),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return dump
