"""Runs of the DAG as a person starts them, side by side: what the tests and `make soak` compare."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def environment() -> dict[str, str]:
    """This process's, without an S3 server that another test may have started: the runs start their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | OFFLINE


def run_side_by_side(options: Mapping[Path, Sequence[str]]) -> None:
    """`pipelines run` with these options, by the folder of its runs; what it said lies there in said.txt.

    Each run's temporary folder is the folder tmp there.
    """
    for folder in options:
        (folder / "tmp").mkdir()
    started = {
        folder: subprocess.Popen(
            [sys.executable, "-m", "pipelines", "run", *given, "--runs", str(folder)],
            cwd=ROOT,
            env=environment() | {"TMPDIR": str(folder / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder, given in options.items()
    }
    try:
        for folder, process in started.items():
            said, _ = process.communicate()
            (folder / "said.txt").write_text(said)
            assert process.returncode == 0, f"{folder.name}:\n{said}"
    finally:
        for process in started.values():
            process.kill()
            process.wait()
