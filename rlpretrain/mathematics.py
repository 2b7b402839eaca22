"""Whether two answers are the same mathematics, decided by Math-Verify in a process of its own.

Answers come out of a model, and one of them may take hours or all memory to evaluate, in a single operation that no signal
interrupts. So the process is given a few seconds and gigabytes; one that takes more is ended, and the answer is wrong.
Math-Verify evaluates no code: of what is not LaTeX it reads digits, brackets and operators alone.
"""

import multiprocessing
import resource
from functools import cache
from multiprocessing.connection import Connection

SECONDS = 5.0  # a comparison
MEMORY = 4 * 2**30  # bytes of address space
LONGEST = 500  # characters: a benchmark's answer has tens of them, one that a model cannot end has thousands


def same_mathematics(answer: str, reference: str) -> bool:
    """Whether both, as LaTeX, are equal; false when that cannot be told in time."""
    return len(answer) <= LONGEST and comparer()(answer, reference)


class Comparer:
    """A process that compares, started at the first use and again after an end."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __call__(self, answer: str, reference: str) -> bool:
        """Whether the answers are equal; false when that takes longer than ``seconds`` or ends the process."""
        if self._process is None or not self._process.is_alive():
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send((answer, reference))
            if self._pipe.poll(self.seconds):
                return self._pipe.recv()
        except (EOFError, OSError):  # it died of the answer
            pass
        self.close()
        return False

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of the parent's libraries
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_compare, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._pipe.recv()  # sympy takes a second to import, which no answer is to be charged with


@cache
def comparer() -> Comparer:
    """The process's own."""
    return Comparer(SECONDS)


def _compare(pipe: Connection) -> None:
    """The process: pairs of answer and reference in, verdicts out, until the other end is closed."""
    import logging

    # lm-eval's extra [math] brings it.
    from math_verify import parse, verify

    logging.disable()  # it would warn of every answer that it cannot read, in full
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    pipe.send(True)
    while True:
        try:
            answer, reference = pipe.recv()
        except EOFError:
            return
        gold, found = (parse(f"${text}$", parsing_timeout=None) for text in (reference, answer))
        pipe.send(bool(gold) and bool(found) and bool(verify(gold, found, timeout_seconds=None)))
