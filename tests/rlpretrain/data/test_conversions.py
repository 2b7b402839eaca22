"""Rows in the schemas of published data sets (the rows are ours) as prompts, answers and texts."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlpretrain.data.conversions import CONVERSIONS, SAMPLES
from rlpretrain.data.documents import Document
from rlpretrain.data.sources import read_source
from rlpretrain.errors import UserError
from rlpretrain.settings import SourceSettings, parse_settings

ROWS = SAMPLES


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def converted(name: str) -> list[Document]:
    settings = SourceSettings(name="here", kind="jsonl", path=str(ROWS / f"{name}.jsonl"), conversion=name)
    return list(read_source(settings, seed=0, scratch=Path()))


def test_every_conversion_has_rows_to_be_tried_on() -> None:
    assert {file.stem for file in ROWS.glob("*.jsonl")} == set(CONVERSIONS)


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("aime25", ["70", "005"]),
        ("math500", [r"\frac{1}{2}", r"\{-2,2\}"]),
        ("gsm8k", ["1250", "20"]),
        ("amc23", ["27.0", "0.5"]),
        ("minerva", ["0.2", "6.67e-11"]),
        ("mmlu", ["C", "A"]),
        ("mmlu_pro", ["J", "B"]),
        ("math_problem", ["4"]),  # a proof has no answer to verify
    ],
)
def test_items_ask_for_a_boxed_answer(name: str, answers: list[str]) -> None:
    items = converted(name)
    assert [item.answer for item in items] == answers
    for item, row in zip(items, rows(name), strict=False):
        assert item.text == "" and item.source == "here"
        assert item.prompt.startswith(row.get("problem") or row["question"])
        assert item.prompt.endswith("in \\boxed{}.\n\n")


def test_options_stand_behind_their_letters() -> None:
    assert "\n\nA. Mercury\nB. Venus\nC. Earth\nD. Mars\n\n" in converted("mmlu")[1].prompt
    assert "\nJ. 10\n" in converted("mmlu_pro")[0].prompt


def test_gpqa_puts_the_right_option_anywhere_but_always_at_the_same_place() -> None:
    first, second = converted("gpqa"), converted("gpqa")
    assert first == second
    for item, row in zip(first, rows("gpqa"), strict=True):
        assert f"\n{item.answer}. {row['Correct Answer']}\n" in item.prompt
        for number in (1, 2, 3):
            assert f". {row[f'Incorrect Answer {number}']}\n" in item.prompt
    many = [CONVERSIONS["gpqa"](rows("gpqa")[0] | {"Question": f"Question {n}?"}) for n in range(200)]
    places = [item.answer for item in many if item is not None]
    assert all(30 <= places.count(letter) <= 70 for letter in "ABCD")


def test_openthoughts_keeps_closed_thoughts_with_a_final_answer() -> None:
    (document,) = converted("openthoughts")
    assert document.prompt.startswith("What is 6*7?") and document.answer == ""
    assert document.text.startswith("<think>") and document.text.endswith(r"\boxed{42}.")


@pytest.mark.parametrize(
    ("response", "kept"),
    [
        (r"<think>a</think>It is \boxed{1}.", True),
        (r"<think>a</think>\boxed{1}, no, \boxed{\frac{1}{2}}", True),
        (r"<think>so \boxed{1}</think>It is 1.", False),  # boxed within the thought alone
        (r"<think>a</think>It is \boxed{1", False),  # cut off
        (r"<think>so \boxed{1}", False),
        (r"It is \boxed{1}.", False),  # no thought: the format that SFT teaches
        ("", False),
    ],
)
def test_openthoughts_asks_for_a_final_answer_after_the_thought(response: str, kept: bool) -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": response}]
    assert (CONVERSIONS["openthoughts"]({"conversations": turns}) is not None) is kept


def test_a_solution_follows_its_problem() -> None:
    (document,) = converted("problem_and_solution")
    assert document == Document("Find $x$ with $2x=8$.\n\nHalve both sides: $x=4$.", source="here")


def test_rows_of_another_schema_are_told_without_their_content(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "a secret"}) + "\n")
    settings = SourceSettings(name="here", kind="jsonl", path=str(path), conversion="gpqa")
    with pytest.raises(
        UserError, match=r"row 1 does not fit conversion 'gpqa'.*'Correct Answer'.*columns: question"
    ) as told:
        list(read_source(settings, seed=0, scratch=tmp_path))
    assert "secret" not in str(told.value)


def test_wrong_conversions_are_told(tmp_path: Path) -> None:
    settings = SourceSettings(name="here", kind="jsonl", path=str(ROWS / "mmlu.jsonl"), conversion="mmlu2")
    with pytest.raises(UserError, match="unknown conversion 'mmlu2'; known: aime25, amc23"):
        list(read_source(settings, seed=0, scratch=tmp_path))
    with pytest.raises(UserError, match="kind 'text' has no rows"):
        parse_settings(SourceSettings, {"name": "a", "kind": "text", "path": "x", "conversion": "mmlu"})


def test_crossthink_is_a_question_and_its_answer() -> None:
    assert [document.text for document in converted("crossthink")][1] == "What is 3 + 9?\n\n12"
