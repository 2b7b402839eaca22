"""Training on several nodes: the TrainJob that is submitted, followed, found again and removed."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from components import trainjob
from components.frame import run_component, run_stage
from components.trainjob import TrainJobSettings, job_name, train_job
from rlpretrain.artifacts import Origin, verify
from rlpretrain.errors import UserError
from rlpretrain.storage import list_artifacts, upload_folder
from tests.components.kubernetes_api import KubernetesApi

CPT = {
    "objective": "cpt",
    "likelihood": {"steps": 2, "batch_documents": 4, "sequence_length": 32, "compute_dtype": "float32"},
}
NODES = {"nodes": 2, "namespace": "research", "image": "train:1", "processes": 1, "env": {"OMP_NUM_THREADS": "1"}}
MANIFESTS = Path(__file__).parents[2] / "pipelines" / "manifests"


@pytest.fixture
def inputs(tmp_path: Path, make_shards: Callable[..., Path], checkpoint: Path) -> dict[str, Path]:
    return {"shards": make_shards(tmp_path / "shards", "mini_documents"), "checkpoint": checkpoint}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A running API that stages are pointed to."""
    with KubernetesApi(tmp_path) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig()))
        monkeypatch.setenv("RLP_TRAINJOB", json.dumps(NODES))
        monkeypatch.setattr(trainjob, "POLL_SECONDS", 0.1)
        yield api


