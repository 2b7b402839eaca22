"""What a laptop run was asked for, kept in RUNS/NAME/run.json, so that one that was killed can go on."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from rlpretrain.artifacts import write_bytes_atomically
from rlpretrain.errors import UserError

FILE = "run.json"
LAST_SEED = 2**31 - 1  # that a stage's settings take
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Given(NamedTuple):
    """The options of `python -m pipelines run` that decide what a run is."""

    name: str
    profile: str
    seed: int
    seeds: int
    arms: str | None
    change: list[str] | None
    dry_run: bool
    artifacts: str
    mirror: str | None = None


def check_name(name: str, flag: str = "--name ") -> None:
    """UserError when a name cannot be a run's, here and as part of a place in storage."""
    if not _NAME.fullmatch(name) or name == "latest":
        raise UserError(f"{flag}{name}: use up to 63 lower-case letters, digits, '.', '_' and '-', and not 'latest'")


def check_seeds(seed: int, own: Iterable[int], seeds: int = 1, flag: str = "--seed") -> None:
    """UserError when the seed of a run, or of the last of ``seeds`` runs, and a stage's ``own`` are too large together."""
    if seed < 0 or seed + seeds - 1 + max(own, default=0) > LAST_SEED:
        several = f" --seeds {seeds}" if seeds > 1 else ""
        raise UserError(
            f"{flag} {seed}{several}: a stage's seed, its settings' own added, goes from 0 to {LAST_SEED}; choose another"
        )


def remember(runs: Path, given: Given) -> None:
    """Write the options down; UserError when the folder cannot be written."""
    from pipelines.local import make_folder

    text = json.dumps(given._asdict(), indent=2) + "\n"
    write_bytes_atomically(make_folder(runs / given.name, "--runs") / FILE, text.encode())


def recall(runs: Path, name: str) -> Given:
    """The options of the run called ``name``; UserError when there is none, or they cannot be read."""
    file = runs / name / FILE
    if not file.is_file():
        known = ", ".join(sorted(path.parent.name for path in runs.glob(f"*/{FILE}"))) or "none"
        raise UserError(f"--resume {name}: {runs} holds no run of that name; known: {known}")
    try:
        return TypeAdapter(Given).validate_python(json.loads(file.read_text(encoding="utf-8")), strict=True)
    except ValueError:  # pydantic's too
        raise UserError(f"--resume {name}: {file} is damaged; start the run anew under another name") from None
