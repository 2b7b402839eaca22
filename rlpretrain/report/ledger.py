"""The paper's claims and figures, read from ledger.yaml. Percent there are fractions of 1 here.

`rlpretrain.report.claims` decides the claims; the page shows the tables' figures beside a run's own.
"""

from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import Field

from rlpretrain.report.words import OVERALL
from rlpretrain.settings import Settings

Value = int | float | str


class PaperFigures(Settings):
    """Where the paper says it, and its figures in percent."""

    source: str
    profile: str | None = Field(None, description="profile of ours whose runs may be held beside the figures")
    first: float | None = None
    second: float | None = None
    as_printed: bool = Field(False, description="averages by the rule of Table 1, where the suite has them")

    @property
    def difference(self) -> float | None:
        """First minus second, as a fraction of 1."""
        return None if self.first is None or self.second is None else (self.first - self.second) / 100


class Claim(Settings):
    """One claim. ``kind`` names the rule that decides it; see rlpretrain.report.claims."""

    name: str
    statement: str
    kind: Literal[
        "gain rises",
        "beats",
        "not behind",
        "best at",
        "rises",
        "levels off",
        "least below base",
        "all beat base",
        "elsewhere",
    ]
    first: str = Field("rlp", description="arm that is ahead")
    second: str = Field("", description="arm that it is compared with")
    stage: str = ""
    average: str = OVERALL
    only: bool = Field(False, description="a claim about the paper's profile and no other model")
    sweep: str = Field("", description="ablation that decides it")
    at: Value | None = Field(None, description="best at: the best value")
    reason: str = Field("", description="elsewhere: why no run decides it")
    paper: PaperFigures | None = None


class Section(Settings):
    """Claims with a heading."""

    title: str
    claims: tuple[Claim, ...]


Rows = dict[str, dict[str, tuple[float, ...]]]  # benchmark or average -> stage -> a figure an arm


class PaperTable(Settings):
    """A table of the paper in percent."""

    source: str
    profile: str
    arms: tuple[str, ...]
    rows: Rows
    averages: Rows

    def figure(self, name: str, arm: str, stage: str) -> float | None:
        """The figure of a benchmark or an average as a fraction of 1; None where the paper has none."""
        figures = {**self.rows, **self.averages}.get(name, {}).get(stage)
        return figures[self.arms.index(arm)] / 100 if figures and arm in self.arms else None


class PaperSweep(Settings):
    """An ablation of the paper: average accuracy in percent by the value that was changed."""

    base: float | None = None
    default: Value
    values: tuple[Value, ...]
    figures: tuple[float, ...]


class Ledger(Settings):
    """The content of ledger.yaml."""

    sections: tuple[Section, ...]
    tables: tuple[PaperTable, ...]
    sweeps: dict[str, PaperSweep]

    def table(self, profile: str) -> PaperTable | None:
        """The paper's table of a profile."""
        return next((table for table in self.tables if table.profile == profile), None)


@cache
def load_ledger() -> Ledger:
    """The ledger, read once."""
    return Ledger.model_validate(yaml.safe_load(files(__package__).joinpath("ledger.yaml").read_text(encoding="utf-8")))
