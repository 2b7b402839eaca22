"""Which tasks are tried again, which are cached, and how a run ends."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cluster import STAGE_POOLS, load_cluster
from pipelines.compiling import compiled_text, tasks_of
from pipelines.placing import ANYWHERE, ONE_MACHINE, Target
from pipelines.profile import load_profile
from pipelines.reproduction import reproduction
from pipelines.retries import RETRIES

FOLDER = Path(__file__).parents[2] / "pipelines" / "clusters"


def tiny(target: Target = ANYWHERE) -> Any:
    return reproduction("tiny", load_profile("tiny"), target=target)


@pytest.fixture(scope="module")
def tasks() -> dict[str, dict[str, Any]]:
    return {task["taskInfo"]["name"]: task for task in tasks_of(yaml.safe_load(compiled_text(tiny()))).values()}


def test_gpu_stages_wait_longer_and_try_more_often_than_short_ones(tasks: dict[str, dict[str, Any]]) -> None:
    for name in ("train-base", "pretrain-cpt", "pretrain-rlp", "sft-rlp", "rlvr-base", "evaluate-rlp-sft"):
        assert tasks[name]["retryPolicy"] == {
            "maxRetryCount": 3,
            "backoffDuration": "120s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": "3600s",
        }
    for name in ("shard-benchmarks", "shard-corpus"):
        assert tasks[name]["retryPolicy"]["maxRetryCount"] == 2
        assert tasks[name]["retryPolicy"]["backoffDuration"] == "60s"


def test_the_comparison_is_neither_cached_nor_tried_again(tasks: dict[str, dict[str, Any]]) -> None:
    assert "retryPolicy" not in tasks["compare"]
    uncached = {name for name, task in tasks.items() if not task["cachingOptions"].get("enableCache")}
    assert uncached == {"compare", "report-status"}


def test_spot_nodes_bring_more_tries() -> None:
    definition = next(yaml.safe_load_all(compiled_text(tiny(Target(load_cluster(FOLDER / "eks.yaml"))))))
    tasks = {task["taskInfo"]["name"]: task for task in tasks_of(definition).values()}
    assert tasks["evaluate-rlp-sft"]["retryPolicy"]["maxRetryCount"] == 3
    assert tasks["sft-rlp"]["retryPolicy"]["maxRetryCount"] == 9


def test_one_machine_tries_nothing_again() -> None:
    spec = tiny(ONE_MACHINE).pipeline_spec
    dags = (spec.root, *spec.components.values())
    assert not any(task.HasField("retry_policy") for dag in dags for task in dag.dag.tasks.values())


def test_every_component_has_a_policy() -> None:
    assert RETRIES.keys() == STAGE_POOLS.keys()


def test_the_exit_handler_sees_how_all_of_it_ended() -> None:
    root = yaml.safe_load(compiled_text(tiny()))["root"]["dag"]["tasks"]
    assert set(root) == {"exit-handler-1", "report-status"}
    end = root["report-status"]
    assert end["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert end["inputs"]["parameters"]["status"] == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}
