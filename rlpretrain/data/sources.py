"""Where documents come from: Hugging Face data sets, files under a path or an s3:// prefix, and generators."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rlpretrain.artifacts import STORED, file_sha256
from rlpretrain.data import gsm_symbolic, synthetic
from rlpretrain.data.conversions import CONVERSIONS, Conversion
from rlpretrain.data.documents import Document
from rlpretrain.data.failures import one_line
from rlpretrain.data.files import data_files, read_rows
from rlpretrain.errors import UserError, local_errors
from rlpretrain.hub import check_repository, gated
from rlpretrain.settings import SourceSettings

GENERATORS: Mapping[str, Callable[..., Iterator[Document]]] = {**gsm_symbolic.GENERATORS, **synthetic.GENERATORS}


def read_source(
    settings: SourceSettings, seed: int, scratch: Path, origin: dict[str, Any] | None = None
) -> Iterator[Document]:
    """Stream the documents of one source, in its own order; iterating raises UserError when it cannot be read.

    Files of an s3:// prefix pass through ``scratch`` one by one. A document's source is the source's name, but a generator
    may name its own (a benchmark's name). ``origin`` is told what was read: a revision, or number and checksum of the files.
    """
    origin = {} if origin is None else origin
    if settings.kind == "huggingface":
        origin |= {"dataset": settings.dataset, "revision": settings.revision}
        documents = _huggingface(settings)
    elif settings.kind == "generator":
        origin |= {"generator": settings.generator}
        documents = _generator(settings, seed)
    else:
        documents = _files(settings, scratch, origin)
    return islice(documents, settings.documents)


def _generator(settings: SourceSettings, seed: int) -> Iterator[Document]:
    generate = GENERATORS.get(settings.generator or "")
    if generate is None:
        known = ", ".join(sorted(GENERATORS))
        raise UserError(f"source '{settings.name}': unknown generator '{settings.generator}'; known: {known}")
    try:
        documents = generate(documents=settings.documents, split=settings.split, seed=seed, **settings.options)
        first = list(islice(documents, 1))  # which shows values of a wrong kind, too
    except TypeError as error:
        raise UserError(f"source '{settings.name}': options do not fit the generator: {error}") from None
    for document in chain(first, documents):
        yield document if document.source else replace(document, source=settings.name)


def first_document(settings: SourceSettings, seed: int, files: bool) -> Document | None:
    """What a generator or, with ``files``, a file of this machine begins with; None for what is read elsewhere or is empty.

    UserError for what reading the source would end with at once: an unknown generator or conversion, options that do not
    fit, a file that is not there or lacks a column.
    """
    if settings.conversion is not None:
        _conversion(settings)
    if settings.kind == "generator":
        return next(_generator(settings, seed), None)
    if settings.kind == "huggingface" or not files or str(settings.path).startswith(STORED):
        return None
    where = f"source '{settings.name}'"
    name, path = next(data_files(str(settings.path), settings.kind, Path(), where))
    return next(_documents(_rows(settings, name, path), settings, name), None)


def benchmark_names(settings: SourceSettings, seed: int) -> Iterator[str]:
    """The benchmarks that a source's items are of, maybe repeatedly."""
    if settings.kind != "generator":
        yield settings.name
    else:
        yield from (document.source for document in islice(_generator(settings, seed), settings.documents))


def _huggingface(settings: SourceSettings) -> Iterator[Document]:
    yield from _documents(hub_rows(settings), settings, f"data set {settings.dataset}")


def hub_rows(settings: SourceSettings) -> Iterator[Mapping[str, Any]]:
    """The rows of a data set of the hub, with all their columns; UserError when it cannot be read."""
    import datasets

    try:
        if settings.file is not None:
            place = f"hf://datasets/{settings.dataset}@{settings.revision}/{settings.file}"
            yield from datasets.load_dataset("json", data_files=place, split="train", streaming=True)
        else:
            yield from datasets.load_dataset(
                str(settings.dataset), settings.subset, revision=settings.revision, split=settings.split, streaming=True
            )
    except Exception as error:  # the hub's client raises a dozen unrelated types: all mean that it cannot be read
        if "gated" in str(error).lower():
            raise UserError(f"source '{settings.name}': {gated(f'data set {settings.dataset}')}") from None
        raise UserError(
            f"source '{settings.name}': cannot read data set {settings.dataset} at {settings.revision}: "
            f"{one_line(error)}; check id, subset, revision, split, access and network"
        ) from None


def check_hub(sources: Iterable[SourceSettings]) -> dict[tuple[str, str | None], str]:
    """The commits of the hub's data sets, by id and revision.

    UserError, before any is read, for the first source that the hub does not have, keeps, or cannot be asked for.
    """
    commits: dict[tuple[str, str | None], str] = {}
    for source in sources:
        repository = (str(source.dataset), source.revision)
        if source.kind == "huggingface" and repository not in commits:
            commits[repository] = check_repository("dataset", *repository, f"source '{source.name}'")
    return commits


def _files(settings: SourceSettings, scratch: Path, origin: dict[str, Any]) -> Iterator[Document]:
    digest = hashlib.sha256()
    files = data_files(str(settings.path), settings.kind, scratch, f"source '{settings.name}'")
    for count, (name, path) in enumerate(files, start=1):
        with local_errors(path):
            digest.update(f"{name} {file_sha256(path)}\n".encode())
        origin |= {"files": count, "sha256": digest.hexdigest()}
        yield from _documents(_rows(settings, name, path), settings, name)


def _rows(settings: SourceSettings, name: str, path: Path) -> Iterator[Mapping[str, Any]]:
    columns = [c for c in (settings.text_field, settings.prompt_field, settings.answer_field) if c is not None]
    if settings.conversion is not None:
        columns = []  # all there are
    return read_rows(path, settings.kind, columns, f"source '{settings.name}': {name}")


def _documents(rows: Iterable[Mapping[str, Any]], settings: SourceSettings, where: str) -> Iterator[Document]:
    if settings.conversion is not None:
        yield from _converted(rows, settings, where)
        return
    for row in rows:
        prompt = _field(row, settings.prompt_field, settings, where)
        answer = _field(row, settings.answer_field, settings, where)
        # A problem has a prompt and an answer, and its text column may be absent.
        problem = settings.answer_field is not None and settings.text_field not in row
        text = "" if problem else _field(row, settings.text_field, settings, where)
        if prompt:
            prompt = settings.prompt_template.replace("{prompt}", prompt)
        yield Document(text, prompt, answer, settings.name)


def _converted(rows: Iterable[Mapping[str, Any]], settings: SourceSettings, where: str) -> Iterator[Document]:
    convert = _conversion(settings)
    for number, row in enumerate(rows, start=1):
        try:
            document = convert(row)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            columns = ", ".join(map(str, row))
            raise UserError(
                f"source '{settings.name}': {where}: row {number} does not fit conversion '{settings.conversion}' "
                f"({type(error).__name__}: {one_line(error)}); it has the columns: {columns}"
            ) from None
        if document is not None:
            yield replace(document, source=settings.name)


def _conversion(settings: SourceSettings) -> Conversion:
    convert = CONVERSIONS.get(str(settings.conversion))
    if convert is None:
        known = ", ".join(sorted(CONVERSIONS))
        raise UserError(f"source '{settings.name}': unknown conversion '{settings.conversion}'; known: {known}")
    return convert


def _field(row: Mapping[str, Any], field: str | None, settings: SourceSettings, where: str) -> str:
    """A column as text, "" for null; UserError when the column is missing or holds a list or a mapping."""
    if field is None:
        return ""
    if field not in row:
        known = ", ".join(map(str, row))
        raise UserError(f"source '{settings.name}': {where} has no column '{field}'; it has: {known}")
    value = row[field]
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        kind = type(value).__name__
        raise UserError(f"source '{settings.name}': {where}: column '{field}' holds a {kind}; name a column of text")
    return str(value)
