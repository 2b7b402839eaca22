"""Runs of the DAG as a person starts them, side by side: what the tests and `make soak` compare."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def environment() -> dict[str, str]:
    """This process's, without an S3 server that another test may have started: the runs start their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | OFFLINE


def run_side_by_side(profile: str, seeds: Mapping[Path, int]) -> None:
    """A run of ``profile`` called "same" in each folder, by its seed; what it said lies beside it in said.txt."""
    command = [sys.executable, "-m", "pipelines", "run", "--profile", profile, "--name", "same"]
    started = {
        folder: subprocess.Popen(
            [*command, "--seed", str(seed), "--runs", str(folder)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder, seed in seeds.items()
    }
    try:
        for folder, process in started.items():
            said, _ = process.communicate()
            (folder / "said.txt").write_text(said)
            assert process.returncode == 0, said
    finally:
        for process in started.values():
            process.terminate()
            process.wait()
