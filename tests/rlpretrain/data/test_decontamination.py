"""Planted benchmark items are found, their neighbours are not."""

import numpy as np
import pytest

from rlpretrain.data.conversions import TEMPLATES, choice_prompt, problem_prompt
from rlpretrain.data.decontamination import ContaminationIndex, Report
from rlpretrain.data.shards import Example

STORY = "Anna buys three red apples and five green pears at the market on a sunny Friday morning before work"
SOLUTION = "first count the apples then add all the pears and at last take away what she ate on the way home"


def item(prompt: str, answer: str = "7", source: str = "bench", identity: str = "i") -> Example:
    return Example(identity, np.empty(0, np.int32), 0, answer, source, prompt)


@pytest.mark.parametrize(
    "text",
    [
        f"Before. {STORY} After.",
        STORY.upper(),
        STORY.replace(" ", "\n  "),
        "xyz " + " ".join(STORY.split()[2:15]) + " xyz",  # thirteen words out of the middle
        STORY.replace(" and", ", and").replace("market", "\uff4darket"),  # marks between, a full-width letter
        f"Solution: {SOLUTION}",
    ],
)
def test_planted_long_item_is_found(text: str) -> None:
    match = ContaminationIndex([item(STORY, SOLUTION)], 13).find(text)
    assert match is not None and match.benchmarks == ("bench",) and match.item == "i"


@pytest.mark.parametrize(
    "text",
    [
        " ".join(STORY.split()[2:14]),  # twelve words
        " ".join(reversed(STORY.split())),
        STORY.replace("green", "x").replace("sunny", "y"),
        "",
        "7",  # a short answer alone is nothing
    ],
)
def test_what_shares_no_long_ngram_is_not(text: str) -> None:
    assert ContaminationIndex([item(STORY, "7")], 13).find(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sum+3+4+5=2", True),
        ("see: sum+3+4+5=2 and more", True),
        ("sum + 3 + 4 + 5 = 2", True),
        ("sum+3+4+5+1=3", False),
        ("sum-3+4+5=2", False),
        ("sum+13+4+5=2", False),
        ("sum+3+4+55=2", False),
        ("gensum+3+4+5=2", False),
    ],
)
def test_a_short_item_is_found_whole_and_at_word_boundaries(text: str, found: bool) -> None:
    index = ContaminationIndex([item("sum+3+4+5=", "2"), item("", "1")], 13)
    assert (index.find(text) is not None) == found


def test_report_counts_every_benchmark_that_a_document_meets() -> None:
    items = [item(STORY, identity="a", source="x"), item(STORY, identity="b", source="y"), item("2+2=", source="z")]
    index = ContaminationIndex(items, 13)
    report = Report(index)
    for identity, text in (("d1", STORY), ("d2", "2+2=4"), ("d3", f"2+2=4 {STORY}")):
        match = index.find(text)
        assert match is not None
        report.add(identity, match)
    figures = report.as_dict()
    assert figures["removed"] == 3
    assert figures["benchmarks"] == {
        "x": {"items": 1, "documents_removed": 2},
        "y": {"items": 1, "documents_removed": 2},
        "z": {"items": 1, "documents_removed": 2},
    }
    assert [example["document"] for example in figures["examples"]] == ["d1", "d2", "d3"]
    assert figures["examples"][1] == {"document": "d2", "benchmark": "z", "item": "i", "ngram": "2 + 2 ="}


def test_the_words_around_every_problem_are_no_part_of_it() -> None:
    """Ten words that all prompts share make no unlike problems alike, and no short one long."""
    long = "If $x + y = 3$ and $x - y = 1$ and $z$ is ten times their product, find the value of $x$."
    items = [item(problem_prompt(long)), item(problem_prompt("Compute $\\dbinom{9}{8}$."))]
    index = ContaminationIndex(items, 13, TEMPLATES)
    for prompt, found in (
        (problem_prompt("A train goes 300 km in four hours. With $x$ its speed, find the value of $x$."), False),
        (problem_prompt(long), True),
        (long, True),
        (problem_prompt("Compute $\\dbinom{9}{8}$."), True),
        ("Compute $\\dbinom{9}{8}$. It is 9.", True),
    ):
        assert (index.find(index.problem(prompt)) is not None) == found, prompt
    choices = ContaminationIndex([item(choice_prompt("Who wrote it?", ["a", "b"]))], 13, TEMPLATES)
    assert choices.find(choices.problem(choice_prompt("Where is it?", ["c", "d"]))) is None
