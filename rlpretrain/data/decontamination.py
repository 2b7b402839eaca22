"""Remove training documents that share a long n-gram with a benchmark item, and count them."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlpretrain.data.documents import Document
from rlpretrain.data.shards import read_shards

_WORD = re.compile(r"\w+|[^\w\s]")
EXAMPLES = 20  # ids of removed documents kept in the report


def words(text: str) -> list[str]:
    """Lower-case words and single punctuation marks, which tell one small sum from another."""
    return _WORD.findall(text.lower())


class Decontamination:
    """Passes on clean documents; `report` says what was removed.

    An item shorter than ``ngram`` words counts as one n-gram of its own length.
    """

    def __init__(self, documents: Iterable[Document], benchmarks: Path | None, ngram: int) -> None:
        self.documents = documents
        self.ngram = ngram
        self.items = 0
        self.removed: Counter[str] = Counter()
        self.examples: list[str] = []
        self.index: dict[int, dict[int, str]] = {}  # n-gram length -> hash of n-gram -> benchmark
        if benchmarks is not None:
            for item in read_shards(benchmarks, "test"):
                self.items += 1
                sequence = words(item.prompt)
                length = min(ngram, len(sequence))
                for start in range(len(sequence) - length + 1):
                    gram = hash(tuple(sequence[start : start + length]))
                    self.index.setdefault(length, {})[gram] = item.source

    def __iter__(self) -> Iterator[Document]:
        for document in self.documents:
            benchmark = self.find(document)
            if benchmark is None:
                yield document
                continue
            self.removed[benchmark] += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(document.id)

    def find(self, document: Document) -> str | None:
        """The benchmark that shares an n-gram with the document, if any."""
        if not self.index:
            return None
        sequence = words(f"{document.prompt} {document.text}")
        for length, grams in self.index.items():
            for start in range(len(sequence) - length + 1):
                benchmark = grams.get(hash(tuple(sequence[start : start + length])))
                if benchmark is not None:
                    return benchmark
        return None

    def report(self) -> dict[str, Any]:
        """Counts by benchmark and some ids, for decontamination.json."""
        return {
            "ngram": self.ngram,
            "items": self.items,
            "removed": sum(self.removed.values()),
            "removed_by_benchmark": dict(sorted(self.removed.items())),
            "examples": self.examples,
        }
