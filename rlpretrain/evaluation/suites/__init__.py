"""Suites: which benchmarks belong together, how their prompts end and how an answer is read from a response."""

import re
from importlib.resources import files
from typing import Any, Literal

import yaml

from rlpretrain.errors import UserError
from rlpretrain.settings import Settings, parse_settings


class Suite(Settings):
    """The content of suite.yaml."""

    open_thought: bool
    answer_pattern: str
    benchmarks: dict[str, Literal["math", "science"]]

    def extract(self, response: str) -> str | None:
        """The answer in a response, None when there is none; an unclosed thought holds no answer."""
        found = re.findall(self.answer_pattern, response)
        return str(found[-1]).replace(",", "").strip() if found else None


def load_suite(name: str) -> tuple[Suite, dict[str, Any]]:
    """A suite and its lm-eval task; UserError for an unknown name."""
    folder = files(__package__).joinpath(name)
    if not name.isidentifier() or not folder.is_dir():
        known = sorted(entry.name for entry in files(__package__).iterdir() if entry.joinpath("suite.yaml").is_file())
        raise UserError(f"suite: unknown suite '{name}'; known: {', '.join(known)}")
    suite = parse_settings(Suite, yaml.safe_load(folder.joinpath("suite.yaml").read_text()), f"suite {name}")
    return suite, yaml.safe_load(folder.joinpath("task.yaml").read_text())
