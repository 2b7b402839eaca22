"""The normal form of documents."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpretrain.data import documents
from rlpretrain.data.documents import Document, normalise

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))  # half characters included


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_normalising_twice_changes_nothing_and_an_id_exists(text: str, prompt: str, answer: str) -> None:
    once = Document(text, prompt, answer).normalised()
    assert once.normalised() == once
    assert len(once.id) == 16


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("e\u0301", "\xe9"),
        ("a\r\nb\rc\u2028d\x85e\x0cf", "a\nb\nc\nd\ne\nf"),
        ("a\x00b\x1b\x7f\x9f\ufeffc\td", "abc\td"),
        ("e\x00\u0301", "\xe9"),  # what a control character parted is put together
        ("half \ud800", "half \ufffd"),
    ],
)
def test_normal_form(raw: str, normal: str) -> None:
    assert normalise(raw) == normal


def test_one_scan_finds_every_character_that_is_not_kept() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    slow = {
        character
        for pattern in (documents._LINE_END, documents._CONTROL, documents._SURROGATE)
        for character in pattern.findall(everything)
    }
    assert set(documents._UNUSUAL.findall(everything)) == slow


def test_blank_between_prompt_and_completion_is_kept() -> None:
    assert Document(" 4 ", prompt="2+2=").normalised().text == " 4"
    assert Document(" 4 ").normalised().text == "4"


def test_id_is_of_the_content_alone() -> None:
    assert Document("a", source="x").id == Document("a", source="y").id
    assert Document("ab").id != Document("b", prompt="a").id
