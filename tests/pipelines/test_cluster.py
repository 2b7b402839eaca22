"""Node pools: the pods that Kubeflow makes of a compiled pipeline, and mistakes in a cluster's file."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from pydantic import ValidationError

from components.trainjob import TrainJobSettings, train_job
from pipelines.ablations import ablations, parse_sweeps
from pipelines.cluster import POOLS, STAGE_POOLS, Cluster, check_for_kubeflow, load_cluster
from pipelines.compiling import compiled_for, compiled_text, tasks_of
from pipelines.placing import Target
from pipelines.profile import load_profile
from pipelines.reproduction import reproduction
from rlpretrain.errors import UserError
from rlpretrain.report.evaluations import ARMS

FOLDER = Path(__file__).parents[2] / "pipelines" / "clusters"
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.yaml"))
STAGES = ("pretrained", "sft", "rlvr")


class Compiled:
    """A compiled pipeline as the server reads it: tasks by name, and each one's pod with the parameters' defaults."""

    def __init__(self, cluster: Cluster, arms: tuple[str, ...] = ("base", "cpt", "rlp")) -> None:
        self.definition, platform = yaml.safe_load_all(
            compiled_text(reproduction("tiny", load_profile("tiny"), arms, Target(cluster)))
        )
        self.pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self.tasks = {task["taskInfo"]["name"]: task for task in tasks_of(self.definition).values()}
        self.defaults = {
            name: parameter["defaultValue"]
            for name, parameter in self.definition["root"]["inputDefinitions"]["parameters"].items()
        }

    def component(self, task: str) -> str:
        return self.tasks[task]["componentRef"]["name"].removeprefix("comp-")

    def container(self, task: str) -> dict[str, Any]:
        return self.definition["deploymentSpec"]["executors"][f"exec-{self.component(task)}"]["container"]

    def environment(self, task: str) -> dict[str, str]:
        return {one["name"]: one["value"] for one in self.container(task)["env"]}

    def pod(self, task: str) -> dict[str, Any]:
        return self.pods[f"exec-{self.component(task)}"]

    def value(self, reference: str) -> Any:
        """What a placeholder or the name of an input stands for, by the parameters' defaults."""
        name = reference.removeprefix("{{$.inputs.parameters['").removesuffix("']}}")
        return self.defaults[name.removeprefix("pipelinechannel--")]

    def resources(self, task: str) -> dict[str, Any]:
        found = dict(self.container(task)["resources"])
        accelerator = found.pop("accelerator", None)
        values = {name: self.value(reference) for name, reference in found.items()}
        if accelerator is not None:
            values[self.value(accelerator["resourceType"])] = self.value(accelerator["resourceCount"])
        return values


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> tuple[Cluster, Compiled]:
    cluster = load_cluster(FOLDER / request.param)
    return cluster, Compiled(cluster)


