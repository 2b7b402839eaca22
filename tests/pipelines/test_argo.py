"""The same DAG for Argo Workflows: what both targets hold, and what the stages' shell form takes."""

import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hera.workflows import CronWorkflow, WorkflowTemplate
from typer.testing import CliRunner

from components import frame
from components.frame import load_stage
from pipelines.__main__ import app
from pipelines.argo import argo_manifests
from pipelines.cluster import STAGE_POOLS, Cluster, load_cluster
from pipelines.compiling import compiled_text, tasks_of
from pipelines.placing import Target
from pipelines.profile import load_profile
from pipelines.reproduction import reproduction
from rlpretrain.errors import UserError
from rlpretrain.report.evaluations import ARMS

FOLDER = Path(__file__).parents[2] / "pipelines" / "clusters"
ABLATIONS = ("shard_point", "pretrain_point", "evaluate_point", "ablate")  # Argo gets the reproduction alone


class Both:
    """One pipeline, compiled for one cluster, as both targets hold it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        compiled = compiled_text(reproduction("tiny", load_profile("tiny"), ARMS, Target(cluster)))
        self.kubeflow, platform = yaml.safe_load_all(compiled)
        self.pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self.tasks = {task["taskInfo"]["name"]: task for task in tasks_of(self.kubeflow).values()}
        self.text = argo_manifests(compiled, cluster)
        self.template, self.cron = yaml.safe_load_all(self.text)
        self.templates = {one["name"]: one for one in self.template["spec"]["templates"]}
        self.dag = {one["name"]: one for one in self.templates["arms"]["dag"]["tasks"]}

    def argo(self, task: str) -> dict[str, Any]:
        return self.templates[self.dag[task]["template"] if task in self.dag else task]

    def executor(self, task: str) -> str:
        return f"exec-{self.tasks[task]['componentRef']['name'].removeprefix('comp-')}"

    def container(self, task: str) -> dict[str, Any]:
        return self.kubeflow["deploymentSpec"]["executors"][self.executor(task)]["container"]

    def default(self, reference: str) -> Any:
        name = reference.removeprefix("{{$.inputs.parameters['").removesuffix("']}}").removeprefix("pipelinechannel--")
        return self.kubeflow["root"]["inputDefinitions"]["parameters"][name]["defaultValue"]


@cache
def compiled(file: str) -> Both:
    return Both(load_cluster(FOLDER / file))


@pytest.fixture(scope="module", params=sorted(path.name for path in FOLDER.glob("*.yaml")))
def both(request: pytest.FixtureRequest) -> Both:
    return compiled(request.param)


def test_both_targets_hold_the_same_tasks_and_edges(both: Both) -> None:
    assert both.dag.keys() == both.tasks.keys() - {"report-status"}
    assert both.template["spec"]["onExit"] == "report-status"
    names = {key: task["taskInfo"]["name"] for key, task in tasks_of(both.kubeflow).items()}
    for name, task in both.dag.items():
        waits = {names[key] for key in both.tasks[name].get("dependentTasks", [])}
        assert set(filter(None, task.get("depends", "").split(" && "))) == waits
        handed = {
            f"{{{{tasks.{names[source['producerTask']]}.outputs.artifacts.{source['outputArtifactKey']}}}}}"
            for one in both.tasks[name]["inputs"].get("artifacts", {}).values()
            for source in [one["taskOutputArtifact"]]
        }
        assert {one["from"] for one in task["arguments"].get("artifacts", [])} == handed


def test_both_targets_hold_the_same_images_machines_and_retries(both: Both) -> None:
    for name, task in both.tasks.items():
        kubeflow, argo, pod = both.container(name), both.argo(name), both.pods[both.executor(name)]
        assert argo["container"]["image"] == kubeflow["image"]
        assert argo["container"]["securityContext"] == {"runAsNonRoot": True, "allowPrivilegeEscalation": False}
        asked = kubeflow["resources"]
        limits = {"memory": both.default(asked["resourceMemoryLimit"])}
        if "accelerator" in asked:
            limits[both.default(asked["accelerator"]["resourceType"])] = both.default(
                asked["accelerator"]["resourceCount"]
            )
        assert argo["container"]["resources"]["limits"] == limits
        requests = dict(argo["container"]["resources"]["requests"])
        pool = both.cluster.pool(kubeflow["args"][-1])
        assert requests.pop("ephemeral-storage", None) == pool.disk
        assert requests == {
            "cpu": both.default(asked["resourceCpuRequest"]),
            "memory": both.default(asked["resourceMemoryRequest"]),
        }
        assert argo.get("nodeSelector", {}) == both.default(
            pod["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"]
        )
        assert argo.get("tolerations", []) == both.default(
            pod["tolerations"][0]["tolerationJson"]["componentInputParameter"]
        )
        mounts = {one["name"]: one["mountPath"] for one in argo["container"].get("volumeMounts", [])}
        assert mounts == {one["volumeName"]: one["mountPath"] for one in pod.get("emptyDirMounts", [])}
        volumes = {one["name"]: one["emptyDir"] for one in argo.get("volumes", [])}
        assert {name: one.get("medium") for name, one in volumes.items()} == {
            one["volumeName"]: one.get("medium") for one in pod.get("emptyDirMounts", [])
        }
        plain = {one["name"]: one["value"] for one in argo["container"]["env"] if "value" in one}
        assert plain == {one["name"]: one["value"] for one in kubeflow["env"]}
        secret = {one["name"] for one in argo["container"]["env"] if "valueFrom" in one}
        assert secret == {one["envVar"] for each in pod.get("secretAsEnv", []) for one in each["keyToEnv"]}
        policy = task.get("retryPolicy")
        assert int(argo.get("retryStrategy", {}).get("limit", 0)) == (policy["maxRetryCount"] if policy else 0)
        assert argo.get("metadata", {}).get("labels") == pod.get("podMetadata", {}).get("labels")
        assert argo.get("priorityClassName") == pool.priority_class


def test_a_mistake_of_the_user_is_not_tried_again(both: Both) -> None:
    assert both.argo("sft-rlp")["retryStrategy"]["expression"] == "asInt(lastRetry.exitCode) != 2"


def test_settings_arrive_as_the_profile_has_them(both: Both) -> None:
    parameters = {one["name"]: one["value"] for one in both.template["spec"]["arguments"]["parameters"]}
    assert json.loads(parameters["rlp"])["thinking"]["group"] == 2 and "2.0" not in parameters["rlp"]
    given = {one["name"]: one["value"] for one in both.dag["pretrain-rlp"]["arguments"]["parameters"]}
    assert given == {"task": "pretrain-rlp", "settings": "{{workflow.parameters.rlp}}"}
    assert parameters["artifacts_uri"] == both.cluster.s3.artifacts_uri


def test_what_tasks_hand_on_lies_in_the_pipeline_root(both: Both) -> None:
    (stored,) = both.argo("train-base")["outputs"]["artifacts"]
    root = f"s3://{stored['s3']['bucket']}/{stored['s3']['key'].partition('/{{workflow.name}}')[0]}"
    assert root == both.cluster.s3.pipeline_root and stored["archive"] == {"none": {}}
    assert ("accessKeySecret" in stored["s3"]) == (both.cluster.s3.secret is not None)
    assert stored["s3"].get("useSDKCreds", False) == (both.cluster.s3.secret is None)


def test_hera_reads_back_what_it_wrote(both: Both) -> None:
    template, cron = both.text.split("---\n")
    assert WorkflowTemplate.from_yaml(template).to_dict() == both.template
    assert CronWorkflow.from_yaml(cron).to_dict() == both.cron
    assert both.cron["spec"]["suspend"] and both.cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert both.cron["spec"]["workflowSpec"]["workflowTemplateRef"] == {"name": both.template["metadata"]["name"]}


class Recorded(Exception):
    """What a component's body called its stage with."""


