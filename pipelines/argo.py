"""The same DAG for Argo Workflows: a WorkflowTemplate and a CronWorkflow, translated from what Kubeflow's compiler wrote.

Tasks, edges, images, machines and retries are read from the compiled pipeline, so that the two cannot part. A template is
a component, a stage's shell form; what tasks hand on goes through the object store, and every stage publishes its artifact
to the same place as elsewhere, under the workflow's name in place of the run's. What Kubeflow cannot be told comes from
the cluster's file: priority classes, and requests for the node's disk.
"""

import json
from dataclasses import dataclass
from typing import Any

import yaml
from hera.workflows import (
    DAG,
    Artifact,
    Container,
    CronWorkflow,
    EmptyDirVolume,
    Env,
    NoneArchiveStrategy,
    Parameter,
    RawArtifact,
    RetryStrategy,
    S3Artifact,
    Task,
    WorkflowTemplate,
)
from hera.workflows import SecretEnv as EnvOfSecret
from hera.workflows.models import (
    Backoff,
    LocalObjectReference,
    Quantity,
    ResourceRequirements,
    SecretKeySelector,
    SecurityContext,
    Toleration,
    WorkflowMetadata,
    WorkflowTemplateRef,
)

from pipelines.cluster import Cluster
from pipelines.compiling import tasks_of
from pipelines.cron import check_cron
from rlpretrain.errors import UserError

WEEKLY = "0 3 * * 6"
END = "report-status"
SETTINGS_PATH, INPUTS, OUTPUTS = "/tmp/inputs/settings.json", "/tmp/inputs", "/tmp/outputs"
# What a component calls its stage's module and inputs; the rest have the stage's own names.
_MODULES = {"shard_benchmarks": "shard_data", "train_base": "pretrain"}
_INPUTS = {
    "pretrain": {"base": "checkpoint"},
    "finetune": {"model": "checkpoint"},
    "reinforce": {"model": "checkpoint"},
    "evaluate": {"model": "checkpoint"},
}
_DERIVED = ("page",)  # of the comparison, for Kubeflow's UI: a copy of a file in the artifact beside it
_NOT_A_MISTAKE = "asInt(lastRetry.exitCode) != 2"  # a user's mistake stays one


@dataclass(frozen=True)
class _Compiled:
    """A compiled pipeline's parts by the keys of its tasks."""

    definition: dict[str, Any]
    pods: dict[str, Any]
    defaults: dict[str, Any]

    def executor(self, task: dict[str, Any]) -> str:
        return self.definition["components"][task["componentRef"]["name"]]["executorLabel"]

    def container(self, task: dict[str, Any]) -> dict[str, Any]:
        return self.definition["deploymentSpec"]["executors"][self.executor(task)]["container"]

    def pod(self, task: dict[str, Any]) -> dict[str, Any]:
        return self.pods[self.executor(task)]

    def component(self, task: dict[str, Any]) -> str:
        return self.container(task)["args"][-1]  # --function_to_execute NAME

    def outputs(self, task: dict[str, Any]) -> list[str]:
        declared = self.definition["components"][task["componentRef"]["name"]].get("outputDefinitions", {})
        return [name for name in declared.get("artifacts", {}) if name not in _DERIVED]

    def value(self, reference: str) -> Any:
        """The default of the run's parameter that a placeholder or an input of a frame stands for."""
        return self.defaults[_parameter(reference)]


def argo_manifests(compiled: str, cluster: Cluster, cron: str = "") -> str:
    """Both manifests as YAML. Without ``cron`` the CronWorkflow is weekly and suspended."""
    try:
        check_cron(cron or WEEKLY)
    except ValueError as error:
        raise UserError(f"--cron '{cron}': {error}") from None
    definition, platform = yaml.safe_load_all(compiled)
    inputs = definition["root"]["inputDefinitions"]["parameters"]
    parts = _Compiled(
        definition,
        platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"],
        {name: parameter["defaultValue"] for name, parameter in inputs.items()},
    )
    name = definition["pipelineInfo"]["name"].replace(".", "-")
    template = _workflow_template(name, parts, cluster)
    recurring = CronWorkflow(
        name=name,
        namespace=cluster.namespace,
        schedules=[cron or WEEKLY],
        timezone="Etc/UTC",
        concurrency_policy="Forbid",
        cron_suspend=not cron,
        workflow_template_ref=WorkflowTemplateRef(name=name),
    )
    return "---\n".join(str(one.to_yaml()) for one in (template, recurring))


def _workflow_template(name: str, parts: _Compiled, cluster: Cluster) -> WorkflowTemplate:
    tasks = tasks_of(parts.definition)
    used = {parameter for task in tasks.values() if (parameter := _settings(task)) is not None}
    arguments = [
        Parameter(name="artifacts_uri", value=parts.defaults["artifacts_uri"]),
        Parameter(name="seed", value="0"),
    ]
    arguments += [
        Parameter(name=one, value=json.dumps(_whole(parts.defaults[one]), sort_keys=True)) for one in sorted(used)
    ]
    end = next(task for task in tasks.values() if task["taskInfo"]["name"] == END)
    with WorkflowTemplate(
        name=name,
        namespace=cluster.namespace,
        entrypoint="arms",
        on_exit=END,
        arguments=arguments,
        service_account_name=cluster.service_account,
        image_pull_secrets=[
            LocalObjectReference(name=one["secretName"]) for one in parts.pod(end).get("imagePullSecret", [])
        ],
        workflow_metadata=WorkflowMetadata(labels={"app.kubernetes.io/name": "rlp-pipelines"}),
    ) as template:
        templates: dict[str, Container] = {}
        for task in tasks.values():
            component = parts.component(task)
            if component not in templates:
                templates[component] = _end(task, parts, cluster) if task is end else _stage(task, parts, cluster)
        with DAG(name="arms"):
            _dag({key: task for key, task in tasks.items() if task is not end}, templates, parts)
    return template


def _dag(tasks: dict[str, dict[str, Any]], templates: dict[str, Container], parts: _Compiled) -> None:
    names = {key: task["taskInfo"]["name"] for key, task in tasks.items()}
    for task in tasks.values():
        sources = {name: one["taskOutputArtifact"] for name, one in task["inputs"].get("artifacts", {}).items()}
        Task(
            name=task["taskInfo"]["name"],
            template=templates[parts.component(task)],
            depends=" && ".join(names[key] for key in task.get("dependentTasks", [])) or None,
            arguments=[
                Parameter(name="task", value=task["taskInfo"]["name"]),
                Parameter(name="settings", value=f"{{{{workflow.parameters.{_settings(task)}}}}}"),
                *(
                    Artifact(
                        name=_stage_input(parts.component(task), name),
                        from_=f"{{{{tasks.{names[one['producerTask']]}.outputs.artifacts.{one['outputArtifactKey']}}}}}",
                    )
                    for name, one in sources.items()
                ),
            ],
        )


def _stage(task: dict[str, Any], parts: _Compiled, cluster: Cluster) -> Container:
    """The template of a component: its stage's shell form."""
    component = parts.component(task)
    names = [_stage_input(component, name) for name in task["inputs"].get("artifacts", {})]
    (output,) = parts.outputs(task)
    command = ["python", "-m", f"components.{_MODULES.get(component, component)}", "--settings", SETTINGS_PATH]
    if "seed" in task["inputs"]["parameters"]:
        command += ["--seed", "{{workflow.parameters.seed}}"]
    for name in names:
        command += ["--input", f"{name}={INPUTS}/{name}"]
    place = "{{workflow.parameters.artifacts_uri}}/{{workflow.name}}/{{inputs.parameters.task}}"
    command += ["--output", f"{OUTPUTS}/{output}", "--publish", place]
    return Container(
        name=component.replace("_", "-"),
        command=command,
        inputs=[
            Parameter(name="task"),
            Parameter(name="settings"),
            RawArtifact(name="settings", path=SETTINGS_PATH, data="{{inputs.parameters.settings}}"),
            *(Artifact(name=name, path=f"{INPUTS}/{name}") for name in names),
        ],
        outputs=[_stored(output, cluster)],
        **_machine(task, parts, cluster),
    )


def _end(task: dict[str, Any], parts: _Compiled, cluster: Cluster) -> Container:
    """The exit handler, which Argo runs however the workflow ended."""
    command = ["python", "-m", "components.report_status", "--run-name", "{{workflow.name}}"]
    command += [
        "--publish",
        "{{workflow.parameters.artifacts_uri}}/{{workflow.name}}",
        "--state",
        "{{workflow.status}}",
    ]
    command += ["--job", "{{workflow.uid}}", "--error", "{{workflow.failures}}"]
    return Container(name=END, command=command, **_machine(task, parts, cluster))


def _machine(task: dict[str, Any], parts: _Compiled, cluster: Cluster) -> dict[str, Any]:
    """Image, resources, placement, environment and retries of a task, as the template of it takes them."""
    container, pod = parts.container(task), parts.pod(task)
    pool = cluster.pool(parts.component(task))
    asked = container["resources"]
    memory = parts.value(asked["resourceMemoryRequest"])
    requests = {"cpu": parts.value(asked["resourceCpuRequest"]), "memory": memory}
    limits = {"memory": parts.value(asked["resourceMemoryLimit"])}
    if (accelerator := asked.get("accelerator")) is not None:
        limits[parts.value(accelerator["resourceType"])] = parts.value(accelerator["resourceCount"])
    if pool.disk is not None:
        requests["ephemeral-storage"] = pool.disk
    environment: list[Any] = [Env(name=one["name"], value=one["value"]) for one in container.get("env", [])]
    for secret in pod.get("secretAsEnv", []):
        for one in secret["keyToEnv"]:
            key = {"secret_name": secret["secretName"], "secret_key": one["secretKey"]}
            environment.append(EnvOfSecret(name=one["envVar"], **key))
    mounts = pod.get("emptyDirMounts", [])
    tolerations = parts.value(pod["tolerations"][0]["tolerationJson"]["componentInputParameter"])
    return {
        "image": container["image"],
        "security_context": SecurityContext(run_as_non_root=True, allow_privilege_escalation=False),
        "resources": ResourceRequirements(requests=_quantities(requests), limits=_quantities(limits)),
        "env": environment,
        "volumes": [
            EmptyDirVolume(
                name=one["volumeName"],
                mount_path=one["mountPath"],
                medium=one.get("medium"),
                size_limit=one.get("sizeLimit"),
            )
            for one in mounts
        ],
        "node_selector": parts.value(pod["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"]) or None,
        "tolerations": [Toleration(**one) for one in tolerations] or None,
        "labels": pod.get("podMetadata", {}).get("labels"),
        "priority_class_name": pool.priority_class,
        "retry_strategy": _retry(task.get("retryPolicy")),
    }


def _quantities(values: dict[str, str]) -> dict[str, Quantity]:
    return {name: Quantity(root=value) for name, value in values.items()}


def _retry(policy: dict[str, Any] | None) -> RetryStrategy | None:
    if policy is None:
        return None
    backoff = Backoff(
        duration=policy["backoffDuration"],
        factor=int(policy["backoffFactor"]),
        max_duration=None,  # Argo's is of all tries together, and a try may take days
    )
    return RetryStrategy(
        limit=policy["maxRetryCount"], retry_policy="Always", backoff=backoff, expression=_NOT_A_MISTAKE
    )


def _stored(name: str, cluster: Cluster) -> Artifact:
    """A folder that a task leaves, as objects in the pipeline root; without one, in the server's own repository."""
    path, archive = f"{OUTPUTS}/{name}", NoneArchiveStrategy()
    key = f"{{{{workflow.name}}}}/{{{{inputs.parameters.task}}}}/{name}"
    s3 = cluster.s3
    if s3.pipeline_root is None:
        return S3Artifact(name=name, path=path, archive=archive, key=f"rlp/{key}")
    bucket, _, prefix = s3.pipeline_root.removeprefix("s3://").strip("/").partition("/")
    endpoint = s3.endpoint or "https://s3.amazonaws.com"
    access: dict[str, Any] = {"use_sdk_creds": True}
    if s3.secret is not None:
        keys = {variable: SecretKeySelector(name=s3.secret.name, key=one) for variable, one in s3.secret.env.items()}
        access = {
            "access_key_secret": keys["AWS_ACCESS_KEY_ID"],
            "secret_key_secret": keys["AWS_SECRET_ACCESS_KEY"],
        }
    return S3Artifact(
        name=name,
        path=path,
        archive=archive,
        key="/".join(filter(None, (prefix, key))),
        bucket=bucket,
        endpoint=endpoint.partition("://")[2],
        insecure=endpoint.startswith("http://"),
        region=s3.region,
        **access,
    )


def _whole(value: Any) -> Any:
    """Whole numbers as such again: Kubeflow's specification holds every number as a fraction."""
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _settings(task: dict[str, Any]) -> str | None:
    """The run's parameter that holds a task's settings."""
    given = task["inputs"]["parameters"].get("settings")
    return None if given is None else _parameter(given["componentInputParameter"])


def _stage_input(component: str, name: str) -> str:
    return _INPUTS.get(component, {}).get(name, name)


def _parameter(reference: str) -> str:
    return reference.removeprefix("{{$.inputs.parameters['").removesuffix("']}}").removeprefix("pipelinechannel--")
