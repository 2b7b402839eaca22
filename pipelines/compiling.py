"""The DAG as the YAML that Kubeflow takes."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kfp import compiler

from pipelines.arms import DEFAULT_ARMS
from pipelines.profile import Profile, load_profile, names
from pipelines.reproduction import reproduction
from rlpretrain.report.evaluations import ARMS

# The comment on top of the file prints every parameter's default; kfp takes the keys of a dict in an order that changes
# with the process. The defaults stand below in a fixed order, so the comment does without them.
_DICT_DEFAULT = re.compile(r"^(#\s+\w+: dict) \[Default: .*\]$", re.MULTILINE)


def checked_in() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The files of pipelines/compiled: name to profile and arms, for every profile the reproduction and the extended one."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for profile in names():
        found[f"reproduction-{profile}.yaml"] = (profile, DEFAULT_ARMS)
        found[f"extended-{profile}.yaml"] = (profile, ARMS)
    return found


def compiled_text(name: str, profile: Profile | None = None, arms: Sequence[str] = DEFAULT_ARMS) -> str:
    """The compiled reproduction of a profile, by default the one of that name; equal code gives equal text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(reproduction(name, profile or load_profile(name), arms), str(path))
        return _DICT_DEFAULT.sub(r"\1", path.read_text(encoding="utf-8"))