def test_gpu_stages_carry_accelerator_selector_toleration_and_shared_memory(example: tuple[Cluster, Compiled]) -> None:
    cluster, compiled = example
    trained = [
        name for name in compiled.tasks if name.startswith(("train-", "pretrain-", "sft-", "rlvr-", "evaluate-"))
    ]
    assert len(trained) == 1 + 2 + 3 + 3 + 9
    for task in trained:
        pool = cluster.pools.eval if task.startswith("evaluate-") else cluster.pools.train
        assert compiled.resources(task) == {
            "resourceCpuRequest": pool.cpu,
            "resourceMemoryRequest": pool.memory,
            "resourceMemoryLimit": pool.memory,
            pool.accelerator: str(pool.count),
        }
        pod = compiled.pod(task)
        assert compiled.value(pod["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"]) == pool.node_selector
        tolerations = compiled.value(pod["tolerations"][0]["tolerationJson"]["componentInputParameter"])
        assert {"nvidia.com/gpu"} <= {toleration["key"] for toleration in tolerations}
        shm = {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": pool.shared_memory}
        assert shm in pod["emptyDirMounts"]


def test_cpu_stages_carry_none_of_it(example: tuple[Cluster, Compiled]) -> None:
    cluster, compiled = example
    for task in [name for name in compiled.tasks if name.startswith(("shard-", "compare", "report-"))]:
        assert "accelerator" not in compiled.container(task)["resources"]
        pod = compiled.pod(task)
        assert "/dev/shm" not in {mount["mountPath"] for mount in pod.get("emptyDirMounts", [])}
        assert compiled.value(pod["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"]) == (
            cluster.pools.cpu.node_selector
        )
        assert compiled.value(pod["tolerations"][0]["tolerationJson"]["componentInputParameter"]) == []


def assert_channels_arrive(definition: dict[str, Any], pods: dict[str, Any]) -> None:
    components = definition["components"]
    for dag in (definition["root"], *(one for one in components.values() if "dag" in one)):
        declared = dag["inputDefinitions"]["parameters"].keys()
        for task in dag["dag"]["tasks"].values():
            parameters = task["inputs"]["parameters"]
            assert {
                one["componentInputParameter"] for one in parameters.values() if "componentInputParameter" in one
            } <= (declared)
            executor = components[task["componentRef"]["name"]].get("executorLabel")
            if executor is None:
                continue
            container = definition["deploymentSpec"]["executors"][executor]["container"]
            for reference in yaml.safe_dump(container["resources"]).split("parameters[''")[1:]:
                assert reference.partition("''")[0] in parameters
            pod = pods[executor]
            for one in (pod["nodeSelector"]["nodeSelectorJson"], pod["tolerations"][0]["tolerationJson"]):
                assert one["componentInputParameter"] in declared


def test_every_channel_reaches_the_task_that_names_it(example: tuple[Cluster, Compiled]) -> None:
    """Also through the exit handler's frame, where kfp drops what the resources of a task alone name."""
    _, compiled = example
    assert_channels_arrive(compiled.definition, compiled.pods)


def test_the_points_of_ablations_get_their_machines_in_their_loops() -> None:
    profile = load_profile("mini")
    cluster = load_cluster(FOLDER / "eks.yaml")
    pipeline = ablations("mini", profile, parse_sweeps("all", profile), target=Target(cluster))
    definition, platform = yaml.safe_load_all(compiled_text(pipeline))
    assert_channels_arrive(definition, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"])


def test_evaluation_fans_out() -> None:
    """Every arm after every stage is a task of its own, which waits for its model and its data and nothing else."""
    compiled = Compiled(load_cluster(FOLDER / "eks.yaml"), ARMS)
    keys = {task["taskInfo"]["name"]: key for key, task in tasks_of(compiled.definition).items()}
    assert Counter(name.startswith("evaluate-") for name in compiled.tasks)[True] == len(ARMS) * len(STAGES)
    for arm in ARMS:
        title = arm.replace("_", "-")
        first = "train-base" if arm == "base" else f"pretrain-{title}"
        for stage, model in zip(STAGES, (first, f"sft-{title}", f"rlvr-{title}"), strict=True):
            waits = compiled.tasks[f"evaluate-{title}-{stage}"]["dependentTasks"]
            assert set(waits) == {keys[model], keys["shard-benchmarks"], keys["shard-corpus"]}


def test_what_kubeflow_takes_as_a_parameter_is_a_parameter_of_the_run() -> None:
    defaults = Compiled(load_cluster(FOLDER / "eks.yaml")).defaults
    for pool in ("train", "eval"):
        settings = ("accelerator", "count", "cpu", "memory", "node_selector", "tolerations")
        assert {f"{pool}_pool_{name}" for name in settings} <= defaults.keys()
    assert {"cpu_pool_cpu", "cpu_pool_memory", "cpu_pool_node_selector", "cpu_pool_tolerations"} <= defaults.keys()
    assert "cpu_pool_accelerator" not in defaults
    # The server reads quantities of a pod from text parameters alone.
    assert defaults["train_pool_count"] == "8" and defaults["train_pool_cpu"] == "90"
    assert defaults["artifacts_uri"] == "s3://example-rlp/runs"


def test_secrets_come_as_environment_and_the_webhook_to_one_task_alone() -> None:
    cluster = load_cluster(FOLDER / "gke.yaml")
    compiled = Compiled(cluster)
    for task in compiled.tasks:
        pod = compiled.pod(task)
        variables = {
            entry["envVar"]: (secret["secretName"], entry["secretKey"])
            for secret in pod["secretAsEnv"]
            for entry in secret["keyToEnv"]
        }
        assert variables["AWS_SECRET_ACCESS_KEY"] == ("rlp-s3", "secretkey")
        assert ("RLP_WEBHOOK_URL" in variables) == (task == "report-status")
        assert [one["secretName"] for one in pod["imagePullSecret"]] == ["registry"]
        environment = compiled.environment(task)
        assert environment["AWS_ENDPOINT_URL_S3"] == "https://storage.googleapis.com"
        assert environment["TMPDIR"] == "/scratch"


def test_kueue_takes_its_labels() -> None:
    compiled = Compiled(load_cluster(FOLDER / "on-prem.yaml"))
    labels = compiled.pod("pretrain-rlp")["podMetadata"]["labels"]
    assert labels == {"kueue.x-k8s.io/queue-name": "research", "kueue.x-k8s.io/priority-class": "training"}
    assert "podMetadata" not in compiled.pod("compare")


def test_a_training_on_several_nodes_is_a_job_that_a_small_pod_waits_for() -> None:
    values = change("pools.train.nodes", 4)
    values["pools"]["train"] |= {"queue": "research", "priority_class": "training"}
    cluster = Cluster.model_validate(values)
    compiled, pool = Compiled(cluster), cluster.pools.train
    for task in ("train-base", "pretrain-rlp", "sft-cpt", "rlvr-rlp"):
        assert compiled.resources(task) == {
            "resourceCpuRequest": "2",
            "resourceMemoryRequest": "16Gi",
            "resourceMemoryLimit": "16Gi",
        }
        pod, environment = compiled.pod(task), compiled.environment(task)
        selector = compiled.value(pod["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"])
        assert selector == cluster.pools.cpu.node_selector and "podMetadata" not in pod
        settings = TrainJobSettings.model_validate_json(environment["RLP_TRAINJOB"])
        assert (settings.nodes, settings.count, settings.namespace) == (4, 8, "research")
        assert settings.image == compiled.container(task)["image"]
        job = train_job("rlp-x", ["torchrun"], settings)
        assert job["spec"]["trainer"]["resourcesPerNode"]["limits"] == {"memory": pool.memory, pool.accelerator: "8"}
        assert {"name": "TMPDIR", "value": "/scratch"} in job["spec"]["trainer"]["env"]
        assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "training"
        [patch] = job["spec"]["runtimePatches"]
        [replicated] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        of_job = replicated["template"]["spec"]["template"]["spec"]
        assert of_job["nodeSelector"] == pool.node_selector and of_job["serviceAccountName"] == "rlp-runner"
        mounts = {mount["mountPath"] for mount in of_job["containers"][0]["volumeMounts"]}
        assert mounts == {"/dev/shm", "/scratch"}
    assert "RLP_TRAINJOB" not in compiled.environment("evaluate-rlp-pretrained")
    assert "train_pool_accelerator" not in compiled.defaults
    values["namespace"] = None
    with pytest.raises(ValidationError, match=r"pools\.train\.nodes: name 'namespace' and 'service_account'"):
        Cluster.model_validate(values)


def test_the_server_would_read_it(example: tuple[Cluster, Compiled]) -> None:
    """Both parts parse as the messages that Kubeflow Pipelines stores."""
    _, compiled = example
    json_format.ParseDict(compiled.definition, pipeline_spec_pb2.PipelineSpec())
    for pod in compiled.pods.values():
        json_format.ParseDict(pod, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_without_a_cluster_nothing_is_said_of_machines() -> None:
    documents = list(yaml.safe_load_all(compiled_text(reproduction("tiny", load_profile("tiny")))))
    assert len(documents) == 1
    assert not any("pool" in name for name in documents[0]["root"]["inputDefinitions"]["parameters"])
    assert not any("resources" in one["container"] for one in documents[0]["deploymentSpec"]["executors"].values())


def test_a_pipeline_for_a_cluster_knows_its_code() -> None:
    """A run started in the UI leaves the parameter as it is, and must not get another code's cached results."""
    text = compiled_for("tiny", load_profile("tiny"), ("base", "rlp"), FOLDER / "eks.yaml")
    digest = next(yaml.safe_load_all(text))["root"]["inputDefinitions"]["parameters"]["code_digest"]["defaultValue"]
    assert len(digest) == 64


def test_every_component_has_a_pool() -> None:
    whole = Compiled(load_cluster(FOLDER / "eks.yaml"), ARMS).definition
    profile = load_profile("mini")
    swept = yaml.safe_load(compiled_text(ablations("mini", profile, parse_sweeps("all", profile))))
    executors = [one for each in (whole, swept) for one in each["deploymentSpec"]["executors"].values()]
    assert {one["container"]["args"][-1] for one in executors} == STAGE_POOLS.keys()
    assert set(STAGE_POOLS.values()) == set(POOLS)


def change(path: str, value: Any) -> dict[str, Any]:
    values = yaml.safe_load((FOLDER / "eks.yaml").read_text())
    *above, last = path.split(".")
    inner = values
    for name in above:
        inner = inner[name]
    inner[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("pools.gpu", {}, "unknown setting 'pools.gpu'"),
        ("pools.train.cpu", "many", "pools.train.cpu: String should match"),
        ("pools.train.memory", "64GB", "pools.train.memory: String should match"),
        ("pools.train.accelerator", "a100", "pools.train.accelerator: String should match"),
        ("pools.cpu.accelerator", "nvidia.com/gpu", "pools.cpu.accelerator: its stages use none"),
        ("pools.cpu.count", 2, "name the 'accelerator'"),
        ("pools.eval.nodes", 2, "pools.eval.nodes: its stages take one each; remove it"),
        ("pools.eval.tolerations", [{"key": "a", "value": "b"}], "operator Equal needs 'value'"),
        ("s3.artifacts_uri", "rlp/runs", "s3.artifacts_uri: String should match"),
        ("s3.secret", {"name": "rlp-s3", "env": {"KEY": "key"}}, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("service_account", None, "without s3.secret, name the 'service_account'"),
        ("endpoint", "kubeflow.example.com", "endpoint: String should match"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, path: str, value: Any, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(change(path, value)))
    with pytest.raises(UserError) as raised:
        load_cluster(file)
    assert message in str(raised.value) and str(raised.value).startswith(str(file)) and "\n" not in str(raised.value)


def test_a_priority_that_kubeflow_would_drop_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(change("pools.train.priority_class", "high")))
    with pytest.raises(UserError, match=r"mine.yaml: pools.train.priority_class: Kubeflow Pipelines cannot set"):
        check_for_kubeflow(load_cluster(file), str(file))
