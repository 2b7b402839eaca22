"""Profiles: the settings of every stage of a reproduction, validated before any work begins."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from rlpretrain.errors import UserError
from rlpretrain.settings import (
    CompareSettings,
    EvaluateSettings,
    FinetuneSettings,
    PretrainSettings,
    ReinforceSettings,
    Settings,
    ShardDataSettings,
    parse_settings,
)


class Profile(Settings):
    """One settings object a task of the DAG."""

    shard_benchmarks: ShardDataSettings
    shard_base_corpus: ShardDataSettings
    shard_corpus: ShardDataSettings
    shard_sft: ShardDataSettings
    shard_rlvr: ShardDataSettings
    base: PretrainSettings
    cpt: PretrainSettings
    rlp: PretrainSettings
    sft: FinetuneSettings
    rlvr: ReinforceSettings
    evaluate: EvaluateSettings
    compare: CompareSettings


def names() -> list[str]:
    """The profiles there are."""
    folder = files("pipelines").joinpath("profiles")
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_profile(name: str, changes: dict[str, Any] | None = None) -> Profile:
    """A profile with ``changes`` (dotted field to value) applied; UserError for an unknown profile or setting."""
    if name not in names():
        raise UserError(f"unknown profile '{name}'; known: {', '.join(names())}")
    values = yaml.safe_load(files("pipelines").joinpath("profiles", f"{name}.yaml").read_text(encoding="utf-8"))
    values.pop("shared", None)  # holds YAML anchors alone
    for field, value in (changes or {}).items():
        _set(values, field, value)
    return parse_settings(Profile, values, f"profile {name}")


def parse_changes(pairs: list[str]) -> dict[str, Any]:
    """FIELD=VALUE pairs, the values read as YAML."""
    changes = {}
    for pair in pairs:
        field, separator, value = pair.partition("=")
        if not separator or not field:
            raise UserError(f"--set {pair}: write it as STAGE.FIELD=VALUE")
        changes[field] = yaml.safe_load(value)
    return changes


def _set(values: dict[str, Any], field: str, value: Any) -> None:
    *path, last = field.split(".")
    for name in path:
        if not isinstance(values.setdefault(name, {}), dict):
            raise UserError(f"--set {field}: '{name}' holds no settings of its own; mend the name")
        values = values[name]
    values[last] = value
