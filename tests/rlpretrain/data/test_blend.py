"""Blending by weight and exact deduplication."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpretrain.data.blend import Blend, Deduplicated
from rlpretrain.data.documents import Document
from rlpretrain.errors import UserError


def endless(name: str) -> Iterator[Document]:
    return (Document(f"{name} {index}", source=name) for index in count())


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 200))
def test_every_source_is_within_one_of_its_share_at_every_point(weights: list[float], documents: int) -> None:
    sources = {str(index): (endless(str(index)), weight) for index, weight in enumerate(weights)}
    taken = dict.fromkeys(sources, 0)
    for position, document in enumerate(Blend(sources, documents), 1):
        taken[document.source] += 1
        for name, (_, weight) in sources.items():
            assert abs(taken[name] - weight / sum(weights) * position) < 1 + 1e-9


def test_without_a_number_the_blend_ends_with_the_first_source_that_ends() -> None:
    blend = Blend({"a": (iter([Document("1"), Document("2")]), 1.0), "b": (endless("b"), 3.0)})
    assert len(list(blend)) == sum(blend.taken.values())
    assert blend.taken["a"] == 2 and 6 <= blend.taken["b"] <= 9


def test_a_source_that_ends_too_early_is_named() -> None:
    with pytest.raises(UserError, match="source 'a' ended after 1 documents"):
        list(Blend({"a": (iter([Document("1")]), 1.0), "b": (endless("b"), 1.0)}, documents=10))


def test_exact_duplicates_are_removed_and_counted(tmp_path: Path) -> None:
    unique = Deduplicated([Document("a"), Document("b"), Document("a", source="other"), Document("A")], tmp_path)
    assert [document.text for document in unique] == ["a", "b", "A"]
    assert unique.removed == 1
    assert not list(tmp_path.iterdir())
