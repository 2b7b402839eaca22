"""Several nodes: a stage that trains hands its work to a Kubeflow Trainer TrainJob and follows it to its end.

RLP_TRAINJOB, JSON of `TrainJobSettings`, asks for it. The job's pods run the stage's shell form under torchrun; they fetch the
inputs from storage, where the stage's own pod has put them, and publish the result there. The job is named after run, task and
what it computes, so that a retried stage finds it again; SIGTERM, a cancelled run's, removes it, and its snapshots stay.
"""

import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from kubeflow_trainer_api import models as api
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from pydantic import Field
from urllib3.exceptions import HTTPError

from components.processes import GRACE
from rlpretrain.artifacts import MANIFEST, Manifest, Origin, parse_manifest, read_manifest
from rlpretrain.errors import UserError
from rlpretrain.settings import Settings, parse_settings
from rlpretrain.storage import connect, download_folder, exists, read_bytes, upload_folder

ENVIRONMENT = "RLP_TRAINJOB"
GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
QUEUE_LABEL, PRIORITY_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
NODE = "node"  # Trainer's name of the replicated job and of its container
MANAGER = "rlp-pipelines"
POLL_SECONDS = 5.0
OUTPUT = "rlp-output"  # in the scratch space of the job's pods, or in their /tmp


class Toleration(Settings):
    """A taint that the job's pods may stand beside."""

    key: str
    operator: str = "Exists"
    value: str | None = None
    effect: str | None = None


class SecretEnv(Settings):
    """Keys of a Kubernetes Secret as environment variables."""

    name: str
    env: dict[str, str] = Field(min_length=1, description="environment variable to key of the Secret")


class TrainJobSettings(Settings):
    """Where and on what a TrainJob runs."""

    nodes: int = Field(ge=1)
    namespace: str
    image: str = Field(description="of the job's pods: the stage's own")
    runtime: str = Field("torch-distributed", description="ClusterTrainingRuntime")
    processes: int | None = Field(None, ge=1, description="processes a node; none: one for each of its GPUs")
    accelerator: str | None = Field(None, description="e.g. nvidia.com/gpu")
    count: int = Field(1, ge=1, description="accelerators a node")
    cpu: str | None = Field(None, description="cores a node, as Kubernetes writes them")
    memory: str | None = Field(None, description="memory a node, as Kubernetes writes it")
    shared_memory: str | None = Field(None, description="size of /dev/shm")
    disk: str | None = Field(
        None, description="size of scratch space on a node's own disk; none: /tmp of the container"
    )
    scratch: str = Field("/scratch", description="where `disk` is mounted")
    node_selector: dict[str, str] = Field({}, description="labels of the nodes")
    tolerations: tuple[Toleration, ...] = ()
    queue: str | None = Field(None, description="Kueue LocalQueue")
    priority_class: str | None = Field(None, description="Kueue WorkloadPriorityClass, with `queue`")
    service_account: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    env: dict[str, str] = Field({}, description="variables of the job's processes; no secrets")
    secrets: tuple[SecretEnv, ...] = Field((), description="the S3 keys, unless the service account has a role")
    grace_seconds: int = Field(120, ge=1, description="seconds from SIGTERM to SIGKILL, in which a snapshot is saved")


class TrainJobFailed(SystemExit):
    """The job ended without a result; the exit code lets the stage be tried again."""

    def __init__(self, name: str, why: str) -> None:
        print(f"TrainJob {name} failed: {why}; see its pods' logs", file=sys.stderr, flush=True)
        super().__init__(1)


def wanted() -> TrainJobSettings | None:
    """What RLP_TRAINJOB asks for; None without it. UserError when it cannot be read."""
    text = os.environ.get(ENVIRONMENT)
    if not text:
        return None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{ENVIRONMENT} is not JSON ({error}); give the fields of TrainJobSettings") from None
    return parse_settings(TrainJobSettings, values, ENVIRONMENT)


def run_as_train_job(
    stage: str,
    origin: Origin,
    inputs: Mapping[str, Path],
    output: Path,
    publish_uri: str,
    checkpoint_uri: str,
    settings: TrainJobSettings,
) -> Manifest:
    """Run the stage on ``settings.nodes`` nodes and fetch its artifact into ``output``."""
    if not publish_uri:
        raise UserError(f"{ENVIRONMENT}: the job's pods share no disk with this one; give --publish s3://...")
    name = job_name(publish_uri, origin)
    follower = _Follower(settings.namespace, name)
    places = {key: f"{checkpoint_uri}/inputs/{key}" for key in inputs}
    for key, path in inputs.items():
        _bring(path, places[key])
    command = ["torchrun", "-m", f"components.{stage}", "--settings", json.dumps(origin.settings)]
    command += ["--output", f"{settings.scratch if settings.disk else '/tmp'}/{OUTPUT}"]
    command += ["--publish", publish_uri, "--checkpoints", checkpoint_uri]
    command += [word for key, place in places.items() for word in ("--input", f"{key}={place}")]
    follower.run(train_job(name, command, settings))
    download_folder(publish_uri, output)
    for place in places.values():
        store = connect(place)
        for key in list(store.keys()):
            store.delete(key)
    return read_manifest(output)


