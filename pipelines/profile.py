"""Profiles: the settings of every stage of a reproduction, validated before any work begins."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from pipelines.arms import DERIVED, add_derived_arms
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


class HardwareSettings(Settings):
    """The GPU nodes that a profile is meant for."""

    gpu: Literal["a100", "h100", "h200", "b200", "l40s"] = "h100"
    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(8, ge=1)

    @property
    def gpus(self) -> int:
        """All of them."""
        return self.nodes * self.gpus_per_node


class CorpusSweep(Settings):
    """Documents that take the place of the profile's own."""

    default: str = Field(description="name of the profile's own documents")
    others: dict[str, dict[str, Any]] = Field(
        min_length=1, description="by name, settings over those of `shard_corpus`, for example `sources`"
    )


class AblationSettings(Settings):
    """The values of each ablation, beside the profile's own."""

    rollouts: tuple[int, ...] = Field((), description="thoughts a context, G")
    thought_budget: tuple[int, ...] = Field((), description="tokens")
    kl_weight: tuple[float, ...] = Field((), description="beta")
    ema_decay: tuple[float, ...] = Field((), description="tau")
    positions: tuple[int, ...] = Field((), description="positions a document, K")
    corpus: CorpusSweep | None = None
    domains: CorpusSweep | None = None


class Profile(Settings):
    """One settings object a task of the DAG."""

    hardware: HardwareSettings | None = Field(None, description="none: a laptop will do")
    shard_benchmarks: ShardDataSettings
    shard_base_corpus: ShardDataSettings
    shard_corpus: ShardDataSettings
    shard_sft: ShardDataSettings
    shard_rlvr: ShardDataSettings
    base: PretrainSettings
    cpt: PretrainSettings
    rlp: PretrainSettings
    cpt_flops: PretrainSettings
    rpt: PretrainSettings
    sft: FinetuneSettings
    rlvr: ReinforceSettings
    evaluate: EvaluateSettings
    compare: CompareSettings
    ablations: AblationSettings | None = Field(None, description="none: the profile has no ablations")


def names() -> list[str]:
    """The profiles there are."""
    folder = files("pipelines").joinpath("profiles")
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_profile(name: str, changes: dict[str, Any] | None = None) -> Profile:
    """A profile with ``changes`` (dotted field to value) applied; UserError for an unknown profile or setting.

    Arms that follow from another arm's settings follow from the changed ones, unless the profile holds their own.
    """
    if name not in names():
        raise UserError(f"unknown profile '{name}'; known: {', '.join(names())}")
    values = _read(name)
    changes = changes or {}
    late = {field for field in changes if field.partition(".")[0] in DERIVED}
    for field in changes.keys() - late:
        _set(values, field, changes[field])
    add_derived_arms(values)
    for field in late:
        _set(values, field, changes[field])
    return parse_settings(Profile, values, f"profile {name}")


def _read(name: str) -> dict[str, Any]:
    """A profile's file, over the one that it extends."""
    values = yaml.safe_load(files("pipelines").joinpath("profiles", f"{name}.yaml").read_text(encoding="utf-8"))
    values.pop("shared", None)  # holds YAML anchors alone
    parent = values.pop("extends", None)
    return values if parent is None else _over(_read(parent), values)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``below`` with the values of ``above``, mapping by mapping; lists are replaced whole, null takes a value away."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _over(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return {key: value for key, value in merged.items() if value is not None}


def parse_changes(pairs: list[str], flag: str = "--set", form: str = "STAGE.FIELD=VALUE") -> dict[str, Any]:
    """FIELD=VALUE pairs of an option, the values read as YAML."""
    changes = {}
    for pair in pairs:
        field, separator, value = pair.partition("=")
        if not separator or not field:
            raise UserError(f"{flag} {pair}: write it as {form}")
        try:
            changes[field] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"{flag} {pair}: the value is not valid YAML; quote it") from None
    return changes


def _set(values: dict[str, Any], field: str, value: Any) -> None:
    """Set a dotted field; a number in it counts the items of a list."""
    *path, last = field.split(".")
    inner: Any = values
    for name in path:
        inner = inner.setdefault(name, {}) if isinstance(inner, dict) else inner[_index(inner, name, field)]
        if not isinstance(inner, dict | list):
            raise UserError(f"--set {field}: '{name}' holds no settings of its own; mend the name")
    inner[last if isinstance(inner, dict) else _index(inner, last, field)] = value


def _index(items: list[Any], name: str, field: str) -> int:
    if not name.isdecimal() or int(name) >= len(items):
        raise UserError(f"--set {field}: '{name}' must count one of {len(items)} items, from 0")
    return int(name)
