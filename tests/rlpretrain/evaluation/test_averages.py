"""pass@1[k] against counting by hand, and the averages against the paper's own table."""

import math

import pytest

from rlpretrain.evaluation import averages

# Table 1 of arXiv 2510.01265, %: base, CPT, RLP, and the three after SFT and RLVR.
MATH_ROWS = {
    "AIME25": (2.25, 3.96, 5.02, 5.32, 5.89, 7.05),
    "MATH500": (48.45, 57.52, 58.48, 61.92, 62.70, 64.30),
    "GSM8K": (54.16, 72.85, 74.48, 78.22, 78.70, 80.50),
    "AMC23": (25.94, 31.25, 31.25, 35.00, 34.38, 36.50),
    "Minerva": (15.30, 19.03, 21.19, 25.30, 26.10, 27.80),
}
SCIENCE_ROWS = {
    "MMLU": (50.08, 41.95, 56.14, 58.36, 59.00, 61.50),
    "MMLU-Pro": (28.17, 27.81, 34.62, 37.85, 39.92, 42.40),
    "GPQA": (25.25, 26.26, 28.28, 30.93, 29.27, 33.33),
}
SAMPLED_SCIENCE_ROWS = {
    "MMLU": (44.85, 40.00, 52.18, 56.00, 58.53, 61.00),
    "MMLU-Pro": (23.95, 24.61, 30.80, 36.53, 38.49, 41.30),
    "GPQA": (27.52, 24.75, 27.02, 31.52, 30.01, 34.97),
}
PRINTED_MATH = (24.35, 30.77, 31.74, 34.29, 34.63, 36.03)
PRINTED_SCIENCE = (34.50, 32.01, 39.68, 42.38, 42.73, 45.74)
PRINTED_SAMPLED_SCIENCE = (32.11, 29.79, 36.67, 41.35, 42.34, 45.76)
PRINTED_OVERALL = (30.32, 30.85, 36.03, 39.34, 39.90, 42.51)
LAST_DIGIT = 0.0101  # the table rounds, or cuts, the second decimal


GROUPS = {"math": MATH_ROWS, "science": SCIENCE_ROWS, "science_sampled": SAMPLED_SCIENCE_ROWS}


def paper_averages(index: int) -> dict[str, float]:
    groups = {f"{group}/{name}": group for group, rows in GROUPS.items() for name in rows}
    accuracy = {f"{group}/{name}": row[index] for group, rows in GROUPS.items() for name, row in rows.items()}
    return averages.averaged(accuracy, averages.average_weights(groups, "paper"))


@pytest.mark.parametrize("index", range(6))
def test_the_papers_averages(index: int) -> None:
    found = paper_averages(index)
    assert found["math_as_printed"] == pytest.approx(PRINTED_MATH[index], abs=LAST_DIGIT)
    assert found["science"] == pytest.approx(PRINTED_SCIENCE[index], abs=LAST_DIGIT)
    assert found["science_sampled"] == pytest.approx(PRINTED_SAMPLED_SCIENCE[index], abs=LAST_DIGIT)
    assert found["overall_as_printed"] == pytest.approx(PRINTED_OVERALL[index], abs=LAST_DIGIT)


def test_the_printed_math_average_is_no_mean() -> None:
    found = paper_averages(0)
    assert found["math"] == pytest.approx(29.22)
    assert found["math"] == pytest.approx(found["math_as_printed"] * 6 / 5)
    assert found["overall"] == pytest.approx((found["math"] + found["science"] + found["science_sampled"]) / 3)


def test_pass_at_1_counted_by_hand() -> None:
    graded = [[True, True, False, True], [False, False, False, False], [True, False, False, True]]
    figures = averages.pass_at_1(graded)
    assert figures["questions"] == 3
    assert figures["per_question"] == [0.75, 0.0, 0.5]
    assert figures["accuracy"] == pytest.approx(1.25 / 3)
    assert figures["run_accuracies"] == pytest.approx([2 / 3, 1 / 3, 0, 2 / 3])
    # Over questions: mean 5/12, squared distances (4/12)^2 + (5/12)^2 + (1/12)^2 = 42/144, over n - 1 = 2, over n = 3.
    assert figures["stderr"] == pytest.approx(math.sqrt(42 / 144 / 2 / 3))
    # Over runs: mean 5/12, squared distances 9/144 + 1/144 + 25/144 + 9/144 = 44/144, over k - 1 = 3.
    assert figures["run_spread"] == pytest.approx(math.sqrt(44 / 144 / 3))


def test_pass_at_1_of_one_question_or_one_run_has_no_spread() -> None:
    assert averages.pass_at_1([[True, False]])["stderr"] == 0.0
    assert averages.pass_at_1([[True], [False]])["run_spread"] is None


@pytest.mark.parametrize("graded", [[], [[]]])
def test_pass_at_1_of_nothing_is_refused(graded: list[list[bool]]) -> None:
    with pytest.raises(ValueError, match="at least one question"):
        averages.pass_at_1(graded)


def test_share_without_an_answer() -> None:
    assert averages.no_answer([["1", None], [None, None], ["2", "3"]]) == 0.5


def test_averages_by_group_weigh_benchmarks_not_questions() -> None:
    weights = averages.average_weights({"a": "math", "b": "math", "c": "science"}, "groups")
    found = averages.averaged({"a": 0.2, "b": 0.4, "c": 0.9}, weights)
    assert found == {"math": 0.3, "science": 0.9, "overall": 0.5}
