"""Eight families of small problems, four of mathematics and four of science, that share one skill.

Each carries a one-character state through a few steps; the states are the worked chain and the last one is the answer.
All arithmetic is on the last digit (modulo 10), so that every answer is one character and none can be read off the problem.
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


def _digits(random: random.Random, low: int, high: int) -> list[int]:
    return [random.randint(1, 9) for _ in range(random.randint(low, high))]


def _walk(start: int, steps: list[int]) -> str:
    """Each step's size, then the last digit after it: "24" reads "by 2, to 4"."""
    pairs = []
    for step in steps:
        start = (start + step) % MODULUS
        pairs.append(f"{abs(step) % MODULUS}{start}")
    return "".join(pairs)


def _sum(random: random.Random) -> Problem:
    """Last digit of a sum."""
    first, *rest = _digits(random, 3, 5)
    return Problem(f"sum {'+'.join(map(str, [first, *rest]))}=", _walk(first, rest))


def _take(random: random.Random) -> Problem:
    """Last digit of a number from which others are taken, counted round below zero."""
    first, *rest = _digits(random, 3, 5)
    return Problem(f"dif {'-'.join(map(str, [first, *rest]))}=", _walk(first, [-step for step in rest]))


def _mixed(random: random.Random) -> Problem:
    """Last digit of additions and subtractions."""
    first, *rest = _digits(random, 3, 5)
    signed = [step if random.random() < 0.5 else -step for step in rest]
    return Problem(f"mix {first}{''.join(f'{step:+d}' for step in signed)}=", _walk(first, signed))


def _series(random: random.Random) -> Problem:
    """An element further on in a series in which each is the last digit of its predecessor plus a growing step."""
    first, step, growth, places = *(random.randint(0, 9) for _ in range(3)), random.randint(3, 5)
    steps = [step + growth * place for place in range(places)]
    return Problem(f"seq {first} by {','.join(str(step % MODULUS) for step in steps)}=", _walk(first, steps))


def _units(random: random.Random) -> Problem:
    """Last digit of lengths in one unit, added."""
    first, *rest = _digits(random, 3, 5)
    unit = random.choice("mskg")
    return Problem(f"add {'+'.join(f'{digit}{unit}' for digit in [first, *rest])}=", _walk(first, rest))


def _motion(random: random.Random) -> Problem:
    """Where on a round track of ten marks one stands after moving at some speeds, a second each."""
    start, *speeds = _digits(random, 3, 5)
    return Problem(f"pos x{start} v{' '.join(map(str, speeds))}=", _walk(start, speeds))


def _chemistry(random: random.Random) -> Problem:
    """Last digit of the hydrogen atoms in a list of molecules."""
    counts = _digits(random, 3, 5)
    partners = [random.choice("CNO") for _ in counts]
    molecules = " ".join(f"{partner}H{count}" for partner, count in zip(partners, counts, strict=True))
    return Problem(f"mol {molecules}=", _walk(counts[0], counts[1:]))


def _genetics(random: random.Random) -> Problem:
    """The base that a start turns into by shifts along A, C, G, T and round again."""
    start = random.randrange(4)
    shifts = [random.randint(1, 3) for _ in range(random.randint(3, 5))]
    states, state = [], start
    for shift in shifts:
        state = (state + shift) % 4
        states.append(f"{shift}{BASES[state]}")
    return Problem(f"dna {BASES[start]}{'>'.join(['', *map(str, shifts)])}=", "".join(states))


@dataclass(frozen=True)
class Family:
    """A benchmark: its group and how a problem is drawn."""

    group: str  # math or science
    draw: Callable[[random.Random], Problem]


FAMILIES: dict[str, Family] = {
    "sums": Family("math", _sum),
    "differences": Family("math", _take),
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
