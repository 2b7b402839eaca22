"""What is exported is read back with the tools' own readers."""

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from pipelines.exporting import export, read_trainings
from rlpretrain.artifacts import write_manifest
from rlpretrain.errors import UserError
from rlpretrain.storage import upload_folder

ROWS: list[dict[str, Any]] = [{"step": step, "loss/nll": 1.0 / step, "reward/gain": 0.25 * step} for step in (1, 2, 3)]
ROWS[-1] |= {"warnings": ["thought/length"], "skipped": True}  # what is no figure


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two checkpoints, of which the base was trained and then warmed up."""
    for task, rows in (("train-base", [*ROWS, {"step": 1, "loss/nll": 9.0}]), ("pretrain-rlp", ROWS)):
        folder = tmp_path / "first" / task
        folder.mkdir(parents=True)
        write_lines(folder / "metrics.jsonl", rows)
        write_lines(folder / "timings.jsonl", [{"step": row["step"], "time/update": 2.0} for row in rows])
        settings = {"thinking": {"group": 2, "thought": {"budget": 4}}, "sources": [{"name": "a"}]}
        write_manifest(
            folder, kind="checkpoint", settings=settings, inputs={}, seed=7, facts={}, volatile=("timings.jsonl",)
        )
    return tmp_path / "first"


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_every_training_and_the_warm_up_apart(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert export(str(run), "tensorboard", str(tmp_path / "events")) == 3
    rlp = scalars(tmp_path / "events" / "first" / "pretrain-rlp")
    assert rlp["reward/gain"] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert set(rlp) == {"loss/nll", "reward/gain", "time/update"}
    assert scalars(tmp_path / "events" / "first" / "train-base-2")["loss/nll"] == [(1, 9.0)]
    with pytest.raises(UserError, match="first exists, and curves would be drawn twice"):
        export(str(run), "tensorboard", str(tmp_path / "events"))


def test_steps_are_as_far_apart_as_they_took(run: Path) -> None:
    [*_, warm_up] = read_trainings(str(run))
    moments = next(each for each in read_trainings(str(run)) if each.name == "pretrain-rlp").times()
    assert [b - a for a, b in pairwise(moments)] == [2.0, 2.0]
    assert abs(time.time() - moments[-1]) < 60 and warm_up.name == "train-base-2"


def test_a_run_in_s3_is_exported_from_the_command_line(run: Path, tmp_path: Path, s3_bucket: str) -> None:
    pytest.importorskip("tensorboard")
    upload_folder(run / "pretrain-rlp", f"{s3_bucket}/runs/first/pretrain-rlp")
    given = ["export", f"{s3_bucket}/runs/first", "--to", "tensorboard", str(tmp_path / "events")]
    done = subprocess.run([sys.executable, "-m", "pipelines", *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"1 trainings; to look at them: tensorboard --logdir {tmp_path / 'events'}\n"
    assert scalars(tmp_path / "events" / "first" / "pretrain-rlp")["loss/nll"][0] == (1, 1.0)


def test_the_password_of_a_server_is_not_told(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.exporting.export", lambda *_: 3)
    address = "http://someone:hun@ter2@127.0.0.1:5000"
    monkeypatch.setattr(sys, "argv", ["pipelines", "export", str(run), "--to", "mlflow", address])
    assert main() == 0
    expected = "3 trainings; to look at them: mlflow ui --backend-store-uri http://***@127.0.0.1:5000\n"
    assert capsys.readouterr().out == expected


def test_a_run_at_work_is_followed_to_its_newest_whole_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    working = run / "tasks" / "pretrain"
    working.mkdir(parents=True)
    write_lines(working / "metrics.jsonl", ROWS[:1])
    looks = iter((ROWS[1:2], ROWS[2:]))

    def write_more(_: float) -> None:
        rows = next(looks, None)
        if rows is None:
            raise KeyboardInterrupt
        write_lines(working / "metrics.jsonl", rows)
        with (working / "metrics.jsonl").open("a") as file:
            file.write('{"step": 9, "loss' if rows == ROWS[2:] else "")

    monkeypatch.setattr("pipelines.exporting.time.sleep", write_more)
    export(str(run / "tasks"), "tensorboard", str(tmp_path / "events"), follow=True)
    assert scalars(tmp_path / "events" / "tasks" / "pretrain")["reward/gain"] == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_mlflow_reads_settings_and_metrics_once(run: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    for _ in range(2):
        export(str(run), "mlflow", str(tmp_path / "store"))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("first").experiment_id])
    by_name = {each.info.run_name: each for each in runs}
    assert len(runs) == 3 and set(by_name) == {"train-base", "train-base-2", "pretrain-rlp"}
    rlp = by_name["pretrain-rlp"]
    history = client.get_metric_history(rlp.info.run_id, "reward/gain")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert rlp.data.params["thinking.thought.budget"] == "4" and rlp.data.params["seed"] == "7"
    assert rlp.data.params["sources"] == '[{"name": "a"}]' and rlp.info.status == "FINISHED"


def test_mistakes_take_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    given = ("export", str(tmp_path / "empty"), "--to", "tensorboard", str(tmp_path / "out"))
    assert (
        told(given, capsys)
        == f"error: {tmp_path / 'empty'}: holds no metrics.jsonl of a training; give the place that a run printed at its end"
    )
    assert told(("export", str(run), "--to", "mlflow", "--follow", "out"), capsys).startswith("error: --follow: ")
    with (run / "pretrain-rlp" / "metrics.jsonl").open("a") as file:
        file.write("\n")
    assert "pretrain-rlp/metrics.jsonl: corrupted" in told(("export", str(run), "--to", "tensorboard", "out"), capsys)


def told(given: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pipelines", *given])
        assert main() == 2
    return capsys.readouterr().err.strip()
