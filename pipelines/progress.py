"""What a person sees of a local run: each task's name and time, and how far its training is. The rest goes to a log file.

kfp's local runner writes everything that it and its tasks say to this process's own output, executor input included. While
a run lasts that output is redirected into a pipe, which a thread copies to the log and sums up: in lines here, on a terminal in
the live view of `pipelines.live`.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlpretrain.errors import printable, uncoloured

_STARTED = re.compile(r"Executing task '([^']+)'")
_FINISHED = re.compile(r"Task '([^']+)' finished with status (\w+)")
_STEP = re.compile(r"\b(?:(?:base|cpt|rlp|rpt|sft|rlvr|format warm-up): step|point:) .*")
_TRAINING = re.compile(r"([^:]+): step (\d+)/(\d+), ([\d.]+) steps/s, (\d+) s left(.*)")
_FIGURE = re.compile(r", (\S+) ([-+]?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf))(?=,|$)")
_ERROR = re.compile(r"^\s*error: (.*\S)", re.MULTILINE)


@dataclass
class Execution:
    """A task that was started; in a loop a name has several."""

    name: str
    started: float
    outcome: str | None = None  # None while it runs
    seconds: float = 0.0


@dataclass(frozen=True)
class Training:
    """The newest line of a training, and when it came."""

    label: str
    step: int
    steps: int
    rate: float  # steps a second
    left: float  # seconds
    figures: Mapping[str, float]
    said: float


class Watcher(Protocol):
    """Takes the runner's output line by line; what it returns is shown."""

    def line(self, line: str) -> str | None:
        """Take a line."""


class Progress:
    """Sums up the runner's lines. ``names`` maps its task keys (evaluate-5) to the names people know (evaluate-cpt-sft);
    ``tasks`` is their number, with those in loops."""

    def __init__(self, names: Mapping[str, str], tasks: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.names = names
        self.tasks = tasks or len(names)
        self.clock = clock
        self.finished = 0
        self.failed: str | None = None
        self.executions: list[Execution] = []
        self.training: Training | None = None
        self.point = ""  # of an ablation
        self.latest: dict[str, tuple[str, float]] = {}  # figure -> the training that it was last said of, value
        self._running: dict[str, Execution] = {}

    def line(self, line: str) -> str | None:
        """What to show for a line of output; None when nothing."""
        if match := _STARTED.search(line):
            self._running[match[1]] = Execution(self._name(match[1]), self.clock())
            self.executions.append(self._running[match[1]])
            return f"[{self.finished + 1:>2}/{self.tasks}] {self._name(match[1])}"
        if match := _FINISHED.search(line):
            return self._finish(match[1], match[2])
        if match := _STEP.search(line):
            self._follow(match[0].strip())
            return f"        {match[0].strip()}"
        return None

    def stop(self) -> None:
        """The run is over: what has not finished was stopped."""
        for task in self._running.values():
            task.outcome, task.seconds = "stopped", self.clock() - task.started
        self._running.clear()

    def _finish(self, key: str, status: str) -> str:
        self.finished += 1
        self.training = None
        name = self._name(key)
        if status == "FAILURE" and self.failed is None:  # those that fail later may fail for its sake
            self.failed = name
        task = self._running.pop(key, None) or Execution(name, self.clock())
        task.seconds = self.clock() - task.started
        task.outcome = {"SUCCESS": "done", "FAILURE": "FAILED", "SKIPPED": "cached"}.get(status, status.lower())
        further = "; what does not need it goes on" if status == "FAILURE" else ""
        return f"        {name}: {task.outcome} in {task.seconds:.1f} s{further}"

    def _follow(self, said: str) -> None:
        if match := _TRAINING.match(said):
            label, step, steps, rate, left, rest = match.groups()
            figures = {name: float(value) for name, value in _FIGURE.findall(rest)}
            self.training = Training(label, int(step), int(steps), float(rate), float(left), figures, self.clock())
            self.latest |= {name: (label, value) for name, value in figures.items()}
        elif said.startswith("point: "):
            self.point = said

    def _name(self, key: str) -> str:
        return self.names.get(key, key)


@contextmanager
def captured(log: Path, watcher: Watcher, everything: bool = False) -> Iterator[None]:
    """Send this process's and its children's output to ``log``; show what ``watcher`` says, or ``everything``."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    os.close(writer)
    relay = threading.Thread(target=_relay, args=(reader, log, saved[1], watcher, everything), daemon=True)
    relay.start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        # A child that outlived its task would keep the pipe open: what it says then is of no interest.
        relay.join(timeout=10)
        for descriptor in saved:
            os.close(descriptor)


def _relay(reader: int, path: Path, terminal: int, watcher: Watcher, everything: bool) -> None:
    with os.fdopen(reader, "r", encoding="utf-8", errors="replace") as lines, path.open("w", encoding="utf-8") as log:
        for raw in lines:
            line = printable(uncoloured(raw).rstrip("\n").expandtabs())
            log.write(f"{line}\n")
            log.flush()
            shown = line if everything else watcher.line(line)
            if shown is not None:
                with suppress(OSError):  # nobody reads on; the log does
                    os.write(terminal, f"{shown}\n".encode())


def stage_error(log: Path) -> str | None:
    """The line that a stage reported a user's mistake in; None when the log holds none."""
    found = _ERROR.findall(log.read_text(encoding="utf-8", errors="replace"))
    return found[-1] if found else None


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-lines:])
