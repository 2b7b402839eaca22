"""Accuracy from graded samples: pass@1[k] of a benchmark, and the averages over benchmarks."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

PAPER_MATH_DIVISOR = 6  # the paper prints the sum of five math rows over six; table 1


def pass_at_1(graded: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """Figures of one benchmark from k graded samples of each question.

    accuracy is pass@1[k], the mean over questions of the mean over k; stderr is over questions; run_spread is the
    standard deviation of the k runs' accuracies.
    """
    if not graded or not graded[0]:
        raise ValueError("pass@1[k] needs at least one question with one sample")
    per_question = [fmean(map(float, question)) for question in graded]
    runs = [fmean(float(question[run]) for question in graded) for run in range(len(graded[0]))]
    count = len(per_question)
    return {
        "questions": count,
        "accuracy": rounded(fmean(per_question)),
        "stderr": rounded(stdev(per_question) / math.sqrt(count)) if count > 1 else 0.0,
        "run_accuracies": [rounded(run) for run in runs],
        "run_spread": rounded(stdev(runs)) if len(runs) > 1 else 0.0,
        "per_question": [rounded(value) for value in per_question],
    }


def no_answer(answers: Sequence[Sequence[str | None]]) -> float:
    """The share of samples without an answer; None stands for none."""
    every = [answer for question in answers for answer in question]
    return rounded(sum(answer is None for answer in every) / len(every))


def group_averages(benchmarks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The mean accuracy of each group, and `overall`, the mean over all benchmarks."""
    groups: dict[str, list[float]] = {}
    for figures in benchmarks.values():
        groups.setdefault(figures["group"], []).append(figures["accuracy"])
    averages = {group: rounded(fmean(values)) for group, values in sorted(groups.items())}
    averages["overall"] = rounded(fmean(figures["accuracy"] for figures in benchmarks.values()))
    return averages


def paper_math_average(rows: Sequence[float]) -> float:
    """Math Avg as the paper prints it: the sum of the five math rows divided by six."""
    return sum(rows) / PAPER_MATH_DIVISOR


def true_mean(rows: Sequence[float]) -> float:
    """The mean of the rows."""
    return fmean(rows)


def paper_overall(math_average: float, science_average: float, science_sampled_average: float) -> float:
    """Overall: the mean of Math Avg, Science Avg and Science Avg@1[4]."""
    return fmean((math_average, science_average, science_sampled_average))


def rounded(value: float) -> float:
    """Eight decimals, so that results are the same bytes again."""
    return round(float(value), 8)
