"""The ablations' points, their DAG as Kubeflow takes it, and a small run of it on this machine."""

import json
import subprocess
import sys

import pytest
import yaml

from pipelines.ablations import SWEEPS, ablations, make_points, parse_sweeps
from pipelines.compiling import compiled_text
from pipelines.profile import load_profile
from rlpretrain.errors import UserError
from rlpretrain.report.ablations import TITLES
from rlpretrain.report.ledger import load_ledger


def test_every_sweep_of_the_paper_has_a_name_a_title_and_values_in_its_profile():
    assert set(TITLES) == set(SWEEPS) >= set(load_ledger().sweeps)
    assert parse_sweeps("all", load_profile("qwen3-1.7b")) == SWEEPS


def test_the_paper_s_values_are_the_profile_s():
    profile = load_profile("qwen3-1.7b")
    for sweep in make_points(profile, ["rollouts", "thought_budget", "kl_weight", "ema_decay", "domains"]).sweeps:
        paper = load_ledger().sweeps[sweep["name"]]
        assert {sweep["default"], *sweep["points"].values()} == set(paper.values) and sweep["default"] == paper.default


def test_a_point_changes_one_setting():
    points = make_points(load_profile("mini"), ["rollouts", "thought_budget", "domains"])
    default = points.rlp["default"]["thinking"]
    assert points.rlp["rollouts-16"]["thinking"] == {**default, "group": 16}
    budget = points.rlp["thought_budget-4"]["thinking"]
    assert budget == {**default, "thought": {**default["thought"], "budget": 4}}
    assert points.corpora["domains-math"]["sources"][0]["options"] == {"domain": "math"}
    assert points.corpora["domains-math"]["held_out_fraction"] == 0.1
    assert len(points) == 1 + 3 + 4 + 2


@pytest.mark.parametrize(
    ("profile", "sweeps", "message"),
    [
        ("mini", "rollout", "no values for 'rollout'; it has rollouts"),
        ("smollm2-135m", "all", "the profile has no 'ablations'"),
    ],
)
def test_unknown_sweeps_are_named(profile, sweeps, message):
    with pytest.raises(UserError, match=message):
        parse_sweeps(sweeps, load_profile(profile))


def test_a_value_that_a_setting_refuses_is_named_before_the_run():
    with pytest.raises(UserError, match=r"ablations.rollouts: thinking.group: .*greater than or equal to 2"):
        make_points(load_profile("mini", {"ablations.rollouts": [1]}), ["rollouts"])


def test_the_dag_fans_out_and_ends_in_one_page():
    definition = yaml.safe_load(compiled_text(ablations("mini", load_profile("mini"), ["rollouts", "domains"])))
    tasks = definition["root"]["dag"]["tasks"]
    loops = {task["taskInfo"]["name"]: task for task in tasks.values() if "parameterIterator" in task}
    assert set(loops) == {"points", "corpora"} and "iteratorPolicy" not in loops["points"]
    assert set(tasks["ablate"]["dependentTasks"]) >= {
        "evaluate",
        *(k for k, t in tasks.items() if "parameterIterator" in t),
    }
    labels = [
        point["label"] for point in definition["root"]["inputDefinitions"]["parameters"]["points"]["defaultValue"]
    ]
    assert labels == ["default", "rollouts-2", "rollouts-4", "rollouts-16"]
    without = yaml.safe_load(compiled_text(ablations("mini", load_profile("mini"), ["rollouts"])))
    assert not {"corpora", "rlp"} & without["root"]["inputDefinitions"]["parameters"].keys()


@pytest.mark.timeout(900)
def test_a_run_on_this_machine_gives_the_page(tmp_path):
    command = [sys.executable, "-m", "pipelines", "ablate", "--profile", "tiny", "--runs", str(tmp_path), "--name", "a"]
    command += ["--sweeps", "rollouts,domains"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "a" / "report" / "results.json").read_text())
    assert [[p["label"] for p in sweep["points"]] for sweep in results["sweeps"]] == [
        ["default", "rollouts-3"],
        ["default", "domains-math"],
    ]
    assert (tmp_path / "a" / "report" / "index.html").stat().st_size > 100_000
    # Every task was counted, those in loops too, and every point is named as it starts.
    assert "[13/13] ablate" in done.stdout + done.stderr and "point: domains-math" in done.stdout + done.stderr
