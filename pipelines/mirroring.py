"""A profile's data sets and models out of the Hugging Face hub into storage, and a profile that reads them there.

python -m pipelines mirror --profile qwen3-1.7b --to s3://BUCKET/mirror [--only benchmarks]
python -m pipelines run --profile qwen3-1.7b --mirror s3://BUCKET/mirror      # and so do ablate, compile, submit, schedule
"""

import tempfile
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from pipelines.checks import hub_models, hub_sources
from pipelines.profile import Profile
from rlpretrain.errors import UserError
from rlpretrain.hub import is_hub_id
from rlpretrain.mirror import Piece, copy_piece, holds
from rlpretrain.settings import parse_settings
from rlpretrain.storage import create_bucket

Pieces = dict[Piece, str]  # with the field that asks for each


def pieces(profile: Profile, benchmarks_only: bool = False) -> Pieces:
    """What the profile takes from the hub, the evaluation sets first."""
    found: Pieces = {}
    for path, _, source in hub_sources(profile):
        if path == ("shard_benchmarks",) or not benchmarks_only:
            found.setdefault(Piece.of_source(source), f"source '{source.name}'")
    if not benchmarks_only:
        for name, revision, field in _tokenizers(profile):
            found.setdefault(Piece("tokenizer", name, revision), field)
        for (name, revision), field in hub_models(profile).items():
            if not field.endswith(".tokenizer"):
                found.setdefault(Piece("model", name, revision), field)
    return found


def copy_all(wanted: Pieces, mirror: str, scratch: Path) -> None:
    """Copy the pieces that the mirror lacks, telling of each; UserError before any is copied when the hub lacks one."""
    create_bucket(mirror)
    missing, commits = [], {}
    for piece, field in wanted.items():
        if holds(mirror, piece):
            print(f"{piece.place}: there already", flush=True)
            continue
        missing.append(piece)
        if piece.repository not in commits:  # asked for once: a branch may move between two questions
            commits[piece.repository] = piece.check(field)
    for piece in missing:
        with tempfile.TemporaryDirectory(prefix=".mirror-", dir=scratch) as folder:  # a /tmp may lie in memory
            facts = copy_piece(piece, mirror, commits[piece.repository], Path(folder))
        rows = f"{facts['rows']:,} rows, " if "rows" in facts else ""
        print(f"{piece.place}: {rows}{facts['bytes'] / 1e6:,.1f} MB", flush=True)
    print(f"mirror: {mirror}")


def mirrored(profile: Profile, mirror: str) -> Profile:
    """The profile with the mirror's places for all that it holds; ids and revisions stay, to say where it came from.

    What the mirror lacks stays with the hub, and is named.
    """
    held = {piece.place: holds(mirror, piece) for piece in pieces(profile)}
    if held and not any(held.values()):
        raise UserError(
            f"--mirror {mirror}: holds nothing that the profile reads; fill it with `mirror --to`, or mend the place"
        )
    values = profile.model_dump(mode="json", exclude_unset=True)

    def stored(piece: Piece) -> str | None:
        return f"{mirror}/{piece.place}" if held[piece.place] else None

    for path, place, source in hub_sources(profile):
        there = stored(Piece.of_source(source))
        if there is not None:
            reduce(getitem, path, values)["sources"][place] |= {"kind": "jsonl", "path": there}
    for task in (name for name in values if name.startswith("shard_")):
        _rename(values[task]["tokenizer"], "name", "revision", "tokenizer", stored)
    _rename(values["base"], "initial_model", "initial_revision", "model", stored)
    _rename(values["rpt"].get("thinking", {}).get("proxy") or {}, "model", "revision", "model", stored)
    left = sorted(place for place, is_held in held.items() if not is_held)
    if left:
        print(f"{mirror} lacks, and the hub is asked for: {', '.join(left)}", flush=True)
    return parse_settings(Profile, values, "mirror")


def _rename(values: dict[str, Any], field: str, revision: str, kind: Any, stored: Any) -> None:
    name = values.get(field)
    if name is not None and is_hub_id(name):
        values[field] = stored(Piece(kind, name, values.get(revision))) or name


def _tokenizers(profile: Profile) -> list[tuple[str, str | None, str]]:
    """Tokenizers of the hub: name, revision, the field."""
    tasks = [name for name in Profile.model_fields if name.startswith("shard_")]
    named = [(getattr(profile, task).tokenizer, f"{task}.tokenizer") for task in tasks]
    return [(settings.name, settings.revision, field) for settings, field in named if is_hub_id(settings.name)]
