"""Suites: a folder each, with suite.yaml and an lm-eval task file for every benchmark."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal

import yaml
from pydantic import Field

from rlpretrain.errors import UserError
from rlpretrain.settings import Settings, parse_settings


class Suite(Settings):
    """The content of suite.yaml."""

    open_thought: bool = Field(description="whether every prompt ends with the opening delimiter of a thought")
    answer_patterns: tuple[str, ...] = Field(
        min_length=1, description="regular expressions, one group each; see rlpretrain.answers"
    )
    benchmarks: dict[str, Literal["math", "science"]] = Field(min_length=1, description="name -> group")


def load_suite(name: str) -> tuple[Suite, dict[str, dict[str, Any]]]:
    """A suite, and by benchmark the configuration of its lm-eval task; UserError for an unknown name."""
    root = files(__package__)
    folder = root.joinpath(name)
    if not name.isidentifier() or not folder.joinpath("suite.yaml").is_file():
        known = sorted(entry.name for entry in root.iterdir() if entry.joinpath("suite.yaml").is_file())
        raise UserError(f"suite: unknown suite '{name}'; known: {', '.join(known)}")
    suite = parse_settings(Suite, _read(folder.joinpath("suite.yaml")), f"suite {name}")
    return suite, {benchmark: _task(folder, f"{benchmark}.yaml") for benchmark in suite.benchmarks}


def _task(folder: Traversable, file: str) -> dict[str, Any]:
    """A task file over the one that it includes, as lm-eval reads them: the file's own keys win."""
    task = _read(folder.joinpath(file))
    included = task.pop("include", None)
    return task if included is None else {**_task(folder, included), **task}


def _read(file: Traversable) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))
