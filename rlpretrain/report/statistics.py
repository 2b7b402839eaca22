"""Paired bootstrap over questions: intervals of accuracies, of averages over benchmarks, and of differences.

Draws are made within each stratum (a benchmark, or the held-out positions), so that every benchmark keeps its weight in
an average. Models that answered the same questions are given the same draws, which is what makes a difference paired.
Percentile intervals, Efron & Tibshirani (1993), chapter 13.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Scores = Mapping[str, Sequence[float]]  # stratum -> a value a question, in the questions' order
_CHUNK = 2_000_000  # drawn indices held in memory at a time


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float


class Bootstrap:
    """Percentile intervals at ``confidence`` from ``samples`` resamples; the same seed gives the same intervals."""

    def __init__(self, confidence: float, samples: int, seed: int) -> None:
        self.tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        self.samples = samples
        self.seed = seed
        self._kept: dict[tuple[str, bytes], np.ndarray] = {}

    def average(self, scores: Scores) -> Interval:
        """The interval of the unweighted mean over strata of their means; of a plain mean when there is one stratum."""
        return self._interval(_average(scores), self._average_draws(scores, "paired"))

    def difference(self, first: Scores, second: Scores) -> Interval:
        """The interval of average(first) - average(second), paired by question.

        ValueError when the strata differ in name or number of questions.
        """
        if _shape(first) != _shape(second):
            raise ValueError("paired scores need the same benchmarks with the same number of questions")
        draws = self._average_draws(first, "paired") - self._average_draws(second, "paired")
        return self._interval(_average(first) - _average(second), draws)

    def unpaired_difference(self, first: Scores, second: Scores) -> Interval:
        """The interval of average(first) - average(second) for values that do not belong together: wider, if anything."""
        draws = self._average_draws(first, "first") - self._average_draws(second, "second")
        return self._interval(_average(first) - _average(second), draws)

    def _average_draws(self, scores: Scores, stream: str) -> np.ndarray:
        return np.mean([self._draws(f"{stream}/{name}", values) for name, values in scores.items()], axis=0)

    def _draws(self, stream: str, values: Sequence[float]) -> np.ndarray:
        """Means of ``samples`` resamples with replacement. Which questions are drawn hangs on stream and length alone:
        two models share the draws of a benchmark, two benchmarks of one size do not."""
        array = np.asarray(values, dtype=float)
        assert array.ndim == 1 and len(array), f"no values in {stream}"
        key = stream, array.tobytes()
        if key not in self._kept:
            words = np.frombuffer(hashlib.sha256(f"{self.seed}/{stream}/{len(array)}".encode()).digest(), np.uint32)
            random = np.random.default_rng(words.tolist())
            means = np.empty(self.samples)
            chunk = max(1, _CHUNK // len(array))
            for start in range(0, self.samples, chunk):
                size = min(chunk, self.samples - start)
                means[start : start + size] = array[random.integers(0, len(array), (size, len(array)))].mean(axis=1)
            self._kept[key] = means
        return self._kept[key]

    def _interval(self, estimate: float, draws: np.ndarray) -> Interval:
        low, high = np.quantile(draws, self.tails)
        return Interval(estimate, float(low), float(high))


def _average(scores: Scores) -> float:
    return float(np.mean([np.mean(values) for values in scores.values()]))


def _shape(scores: Scores) -> dict[str, int]:
    return {name: len(values) for name, values in scores.items()}
