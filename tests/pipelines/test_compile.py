"""The DAG as Kubeflow takes it: checked in, fresh, and with the names, parameters and wiring people rely on."""

import subprocess
import sys
from importlib.resources import files
from typing import Any

import pytest
import yaml

from pipelines.compiling import checked_in, compiled_text, tasks_of
from pipelines.profile import load_profile
from pipelines.reproduction import reproduction, task_names

ARMS = ("base", "cpt", "rlp")
STAGES = ("pretrained", "sft", "rlvr")


@pytest.fixture(scope="module")
def definition() -> dict[str, Any]:
    return yaml.safe_load(compiled_text(tiny()))


def tiny() -> Any:
    return reproduction("tiny", load_profile("tiny"))


@pytest.mark.parametrize("name", checked_in())
def test_the_checked_in_yaml_is_fresh(name: str) -> None:
    path = files("pipelines").joinpath("compiled", name)
    assert path.is_file(), "run `make compile`"
    # Compared as data: a difference of thousands of lines helps nobody.
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == yaml.safe_load(compiled_text(checked_in()[name]())), (
        f"pipelines/compiled/{name} is stale; run `make compile`"
    )


def test_compiling_twice_gives_the_same_text() -> None:
    assert compiled_text(tiny()) == compiled_text(tiny())


def test_the_command_writes_what_the_library_compiles() -> None:
    command = [sys.executable, "-m", "pipelines", "compile", "--profile", "tiny", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_tasks_read_well() -> None:
    found = set(task_names(tiny()).values())
    shards = {f"shard-{name}" for name in ("benchmarks", "base-corpus", "corpus", "sft", "rlvr")}
    trained = {"train-base", "pretrain-cpt", "pretrain-rlp"} | {f"{s}-{arm}" for s in ("sft", "rlvr") for arm in ARMS}
    evaluated = {f"evaluate-{arm}-{stage}" for arm in ARMS for stage in STAGES}
    assert found == shards | trained | evaluated | {"compare", "report-status"}


def test_parameters_have_descriptions_and_defaults(definition: dict[str, Any]) -> None:
    parameters = definition["root"]["inputDefinitions"]["parameters"]
    assert {"run_name", "seed", "artifacts_uri", "code_digest", "rlp", "sft", "rlvr"} <= set(parameters)
    for name, parameter in parameters.items():
        assert parameter.get("description"), f"parameter {name} has no description"
        assert "defaultValue" in parameter, f"parameter {name} has no default"


def test_post_training_is_the_same_for_every_arm(definition: dict[str, Any]) -> None:
    """One parameter feeds every arm's SFT, one every arm's RLVR, one every evaluation; and one data set each."""
    for kind in ("sft", "rlvr", "evaluate"):
        tasks = [task for task in tasks_of(definition).values() if name_of(task).startswith(f"{kind}-")]
        assert len(tasks) == (9 if kind == "evaluate" else 3)
        assert len({task["inputs"]["parameters"]["settings"]["componentInputParameter"] for task in tasks}) == 1
        for artifact in ("shards", "benchmarks", "held_out"):
            sources = {str(task["inputs"]["artifacts"].get(artifact)) for task in tasks}
            assert len(sources) == 1


def test_each_task_publishes_under_the_runs_prefix(definition: dict[str, Any]) -> None:
    """The place is a parameter of the task, so that the run's artifacts lie side by side in storage."""
    for task in stages_of(definition):
        place = task["inputs"]["parameters"]["publish_uri"]["runtimeValue"]["constant"]
        assert place.endswith(f"/{name_of(task)}")


def test_every_task_sees_the_code(definition: dict[str, Any]) -> None:
    """Kubeflow's cache knows neither package nor image: the digest of the code must be among every task's inputs."""
    for task in stages_of(definition):
        assert task["inputs"]["parameters"]["code_digest"] == {
            "componentInputParameter": "pipelinechannel--code_digest"
        }


def stages_of(definition: dict[str, Any]) -> list[dict[str, Any]]:
    """The tasks that leave artifacts."""
    return [task for task in tasks_of(definition).values() if name_of(task) != "report-status"]


def name_of(task: dict[str, Any]) -> str:
    return task["taskInfo"]["name"]
