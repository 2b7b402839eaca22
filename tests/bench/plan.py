"""What is measured, and the records of it. No torch here either."""

from dataclasses import dataclass

from tests.bench.shapes import SHAPES

DTYPES = ("float32", "bfloat16")

# module and function that take the steps; imported by name, so that a process holds only what it runs
CONTENDERS = {
    "ours": ("ours", "fast_steps"),
    "plain": ("ours", "plain_steps"),
    "trl-tuned": ("trl_step", "tuned_steps"),
    "trl-default": ("trl_step", "default_steps"),
    "sft": ("likelihood_step", "likelihood_steps"),
}

# steps of a process that do not count: ours touches new pages up to the second, theirs takes minutes
WARMUP = {"ours": 2, "sft": 2, "plain": 1, "trl-tuned": 1, "trl-default": 1}

# by shape; `long-1` and `long-16` are there for the growth with the positions a document
_MEASURED = {
    "small": tuple(CONTENDERS),
    "smollm2": tuple(CONTENDERS),
    "long": ("ours", "plain", "trl-tuned", "sft"),
    "long-1": ("ours",),
    "long-16": ("ours",),
}


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    shape: str
    contender: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.shape} {self.contender} {self.dtype}"


@dataclass(frozen=True)
class Sample:
    """One process's measurement of a case."""

    case: Case
    steps: list[dict[str, float]]  # seconds by phase
    peak_bytes: int
    imports_bytes: int  # of which the libraries take this much before anything is built
    flops_per_second: float  # of matrix products in the case's dtype, right after the steps
    others: float | None  # cores that other processes kept busy meanwhile; above 0.1 or so the seconds are no good

    @property
    def seconds(self) -> float:
        return sum(sum(step.values()) for step in self.steps) / len(self.steps)


def planned(
    shapes: list[str] | None, contenders: list[str] | None, dtypes: list[str] | None, has_bfloat16: bool
) -> list[Case]:
    """The cases of a run: what is asked for by name, or all that is measured by default.

    By default all compute in float32, so that the same work is compared, and ours once more in bfloat16 where there is any.
    """
    return [
        Case(shape, contender, dtype)
        for shape in shapes or _MEASURED
        for contender in contenders or _MEASURED.get(shape, tuple(CONTENDERS))
        for dtype in dtypes or (DTYPES if contender == "ours" and has_bfloat16 else DTYPES[:1])
    ]


assert set(WARMUP) == set(CONTENDERS)
assert set(_MEASURED) <= set(SHAPES)
