"""Rows out of jsonl, parquet and plain text files, under a path or an s3:// or file:/// prefix, one row at a time."""

import gzip
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from rlpretrain.artifacts import MANIFEST, STORED, file_sha256, parse_manifest
from rlpretrain.data.failures import one_line
from rlpretrain.errors import UserError

SUFFIXES = {"jsonl": (".jsonl", ".jsonl.gz"), "parquet": (".parquet",), "text": (".txt", ".md")}
BATCH_ROWS = 256


def data_files(place: str, kind: str, scratch: Path, where: str) -> Iterator[tuple[str, Path]]:
    """Name and path of every file of ``kind`` at ``place``, in the order of their names.

    A file of a prefix lies in ``scratch`` until the next one is asked for; one of an artifact is checked against its
    manifest. Raises UserError, naming ``where``, when there is none or it is damaged.
    """
    suffixes = SUFFIXES[kind]
    if place.startswith(STORED):
        yield from _remote_files(place, suffixes, scratch, where)
        return
    path = Path(place)
    if not path.exists():
        raise UserError(f"{where}: {place} does not exist; mend path")
    if path.is_file():  # named outright: any suffix will do
        yield path.name, path
        return
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.name.endswith(suffixes)}
    if not files:
        raise UserError(f"{where}: {place} holds no {' or '.join(suffixes)} file; mend path or kind")
    yield from sorted(files.items())


def _remote_files(uri: str, suffixes: tuple[str, ...], scratch: Path, where: str) -> Iterator[tuple[str, Path]]:
    from rlpretrain.storage import connect  # boto3 is needed for addresses alone

    store = connect(uri)
    manifest = parse_manifest(store.get_bytes(MANIFEST), f"{where}: {uri}") if store.exists(MANIFEST) else None
    listed = store.keys() if manifest is None else manifest.files
    keys = sorted(key for key in listed if key.endswith(suffixes))
    if not keys:  # the URI may name one file
        parent, _, name = uri.rpartition("/")
        if parent in ("s3:/", "") or not name or not connect(parent).exists(name):
            raise UserError(f"{where}: {uri} holds no {' or '.join(suffixes)} file; mend path or kind")
        store, keys = connect(parent), [name]
    for key in keys:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            path = Path(folder) / Path(key).name
            store.get_file(key, path)
            if manifest is not None and file_sha256(path) != manifest.files[key].sha256:
                raise UserError(
                    f"{where}: {uri}/{key} is corrupted, its checksum is not the manifest's; fetch it again"
                )
            yield key, path


def read_rows(path: Path, kind: str, columns: Sequence[str], where: str) -> Iterator[dict[str, Any]]:
    """Rows of one file, with at least those of ``columns`` that it has. A plain text file is one row of the first column.

    Raises UserError, naming ``where``, when the file is damaged or of another kind.
    """
    read = {"jsonl": _jsonl, "parquet": _parquet, "text": _text}[kind]
    try:
        yield from read(path, columns, where)
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from None
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        raise UserError(f"{where} is no readable {kind} file ({one_line(error)}); replace it") from None


def _text(path: Path, columns: Sequence[str], where: str) -> Iterator[dict[str, Any]]:
    yield {columns[0]: path.read_text(encoding="utf-8-sig")}


def _parquet(path: Path, columns: Sequence[str], where: str) -> Iterator[dict[str, Any]]:
    with pyarrow.parquet.ParquetFile(path) as file:
        present = set(columns).intersection(file.schema_arrow.names)
        # Without the wanted columns all are read, so that the complaint can list them.
        wanted = (
            [column for column in columns if column in present]
            if columns and len(present) == len(set(columns))
            else None
        )
        for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
            yield from batch.to_pylist()


def _jsonl(path: Path, columns: Sequence[str], where: str) -> Iterator[dict[str, Any]]:
    with _open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # also numbers and nesting beyond what Python reads
                raise UserError(f"{where} line {number} is not JSON: {one_line(error)}; mend the line") from None
            if not isinstance(row, dict):
                raise UserError(f"{where} line {number} is not a JSON object; mend the line")
            yield row


def _open_text(path: Path) -> IO[str]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")
