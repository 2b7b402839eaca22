"""The stage evaluate on a tiny random checkpoint: what it writes, the same bytes twice, and wrong inputs."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.frame import run_stage
from rlpretrain.artifacts import SNAPSHOTS, read_manifest
from rlpretrain.errors import UserError
from rlpretrain.storage import list_artifacts
from rlpretrain.training.world import World
from tests.components.resuming import end, start

SETTINGS = {
    "suite": "mini",
    "repeats": 2,
    "max_new_tokens": 6,
    "temperature": 1.0,
    "held_out": {"documents": 4, "group": 2, "samples": 2, "max_context": 32, "thought": {"budget": 4}},
}


@pytest.fixture(scope="module")
def inputs(
    tmp_path_factory: pytest.TempPathFactory, make_shards: Callable[..., Path], checkpoint: Path
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    return {
        "checkpoint": checkpoint,
        "benchmarks": make_shards(root / "benchmarks", "mini_benchmarks", purpose="evaluation"),
        "held_out": make_shards(root / "held_out", "mini_documents", held_out_fraction=0.5),
    }


def test_writes_figures_samples_thoughts_and_curves_the_same_twice(inputs: dict[str, Path], tmp_path: Path) -> None:
    first, second = (run_stage("evaluate", SETTINGS, inputs, tmp_path / name) for name in ("a", "b"))
    assert first.digest == second.digest
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert results["schema_version"] == 1 and results["suite"] == "mini" and results["repeats"] == 2
    assert set(results["averages"]) == {"math", "science", "overall"}
    assert {"mean", "stderr", "documents", "thought_length", "cut_off", "per_position"} <= set(
        results["information_gain"]
    )
    samples = sorted(file.stem for file in (tmp_path / "a" / "samples").iterdir())
    assert samples == sorted(results["benchmarks"]) and len(samples) == 8
    lines = (tmp_path / "a" / "samples" / "sums.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["responses"]) for line in lines] == [2, 2, 2, 2]
    assert len((tmp_path / "a" / "thoughts.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "a" / "training.jsonl").read_text() == '{"step": 1}\n'
    assert (tmp_path / "a" / "training_timings.jsonl").is_file()
    assert first.facts["averages"] == results["averages"]


def test_the_model_is_placed_where_this_process_computes(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[object] = []
    monkeypatch.setattr(World, "place", lambda self, model: placed.append(model))
    run_stage("evaluate", {**SETTINGS, "limit": 1}, inputs, tmp_path / "out")
    assert len(placed) == 1


def test_runs_without_held_out_text(inputs: dict[str, Path], tmp_path: Path) -> None:
    given = {name: path for name, path in inputs.items() if name != "held_out"}
    run_stage("evaluate", {**SETTINGS, "limit": 1}, given, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["information_gain"] is None


def test_another_tokenizer_is_refused(
    inputs: dict[str, Path], make_shards: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_shards(tmp_path / "other", "mini_benchmarks", tokens=("<extra>",), purpose="evaluation")
    with pytest.raises(UserError, match="tokenizer"):
        run_stage("evaluate", SETTINGS, {**inputs, "benchmarks": other}, tmp_path / "out")


def test_killed_it_goes_on_and_ends_in_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    settings = {**SETTINGS, "limit": 2, "save_every": 2, "batch": 2}
    whole = run_stage("evaluate", settings, inputs, tmp_path / "whole")
    uri, log, output = f"file://{tmp_path}/run/task", tmp_path / "log", tmp_path / "out"
    kept = tmp_path / "run" / "checkpoints" / "task"
    for rounds in (4, 9):
        child = start(log, "evaluate", settings, inputs, output, uri)
        while child.is_alive() and len(list(kept.glob("*/manifest.json"))) < rounds:
            time.sleep(0.001)
        assert end(child) == -signal.SIGKILL, log.read_text()
    shutil.rmtree(output)
    child = start(log, "evaluate", settings, inputs, output, uri)
    child.join(120)
    assert child.exitcode == 0 and log.read_text().count("goes on after") == 2
    assert read_manifest(output).digest == whole.digest
    assert not (output / SNAPSHOTS).exists() and list_artifacts(f"file://{tmp_path}/run") == [uri]
