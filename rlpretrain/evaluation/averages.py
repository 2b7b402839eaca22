"""Accuracy from graded samples: pass@1[k] of a benchmark, and the averages over benchmarks."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Literal

MATH, OVERALL = "math", "overall"
PAPER_MATH_DIVISOR = 6  # the paper prints the sum of five math rows over six; table 1


def pass_at_1(graded: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """Figures of one benchmark from k graded samples of each question.

    accuracy is pass@1[k], the mean over questions of the mean over k; stderr is over questions; run_spread is the
    standard deviation of the k runs' accuracies, which a single run does not tell.
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
        "run_spread": rounded(stdev(runs)) if len(runs) > 1 else None,
        "per_question": [rounded(value) for value in per_question],
    }


def no_answer(answers: Sequence[Sequence[str | None]]) -> float:
    """The share of samples without an answer; None stands for none."""
    every = [answer for question in answers for answer in question]
    return rounded(sum(answer is None for answer in every) / len(every))


Rule = Literal["groups", "paper"]


def average_weights(groups: Mapping[str, str], rule: Rule) -> dict[str, dict[str, float]]:
    """What is averaged: for each average the weight of every benchmark in it; ``groups`` is benchmark -> group.

    By `groups` that is the mean of each group, and `overall`, the mean over all benchmarks. By `paper` it is the mean of each
    group; `overall`, the mean of the groups' means; and both once more as the paper prints them, where the five rows of
    mathematics are summed and divided by six.
    """
    members = {group: [name for name in groups if groups[name] == group] for group in sorted(set(groups.values()))}
    means = {group: {name: 1 / len(names) for name in names} for group, names in members.items()}
    if rule == "groups":
        return {**means, OVERALL: {name: 1 / len(groups) for name in groups}}
    printed = {**means, MATH: {name: 1 / PAPER_MATH_DIVISOR for name in members[MATH]}}
    return {
        **means,
        OVERALL: _mean_of(means),
        f"{MATH}_as_printed": printed[MATH],
        f"{OVERALL}_as_printed": _mean_of(printed),
    }


def _mean_of(averages: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {name: weight / len(averages) for weights in averages.values() for name, weight in weights.items()}


def averaged(accuracy: Mapping[str, float], weights: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Every average of the benchmarks' accuracies."""
    return {
        name: rounded(sum(weight * accuracy[benchmark] for benchmark, weight in parts.items()))
        for name, parts in weights.items()
    }


def rounded(value: float) -> float:
    """Eight decimals, so that results are the same bytes again."""
    return round(float(value), 8)
