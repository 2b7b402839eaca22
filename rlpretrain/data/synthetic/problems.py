"""Eight families of small problems, four of mathematics and four of science, that share one skill.

Each carries a one-character state through a few steps, which the worked chain lists; the last state is the answer.
All arithmetic is on the last digit (modulo 10), so that every answer is one character and none can be read
off the problem. Steps stand two characters apart in problem and chain, which lets a model of a million parameters learn
to follow them in minutes.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

MODULUS = 10
BASES = "ACGT"
TEST_SHARE = 10  # one problem in ten is a test problem


@dataclass(frozen=True)
class Problem:
    """A problem, its worked chain (the steps, each with the state after it), and the answer (the last state)."""

    prompt: str
    chain: str

    @property
    def answer(self) -> str:
        return self.chain[-1]

    @property
    def is_test(self) -> bool:
        """Decided by the problem alone, so that no problem is ever on both sides."""
        return hashlib.sha256(self.prompt.encode()).digest()[0] % TEST_SHARE == 0


def _digits(random: random.Random) -> list[int]:
    return [random.randint(1, 9) for _ in range(random.randint(4, 5))]


def _walk(start: int, steps: list[int]) -> str:
    """Each step's size, then the last digit after it: "24" reads "by 2, to 4"."""
    pairs = []
    for step in steps:
        start = (start + step) % MODULUS
        pairs.append(f"{abs(step)}{start}")
    return "".join(pairs)


def _sum(random: random.Random) -> Problem:
    """Last digit of a sum."""
    digits = _digits(random)
    return Problem("sum" + "".join(f"+{digit}" for digit in digits) + "=", _walk(digits[0], digits[1:]))


def _difference(random: random.Random) -> Problem:
    """Last digit of a number from which others are taken, counted round below zero."""
    first, *rest = _digits(random)
    return Problem(f"dif+{first}" + "".join(f"-{d}" for d in rest) + "=", _walk(first, [-digit for digit in rest]))


def _mixed(random: random.Random) -> Problem:
    """Last digit of additions and subtractions."""
    first, *rest = _digits(random)
    signed = [digit if random.random() < 0.5 else -digit for digit in rest]
    return Problem(f"mix+{first}" + "".join(f"{step:+d}" for step in signed) + "=", _walk(first, signed))


def _series(random: random.Random) -> Problem:
    """The element reached from the first by a list of steps, in last digits."""
    digits = _digits(random)
    return Problem("seq" + "".join(f",{digit}" for digit in digits) + "=", _walk(digits[0], digits[1:]))


def _units(random: random.Random) -> Problem:
    """Last digit of lengths, masses or times in one unit, added."""
    digits, unit = _digits(random), random.choice("mgs")
    return Problem("qty" + "".join(f"{unit}{digit}" for digit in digits) + "=", _walk(digits[0], digits[1:]))


def _motion(random: random.Random) -> Problem:
    """Where on a round track of ten marks one stands after moving from x at speeds v, a second each."""
    digits = _digits(random)
    return Problem(f"posx{digits[0]}" + "".join(f"v{d}" for d in digits[1:]) + "=", _walk(digits[0], digits[1:]))


def _chemistry(random: random.Random) -> Problem:
    """Last digit of the hydrogen atoms in a list of hydrides of carbon, nitrogen and oxygen."""
    digits = _digits(random)
    return Problem("mol" + "".join(f"{random.choice('CNO')}{d}" for d in digits) + "=", _walk(digits[0], digits[1:]))


def _genetics(random: random.Random) -> Problem:
    """The base that a start turns into by shifts along A, C, G, T and round again."""
    state = random.randrange(len(BASES))
    shifts = [random.randint(1, 3) for _ in range(random.randint(5, 6))]
    prompt, chain = f"dna>{BASES[state]}" + "".join(f">{shift}" for shift in shifts) + "=", ""
    for shift in shifts:
        state = (state + shift) % len(BASES)
        chain += f"{shift}{BASES[state]}"
    return Problem(prompt, chain)


@dataclass(frozen=True)
class Family:
    """A benchmark: its group and how a problem is drawn."""

    group: str  # math or science
    draw: Callable[[random.Random], Problem]


FAMILIES: dict[str, Family] = {
    "sums": Family("math", _sum),
    "differences": Family("math", _difference),
    "mixed": Family("math", _mixed),
    "series": Family("math", _series),
    "units": Family("science", _units),
    "motion": Family("science", _motion),
    "chemistry": Family("science", _chemistry),
    "genetics": Family("science", _genetics),
}
BENCHMARKS: dict[str, str] = {name: family.group for name, family in FAMILIES.items()}


def draw(family: Family, test: bool, random: random.Random) -> Problem:
    """A random problem of the wanted side."""
    while True:
        problem = family.draw(random)
        if problem.is_test == test:
            return problem
