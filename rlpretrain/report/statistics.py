"""Paired bootstrap over questions: intervals of accuracies, of averages over benchmarks, and of differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Scores = Mapping[str, Sequence[float]]  # benchmark -> mean over samples of each question, in the questions' order


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {"estimate": round(self.estimate, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


class Bootstrap:
    """Percentile intervals. Questions are drawn within each benchmark, so that every benchmark keeps its weight in an
    average; two models that answered the same questions are compared on the same draws, which is what makes it paired."""

    def __init__(self, confidence: float, samples: int, seed: int) -> None:
        self.tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        self.samples = samples
        self.seed = seed

    def mean(self, values: Sequence[float]) -> Interval:
        """The interval of a mean."""
        return self._interval(float(np.mean(values)), self._draws(values))

    def average(self, scores: Scores) -> Interval:
        """The interval of the mean over benchmarks of their accuracies."""
        estimate = float(np.mean([np.mean(values) for values in scores.values()]))
        return self._interval(estimate, np.mean([self._draws(values) for values in scores.values()], axis=0))

    def difference(self, first: Scores, second: Scores) -> Interval:
        """The interval of average(first) - average(second), paired by question. ValueError when questions differ."""
        if {name: len(values) for name, values in first.items()} != {name: len(v) for name, v in second.items()}:
            raise ValueError("paired scores need the same benchmarks with the same number of questions")
        return self.average({name: np.subtract(first[name], second[name]).tolist() for name in first})

    def _draws(self, values: Sequence[float]) -> np.ndarray:
        """Means of ``samples`` resamples with replacement; the same number of values gives the same resamples."""
        random = np.random.default_rng([self.seed, len(values)])
        array = np.asarray(values, dtype=float)
        means = np.empty(self.samples)
        chunk = max(1, 2_000_000 // len(array))
        for start in range(0, self.samples, chunk):
            size = min(chunk, self.samples - start)
            means[start : start + size] = array[random.integers(0, len(array), (size, len(array)))].mean(axis=1)
        return means

    def _interval(self, estimate: float, draws: np.ndarray) -> Interval:
        low, high = np.quantile(draws, self.tails)
        return Interval(estimate, float(low), float(high))
