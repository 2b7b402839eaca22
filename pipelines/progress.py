"""What a person sees of a local run: each task's name and time, and how far its training is. The rest goes to a log file.

kfp's local runner writes everything that it and its tasks say to this process's own output, executor input included. While
a run lasts that output is redirected into a pipe, which a thread copies to the log and sums up on the terminal.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STARTED = re.compile(r"Executing task '([^']+)'")
_FINISHED = re.compile(r"Task '([^']+)' finished with status (\w+)")
_STEP = re.compile(r"\b(?:(?:base|cpt|rlp|rpt|sft|rlvr|format warm-up): step|point:) .*")
_ERROR = re.compile(r"^\s*error: (.*\S)", re.MULTILINE)


class Progress:
    """Sums up the runner's lines. ``names`` maps its task keys (evaluate-5) to the names people know (evaluate-cpt-sft);
    ``tasks`` is their number, with those in loops."""

    def __init__(self, names: Mapping[str, str], tasks: int = 0) -> None:
        self.names = names
        self.tasks = tasks or len(names)
        self.finished = 0
        self.failed: str | None = None
        self._started: dict[str, float] = {}

    def line(self, line: str) -> str | None:
        """What to show for a line of output; None when nothing."""
        if match := _STARTED.search(line):
            self._started[match[1]] = time.monotonic()
            return f"[{self.finished + 1:>2}/{self.tasks}] {self._name(match[1])}"
        if match := _FINISHED.search(line):
            self.finished += 1
            if match[2] == "FAILURE" and self.failed is None:  # those that fail later may fail for its sake
                self.failed = self._name(match[1])
            seconds = time.monotonic() - self._started.get(match[1], time.monotonic())
            outcome = {"SUCCESS": "done", "FAILURE": "FAILED", "SKIPPED": "cached"}.get(match[2], match[2].lower())
            further = "; what does not need it goes on" if match[2] == "FAILURE" else ""
            return f"        {self._name(match[1])}: {outcome} in {seconds:.1f} s{further}"
        if match := _STEP.search(line):
            return f"        {match[0].strip()}"
        return None

    def _name(self, key: str) -> str:
        return self.names.get(key, key)


@contextmanager
def captured(log: Path, progress: Progress, everything: bool = False) -> Iterator[None]:
    """Send this process's and its children's output to ``log``; show ``progress``, or ``everything``, on the terminal."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    os.close(writer)
    relay = threading.Thread(target=_relay, args=(reader, log, saved[1], progress, everything), daemon=True)
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


def _relay(reader: int, path: Path, terminal: int, progress: Progress, everything: bool) -> None:
    with os.fdopen(reader, "r", encoding="utf-8", errors="replace") as lines, path.open("w", encoding="utf-8") as log:
        for raw in lines:
            line = _ANSI.sub("", raw)
            log.write(line)
            log.flush()
            shown = line.rstrip("\n") if everything else progress.line(line)
            if shown is not None:
                os.write(terminal, f"{shown}\n".encode())


def stage_error(log: Path) -> str | None:
    """The line that a stage reported a user's mistake in; None when the log holds none."""
    found = _ERROR.findall(log.read_text(encoding="utf-8", errors="replace"))
    return found[-1] if found else None


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-lines:])