def job_name(publish_uri: str, origin: Origin) -> str:
    """RUN-TASK-DIGEST, short enough for the names of its pods; equal work has equal names."""
    readable = "-".join(publish_uri.rstrip("/").split("/")[-2:]).lower()
    slug = re.sub(r"[^a-z0-9]+", "-", readable).strip("-")[:34].rstrip("-")
    text = json.dumps([publish_uri, origin.kind, dict(origin.settings), dict(origin.inputs)], sort_keys=True)
    return f"rlp-{slug}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def train_job(name: str, command: list[str], settings: TrainJobSettings) -> dict[str, Any]:
    """The TrainJob as the API takes it, validated by the SDK's models."""
    amounts = {"cpu": settings.cpu, "memory": settings.memory, settings.accelerator: str(settings.count)}
    resources = {
        key: api.IoK8sApimachineryPkgApiResourceQuantity(value) for key, value in amounts.items() if key and value
    }
    limits = {key: value for key, value in resources.items() if key != "cpu"}
    variables = {GRACE: str(settings.grace_seconds), **settings.env}
    plain = [api.IoK8sApiCoreV1EnvVar(name=key, value=value) for key, value in variables.items()]
    trainer = api.TrainerV1alpha1Trainer(
        image=settings.image,
        command=command[:1],
        args=command[1:],
        env=[*plain, *(_secret_variable(s.name, key, place) for s in settings.secrets for key, place in s.env.items())],
        numNodes=settings.nodes,
        numProcPerNode=settings.processes,
        resourcesPerNode=api.IoK8sApiCoreV1ResourceRequirements(requests=resources, limits=limits)
        if resources
        else None,
    )
    job = api.TrainerV1alpha1TrainJob(
        apiVersion=f"{GROUP}/{VERSION}",
        kind="TrainJob",
        metadata=api.IoK8sApimachineryPkgApisMetaV1ObjectMeta(
            name=name,
            namespace=settings.namespace,
            labels={"app.kubernetes.io/managed-by": MANAGER}
            | ({QUEUE_LABEL: settings.queue} if settings.queue else {})
            | ({PRIORITY_LABEL: settings.priority_class} if settings.queue and settings.priority_class else {}),
        ),
        spec=api.TrainerV1alpha1TrainJobSpec(
            runtimeRef=api.TrainerV1alpha1RuntimeRef(name=settings.runtime),
            trainer=trainer,
            runtimePatches=[_pod_patch(settings)],
        ),
    )
    return job.to_dict()


def _secret_variable(secret: str, name: str, key: str) -> api.IoK8sApiCoreV1EnvVar:
    selector = api.IoK8sApiCoreV1SecretKeySelector(name=secret, key=key)
    return api.IoK8sApiCoreV1EnvVar(name=name, valueFrom=api.IoK8sApiCoreV1EnvVarSource(secretKeyRef=selector))


def _pod_patch(settings: TrainJobSettings) -> api.TrainerV1alpha1RuntimePatch:
    """What of a pod the trainer's own fields do not say."""
    pod: dict[str, Any] = {"terminationGracePeriodSeconds": settings.grace_seconds}
    if settings.node_selector:
        pod["nodeSelector"] = settings.node_selector
    if settings.tolerations:
        pod["tolerations"] = [toleration.model_dump(exclude_none=True) for toleration in settings.tolerations]
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    volumes = []
    if settings.shared_memory:
        volumes.append(("shm", "/dev/shm", {"medium": "Memory", "sizeLimit": settings.shared_memory}))
    if settings.disk:
        volumes.append(("scratch", settings.scratch, {"sizeLimit": settings.disk}))
    container: dict[str, Any] = {"name": NODE}
    container["securityContext"] = {"runAsNonRoot": True, "allowPrivilegeEscalation": False}
    if volumes:
        pod["volumes"] = [{"name": name, "emptyDir": kind} for name, _, kind in volumes]
        container["volumeMounts"] = [{"name": name, "mountPath": path} for name, path, _ in volumes]
    pod["containers"] = [container]
    template = {"template": {"spec": {"template": {"spec": pod}}}, "name": NODE}
    patch = {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [template]}}}}
    validated = api.TrainerV1alpha1RuntimePatch.from_dict(patch)
    assert validated is not None
    return validated


def _bring(artifact: Path, place: str) -> None:
    """Have an input in storage, where other nodes can fetch it."""
    there = f"{place}/{MANIFEST}"
    if exists(there) and parse_manifest(read_bytes(there), there).digest == read_manifest(artifact).digest:
        return
    upload_folder(artifact, place)


