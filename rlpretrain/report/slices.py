"""Information gain at the positions that have something in common, each slice with its interval."""

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from rlpretrain.report.results import GainSlice
from rlpretrain.report.statistics import Bootstrap

FEWEST = 8  # positions that a slice needs to be shown
By = Literal["kind", "entropy", "offset"]


def gain_slices(
    by: By, gains: Sequence[float], names: Sequence[str], order: Sequence[str], bootstrap: Bootstrap
) -> list[GainSlice]:
    """A slice for every name in ``order`` that ``names``, one a position, holds often enough."""
    groups = {name: [gain for gain, its_name in zip(gains, names, strict=True) if its_name == name] for name in order}
    found = []
    for name, values in groups.items():
        if len(values) >= FEWEST:
            interval = bootstrap.average({f"{by}/{name}": values})
            rounded = {part: round(getattr(interval, part), 6) for part in ("estimate", "low", "high")}
            found.append(GainSlice(by=by, name=name, positions=len(values), **rounded))
    return found


def quarters(values: Sequence[float], form: str, unit: str) -> tuple[list[str], list[str]]:
    """The quarter that each value falls into, by name, and the quarters' names in order."""
    edges = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    names = [f"{low:{form}} to {high:{form}} {unit}" for low, high in itertools.pairwise(edges)]
    inner = edges[1:-1]
    return [names[int(np.searchsorted(inner, value, side="right"))] for value in values], list(dict.fromkeys(names))
