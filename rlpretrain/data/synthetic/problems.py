"""Eight families of small problems, four of mathematics and four of science, that share one skill.

Each starts at a digit and takes `STEPS` steps forwards or backwards on the ring of ten digits. The worked chain lists
the start, then each step's size and the digit after it: "7+5-3+2+1=" is worked "7" "52" "39" "21" "12".

Three choices let a model of a million parameters learn this in minutes, where others stayed at chance: the steps stand two
characters apart in problem and chain alike and their number is fixed, so that a chain finds its next step always
equally far back; most steps are small, so that few facts of arithmetic carry most problems; and one character tells
forwards from backwards, the same place before every step. Large steps are rare: their facts are learned late and badly,
which keeps every arm below 100%.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

MODULUS = 10
STEPS = 4
SMALL, LARGE = (1, 5), (6, 9)  # the sizes of steps, both ends included
LARGE_SHARE = 0.06  # of steps; a fifth of the problems holds one
TEST_SHARE = 10  # one problem in ten is a test problem


@dataclass(frozen=True)
class Problem:
    """A problem up to its "=", its worked chain, and the answer: the digit that the chain ends in."""

    prompt: str
    chain: str

    @property
    def answer(self) -> str:
        return self.chain[-1]

    def slipped(self, random: random.Random) -> str:
        """The chain with one step's digit wrong and the later steps taken from there, so that it ends in a wrong digit."""
        off = random.randrange(1, MODULUS)
        digits = [int(digit) for digit in self.chain]
        for place in range(2 * random.randint(1, STEPS), len(digits), 2):
            digits[place] = (digits[place] + off) % MODULUS
        return "".join(map(str, digits))

    @property
    def is_test(self) -> bool:
        """Decided by the problem alone, so that no problem is ever on both sides."""
        return int(hashlib.sha256(self.prompt.encode()).hexdigest(), 16) % TEST_SHARE == 0


def _problem(random: random.Random, prefix: str, forwards: str, backwards: str = "") -> Problem:
    """``prefix`` and a start digit, then steps, each after one of the characters that name its direction."""
    state = random.randrange(MODULUS)
    prompt, chain = f"{prefix}{state}", str(state)
    for _ in range(STEPS):
        sign = random.choice(forwards + backwards)
        size = random.randint(*(LARGE if random.random() < LARGE_SHARE else SMALL))
        state = (state + (-size if sign in backwards else size)) % MODULUS
        prompt += f"{sign}{size}"
        chain += f"{size}{state}"
    return Problem(f"{prompt}=", chain)


def _sum(random: random.Random) -> Problem:
    """Last digit of a sum."""
    return _problem(random, "", "+")


def _difference(random: random.Random) -> Problem:
    """Last digit of a number from which others are taken, counted round below zero."""
    return _problem(random, "", "", "-")


def _mixed(random: random.Random) -> Problem:
    """Last digit of additions and subtractions."""
    return _problem(random, "", "+", "-")


def _series(random: random.Random) -> Problem:
    """Where a series stands whose first element and following differences are listed, in last digits."""
    return _problem(random, "", ",")


def _units(random: random.Random) -> Problem:
    """Last digit of lengths in m, masses in g or times in s, added: one unit a problem."""
    unit = random.choice("mgs")
    return _problem(random, unit, unit)


def _motion(random: random.Random) -> Problem:
    """Where on a round track of ten marks one stands after moving from x, each second at a speed > forwards or < back."""
    return _problem(random, "x", ">", "<")


def _chemistry(random: random.Random) -> Problem:
    """Last digit of the hydrogen atoms in a list of hydrides of nitrogen, oxygen, phosphorus and sulphur."""
    elements = "NOPS"
    return _problem(random, random.choice(elements), elements)


def _genetics(random: random.Random) -> Problem:
    """Where on the turn of a DNA helix, ten base pairs long, runs of the four bases end."""
    bases = "ACGT"
    return _problem(random, random.choice(bases), bases)


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
