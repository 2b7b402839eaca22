"""Reading an answer out of a response."""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerReader:
    """How the answers of a suite are read."""

    patterns: Sequence[str]  # the first one that is found decides, by its last match; one group each
    think_open: str = "<think>"
    think_close: str = "</think>"
    opened: bool = False  # whether the prompt has opened a thought already

    def __call__(self, response: str) -> str | None:
        """The answer, stripped; None when there is none, above all when a thought was left open."""
        spoken = self.spoken(response)
        if spoken is None:
            return None
        for pattern in self.patterns:
            found = re.findall(pattern, spoken, flags=re.DOTALL)
            if found:
                return found[-1].strip() or None
        return None

    def spoken(self, response: str) -> str | None:
        """What follows the last thought, stripped; None when a thought is still open at the end.

        A thought is not an answer: numbers in it are guesses on the way, and lm-eval would grade an open one as a whole.
        """
        _thought, close, rest = response.rpartition(self.think_close)
        if not close and self.opened:
            return None
        return None if self.think_open in rest else rest.strip()
