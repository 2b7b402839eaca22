"""What a DAG's tasks are given besides their inputs: their names, and on a cluster their machines and their retries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kfp.dsl import PipelineTask

from pipelines.cluster import Cluster, place_task, pool_parameters
from pipelines.retries import RETRIES

Parameters = Mapping[str, tuple[Any, str]]
Namer = Callable[[PipelineTask, str], PipelineTask]


@dataclass(frozen=True)
class Target:
    """Where a pipeline will run. Without a cluster its tasks run wherever the scheduler puts them.

    ``code_digest`` is the default of the parameter of that name: a run that is started in the UI leaves it as it is, and
    must not get the cached results of another code.
    """

    cluster: Cluster | None = None
    retries: bool = True
    code_digest: str = ""

    def parameters(self, given: Parameters) -> dict[str, tuple[Any, str]]:
        """A pipeline's parameters with the target's defaults and its pools."""
        found = {**given, "code_digest": (self.code_digest, given["code_digest"][1])}
        if self.cluster is not None:
            found["artifacts_uri"] = (self.cluster.s3.artifacts_uri, given["artifacts_uri"][1])
            found |= pool_parameters(self.cluster)
        return found

    def namer(self, given: dict[str, Any]) -> Namer:
        """Gives a task the name that people see, and what the target has for it; ``given`` holds the run's channels."""

        def named(task: PipelineTask, name: str) -> PipelineTask:
            component = task.component_spec.name.replace("-", "_")
            task.set_display_name(name)
            if self.retries:
                RETRIES[component].apply(task, self.cluster is not None and self.cluster.pool(component).spot)
            if self.cluster is not None:
                place_task(task, component, self.cluster, given)
            return task

        return named


ONE_MACHINE = Target(retries=False)
ANYWHERE = Target()
