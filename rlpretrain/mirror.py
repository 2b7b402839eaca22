"""Copies of what the Hugging Face hub holds, as artifacts: the rows of a split, a model, a tokenizer.

A branch or tag is read at the commit that it is when the copying begins; the manifest's facts tell it.

    datasets/ID/REVISION/SUBSET-OR-FILE/SPLIT   rows-00000.jsonl.gz ..., every column as the hub gives it
    models/ID/REVISION                          config, safetensors and tokenizer
    tokenizers/ID/REVISION                      the tokenizer alone

A split is copied whole, in its order, whatever a profile takes of it.
"""

import gzip
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlpretrain.artifacts import MANIFEST, write_manifest
from rlpretrain.data.sources import hub_rows
from rlpretrain.hub import Kind, check_repository
from rlpretrain.settings import SourceSettings
from rlpretrain.storage import exists, upload_folder

PART_BYTES = 2**30  # of uncompressed rows; a stage that reads them holds one part on its disk
_TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "config.json")
_MODEL = (*_TOKENIZER, "*.safetensors", "*.safetensors.index.json", "generation_config.json")  # nothing pickled


@dataclass(frozen=True)
class Piece:
    """One thing of the hub."""

    kind: Literal["dataset", "model", "tokenizer"]
    name: str
    revision: str | None
    part: str = ""  # dataset: subset or file, and split
    source: SourceSettings | None = field(default=None, compare=False)  # dataset

    @classmethod
    def of_source(cls, source: SourceSettings) -> "Piece":
        """What a source of kind huggingface reads."""
        part = f"{source.file or source.subset or 'default'}/{source.split}"
        return cls("dataset", str(source.dataset), source.revision, part, source)

    @property
    def place(self) -> str:
        """Its place below the mirror's address."""
        return "/".join(filter(None, (f"{self.kind}s", self.name, self.revision or "main", self.part)))

    @property
    def repository(self) -> tuple[Kind, str, str | None]:
        """What it is a part of, in the hub's terms: a tokenizer comes out of a model."""
        return "dataset" if self.kind == "dataset" else "model", self.name, self.revision

    def check(self, where: str) -> str:
        """The commit that its revision is now; UserError when the hub does not give it."""
        return check_repository(*self.repository, where)


def holds(mirror: str, piece: Piece) -> bool:
    """Whether the mirror at this address has the piece, complete."""
    return exists(f"{mirror}/{piece.place}/{MANIFEST}")


def copy_piece(piece: Piece, mirror: str, commit: str, scratch: Path) -> dict[str, Any]:
    """Fetch a piece at ``commit`` from the hub into ``scratch`` and publish it; returns the manifest's facts."""
    facts: dict[str, Any] = {"commit": commit}
    if piece.source is not None:
        facts["rows"] = _write_rows(hub_rows(piece.source.model_copy(update={"revision": commit})), scratch)
    else:
        _fetch_model(piece, commit, scratch)
    described = {"kind": piece.kind, "name": piece.name, "revision": piece.revision, "part": piece.part}
    manifest = write_manifest(scratch, kind="mirror", settings=described, inputs={}, seed=0, facts=facts)
    upload_folder(scratch, f"{mirror}/{piece.place}")
    return facts | {"bytes": sum(entry.size for entry in manifest.files.values())}


def _write_rows(rows: Iterable[Mapping[str, Any]], folder: Path) -> int:
    """JSON lines in parts of `PART_BYTES`; equal rows give equal bytes. Returns their number."""
    count = part = written = 0
    file: gzip.GzipFile | None = None
    for row in rows:
        line = (json.dumps(row, ensure_ascii=False, default=str) + "\n").encode(errors="surrogatepass")
        if file is None or written + len(line) > PART_BYTES:
            if file is not None:
                file.close()
            # mtime=0: the time of writing would be in the bytes. Level 3: twice as fast as 6, a tenth larger.
            file = gzip.GzipFile(folder / f"rows-{part:05d}.jsonl.gz", "wb", compresslevel=3, mtime=0)
            part, written = part + 1, 0
        file.write(line)
        count, written = count + 1, written + len(line)
    if file is not None:
        file.close()
    return count


def _fetch_model(piece: Piece, commit: str, folder: Path) -> None:
    from huggingface_hub import snapshot_download

    patterns = list(_MODEL if piece.kind == "model" else _TOKENIZER)
    snapshot_download(piece.name, revision=commit, allow_patterns=patterns, local_dir=folder)
    shutil.rmtree(folder / ".cache")  # the client's own notes
