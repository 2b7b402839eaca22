"""Text of any kind as examples for a model that is there already: a file, a folder, shards, a generator, a described source."""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from rlpretrain.artifacts import MANIFEST, read_manifest
from rlpretrain.data.build import TOKENIZER_FOLDER
from rlpretrain.data.files import SUFFIXES
from rlpretrain.data.shards import Example, read_shards, shard_files
from rlpretrain.data.sources import read_source
from rlpretrain.data.tokenising import Encoder
from rlpretrain.errors import UserError
from rlpretrain.settings import SourceSettings, load_settings
from rlpretrain.tokenizer import load_tokenizer, tokenizer_digest

GENERATOR = "generator:"


def read_corpus(
    place: str, tokenizer: PreTrainedTokenizerBase, documents: int, field: str = "text", seed: int = 0
) -> list[Example]:
    """Up to ``documents`` documents of ``place`` in the tokenizer's tokens.

    ``place`` is a text, jsonl or parquet file, a folder or s3:// prefix of those, a shards artifact, generator:NAME, or a
    .yaml file that describes a source as `shard_data` takes it; ``field`` is the column that holds the text.
    Raises UserError when it cannot be read or holds no text.
    """
    if (Path(place) / MANIFEST).is_file():
        examples = islice(_shards(Path(place), tokenizer), documents)
    else:
        examples = islice(_encoded(_source(place, documents, field), tokenizer, seed), documents)
    found = list(examples)
    if not found:
        raise UserError(f"--corpus {place}: holds no document of two tokens or more; give a text")
    return found


def _source(place: str, documents: int, field: str) -> SourceSettings:
    if place.startswith(GENERATOR):
        name = place.removeprefix(GENERATOR)
        return SourceSettings(name=name, kind="generator", generator=name, documents=documents)
    if place.endswith((".yaml", ".yml")):
        source = load_settings(SourceSettings, Path(place))
        return source.model_copy(update={"documents": min(documents, source.documents or documents)})
    if not place.startswith("s3://") and not Path(place).exists():
        raise UserError(
            f"--corpus {place}: does not exist; give a text, jsonl or parquet file or a folder of them, shards, "
            f"{GENERATOR}NAME, or a .yaml that describes a source"
        )
    return SourceSettings(name="corpus", kind=_kind(place), path=place, text_field=field)


def _kind(place: str) -> str:
    """By a file's suffix; a folder's by what it holds; a file without a known one is read as text."""
    path = Path(place)
    names = [file.name for file in path.rglob("*")] if path.is_dir() else [path.name]
    for kind in ("jsonl", "parquet"):
        if any(name.endswith(SUFFIXES[kind]) for name in names):
            return kind
    return "text"


def _encoded(source: SourceSettings, tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Example]:
    encoder = Encoder(tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        for document in read_source(source, seed, Path(scratch)):
            [result] = encoder([document.normalised()])
            if isinstance(result, Example) and len(result.tokens) >= 2:
                yield result


def _shards(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Iterator[Example]:
    """The held-out documents, where there are any: what a model was not trained on."""
    read_manifest(folder, "shards")
    if tokenizer_digest(load_tokenizer(str(folder / TOKENIZER_FOLDER))) != tokenizer_digest(tokenizer):
        raise UserError(f"--corpus {folder}: was tokenised for another model; give the text itself")
    splits = [split for split in ("held_out", "train", "test") if shard_files(folder, split)]
    return iter(()) if not splits else read_shards(folder, splits[0])
