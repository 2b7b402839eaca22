"""Shards: zstd parquet files of tokenised documents, one row a document, a target number of tokens a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlpretrain.data.failures import one_line
from rlpretrain.errors import UserError

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("prompt_length", pa.int32()),  # leading tokens that no loss is taken on
        ("answer", pa.string()),
        ("source", pa.string()),
        ("prompt", pa.string()),  # the prompt's text, for problems and benchmark items alone
    ]
)
BATCH_ROWS = 1024
BATCH_TOKENS = 2**20  # long documents are written sooner


@dataclass(frozen=True, eq=False)
class Example:
    """One tokenised document."""

    id: str
    tokens: np.ndarray  # int32
    prompt_length: int
    answer: str = ""
    source: str = ""
    prompt: str = ""
    side: int = 0  # chooses the split; not written
    cut: bool = False  # whether its text goes on; not written


class ShardWriter:
    """Writes SPLIT-00000.parquet, SPLIT-00001.parquet, ... ; equal examples give equal bytes."""

    def __init__(self, folder: Path, split: str, shard_tokens: int) -> None:
        self.folder = folder
        self.split = split
        self.shard_tokens = shard_tokens
        self.shards = self.documents = self.tokens = 0
        self._rows: list[Example] = []
        self._file: pq.ParquetWriter | None = None
        self._file_tokens = self._batch_tokens = 0

    def add(self, example: Example) -> None:
        """Append one document; a file is finished once it holds the target number of tokens."""
        self._rows.append(example)
        self.documents += 1
        self.tokens += len(example.tokens)
        self._file_tokens += len(example.tokens)
        self._batch_tokens += len(example.tokens)
        full = self._file_tokens >= self.shard_tokens
        if full or len(self._rows) >= BATCH_ROWS or self._batch_tokens >= BATCH_TOKENS:
            self._flush()
        if full:
            self._finish_file()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._finish_file()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._file is None:
            path = self.folder / f"{self.split}-{self.shards:05d}.parquet"
            self._file = pq.ParquetWriter(path, SCHEMA, compression="zstd")
            self.shards += 1
        columns = {name: [getattr(row, name) for row in self._rows] for name in SCHEMA.names}
        self._file.write_table(pa.table(columns, schema=SCHEMA))
        self._rows = []
        self._batch_tokens = 0

    def _finish_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        self._file_tokens = 0


def shard_files(folder: Path, split: str) -> list[Path]:
    """The files of a split, in order."""
    return sorted(folder.glob(f"{split}-[0-9][0-9][0-9][0-9][0-9].parquet"))


def read_shards(folder: Path, split: str) -> Iterator[Example]:
    """The documents of a split, in the order in which they were written."""
    for file in shard_files(folder, split):
        yield from read_shard(file)


def count_documents(file: Path) -> int:
    """Documents of one file, out of its footer; UserError when it is no shard."""
    try:
        return pq.read_metadata(file).num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(file, error) from None


def read_shard(file: Path) -> Iterator[Example]:
    """The documents of one file; UserError when it is no shard."""
    try:
        with pq.ParquetFile(file) as shard:
            for batch in shard.iter_batches(BATCH_ROWS):
                yield from _examples(batch)
    # Changed bytes can also make other columns, other types of them, and text that is no UTF-8.
    except (pa.ArrowException, OSError, LookupError, ValueError, AttributeError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{file.name}: not a readable shard ({one_line(error)}); shard the data again")


def _examples(batch: pa.RecordBatch) -> Iterator[Example]:
    tokens = batch.column("tokens")
    values = tokens.flatten().to_numpy()
    ends = np.cumsum(tokens.value_lengths().to_numpy())
    others = [batch.column(name).to_pylist() for name in ("id", "prompt_length", "answer", "source", "prompt")]
    start = 0
    for end, identity, prompt_length, answer, source, prompt in zip(ends.tolist(), *others, strict=True):
        yield Example(identity, values[start:end], prompt_length, answer, source, prompt)
        start = end
