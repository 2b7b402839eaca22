"""One stream of documents out of several sources: weighted or in turn, exact duplicates removed, in constant memory."""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlpretrain.data.documents import Document
from rlpretrain.errors import UserError


class Blend:
    """Interleaves sources by weight; after every document each source is within one of its share.

    The interleaving is a fixed function of the weights: no draw could keep closer to them. Ends after ``documents``;
    without that, when a source ends whose turn it is, so that the weights hold to the end. Iterating raises UserError
    when a source ends before ``documents`` are reached. `taken` counts the documents each source gave.
    """

    def __init__(self, sources: dict[str, tuple[Iterator[Document], float]], documents: int | None = None) -> None:
        self.sources = sources
        self.documents = documents
        self.taken = dict.fromkeys(sources, 0)

    def __iter__(self) -> Iterator[Document]:
        while self.documents is None or sum(self.taken.values()) < self.documents:
            name = self._next_source()
            document = next(self.sources[name][0], None)
            if document is None:
                if self.documents is None:
                    return
                raise UserError(
                    f"source '{name}' ended after {self.taken[name]} documents, before the blend held "
                    f"{self.documents}; lower `documents` or the source's weight"
                )
            self.taken[name] += 1
            yield document

    def _next_source(self) -> str:
        """The quota method of Balinski and Young (1975): of the sources below their share, the most under-served.

        The first named wins a tie.
        """
        turn = sum(self.taken.values()) + 1
        total = sum(weight for _, weight in self.sources.values())
        below = [name for name, (_, weight) in self.sources.items() if self.taken[name] * total < weight * turn]
        return min(below, key=lambda name: (self.taken[name] + 1) / self.sources[name][1])


class InTurn:
    """Every source to its end, one after another: a benchmark is asked whole, whatever the size of the others."""

    def __init__(self, sources: dict[str, Iterator[Document]]) -> None:
        self.sources = sources
        self.taken = dict.fromkeys(sources, 0)

    def __iter__(self) -> Iterator[Document]:
        for name, documents in self.sources.items():
            for document in documents:
                self.taken[name] += 1
                yield document


class Deduplicated:
    """Documents without exact duplicates; the seen ids lie on disk, so that memory stays constant."""

    def __init__(self, documents: Iterable[Document], scratch: Path) -> None:
        self.documents = documents
        self.database = scratch / "seen.sqlite"
        self.removed = 0

    def __iter__(self) -> Iterator[Document]:
        seen = sqlite3.connect(self.database)
        try:
            seen.execute("PRAGMA journal_mode=OFF")  # a scratch file: nothing to recover
            seen.execute("PRAGMA synchronous=OFF")
            seen.execute("CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID")
            for document in self.documents:
                if seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (document.id,)).rowcount == 0:
                    self.removed += 1
                else:
                    yield document
        finally:
            seen.close()
            self.database.unlink(missing_ok=True)