class _Follower:
    """One TrainJob, from wherever an earlier attempt left it to its end."""

    def __init__(self, namespace: str, name: str) -> None:
        _load_config()
        self.namespace = namespace
        self.name = name
        self.jobs: Any = client.CustomObjectsApi()
        self.pods: Any = client.CoreV1Api()
        self._place = (GROUP, VERSION, namespace, PLURAL)
        self._shown = ""  # time of the last line of a log that was printed
        self._stopping = False
        self._over = threading.Event()

    def run(self, job: dict[str, Any]) -> None:
        """Return when the job is complete; TrainJobFailed when it has failed; remove it on SIGTERM."""
        with self._removed_on_sigterm():
            with _told(self.namespace):
                self._ensure(job)
            logs = threading.Thread(target=self._show_logs, daemon=True)
            logs.start()
            try:
                self._wait()
            finally:
                self._over.set()
                logs.join(10)

    def _ensure(self, job: dict[str, Any]) -> None:
        """Make the job, or find the one of an earlier attempt; one that failed is made anew."""
        present = self._get()
        if present is not None and _condition(present, "Failed"):
            print(f"TrainJob {self.name} failed before; it is made anew", file=sys.stderr)
            self._delete()
            while self._get() is not None:
                time.sleep(POLL_SECONDS)
            present = None
        if present is not None:
            print(f"TrainJob {self.name} is there already; it is followed", file=sys.stderr)
            return
        try:
            self.jobs.create_namespaced_custom_object(*self._place, job)
        except ApiException as error:
            if error.status != 409:  # another attempt was quicker
                raise
        print(f"TrainJob {self.name} in namespace {self.namespace}", file=sys.stderr)

    def _wait(self) -> None:
        while True:
            try:
                job = self._get()
            except (ApiException, HTTPError) as error:  # the job goes on without us
                print(f"TrainJob {self.name} cannot be asked for now: {_one_line(error)}", file=sys.stderr)
                time.sleep(POLL_SECONDS)
                continue
            if job is None:
                raise TrainJobFailed(self.name, "it was removed")
            if failed := _condition(job, "Failed"):
                raise TrainJobFailed(self.name, f"{failed.get('reason', '')}: {failed.get('message', '')}")
            if _condition(job, "Complete"):
                return
            time.sleep(POLL_SECONDS)

    def _show_logs(self) -> None:
        """Copy what the first node says to our own output, from pod to pod as they come and go."""
        labels = f"jobset.sigs.k8s.io/jobset-name={self.name},batch.kubernetes.io/job-completion-index=0"
        over = False
        while not over:
            over = self._over.is_set()  # then once more, for the last lines
            try:
                found = self.pods.list_namespaced_pod(self.namespace, label_selector=labels).items
                running = [pod.metadata.name for pod in found if pod.status.phase != "Pending"]
                for name in running[-1:]:
                    self._show_log(name)
            except (ApiException, HTTPError):
                pass  # not there yet, or gone again
            self._over.wait(POLL_SECONDS)

    def _show_log(self, pod: str) -> None:
        """Print the lines of a pod's log that are newer than those printed before, until it ends or the stream breaks."""
        answer = self.pods.read_namespaced_pod_log(
            pod, self.namespace, container=NODE, follow=True, timestamps=True, _preload_content=False
        )
        for raw in answer:
            moment, _, line = raw.decode(errors="replace").rstrip("\n").partition(" ")
            if moment > self._shown:
                print(line, file=sys.stderr, flush=True)
                self._shown = moment

    def _get(self) -> dict[str, Any] | None:
        try:
            return self.jobs.get_namespaced_custom_object(*self._place, self.name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def _delete(self) -> None:
        try:
            self.jobs.delete_namespaced_custom_object(*self._place, self.name, propagation_policy="Foreground")
        except ApiException as error:
            if error.status != 404:
                raise

    @contextmanager
    def _removed_on_sigterm(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise _Cancelled

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        except _Cancelled:
            self._delete()
            print(f"TrainJob {self.name} is removed; the same command goes on from its snapshots", file=sys.stderr)
            raise SystemExit(128 + signal.SIGTERM) from None
        finally:
            signal.signal(signal.SIGTERM, before)


class _Cancelled(BaseException):
    """SIGTERM came."""


def _load_config() -> None:
    """The pod's own service account, else a kubeconfig."""
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config()
        else:
            config.load_kube_config(os.environ.get("KUBECONFIG"))
    except config.ConfigException as error:
        raise UserError(f"{ENVIRONMENT}: no Kubernetes to submit to ({_one_line(error)}); set KUBECONFIG") from None


@contextmanager
def _told(namespace: str) -> Iterator[None]:
    """Turn what a user can mend into one line."""
    try:
        yield
    except ApiException as error:
        if error.status in (401, 403):
            mend = "apply pipelines/manifests/trainjob.yaml for the stage's service account"
            raise UserError(f"namespace {namespace}: TrainJobs are refused ({error.reason}); {mend}") from None
        if error.status == 404:
            raise UserError("the cluster has no TrainJobs; install Kubeflow Trainer 2.3 or newer") from None
        raise UserError(f"the TrainJob is refused: {_message(error)}") from None
    except HTTPError as error:
        raise UserError(f"the Kubernetes API cannot be reached ({_one_line(error)}); check KUBECONFIG") from None


def _condition(job: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    conditions = job.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind and each["status"] == "True"), None)


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return f"{error.status} {error.reason}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
