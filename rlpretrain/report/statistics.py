"""Paired bootstrap over questions: intervals of accuracies, of averages over benchmarks, and of differences.

Draws are made within each stratum (a benchmark, or the held-out positions), so that every benchmark keeps its weight in
an average. Models that answered the same questions are given the same draws, which is what makes a difference paired; so
are two benchmarks of the same questions, which rise and fall together.
Percentile intervals, Efron & Tibshirani (1993), chapter 13.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Scores = Mapping[str, Sequence[float]]  # stratum -> a value a question, in the questions' order
Weights = Mapping[str, float]  # stratum -> its weight in an average
_TINY = 1e-12  # equal differences stay equal under rounding
_CHUNK = 2_000_000  # drawn indices held in memory at a time


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float


class Bootstrap:
    """Percentile intervals at ``confidence`` from ``samples`` resamples; the same seed gives the same intervals."""

    def __init__(
        self, confidence: float, samples: int, seed: int, same_questions: Mapping[str, str] | None = None
    ) -> None:
        """``same_questions``: by stratum, the one whose draws it shares."""
        self.same_questions = same_questions or {}
        self.tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        self.samples = samples
        self.seed = seed
        self._kept: dict[tuple[str, bytes], np.ndarray] = {}

    def average(self, scores: Scores, weights: Weights | None = None) -> Interval:
        """The interval of the weighted sum over strata of their means, by default of the mean."""
        weights = weights or _equal(scores)
        return self._interval(_average(scores, weights), self._average_draws(scores, weights, "paired"))

    def difference(self, first: Scores, second: Scores, weights: Weights | None = None) -> Interval:
        """The interval of average(first) - average(second), paired by question.

        ValueError when the strata differ in name or number of questions.
        """
        if _shape(first) != _shape(second):
            raise ValueError("paired scores need the same benchmarks with the same number of questions")
        weights = weights or _equal(first)
        draws = self._average_draws(first, weights, "paired") - self._average_draws(second, weights, "paired")
        return self._interval(_average(first, weights) - _average(second, weights), draws)

    def p_value(self, first: Scores, second: Scores) -> float:
        """Two-sided p of no difference between paired scores: how often resamples stray as far from the difference
        seen as that lies from zero. Never below 1 / (samples + 1), which is all that so many resamples can tell."""
        weights = _equal(first)
        seen = _average(first, weights) - _average(second, weights)
        draws = self._average_draws(first, weights, "paired") - self._average_draws(second, weights, "paired")
        strayed = int(np.sum(np.abs(draws - seen) >= abs(seen) - _TINY))
        return (1 + strayed) / (self.samples + 1)

    def unpaired_difference(self, first: Scores, second: Scores) -> Interval:
        """The interval of average(first) - average(second) for values that do not belong together: wider, if anything."""
        a, b = _equal(first), _equal(second)
        draws = self._average_draws(first, a, "first") - self._average_draws(second, b, "second")
        return self._interval(_average(first, a) - _average(second, b), draws)

    def _average_draws(self, scores: Scores, weights: Weights, stream: str) -> np.ndarray:
        drawn = [
            weight * self._draws(f"{stream}/{self.same_questions.get(name, name)}", scores[name])
            for name, weight in weights.items()
        ]
        return np.sum(drawn, axis=0)

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


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, Holm (1979): the chance of any false alarm among them stays below the level."""
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected


def _equal(scores: Scores) -> Weights:
    return {name: 1 / len(scores) for name in scores}


def _average(scores: Scores, weights: Weights) -> float:
    return float(sum(weight * np.mean(scores[name]) for name, weight in weights.items()))


def _shape(scores: Scores) -> dict[str, int]:
    return {name: len(values) for name, values in scores.items()}