class Artifact:
    path = "somewhere"


@pytest.mark.parametrize("component", [name for name in STAGE_POOLS if name not in (*ABLATIONS, "report_status")])
def test_the_shell_form_calls_what_the_component_calls(component: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Module and names of the inputs, against the component's own body."""

    def record(name: str, settings: Any, inputs: dict[str, Path], *_: Any) -> None:
        raise Recorded(name, set(inputs))

    monkeypatch.setattr(frame, "run_component", record)
    folder = {"shard_benchmarks": "shard_data", "train_base": "pretrain"}.get(component, component)
    face = getattr(importlib.import_module(f"components.{folder}.component"), component)
    artifacts = (face.component_spec.inputs or {}).keys() | (face.component_spec.outputs or {}).keys()
    given = {name: Artifact() for name in artifacts - {"settings", "seed", "publish_uri", "code_digest"}}
    known = {"settings": {}, "seed": 0, "publish_uri": "", "code_digest": ""}
    given |= {name: value for name, value in known.items() if name in artifacts}
    with pytest.raises(Recorded) as called:
        face.python_func(**given)
    module, inputs = called.value.args
    command = compiled("eks.yaml").templates[component.replace("_", "-")]["container"]["command"]
    assert command[2] == f"components.{module}"
    named = {command[index + 1].partition("=")[0] for index, word in enumerate(command) if word == "--input"}
    assert named == inputs and named <= load_stage(module).inputs.keys()
    assert ("--seed" in command) == ("seed" in artifacts)


def test_the_command_writes_both_manifests(tmp_path: Path) -> None:
    output = tmp_path / "argo.yaml"
    cluster = ["--cluster", str(FOLDER / "on-prem.yaml")]
    target = ["compile", "--profile", "tiny", "--target", "argo", "--cron", "0 3 * * 1", "--output", str(output)]
    done = CliRunner().invoke(app, [*target, *cluster])
    assert done.exit_code == 0, done.output
    template, cron = yaml.safe_load_all(output.read_text())
    assert (template["kind"], cron["kind"]) == ("WorkflowTemplate", "CronWorkflow")
    assert cron["spec"]["schedules"] == ["0 3 * * 1"] and not cron["spec"].get("suspend")
    assert isinstance(CliRunner().invoke(app, target).exception, UserError), "a cluster is needed"
    target[target.index("0 3 * * 1")] = "0 24 * * 1"
    refused = CliRunner().invoke(app, [*target, *cluster]).exception
    assert isinstance(refused, UserError) and str(refused).startswith(
        "--cron '0 24 * * 1': '24' is no hour; use 0 to 23,"
    )
