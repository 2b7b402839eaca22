"""The DAG as the YAML that Kubeflow takes."""

import re
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kfp import compiler

from pipelines.ablations import ablations, parse_sweeps
from pipelines.arms import DEFAULT_ARMS
from pipelines.cluster import check_for_kubeflow, load_cluster
from pipelines.placing import Target
from pipelines.profile import Profile, load_profile, names
from pipelines.reproduction import reproduction
from rlpretrain.artifacts import code_digest
from rlpretrain.errors import UserError
from rlpretrain.report.evaluations import ARMS

# The comment on top of the file prints every parameter's default; kfp takes the keys of a dict in an order that changes
# with the process. The defaults stand below in a fixed order, so the comment does without them.
_DICT_DEFAULT = re.compile(r"^(#\s+\w+: (?:dict|list)) \[Default: .*\]$", re.MULTILINE)


ABLATED = ("mini", "qwen3-1.7b")  # the profiles whose ablations are checked in


def checked_in() -> dict[str, Callable[[], Any]]:
    """The files of pipelines/compiled: name to what makes its pipeline."""
    found: dict[str, Callable[[], Any]] = {}
    for name in names():
        for kind, arms in (("reproduction", DEFAULT_ARMS), ("extended", ARMS)):
            found[f"{kind}-{name}.yaml"] = partial(_reproduction, name, arms)
    for name in ABLATED:
        found[f"ablations-{name}.yaml"] = partial(_ablations, name)
    return found


def compiled_text(pipeline: Any) -> str:
    """A pipeline as YAML; equal code gives equal text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return _DICT_DEFAULT.sub(r"\1", path.read_text(encoding="utf-8"))


def compiled_for(
    name: str,
    profile: Profile,
    arms: Sequence[str],
    cluster_file: Path | None,
    target: str = "kubeflow",
    cron: str = "",
) -> str:
    """The reproduction for a cluster's machines and this very code, as Kubeflow takes it or as Argo does."""
    if cluster_file is None:
        if target == "argo":
            raise UserError("--target argo: name the --cluster, whose pools and object store the manifests hold")
        return compiled_text(reproduction(name, profile, arms))
    cluster = load_cluster(cluster_file)
    if target == "argo":
        from pipelines.argo import argo_manifests

        return argo_manifests(compiled_text(reproduction(name, profile, arms, Target(cluster))), cluster, cron)
    check_for_kubeflow(cluster, str(cluster_file))
    return compiled_text(reproduction(name, profile, arms, Target(cluster, code_digest=code_digest())))


def tasks_of(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All tasks of a compiled pipeline by their keys, those in loops and handlers too, but not the frames of these."""
    components = definition["components"]
    dags = [definition["root"], *components.values()]
    tasks = {key: task for dag in dags for key, task in dag.get("dag", {}).get("tasks", {}).items()}
    return {key: task for key, task in tasks.items() if "dag" not in components[task["componentRef"]["name"]]}


def _reproduction(name: str, arms: Sequence[str]) -> Any:
    return reproduction(name, load_profile(name), arms)


def _ablations(name: str) -> Any:
    profile = load_profile(name)
    return ablations(name, profile, parse_sweeps("all", profile))