def test_two_nodes_train_one_model(
    cluster: KubernetesApi, inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their artifact is one process's to seven digits, and no input stays behind in storage."""
    uri = f"file://{tmp_path}/runs/My_Run/pretrain-cpt"
    manifest = run_stage("pretrain", CPT, inputs, tmp_path / "out", uri)
    assert verify(tmp_path / "out") == manifest
    [name] = cluster.jobs
    assert name.startswith("rlp-my-run-pretrain-cpt-") and len(name) <= 50
    assert "cpt: step 2/2" in capsys.readouterr().err
    assert list_artifacts(f"file://{tmp_path}/runs") == [uri]
    os.environ.pop("RLP_TRAINJOB")
    alone = run_stage("pretrain", CPT, inputs, tmp_path / "alone")
    assert manifest.inputs == alone.inputs and manifest.settings == alone.settings
    curves = [[json.loads(line) for line in (tmp_path / run / "metrics.jsonl").open()] for run in ("out", "alone")]
    for ours, theirs in zip(*curves, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    role = next(each for each in manifests() if each["kind"] == "Role")
    granted = {(verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert cluster.asked <= granted


def finished_by_hand(tmp_path: Path, artifact: Path, uri: str) -> Callable[[KubernetesApi, dict[str, Any]], None]:
    """A job whose result appears at once."""

    def start(api: KubernetesApi, job: dict[str, Any]) -> None:
        upload_folder(artifact, uri)
        api.finish(job, "Complete")

    return start


def test_a_retry_finds_the_job_again_and_makes_a_failed_one_anew(
    cluster: KubernetesApi,
    inputs: dict[str, Path],
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = f"file://{tmp_path}/runs/it/pretrain-cpt"
    made: list[str] = []

    def fails(api: KubernetesApi, job: dict[str, Any]) -> None:
        made.append(job["metadata"]["name"])
        api.finish(job, "Failed", "BackoffLimitExceeded", "pod 1 ran out of memory")

    cluster.start = fails
    with pytest.raises(SystemExit) as left:
        run_component("pretrain", CPT, inputs, tmp_path / "out", uri)
    assert left.value.code == 1
    assert "failed: BackoffLimitExceeded: pod 1 ran out of memory" in capsys.readouterr().err

    def succeeds(api: KubernetesApi, job: dict[str, Any]) -> None:
        made.append(job["metadata"]["name"])
        threading.Timer(0.5, finished_by_hand(tmp_path, checkpoint, uri), (api, job)).start()

    cluster.start = succeeds
    run_stage("pretrain", CPT, inputs, tmp_path / "out", uri)
    assert made == made[:1] * 2 and "failed before; it is made anew" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "runs" / "it" / "pretrain-cpt")  # as when the stage's pod was lost before the job's end
    cluster.jobs[made[0]]["status"] = {}
    threading.Timer(0.5, finished_by_hand(tmp_path, checkpoint, uri), (cluster, cluster.jobs[made[0]])).start()
    run_stage("pretrain", CPT, inputs, tmp_path / "again", uri)
    assert len(made) == 2 and "is there already; it is followed" in capsys.readouterr().err


def test_sigterm_removes_the_job(cluster: KubernetesApi, inputs: dict[str, Path], tmp_path: Path) -> None:
    cluster.start = lambda api, job: None

    def cancel() -> None:
        while not cluster.jobs:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=cancel).start()
    with pytest.raises(SystemExit) as left:
        run_stage("pretrain", CPT, inputs, tmp_path / "out", f"file://{tmp_path}/runs/it/cpt")
    assert left.value.code == 128 + signal.SIGTERM and cluster.jobs == {}


def test_mistakes_are_one_line(
    cluster: KubernetesApi, inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file://{tmp_path}/runs/it/cpt"
    with pytest.raises(UserError, match="share no disk with this one; give --publish"):
        run_stage("pretrain", CPT, inputs, tmp_path / "out")
    for status, words in ((403, "refused.*pipelines/manifests/trainjob.yaml"), (404, "install Kubeflow Trainer")):
        cluster.refused = status
        with pytest.raises(UserError, match=words):
            run_stage("pretrain", CPT, inputs, tmp_path / "out", uri)
    monkeypatch.setenv("RLP_TRAINJOB", json.dumps({**NODES, "nodes": 0}))
    with pytest.raises(UserError, match="RLP_TRAINJOB: nodes"):
        run_stage("pretrain", CPT, inputs, tmp_path / "out", uri)
    monkeypatch.setenv("RLP_TRAINJOB", "{")
    with pytest.raises(UserError, match="RLP_TRAINJOB is not JSON"):
        run_stage("pretrain", CPT, inputs, tmp_path / "out", uri)


def test_the_job_carries_what_its_pods_need() -> None:
    settings = TrainJobSettings.model_validate(
        {
            **NODES,
            "accelerator": "nvidia.com/gpu",
            "count": 8,
            "cpu": "90",
            "memory": "1000Gi",
            "shared_memory": "64Gi",
            "node_selector": {"pool": "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
            "queue": "research",
            "service_account": "rlp-runner",
            "image_pull_secrets": ["registry"],
            "secrets": [{"name": "s3", "env": {"AWS_ACCESS_KEY_ID": "key"}}],
        }
    )
    job = train_job("rlp-x", ["torchrun", "-m", "components.pretrain"], settings)
    assert job["apiVersion"] == "trainer.kubeflow.org/v1alpha1" and job["kind"] == "TrainJob"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert job["spec"]["runtimeRef"] == {"name": "torch-distributed"}
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"], trainer["image"]) == (2, 1, "train:1")
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "90", "memory": "1000Gi", "nvidia.com/gpu": "8"},
        "limits": {"memory": "1000Gi", "nvidia.com/gpu": "8"},
    }
    assert {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "key"}}} in trainer["env"]
    [patch] = job["spec"]["runtimePatches"]
    [replicated] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu"} and pod["serviceAccountName"] == "rlp-runner"
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["terminationGracePeriodSeconds"] == 120 and pod["imagePullSecrets"] == [{"name": "registry"}]
    [container] = pod["containers"]
    assert container["name"] == "node" and container["volumeMounts"] == [{"name": "shm", "mountPath": "/dev/shm"}]
    assert container["securityContext"] == {"runAsNonRoot": True, "allowPrivilegeEscalation": False}


def test_other_work_has_another_name() -> None:
    names = {
        job_name(uri, Origin("checkpoint", {"seed": seed}, {"shards": digest}))
        for uri in ("s3://rlp/runs/" + "long-" * 30 + "/pretrain-rlp", "s3://rlp/runs/b/pretrain-rlp")
        for seed in (0, 1)
        for digest in ("a", "b")
    }
    assert len(names) == 8 and all(len(name) <= 50 and "--" not in name for name in names)


def manifests() -> list[dict[str, Any]]:
    return [each for file in sorted(MANIFESTS.glob("*.yaml")) for each in yaml.safe_load_all(file.read_text())]


def test_the_manifests_are_what_kubernetes_takes() -> None:
    """Each is read by the client's own model and written back without a loss."""

    class Response:
        def __init__(self, value: Any) -> None:
            self.data = json.dumps(value)

    api = client.ApiClient()
    kinds = {"ServiceAccount": "V1ServiceAccount", "Role": "V1Role", "RoleBinding": "V1RoleBinding"}
    for manifest in manifests():
        model = api.deserialize(Response(manifest), kinds[manifest["kind"]])
        assert api.sanitize_for_serialization(model) == manifest
    role, binding = ([each for each in manifests() if each["kind"] == kind] for kind in ("Role", "RoleBinding"))
    assert binding[0]["roleRef"]["name"] == role[0]["metadata"]["name"]
