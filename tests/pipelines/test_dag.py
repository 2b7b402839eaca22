"""The whole DAG, as a person runs it, offline, twice: every artifact in storage, and the same bytes both times.

The two runs go side by side, each in a folder and with an embedded S3 server of its own: about two minutes on two cores.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import local
from pipelines.profile import load_profile
from pipelines.reproduction import reproduction, task_names
from rlpretrain.storage import download_folder, list_artifacts, read_bytes
from tests.pipelines.running import ROOT, environment, run_side_by_side

FILES = ("results.json", "report.md")  # the page tells wall-clock seconds too
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of two runs with the same settings and seed, and of their server's data."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    run_side_by_side(dict.fromkeys(folders, ("--profile", "tiny", "--name", "same", "--seed", "3")))
    return folders


def test_a_second_run_gives_the_same_bytes(runs: list[Path]) -> None:
    for name in FILES:
        first, second = (folder / "same" / "report" / name for folder in runs)
        assert first.read_bytes() == second.read_bytes(), f"{name} differs between two runs"


def test_every_task_left_its_artifact_under_the_runs_prefix(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = set(task_names(reproduction("tiny", load_profile("tiny"))).values()) - {"report-status"}
    digests = []
    for folder in runs:
        for name in local.ENDPOINTS:
            monkeypatch.delenv(name, raising=False)
        with local.storage(folder):
            uris = list_artifacts("s3://rlp/runs/same")
            assert {uri.rsplit("/", 1)[1] for uri in uris} == expected
            ended = json.loads(read_bytes("s3://rlp/runs/same/status.json"))
            assert ended["state"] == "SUCCEEDED" and set(ended["artifacts"]) == expected
            digests.append({uri: json.loads(read_bytes(f"{uri}/manifest.json"))["digest"] for uri in uris})
            download_folder("s3://rlp/runs/same/rlvr-rlp", folder / "fetched")  # verifies every file
    assert digests[0] == digests[1]


def test_the_page_is_where_it_was_said_to_be(runs: list[Path]) -> None:
    folder = runs[0]
    said = (folder / "said.txt").read_text()
    assert f"report: {folder}/same/report/index.html" in said
    assert "artifacts: s3://rlp/runs/same" in said
    assert "[25/25]" in said and "pretrain-rlp: done" in said
    assert (folder / "latest" / "report" / "index.html").exists()
    assert (folder / "latest").is_symlink() and not (folder / "same" / "tasks").exists()
    assert not list((folder / "tmp").iterdir())


def test_results_hold_every_arm_after_every_stage(runs: list[Path]) -> None:
    results = json.loads((runs[0] / "same" / "report" / "results.json").read_text())
    assert results["schema_version"] == 2
    models = {(model["arm"], model["stage"]) for model in results["models"]}
    assert models == {(arm, stage) for arm in ("base", "cpt", "rlp") for stage in ("pretrained", "sft", "rlvr")}


def test_runs_are_compared_from_storage(runs: list[Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "compare", "s3://rlp/runs/same", "s3://rlp/runs/same"]
    command += ["--output", str(tmp_path / "page"), "--runs", str(runs[0])]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page" / "index.html").exists()
    assert json.loads((tmp_path / "page" / "results.json").read_text())["runs"] == 2
