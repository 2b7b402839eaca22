"""Clusters: what a platform offers a run. One YAML a cluster, from which every task gets its machine.

Data and comparison run on the pool `cpu`, training on `train`, evaluation on `eval`. What Kubeflow Pipelines takes as a
parameter of a run (accelerator, cpu, memory, node selector, tolerations) becomes one, with the file's value as its default,
so that a run started in the UI can choose another pool; the rest is fixed when the pipeline is compiled, and with it the
nodes of a training that takes several.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from components.images import image
from components.report_status.stage import WEBHOOK_ENV
from rlpretrain.errors import UserError
from rlpretrain.settings import Settings, load_settings

SCRATCH = "/scratch"
POOLS = ("cpu", "train", "eval")
STAGE_POOLS = {
    "shard_benchmarks": "cpu",
    "shard_data": "cpu",
    "train_base": "train",
    "pretrain": "train",
    "finetune": "train",
    "reinforce": "train",
    "evaluate": "eval",
    "compare": "cpu",
    "shard_point": "cpu",
    "pretrain_point": "train",
    "evaluate_point": "eval",
    "ablate": "cpu",
    "report_status": "cpu",
}
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"

# YAML reads `cpu: 8` as a number; Kubernetes' own quantities are text.
Cpu = Annotated[str, BeforeValidator(str), Field(pattern=r"^(\d+(\.\d+)?|\d+m)$")]
Bytes = Annotated[str, BeforeValidator(str), Field(pattern=r"^\d+([EPTGM]i?|Ki?)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]


class Toleration(Settings):
    """A taint that pods of a pool may stand beside, as Kubernetes writes it."""

    key: str = Field(min_length=1)
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="none: any")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.operator == "Equal") != (self.value is not None):
            raise ValueError("operator Equal needs 'value', and Exists has none")
        return self


class Pool(Settings):
    """The nodes that a group of stages runs on, and what a pod asks of them."""

    cpu: Cpu = Field(description="cores that a pod asks for; no limit is set, which would only slow it down")
    memory: Bytes = Field(description="memory that a pod asks for and is held to, for example 64Gi")
    accelerator: str | None = Field(None, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", description="e.g. nvidia.com/gpu")
    count: int = Field(1, ge=1, description="accelerators a pod")
    nodes: int = Field(
        1, ge=1, description="of `train`: pods, a node each, that train one model together, through Kubeflow Trainer"
    )
    node_selector: dict[str, str] = Field({}, description="labels of the nodes")
    tolerations: tuple[Toleration, ...] = ()
    shared_memory: Bytes | None = Field(None, description="size of /dev/shm, which counts towards `memory`")
    disk: Bytes | None = Field(None, description=f"scratch space at {SCRATCH}, on the node's own disk; holds TMPDIR")
    spot: bool = Field(False, description="nodes may be taken back at any time: tasks are retried more often")
    queue: Name | None = Field(None, description="Kueue LocalQueue, as a label of the pods")
    priority_class: Name | None = Field(
        None, description="with `queue`: Kueue's WorkloadPriorityClass; Argo: also the pods' PriorityClass"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.accelerator is None and self.count != 1:
            raise ValueError("'count' counts accelerators: name the 'accelerator', for example nvidia.com/gpu")
        return self

    def waiting(self, cpu: "Pool") -> "Pool":
        """A stage's own pod while several nodes of this pool train: it brings the inputs and fetches the result, beside ``cpu``'s."""
        placed = {name: getattr(cpu, name) for name in ("disk", "node_selector", "tolerations")}
        return Pool(cpu="2", memory="16Gi", spot=self.spot or cpu.spot, **placed)


class Pools(Settings):
    """One pool for each group of stages."""

    cpu: Pool = Field(description="sharding, comparison, status")
    train: Pool = Field(description="base model, arms, SFT, RLVR")
    eval: Pool = Field(description="evaluation")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.cpu.accelerator is not None:
            raise ValueError("pools.cpu.accelerator: its stages use none; remove it")
        for name in ("cpu", "eval"):
            if getattr(self, name).nodes > 1:
                raise ValueError(f"pools.{name}.nodes: its stages take one each; remove it")
        return self


class SecretEnv(Settings):
    """Keys of a Kubernetes Secret as environment variables of the tasks."""

    name: Name
    env: dict[str, str] = Field(min_length=1, description="environment variable to key of the Secret")


class WebhookSettings(Settings):
    """Where the end of a run is told; the address itself is a secret."""

    secret: Name
    key: str = "url"


class S3Settings(Settings):
    """The object store of a cluster."""

    artifacts_uri: str = Field("s3://rlp/runs", pattern=r"^s3://[^/]+(/.+)?$", description="where runs are published")
    pipeline_root: str | None = Field(
        None,
        pattern=r"^s3://[^/]+(/.+)?$",
        description="where Kubeflow or Argo keep what tasks hand on; none: the server's own default",
    )
    endpoint: str | None = Field(None, pattern=r"^https?://", description="none: Amazon S3")
    region: str = "us-east-1"
    secret: SecretEnv | None = Field(
        None, description="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; none: a role of the service account"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
        if self.secret is not None and not needed <= self.secret.env.keys():
            raise ValueError("secret.env must name AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY with their keys")
        return self


class Cluster(Settings):
    """A cluster as this project sees it."""

    endpoint: str | None = Field(
        None, pattern=r"^https?://", description="Kubeflow Pipelines API; KF_PIPELINES_ENDPOINT overrides it"
    )
    context: str | None = Field(
        None, description="kubeconfig context; with it, submit first looks for the secrets that a run needs"
    )
    namespace: Name | None = Field(None, description="where runs live; none: Kubeflow without users")
    experiment: str = Field("rlp", min_length=1, description="Kubeflow experiment that runs are listed under")
    service_account: Name | None = Field(None, description="of the tasks; none: the server's default")
    image_pull_secrets: tuple[Name, ...] = ()
    s3: S3Settings = S3Settings()
    secrets: tuple[SecretEnv, ...] = Field((), description="for example HF_TOKEN, for gated data")
    webhook: WebhookSettings | None = None
    environment: dict[str, str] = Field({}, description="further variables of every task; no secrets")
    pools: Pools

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.s3.secret is None and self.service_account is None:
            raise ValueError("without s3.secret, name the 'service_account' whose role may use the bucket")
        if self.pools.train.nodes > 1 and None in (self.namespace, self.service_account):
            raise ValueError("pools.train.nodes: name 'namespace' and 'service_account', which submits the TrainJobs")
        return self

    def pods(self, pool: str) -> Pool:
        """What the pods of a pool's tasks ask for."""
        found: Pool = getattr(self.pools, pool)
        return found if found.nodes == 1 else found.waiting(self.pools.cpu)

    def pool(self, component: str) -> Pool:
        """What the pods of a component's tasks ask for."""
        return self.pods(STAGE_POOLS[component])

    def task_environment(self, component: str) -> dict[str, str]:
        """Plain variables of a component's tasks."""
        values = self._environment(self.pool(component))
        if STAGE_POOLS[component] == "train" and self.pools.train.nodes > 1:
            from components.trainjob import ENVIRONMENT  # Kubernetes' client takes a second to import

            values[ENVIRONMENT] = json.dumps(self._train_job(), sort_keys=True)
        return values

    def _environment(self, pool: Pool) -> dict[str, str]:
        values = {"AWS_DEFAULT_REGION": self.s3.region}
        if self.s3.endpoint is not None:
            values["AWS_ENDPOINT_URL_S3"] = self.s3.endpoint
        if pool.disk is not None:
            values |= {"TMPDIR": SCRATCH, "HF_HOME": f"{SCRATCH}/huggingface"}
        return values | self.environment

    def _train_job(self) -> dict[str, Any]:
        """`TrainJobSettings` of components/trainjob.py: the pool `train` as the nodes of one job."""
        train = self.pools.train
        return {
            **train.model_dump(mode="json", exclude={"spot"}, exclude_none=True),
            "namespace": self.namespace,
            "image": image("train"),
            "scratch": SCRATCH,
            "service_account": self.service_account,
            "image_pull_secrets": list(self.image_pull_secrets),
            "env": self._environment(train),
            "secrets": [secret.model_dump() for secret in self.task_secrets("pretrain")],
        }

    def task_secrets(self, component: str) -> list[SecretEnv]:
        """Secrets whose keys are variables of a component's tasks; the webhook's address goes to one of them alone."""
        found = [*([self.s3.secret] if self.s3.secret else []), *self.secrets]
        if component == "report_status" and self.webhook is not None:
            found.append(SecretEnv(name=self.webhook.secret, env={WEBHOOK_ENV: self.webhook.key}))
        return found


