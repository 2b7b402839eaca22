"""Runs read back from a real server: the list of them, and what one of them found."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from components.report_status.stage import report
from pipelines.__main__ import main
from rlpretrain import storage
from rlpretrain.artifacts import MANIFEST, write_manifest
from rlpretrain.report.build import compare_runs
from rlpretrain.settings import CompareSettings
from tests.rlpretrain.report.artifacts import write_evaluation

KEYS = (("base", "pretrained"), ("rlp", "pretrained"), ("base", "sft"), ("rlp", "sft"))
SETTINGS = CompareSettings(title="Fake", profile="tiny", bootstrap_samples=200)


def make(folder: Path, seed: int, compared: bool = False) -> None:
    """A run's evaluations, and with ``compared`` its comparison."""
    evaluations = {}
    for arm, stage in KEYS:
        place = folder / f"evaluate-{arm}-{stage}"
        evaluations[arm, stage] = write_evaluation(place, arm=arm, stage=stage, seed=seed, questions=16, positions=16)
    if compared:
        compare_runs([evaluations], SETTINGS, folder / "compare")
        settings = SETTINGS.model_dump(mode="json")
        write_manifest(folder / "compare", kind="comparison", settings=settings, inputs={}, seed=0, facts={})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of two runs."""
    root = tmp_path_factory.mktemp("runs")
    make(root / "whole", seed=3, compared=True)
    make(root / "stopped", seed=4)
    return root


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], s3_bucket: str) -> Any:
    """Run a command on the runs of the test's bucket; gives its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pipelines", *arguments, "--artifacts", f"{s3_bucket}/runs"])
        code = main()
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def two_runs(s3_bucket: str, made: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A run that ended and a later one that was stopped; the place of both."""
    uri = f"{s3_bucket}/runs"
    for artifact in sorted(made.glob("*/*")):
        storage.upload_folder(artifact, f"{uri}/{artifact.relative_to(made)}")
    report("whole", f"{uri}/whole", "SUCCEEDED")
    storage.write_bytes(f"{uri}/note.txt", b"of nobody")
    storage.write_bytes(f"{uri}/else/where/note.txt", b"of nobody")
    capsys.readouterr()
    return uri


def test_runs_are_listed_with_their_state_and_accuracy(two_runs: str, command: Any) -> None:
    code, output, errors = command("runs")
    assert (code, errors) == (0, "")
    heading, *lines, _ = output.splitlines()
    assert " ".join(heading.split()) == "run profile state when seed artifacts MB base (%) rlp (%)"
    by_name = {line.split()[0]: line.split() for line in lines}
    assert by_name.keys() == {"whole", "stopped"}
    assert by_name["whole"][1:3] == ["tiny", "SUCCEEDED"] and by_name["whole"][5:7] == ["3", "5"]
    assert by_name["stopped"][1:3] == ["-", "UNFINISHED"] and by_name["stopped"][5:7] == ["4", "4"]
    evaluated = json.loads(storage.read_bytes(f"{two_runs}/whole/evaluate-rlp-pretrained/results.json"))
    assert by_name["whole"][-1] == f"{100 * evaluated['averages']['overall']:.1f}"


def test_runs_as_json_give_every_artifact(two_runs: str, command: Any) -> None:
    code, output, _ = command("runs", "--json")
    runs = {run["name"]: run for run in json.loads(output)}
    assert code == 0 and runs["whole"]["uri"] == f"{two_runs}/whole" and runs["whole"]["seed"] == 3
    assert "compare" in runs["whole"]["artifacts"] and len(runs["stopped"]["artifacts"]) == 4
    assert runs["whole"]["size"] == sum(stored.size for stored in storage.connect(f"{two_runs}/whole").stored())


def test_no_run_yet_is_no_mistake(command: Any, s3_bucket: str) -> None:
    assert command("runs") == (0, f"{s3_bucket}/runs: holds no run yet\n", "")
    code, output, _ = command("runs", "--json")
    assert (code, json.loads(output)) == (0, [])


@pytest.mark.parametrize("name", ["whole", "stopped"])
def test_a_run_shows_its_verdicts_and_arms_by_stages(two_runs: str, command: Any, name: str) -> None:
    """Of the published comparison, and where there is none of the evaluations."""
    for place in (name, f"{two_runs}/{name}"):
        code, output, errors = command("show", place)
        assert (code, errors) == (0, "")
        lines = output.splitlines()
        assert lines[0].startswith(f"run {name}, profile ") and lines[-1] == f"artifacts: {two_runs}/{name}"
        assert "HOLDS" in output and "After pretraining" in output and "After SFT" in output
        rows = {line.split()[0]: line for line in lines if line.split()[:1] in (["base"], ["RLP"])}
        assert rows["RLP"].count("[") == 2, "an interval a stage"


def test_a_run_as_json_holds_its_figures(two_runs: str, command: Any) -> None:
    code, output, _ = command("show", "whole", "--json")
    shown = json.loads(output)
    published = json.loads(storage.read_bytes(f"{two_runs}/whole/compare/results.json"))
    assert code == 0 and shown["state"] == "SUCCEEDED"
    assert shown["results"]["models"] == published["models"] and shown["results"]["claims"] == published["claims"]


def test_an_unknown_run_is_a_mistake_that_names_the_known(two_runs: str, command: Any) -> None:
    code, _, errors = command("show", "nothing")
    assert code == 2 and errors == f"error: {two_runs}: holds no run 'nothing'; known: stopped, whole\n"
    code, _, errors = command("show", "s3://no-such-bucket-here/runs/nothing")
    assert code == 2 and errors.count("\n") == 1 and "no-such-bucket-here" in errors


def test_a_damaged_run_does_not_hide_the_others(two_runs: str, command: Any) -> None:
    where = f"{two_runs}/whole/evaluate-rlp-pretrained/{MANIFEST}"
    storage.write_bytes(where, storage.read_bytes(where)[:-20])
    _, output, errors = command("runs")
    assert "DAMAGED" in output and "UNFINISHED" in output and errors == ""
    code, _, errors = command("show", "whole")
    assert code == 2 and errors.count("\n") == 1 and f"verify {two_runs}/whole" in errors


@pytest.mark.parametrize("content", [b"no json", b"[]", b'{"state": "SUCCEEDED", "finished_at": 5}'])
def test_a_damaged_status_does_not_hide_the_others(two_runs: str, command: Any, content: bytes) -> None:
    storage.write_bytes(f"{two_runs}/whole/status.json", content)
    code, output, errors = command("runs")
    assert code == 0 and "DAMAGED" in output and "UNFINISHED" in output and errors == ""


def test_a_comparison_that_was_changed_in_storage_is_refused(two_runs: str, command: Any) -> None:
    where = f"{two_runs}/whole/compare/results.json"
    storage.write_bytes(where, storage.read_bytes(where).replace(b"Fake", b"Fame"))
    code, _, errors = command("show", "whole")
    assert code == 2 and errors.count("\n") == 1 and "compare/results.json" in errors
