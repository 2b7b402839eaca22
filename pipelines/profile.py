"""Profiles: the settings of every stage of a reproduction, validated before any work begins."""

import copy
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from pipelines.arms import add_derived_arms, merged
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
from rlpretrain.strict_yaml import read_yaml

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")  # names of runs and pipelines begin with it


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


CORPORA = ("corpus", "domains")  # the ablations that read other documents


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


def known() -> str:
    """What a profile can be named by, for help."""
    return f"{', '.join(names())}, or a file of one's own, .yaml"


def name_of(profile: str) -> str:
    """The name of a profile that is given by name or by its file; UserError when the file's cannot stand in names of runs."""
    if not _is_file(profile):
        return profile
    name = Path(profile).stem
    if not _NAME.fullmatch(name):
        raise UserError(f"--profile {profile}: name the file by up to 40 lower-case letters, digits, '.', '_' and '-'")
    if name in names():
        raise UserError(f"--profile {profile}: '{name}' is a profile of the project; give the file a name of its own")
    return name


def load_profile(name: str, changes: dict[str, Any] | None = None) -> Profile:
    """A profile, by name or by its file, with ``changes`` (dotted field to value) applied.

    UserError for an unknown profile or setting, and for a file that is none. Arms that follow from another arm's settings
    follow from the changed ones; what the profile or a change says of them goes over that.
    """
    values = _read(name)
    if _is_file(name):
        _own_name(values, _content(Path(name)), name_of(name))
    for field, value in (changes or {}).items():
        _set(values, field, value)
    add_derived_arms(values)
    return parse_settings(Profile, values, f"profile {name}")


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _own_name(values: dict[str, Any], own: dict[str, Any], name: str) -> None:
    """Let the page say the file's name, and not that of the profile it extends, to whose figures it has no claim."""
    said = own.get("compare") or {}
    if isinstance(said, dict) and isinstance(values.setdefault("compare", {}), dict):
        values["compare"] |= {"profile": name, "title": f"RLP, profile {name}"} | said


def _read(name: str, over: tuple[str, ...] = ()) -> dict[str, Any]:
    """A profile's file, over the one that it extends: by name, or by its path from this file's folder.

    ``over``: the files that extend this one.
    """
    if name in over:
        raise UserError(f"profile {name}: extends itself; mend `extends` of {over[-1]}")
    if _is_file(name):
        values = _content(Path(name))
    elif name in names():
        values = read_yaml(files("pipelines").joinpath("profiles", f"{name}.yaml").read_text(encoding="utf-8"))
    else:
        where = f"profile {over[-1]}: extends: " if over else ""
        raise UserError(f"{where}unknown profile '{name}'; known: {known()}")
    values.pop("shared", None)  # holds YAML anchors alone
    parent = values.pop("extends", None)
    if parent is None:
        return values
    parent = str(parent)
    if _is_file(parent) and _is_file(name):
        parent = os.path.normpath(Path(name).parent / parent)
    return merged(_read(parent, (*over, name)), values)


def _content(path: Path) -> dict[str, Any]:
    """What a user's file holds; UserError when that is no mapping."""
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--profile {path}: {error.strerror}; give a profile's name or the path of its .yaml") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"--profile {path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"--profile {path}: must hold a mapping, as pipelines/profiles/tiny.yaml does")
    return values


def parse_changes(pairs: list[str], flag: str = "--set", form: str = "STAGE.FIELD=VALUE") -> dict[str, Any]:
    """FIELD=VALUE pairs of an option, the values read as YAML."""
    changes = {}
    for pair in pairs:
        field, separator, value = pair.partition("=")
        if not separator or not field:
            raise UserError(f"{flag} {pair}: write it as {form}")
        try:
            changes[field] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):  # of a date that is none; of a thousand brackets
            raise UserError(f"{flag} {pair}: the value is not valid YAML; quote it") from None
    return changes


def _set(values: dict[str, Any], field: str, value: Any) -> None:
    """Set a dotted field; a number in it counts the items of a list. What is shared by an anchor changes in one place alone."""
    *path, last = field.split(".")
    inner: Any = values
    for name in path:
        place = name if isinstance(inner, dict) else _index(inner, name, field)
        below = copy.copy(inner.get(name, {}) if isinstance(inner, dict) else inner[place])
        if not isinstance(below, dict | list):
            raise UserError(f"--set {field}: '{name}' holds no settings of its own; mend the name")
        inner[place] = below
        inner = below
    inner[last if isinstance(inner, dict) else _index(inner, last, field)] = value


def _index(items: list[Any], name: str, field: str) -> int:
    if not name.isdecimal() or int(name) >= len(items):
        raise UserError(f"--set {field}: '{name}' must count one of {len(items)} items, from 0")
    return int(name)
