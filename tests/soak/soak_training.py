"""Hours of a training in one: the small reproduction's RLP stage killed again and again, and its memory over thousands of steps.

python -m pytest tests/soak/soak_training.py -s -o python_files="soak_*.py" --timeout=7200
"""

import ctypes
import os
import platform
import random
import statistics
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.frame import run_stage
from pipelines.profile import load_profile
from rlpretrain.artifacts import SNAPSHOTS
from rlpretrain.training import steps
from tests.components.resuming import end, result, start

MINUTES = float(os.environ.get("RLP_SOAK_MINUTES", "30"))  # without kills; what is lost to them comes on top
PACE = 30  # steps that the pace is measured by
MEMORY_STEPS = 2000


@pytest.fixture(scope="module")
def rlp(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Path]]:
    """Settings and inputs of mini's RLP stage, on a base model that has been trained for a tenth of its steps."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the trainings' processes, two of which run at a time
    root = tmp_path_factory.mktemp("mini")
    profile = load_profile("mini").model_dump(mode="json")
    for corpus in ("shard_base_corpus", "shard_corpus"):
        run_stage("shard_data", profile[corpus], {}, root / corpus)
    base = profile["base"]
    base["likelihood"]["steps"] //= 10
    run_stage("pretrain", base, {"shards": root / "shard_base_corpus"}, root / "base")
    return profile["rlp"], {"shards": root / "shard_corpus", "checkpoint": root / "base"}


def with_steps(settings: dict[str, Any], steps: int, **thinking: Any) -> dict[str, Any]:
    return {**settings, "thinking": {**settings["thinking"], "steps": steps, **thinking}}


def test_killed_every_20_to_60_seconds_it_ends_in_the_same_bytes(rlp: Any, tmp_path: Path, s3_bucket: str) -> None:
    """Every third kill also takes the machine's disk, so that the training goes on from S3."""
    settings, inputs = rlp
    began = time.monotonic()
    child = start(tmp_path / "log-pace", "pretrain", with_steps(settings, PACE), inputs, tmp_path / "pace")
    assert child.join() is None and child.exitcode == 0
    steps = round(60 * MINUTES / (time.monotonic() - began) * PACE)
    settings = {**with_steps(settings, steps), "snapshots": {"every_steps": 10, "every_minutes": None}}
    whole = start(tmp_path / "log-whole", "pretrain", settings, inputs, tmp_path / "whole")
    moments, kills, machines, output = random.Random(0), 0, 1, tmp_path / "out"
    while True:
        child = start(tmp_path / "log", "pretrain", settings, inputs, output, f"{s3_bucket}/run/rlp")
        child.join(moments.uniform(20, 60))
        if end(child) == 0:
            break
        kills += 1
        if kills % 3 == 0:
            machines += 1
            output = tmp_path / f"out-{machines}"
    whole.join()
    assert whole.exitcode == 0, (tmp_path / "log-whole").read_text()
    minutes = (time.monotonic() - began) / 60
    print(f"\n{steps} steps, {minutes:.0f} minutes, {kills} kills, {machines} machines")
    assert kills >= MINUTES - 1 and result(output) == result(tmp_path / "whole")
    assert not (output / SNAPSHOTS).exists()


class _Allocator(ctypes.Structure):
    """mallinfo2(3) of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do not say what is in use")
def test_memory_stays_flat_over_2000_steps(rlp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in use, and what is resident: at least, right after freed memory went back, and in between, when holes add to it."""
    settings, inputs = rlp
    still = {"learning_rate": 1e-12}  # thoughts that grow longer take more memory, and rightly so
    settings = with_steps(settings, MEMORY_STEPS, optimizer=still)
    library, process, end = ctypes.CDLL(None), psutil.Process(), steps.Steps.end
    library.mallinfo2.restype = _Allocator
    seen: list[tuple[int, int]] = []

    def counted(self: steps.Steps, *values: Any, **options: Any) -> None:
        end(self, *values, **options)
        seen.append((library.mallinfo2().uordblks, process.memory_info().rss))

    monkeypatch.setattr(steps.Steps, "end", counted)
    run_stage("pretrain", settings, inputs, tmp_path / "out")
    quarter = MEMORY_STEPS // 4
    used, resident = ([size / 2**20 for size in sizes] for sizes in zip(*seen, strict=True))
    figures: dict[str, list[float]] = {}
    for name, sizes, figure in (
        ("in use, medians", used, statistics.median),
        ("resident, medians", resident, statistics.median),
        ("resident, least", resident, min),
    ):
        figures[name] = [figure(sizes[first : first + quarter]) for first in range(0, MEMORY_STEPS, quarter)]
        print(
            f"\n{name} of the quarters of {MEMORY_STEPS} steps: {', '.join(f'{size:.0f}' for size in figures[name])} MiB"
        )
    for name, growth in (("in use, medians", 1.01), ("resident, least", 1.05), ("resident, medians", 1.3)):
        assert figures[name][3] < growth * figures[name][1], name
