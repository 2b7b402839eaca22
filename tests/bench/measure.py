"""A function in processes of its own: what it returns, and the peak memory of all of them together."""

import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

INTERVAL = 0.25  # seconds between two looks at the memory
_PROGRAM = "import sys; from tests.bench.measure import child; child(*sys.argv[1:])"


def measured(module: str, function: str, *arguments: Any) -> dict[str, Any]:
    """What a function that is named by its module returns in a fresh Python, and `peak_bytes` of it and its children.

    Arguments and result pass as JSON. Memory is the proportional share (PSS): a page that two processes share counts once.
    """
    command = [sys.executable, "-c", _PROGRAM, module, function, json.dumps(arguments)]
    # A file takes what a pipe that nobody reads meanwhile would not.
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=said, text=True, cwd=Path(__file__).parents[2]) as process,
    ):
        peak = 0
        while process.poll() is None:
            peak = max(peak, _tree_bytes(psutil.Process(process.pid)))
            try:
                process.wait(INTERVAL)
            except subprocess.TimeoutExpired:
                continue
        said.seek(0)
        output = said.read()
    if process.returncode != 0:
        raise RuntimeError(f"{module}.{function} ended with exit code {process.returncode}")
    return {**json.loads(output.splitlines()[-1]), "peak_bytes": peak}


def child(module: str, function: str, arguments: str) -> None:
    """The other side of `measured`."""
    print(json.dumps(getattr(importlib.import_module(module), function)(*json.loads(arguments))))


def _tree_bytes(root: psutil.Process) -> int:
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:  # it ended meanwhile
            continue
    return total
