"""A stage in a process of its own that can be killed, and what its result is told by."""

import multiprocessing
import os
import signal
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [f"components.{name}.stage" for name in ("pretrain", "finetune", "reinforce", "evaluate")]
)
RESULT = ("model/model.safetensors", "metrics.jsonl", "thoughts.jsonl")


def _attempt(environment: dict[str, str], log: Path, arguments: tuple[Any, ...]) -> None:
    """In the child: a stage from start to end, what it says in ``log``."""
    os.environ.update(environment)
    os.setpgrp()  # for Ctrl-C, which a terminal sends to a group
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from components.frame import run_component

    name, settings, inputs, output, publish_uri = arguments
    run_component(name, settings, inputs, output, publish_uri)


def start(
    log: Path, name: str, settings: dict[str, Any], inputs: dict[str, Path], output: Path, publish_uri: str = ""
) -> ForkServerProcess:
    """The stage, running."""
    arguments = (name, settings, inputs, output, publish_uri)
    child = _context.Process(target=_attempt, args=(dict(os.environ), log, arguments))
    child.start()
    return child


def end(child: ForkServerProcess, number: int = signal.SIGKILL) -> int:
    """Send a signal, SIGINT as a terminal does; the exit code, negative for a signal that killed."""
    assert child.pid is not None
    if child.is_alive():
        (os.killpg if number == signal.SIGINT else os.kill)(child.pid, number)
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


def result(folder: Path) -> dict[str, bytes]:
    """The bytes that a training is told by."""
    return {name: (folder / name).read_bytes() for name in RESULT if (folder / name).exists()}
