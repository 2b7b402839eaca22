"""One stream of documents out of several sources: weighted, normalised, exact duplicates removed, in constant memory."""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlpretrain.data.documents import Document
from rlpretrain.errors import UserError


def blend(sources: dict[str, tuple[Iterator[Document], float]], documents: int | None) -> Iterator[Document]:
    """Interleave sources by weight; after every document each source is within one of its share.

    Ends after ``documents``; without that, when the first source ends, so that the weights hold to the end. Raises
    UserError when a source ends before ``documents`` are reached.
    """
    taken = dict.fromkeys(sources, 0)
    total_weight = sum(weight for _, weight in sources.values())
    produced = 0
    while documents is None or produced < documents:
        # The source that lags furthest behind its share; the first named wins a tie.
        name = max(sources, key=lambda n: sources[n][1] / total_weight * (produced + 1) - taken[n])
        document = next(sources[name][0], None)
        if document is None:
            if documents is not None:
                raise UserError(
                    f"source '{name}' ended after {taken[name]} documents, before the blend held {documents}; "
                    "lower `documents` or the source's weight"
                )
            return
        taken[name] += 1
        produced += 1
        yield document


class Deduplicated:
    """Normalised documents without exact duplicates; the seen ids lie on disk, so that memory stays constant."""

    def __init__(self, documents: Iterable[Document], scratch: Path) -> None:
        self.documents = documents
        self.scratch = scratch / "seen.sqlite"
        self.removed = 0

    def __iter__(self) -> Iterator[Document]:
        seen = sqlite3.connect(self.scratch)
        try:
            seen.execute("PRAGMA journal_mode=OFF")
            seen.execute("PRAGMA synchronous=OFF")
            seen.execute("CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID")
            for raw in self.documents:
                document = raw.normalised()
                if seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (document.id,)).rowcount == 0:
                    self.removed += 1
                else:
                    yield document
        finally:
            seen.close()
            self.scratch.unlink(missing_ok=True)
