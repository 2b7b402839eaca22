"""Answers read out of responses that were written by hand."""

import pytest

from rlpretrain.answers import AnswerReader, same_answer
from rlpretrain.evaluation.suites import Suite, load_suite


def reader(suite_name: str, open_tag: str = "<think>", close_tag: str = "</think>") -> AnswerReader:
    suite: Suite = load_suite(suite_name)[0]
    return AnswerReader(suite.answer_patterns, open_tag, close_tag, suite.open_thought)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("2224</think>4", "4"),
        ("</think>4", "4"),
        ("ok</think> 4 \n", "4"),
        ("hm</think>4 m/s", "4 m/s"),
        ("hm</think>4\n5", "4\n5"),  # two answers are no answer to be guessed at: both stay, and count as wrong
        ("a</think>3<think>b</think>7", "7"),  # the last thought counts
        ("a</think>b</think>7", "7"),
        ("2224", None),  # never closed
        ("4", None),
        ("", None),
        ("2224</think>", None),
        ("2224</think>  \n", None),
        ("a</think>7<think>", None),  # opened again and left open
        ("a</think>7<think>b", None),
        ("a</think >7", None),
    ],
)
def test_mini_reads_what_follows_the_last_thought(response: str, answer: str | None) -> None:
    assert reader("mini")(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("3 + 4 = 7\n#### 7", "7"),
        ("#### 7\nno: #### 8", "8"),
        ("####9", "9"),
        ("#### $1,234.50", "1,234.50"),
        ("#### -12", "-12"),
        ("#### 18 apples, of 20", "18"),
        ("#### 42.", "42"),
        ("#### 7 and then 100 more", "7"),  # the mark beats a later number
        ("The answer is 42.", "42"),
        ("5 pears and 1,250 nuts", "1,250"),
        ("it costs $3.50", "3.50"),
        ("#### none, so 6", "6"),
        ("x1 and 2y", "2"),  # the 1 belongs to a name
        ("no number", None),
        ("####", None),
        ("", None),
        ("<think>3 or 4", None),  # an open thought holds no answer, though the prompt did not open it
        ("<think>#### 3</think>#### 4", "4"),
        ("<think>#### 3</think>nothing", None),
        ("#### 3</think>", None),
    ],
)
def test_gsm_reads_the_marked_or_else_the_last_number(response: str, answer: str | None) -> None:
    assert reader("gsm")(response) == answer


def test_delimiters_are_the_thought_settings_own() -> None:
    read = reader("mini", "<<", ">>")
    assert read("a>>5") == "5"
    assert read("a</think>5") is None
    assert read("a>>5<<") is None


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("7", "7", True),
        (" 7\n", "7", True),
        ("07", "7", True),
        ("1,234.50", "1234.5", True),
        ("$18", "18", True),
        ("42.", "42", True),
        ("-0", "0", True),
        ("7.0000001", "7", False),
        ("7 8", "78", False),
        ("78", "7", False),
        ("A", "A", True),
        ("A", "C", False),
        ("nan", "nan", True),
        ("inf", "Infinity", False),
        ("", "7", False),
    ],
)
def test_same_answer(answer: str, reference: str, same: bool) -> None:
    assert same_answer(answer, reference) is same
