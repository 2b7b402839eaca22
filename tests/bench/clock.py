"""Seconds by phase."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up seconds by phase. A phase inside another is taken out of it, so that the phases add up to the step."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[tuple[str, float, float]] = []  # phase, start, seconds of the phases inside

    def begin(self, phase: str) -> None:
        self._open.append((phase, time.perf_counter(), 0.0))

    def end(self) -> None:
        phase, start, inside = self._open.pop()
        elapsed = time.perf_counter() - start
        self.seconds[phase] += elapsed - inside
        if self._open:
            outer, began, others = self._open[-1]
            self._open[-1] = (outer, began, others + elapsed)

    @contextmanager
    def span(self, phase: str) -> Iterator[None]:
        self.begin(phase)
        try:
            yield
        finally:
            self.end()

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds
