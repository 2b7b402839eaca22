"""Where documents come from: Hugging Face data sets, files under a path or an s3:// prefix, and generators."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet

from rlpretrain.data import gsm_symbolic, synthetic
from rlpretrain.data.documents import Document
from rlpretrain.errors import UserError
from rlpretrain.settings import SourceSettings

GENERATORS: Mapping[str, Callable[..., Iterator[Document]]] = {**gsm_symbolic.GENERATORS, **synthetic.GENERATORS}
SUFFIXES = {"jsonl": (".jsonl",), "parquet": (".parquet",), "text": (".txt", ".md")}


def read_source(settings: SourceSettings, seed: int) -> Iterator[Document]:
    """Stream the documents of one source, in its own order; UserError when it cannot be read."""
    read = {"huggingface": _huggingface, "generator": _generator}.get(settings.kind)
    documents = read(settings, seed) if read else _files(settings)
    return islice(documents, settings.documents)


def _generator(settings: SourceSettings, seed: int) -> Iterator[Document]:
    generate = GENERATORS.get(settings.generator or "")
    if generate is None:
        known = ", ".join(sorted(GENERATORS))
        raise UserError(f"source '{settings.name}': unknown generator '{settings.generator}'; known: {known}")
    try:
        return generate(documents=settings.documents, split=settings.split, seed=seed, **settings.options)
    except TypeError as error:
        raise UserError(f"source '{settings.name}': options do not fit the generator: {error}") from None


def _huggingface(settings: SourceSettings, seed: int) -> Iterator[Document]:
    import datasets

    try:
        rows = datasets.load_dataset(
            str(settings.dataset), settings.subset, revision=settings.revision, split=settings.split, streaming=True
        )
        yield from _documents(rows, settings, f"data set {settings.dataset}")
    except UserError:
        raise
    except Exception as error:  # the hub's client raises a dozen unrelated types: all mean that it cannot be read
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"source '{settings.name}': cannot read data set {settings.dataset} at {settings.revision}: {reason}; "
            "check id, subset, revision, split and access"
        ) from None


def _files(settings: SourceSettings) -> Iterator[Document]:
    path = str(settings.path)
    if path.startswith("s3://"):
        from rlpretrain.storage import download_files

        with tempfile.TemporaryDirectory() as folder:
            download_files(path, Path(folder))
            yield from _folder(Path(folder), settings)
    else:
        yield from _folder(Path(path), settings)


def _folder(path: Path, settings: SourceSettings) -> Iterator[Document]:
    suffixes = SUFFIXES[settings.kind]
    if path.is_file():
        files = [path]
    else:
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in suffixes)
    if not files:
        raise UserError(f"source '{settings.name}': {settings.path} holds no {' or '.join(suffixes)} file; mend path or kind")
    for file in files:
        yield from _documents(_rows(file, settings), settings, file.name)


def _rows(file: Path, settings: SourceSettings) -> Iterator[dict[str, Any]]:
    """Rows of a file; a plain text file is one document."""
    if settings.kind == "text":
        yield {settings.text_field: file.read_text(encoding="utf-8", errors="replace")}
    elif settings.kind == "parquet":
        try:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
                yield from batch.to_pylist()
        except pyarrow.ArrowInvalid as error:
            raise UserError(f"source '{settings.name}': {file.name} is no parquet file: {error}") from None
    else:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(f"source '{settings.name}': {file.name} line {number} is not JSON: {error}") from None
                if not isinstance(row, dict):
                    raise UserError(f"source '{settings.name}': {file.name} line {number} is not a JSON object")
                yield row


def _documents(rows: Iterable[Mapping[str, Any]], settings: SourceSettings, where: str) -> Iterator[Document]:
    for row in rows:
        prompt = _field(row, settings.prompt_field, settings, where)
        answer = _field(row, settings.answer_field, settings, where)
        # A problem has a prompt and an answer, and its text column may be absent.
        text = "" if answer and settings.text_field not in row else _field(row, settings.text_field, settings, where)
        if prompt:
            prompt = settings.prompt_template.replace("{prompt}", prompt)
        yield Document(text, prompt, answer, settings.name)


def _field(row: Mapping[str, Any], field: str | None, settings: SourceSettings, where: str) -> str:
    if field is None:
        return ""
    if field not in row:
        known = ", ".join(map(str, row))
        raise UserError(f"source '{settings.name}': {where} has no column '{field}'; it has: {known}")
    return str(row[field])
