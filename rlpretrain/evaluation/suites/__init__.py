"""Suites: a folder each, with suite.yaml and an lm-eval task file for every benchmark."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator

from rlpretrain.errors import UserError
from rlpretrain.evaluation.averages import Rule
from rlpretrain.settings import EvaluateSettings, Settings, parse_settings


class Benchmark(Settings):
    """How one row of the results is measured."""

    group: Literal["math", "science", "science_sampled"] = Field(description="the group that it is averaged in")
    items: str | None = Field(None, description="benchmark whose items it asks; default: its own")
    greedy: bool = Field(False, description="one response at temperature 0 instead of k sampled ones")
    repeats: int | None = Field(None, ge=1, description="k; default: the evaluation's setting")


class Suite(Settings):
    """The content of suite.yaml."""

    open_thought: bool = Field(description="whether every prompt ends with the opening delimiter of a thought")
    answer_patterns: tuple[str, ...] = Field(
        min_length=1, description="regular expressions, one group each; see rlpretrain.answers"
    )
    symbolic: bool = Field(False, description="whether answers are compared as mathematics")
    averages: Rule = Field("groups", description="see rlpretrain.evaluation.averages")
    benchmarks: dict[str, Benchmark] = Field(min_length=1, description="by name; a group alone is short for the rest")

    @field_validator("benchmarks", mode="before")
    @classmethod
    def _short(cls, benchmarks: Any) -> Any:
        if not isinstance(benchmarks, dict):
            return benchmarks
        return {name: {"group": row} if isinstance(row, str) else row for name, row in benchmarks.items()}

    @property
    def groups(self) -> dict[str, str]:
        """Benchmark -> group."""
        return {name: benchmark.group for name, benchmark in self.benchmarks.items()}

    @property
    def items(self) -> dict[str, str]:
        """Benchmark -> the one whose items it asks."""
        return {name: benchmark.items or name for name, benchmark in self.benchmarks.items()}


def load_suite(name: str, where: str = "") -> tuple[Suite, dict[str, dict[str, Any]]]:
    """A suite, and by benchmark the configuration of its lm-eval task; UserError, naming ``where``, for an unknown name."""
    root = files(__package__)
    folder = root.joinpath(name)
    if not name.isidentifier() or not folder.joinpath("suite.yaml").is_file():
        known = sorted(entry.name for entry in root.iterdir() if entry.joinpath("suite.yaml").is_file())
        raise UserError(f"{where}suite: unknown suite '{name}'; known: {', '.join(known)}")
    suite = parse_settings(Suite, _read(folder.joinpath("suite.yaml")), f"suite {name}")
    return suite, {benchmark: _task(folder, f"{benchmark}.yaml") for benchmark in suite.benchmarks}


def check_limit(settings: EvaluateSettings, suite: Suite, where: str = "") -> None:
    """UserError, naming ``where``, when the limit names a benchmark whose items the suite does not ask."""
    known = set(suite.items.values())
    if isinstance(settings.limit, dict) and (unknown := sorted(settings.limit.keys() - known)):
        raise UserError(
            f"{where}limit: suite '{settings.suite}' has no benchmark '{unknown[0]}'; known: {', '.join(sorted(known))}"
        )


def _task(folder: Traversable, file: str) -> dict[str, Any]:
    """A task file over the one that it includes, as lm-eval reads them: the file's own keys win."""
    task = _read(folder.joinpath(file))
    included = task.pop("include", None)
    return task if included is None else {**_task(folder, included), **task}


def _read(file: Traversable) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))