def load_cluster(path: Path) -> Cluster:
    """A cluster's file; UserError, in one line, for what is wrong with it."""
    return load_settings(Cluster, path)


def pool_parameters(cluster: Cluster) -> dict[str, tuple[Any, str]]:
    """Parameters of a run that choose its machines: name to default and description. Kubeflow reads numbers as text."""
    found: dict[str, tuple[Any, str]] = {}
    for name in POOLS:
        pool = cluster.pods(name)
        what = Pools.model_fields[name].description
        if pool.accelerator is not None:
            found[f"{name}_pool_accelerator"] = (pool.accelerator, f"Accelerator of {what}.")
            found[f"{name}_pool_count"] = (str(pool.count), f"Accelerators a pod of {what}.")
        found[f"{name}_pool_cpu"] = (pool.cpu, f"Cores of {what}.")
        found[f"{name}_pool_memory"] = (pool.memory, f"Memory of {what}.")
        found[f"{name}_pool_node_selector"] = (pool.node_selector, f"Labels of the nodes of {what}.")
        tolerations = [toleration.model_dump(exclude_none=True) for toleration in pool.tolerations]
        found[f"{name}_pool_tolerations"] = (tolerations, f"Taints that pods of {what} tolerate.")
    return found


def place_task(task: Any, component: str, cluster: Cluster, given: dict[str, Any]) -> None:
    """Give a Kubeflow task the machine of its component; ``given`` holds the channels of `pool_parameters`."""
    from kfp import kubernetes

    name, pool = STAGE_POOLS[component], cluster.pool(component)
    cpu, memory = given[f"{name}_pool_cpu"], given[f"{name}_pool_memory"]
    task.set_cpu_request(cpu).set_memory_request(memory).set_memory_limit(memory)
    # kfp 2.17 does not hand on to the tasks of an exit handler what only the resources of a task name.
    task.register_pipeline_channels([cpu, memory])
    if pool.accelerator is not None:
        accelerator, count = given[f"{name}_pool_accelerator"], given[f"{name}_pool_count"]
        task.set_accelerator_type(accelerator).set_accelerator_limit(count)
        task.register_pipeline_channels([accelerator, count])
    kubernetes.add_node_selector_json(task, given[f"{name}_pool_node_selector"])
    kubernetes.add_toleration_json(task, given[f"{name}_pool_tolerations"])
    if pool.shared_memory is not None:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=pool.shared_memory)
    if pool.disk is not None:
        kubernetes.empty_dir_mount(task, "scratch", SCRATCH, size_limit=pool.disk)
    if pool.queue is not None:
        kubernetes.add_pod_label(task, QUEUE_LABEL, pool.queue)
        if pool.priority_class is not None:
            kubernetes.add_pod_label(task, PRIORITY_LABEL, pool.priority_class)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))
    for secret in cluster.task_secrets(component):
        for variable, key in secret.env.items():
            kubernetes.use_secret_as_env(task, secret.name, {key: variable})
    for variable, value in sorted(cluster.task_environment(component).items()):
        task.set_env_variable(variable, value)


def check_for_kubeflow(cluster: Cluster, where: str) -> None:
    """UserError for what Kubeflow Pipelines cannot be told and would be dropped silently."""
    for name in POOLS:
        pool: Pool = getattr(cluster.pools, name)
        if pool.priority_class is not None and pool.queue is None:
            raise UserError(
                f"{where}: pools.{name}.priority_class: Kubeflow Pipelines cannot set a pod's priority class; "
                "name the Kueue 'queue' that orders by it, or remove it"
            )
