"""Trainings that are killed and started again end in the bytes of one that never was."""

import errno
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from components.frame import run_stage
from rlpretrain.artifacts import SNAPSHOTS, Origin, read_manifest
from rlpretrain.errors import UserError
from rlpretrain.settings import SnapshotSettings
from rlpretrain.storage import list_artifacts, upload_folder
from rlpretrain.training.snapshots import Snapshots
from tests.components.resuming import end, result, start

STEPS, KILLS = 8, 5
LIKELIHOOD = {"steps": STEPS, "batch_documents": 4, "sequence_length": 64}
THINKING = {"steps": STEPS, "batch_contexts": 2, "group": 2, "max_context": 32, "thought": {"budget": 4}}
ALWAYS = {"every_steps": 1, "every_minutes": None}
ARCHITECTURE = {"layers": 1, "width": 16, "heads": 2, "key_value_heads": 2, "feed_forward": 16}
FAST = {"learning_rate": 1e-3}
STAGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "base and warm-up": (
        "pretrain",
        {
            "objective": "base",
            "architecture": ARCHITECTURE,
            "likelihood": {**LIKELIHOOD, "optimizer": FAST},
            "thinking": THINKING,
            "format_warmup": {"steps": 4, "batch_documents": 2},
        },
        "documents",
    ),
    "cpt in bf16": (
        "pretrain",
        {"objective": "cpt", "likelihood": {**LIKELIHOOD, "optimizer": {**FAST, "schedule": "cosine"}}},
        "documents",
    ),
    "rlp with a teacher that moves": (
        "pretrain",
        {"objective": "rlp", "thinking": {**THINKING, "ema_decay": 0.5, "kl_weight": 0.1, "optimizer": FAST}},
        "documents",
    ),
    "rpt with a proxy": (
        "pretrain",
        {"objective": "rpt", "thinking": {**THINKING, "proxy": {}, "optimizer": FAST}},
        "documents",
    ),
    "sft": ("finetune", {"likelihood": LIKELIHOOD}, "sft"),
    "rlvr": ("reinforce", {"thinking": THINKING, "answer_pattern": r"(\S)"}, "problems"),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, make_shards: Callable[..., Path]) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shards")
    return {name: make_shards(root / name, f"mini_{name}") for name in ("documents", "sft", "problems")}


@pytest.fixture
def arguments(
    shards: dict[str, Path], checkpoint: Path
) -> Callable[[str], tuple[str, dict[str, Any], dict[str, Path]]]:
    """Stage, settings and inputs of one of `STAGES`."""

    def chosen(name: str) -> tuple[str, dict[str, Any], dict[str, Path]]:
        stage, settings, data = STAGES[name]
        inputs = {"shards": shards[data]}
        if settings.get("objective") != "base":
            inputs["checkpoint"] = checkpoint
        return stage, {**settings, "snapshots": ALWAYS}, inputs

    return chosen


def wait_for_changes(child: ForkServerProcess, folder: Path, count: int) -> None:
    """Until that many names have come or gone in ``folder``, half-written ones among them, or the child has ended."""
    seen: set[str] | None = None
    while child.is_alive() and count > 0:
        names = set(os.listdir(folder)) if folder.exists() else set()
        count -= seen is not None and names != seen
        seen = names
        time.sleep(0.001)


@pytest.mark.parametrize("name", STAGES)
def test_killed_at_any_moment_it_ends_in_the_same_bytes(
    arguments: Any, tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    """Every second attempt finds an empty machine, and goes on from storage, in one case S3."""
    stage, settings, inputs = arguments(name)
    whole = run_stage(stage, settings, inputs, tmp_path / "whole")
    moments, output = random.Random(name), tmp_path / "out"
    run = request.getfixturevalue("s3_bucket") if name == "rlvr" else f"file://{tmp_path}/run"
    uri = f"{run}/task"
    for attempt in range(KILLS):
        child = start(tmp_path / "log", stage, settings, inputs, output, uri)
        wait_for_changes(child, output / SNAPSHOTS, moments.randint(1, 6))
        time.sleep(moments.uniform(0, 0.02))
        if end(child) == 0:
            break
        if attempt % 2:
            shutil.rmtree(output, ignore_errors=True)
    else:
        child = start(tmp_path / "log", stage, settings, inputs, output, uri)
        child.join(120)
        assert child.exitcode == 0
    assert attempt > 1 and "goes on after step" in (tmp_path / "log").read_text()
    assert result(output) == result(tmp_path / "whole")
    manifest = read_manifest(output)
    assert {**manifest.files} == {**whole.files} and manifest.facts == whole.facts
    assert not (output / SNAPSHOTS).exists() and list_artifacts(run) == [uri]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_leave_a_snapshot_at_once_and_an_exit_code_for_a_retry(
    arguments: Any, tmp_path: Path, sent: signal.Signals
) -> None:
    stage, settings, inputs = arguments("rlp with a teacher that moves")
    settings = {**settings, "snapshots": {"every_minutes": 60}}
    run_stage(stage, settings, inputs, tmp_path / "whole")
    output, log = tmp_path / "out", tmp_path / "log"
    child = start(log, stage, settings, inputs, output, f"file://{tmp_path}/run/task")
    while not (output / "metrics.jsonl").exists() or not (output / "metrics.jsonl").read_text():
        time.sleep(0.002)
    assert end(child, sent) == 128 + signal.SIGTERM
    assert f"stopped by {sent.name}; the same command goes on after step" in log.read_text()
    assert len(list_artifacts(f"file://{tmp_path}/run/checkpoints/task")) == 1
    shutil.rmtree(output)
    child = start(log, stage, settings, inputs, output, f"file://{tmp_path}/run/task")
    child.join(60)
    assert child.exitcode == 0 and result(output) == result(tmp_path / "whole")


@pytest.fixture
def stopped(arguments: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A training whose process was killed after its snapshot of step 4: its arguments with its output."""
    from rlpretrain.training import steps

    stage, settings, inputs = arguments("cpt in bf16")
    end_step = steps.Steps.end

    def killed(self: Any, *values: Any, **options: Any) -> None:
        end_step(self, *values, **options)
        if self.optimization.done == 4:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(steps.Steps, "end", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run_stage(stage, settings, inputs, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out" / SNAPSHOTS))[-2:] == ["0-00000003", "0-00000004"]
    return stage, settings, inputs, tmp_path / "out"


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "manifest"])
def test_a_damaged_snapshot_is_passed_over_for_the_one_before(
    stopped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    stage, settings, inputs, output = stopped
    newest = output / SNAPSHOTS / "0-00000004"
    file = newest / {"manifest": "manifest.json"}.get(damage, "optimizer-00000.safetensors")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content[:-1] if damage == "cut" else content)
    if damage == "gone":
        file.unlink()
    run_stage(stage, settings, inputs, output)
    said = capsys.readouterr().err
    assert f"a snapshot is passed over: {newest}" in said and "goes on after step 3" in said
    run_stage(stage, settings, inputs, tmp_path / "whole")
    assert result(output) == result(tmp_path / "whole")


def test_a_damaged_snapshot_in_storage_stays_but_displaces_no_whole_one(
    stopped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, output = stopped
    uri = f"file://{tmp_path}/checkpoints"
    for name in ("0-00000003", "0-00000004"):
        upload_folder(output / SNAPSHOTS / name, f"{uri}/{name}")
    with (tmp_path / "checkpoints" / "0-00000004" / "state.json").open("a") as file:
        file.write(" ")
    made = read_manifest(output / SNAPSHOTS / "0-00000003")
    origin = Origin("checkpoint", made.settings, made.inputs)
    snapshots = Snapshots(tmp_path / "new", origin, SnapshotSettings(), uri)
    assert snapshots.newest is not None and snapshots.newest.folder.name == "0-00000003"
    assert list_artifacts(uri) == [f"{uri}/0-00000003", f"{uri}/0-00000004"]
    assert [*snapshots._scores] == ["0-00000003"] and "is passed over" in capsys.readouterr().err


def test_a_snapshot_that_cannot_be_fetched_is_waited_for(
    stopped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, output = stopped
    uri = f"file://{tmp_path}/checkpoints"
    for name in ("0-00000003", "0-00000004"):
        upload_folder(output / SNAPSHOTS / name, f"{uri}/{name}")
    made = read_manifest(output / SNAPSHOTS / "0-00000004")
    origin = Origin("checkpoint", made.settings, made.inputs)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", full)
        with pytest.raises(UserError, match="No space left on device; free space"):
            _ = Snapshots(tmp_path / "new", origin, SnapshotSettings(), uri).newest
    newest = Snapshots(tmp_path / "new", origin, SnapshotSettings(), uri).newest
    assert newest is not None and newest.folder.name == "0-00000004"


def test_a_snapshot_that_could_not_be_sent_is_sent_when_the_training_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"file://{tmp_path}/store"
    snapshots = Snapshots(tmp_path / "here", Origin("checkpoint", {}, {}), SnapshotSettings(), uri)
    assert snapshots.newest is None

    def broken(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("rlpretrain.storage.upload_folder", broken)
        snapshots.save("0-00000001", {"score": None}, "{}", [], {})
        snapshots.wait()
    assert "could not be copied to storage" in capsys.readouterr().err and list_artifacts(uri) == []
    snapshots.save("0-00000001", {"score": None}, "{}", [], {})
    snapshots.save("0-00000002", {"score": None}, "{}", [], {})
    snapshots.wait()
    assert list_artifacts(uri) == [f"{uri}/0-00000001", f"{uri}/0-00000002"]


def test_the_documents_of_steps_left_out_outlive_the_machine(
    arguments: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlpretrain.training import likelihood

    stage, settings, inputs = arguments("cpt in bf16")
    optimizer = {"max_skipped_steps": 1}
    settings = {**settings, "likelihood": {**settings["likelihood"], "optimizer": optimizer}}
    monkeypatch.setattr(likelihood, "accumulate", lambda *_: (float("nan"), 1))
    left = tmp_path / "run" / "checkpoints" / "cpt" / "skipped.jsonl"
    with pytest.raises(UserError, match=f"step 2 is not finite.*are in file://{left}; lower"):
        run_stage(stage, settings, inputs, tmp_path / "out", f"file://{tmp_path}/run/cpt")
    steps = [json.loads(line) for line in left.read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2] and all(len(step["documents"]) == 4 for step in steps)


def test_without_a_whole_snapshot_it_starts_anew(stopped: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stage, settings, inputs, output = stopped
    folders = list((output / SNAPSHOTS).iterdir())
    for folder in folders:
        (folder / "state.json").write_text("{}")
    assert run_stage(stage, settings, inputs, output).facts["steps"] == STEPS
    said = capsys.readouterr().err
    assert (
        said.count("a snapshot is passed over") == len(folders)
        and "no snapshot is whole: the training starts anew" in said
    )


def test_a_snapshot_of_another_training_is_refused_and_what_differs_is_named(
    stopped: Any, shards: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, settings, inputs, output = stopped
    other = {**settings, "likelihood": {**settings["likelihood"], "batch_documents": 3}, "seed": 1}
    with pytest.raises(UserError, match=r"likelihood.batch_documents was 4 and is now 3; seed was 0 and is now 1"):
        run_stage(stage, other, inputs, output)
    with pytest.raises(UserError, match=r"another training.*input 'shards'.*remove the snapshots"):
        run_stage(stage, settings, {**inputs, "shards": shards["sft"]}, output)
    with monkeypatch.context() as patch:
        patch.setattr("rlpretrain.artifacts.code_digest", lambda: "f" * 64)
        with pytest.raises(UserError, match=r"code was \w{12} and is now f{12}.*snapshots.accept_other_code"):
            run_stage(stage, settings, inputs, output)
        accepting = {**settings, "snapshots": {**ALWAYS, "accept_other_code": True}}
        assert run_stage(stage, accepting, inputs, output).code_version == "f" * 64


def test_the_best_snapshot_stays_beside_the_newest(arguments: Any, tmp_path: Path) -> None:
    """A learning rate that ruins the model: the best step is an early one."""
    stage, settings, inputs = arguments("cpt in bf16")
    ruinous = {**LIKELIHOOD, "optimizer": {"learning_rate": 1.0}}
    settings = {**settings, "likelihood": ruinous, "snapshots": {**ALWAYS, "keep": 1}}
    uri = f"file://{tmp_path}/run/task"
    child = start(tmp_path / "log", stage, settings, inputs, tmp_path / "out", uri)
    place, losses = tmp_path / "out", []
    while len(losses) < 4:
        time.sleep(0.002)
        text = (place / "metrics.jsonl").read_text() if (place / "metrics.jsonl").exists() else ""
        losses = [json.loads(line)["loss/nll"] for line in text.splitlines() if line.endswith("}")]
    assert end(child, signal.SIGTERM) == 128 + signal.SIGTERM
    losses = [json.loads(line)["loss/nll"] for line in (place / "metrics.jsonl").read_text().splitlines()]
    best = f"0-{losses.index(min(losses)) + 1:08d}"
    assert losses.index(min(losses)) < 2
    here, there = os.listdir(place / SNAPSHOTS), list_artifacts(f"file://{tmp_path}/run/checkpoints/task")
    for kept in (here, [snapshot.rpartition("/")[2] for snapshot in there]):
        assert best in kept and len(kept) == 2


def test_a_published_result_is_fetched_instead_of_made_again(
    arguments: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, settings, inputs = arguments("sft")
    uri = f"file://{tmp_path}/run/task"
    first = run_stage(stage, settings, inputs, tmp_path / "first", uri)
    timings = (tmp_path / "first" / "timings.jsonl").read_bytes()
    assert run_stage(stage, settings, inputs, tmp_path / "again", uri) == first
    assert (tmp_path / "again" / "timings.jsonl").read_bytes() == timings
    assert "holds this result already; it is fetched" in capsys.readouterr().err
    assert run_stage(stage, settings, inputs, tmp_path / "first", uri) == first  # killed before it was published
    (tmp_path / "again" / "metrics.jsonl").write_text("torn")
    assert run_stage(stage, settings, inputs, tmp_path / "again", uri) == first
    assert "an earlier result is passed over" in capsys.readouterr().err
    with pytest.raises(UserError, match="another artifact is published there"):
        run_stage(stage, {**settings, "seed": 1}, inputs, tmp_path / "other", uri)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_several_processes_stop_together_and_any_number_of_them_goes_on(
    arguments: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    """Two are stopped within the warm-up. Two go on to the bytes of two that never were, one to a whole artifact."""
    stage, settings, inputs = arguments("base and warm-up")
    settings["format_warmup"]["steps"] = 100
    settings["snapshots"] = {"every_minutes": 60}
    output, log, run = tmp_path / "out", tmp_path / "log", f"file://{tmp_path}/run"
    monkeypatch.setenv("RLP_PROCESSES", "2")
    whole = start(tmp_path / "log-whole", stage, settings, inputs, tmp_path / "whole")
    child = start(log, stage, settings, inputs, output, f"{run}/two")
    deadline = time.monotonic() + 200
    while not (output / "metrics.jsonl").exists() or (output / "metrics.jsonl").read_text().count("\n") < STEPS + 2:
        assert child.is_alive() and time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    assert end(child, sent) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)  # nobody of them is left
    [snapshot] = list_artifacts(f"{run}/checkpoints/two")
    shutil.copytree(tmp_path / "run" / "checkpoints" / "two", tmp_path / "run" / "checkpoints" / "one")
    shutil.rmtree(output)
    again = start(log, stage, settings, inputs, output, f"{run}/two")
    monkeypatch.setenv("RLP_PROCESSES", "1")
    alone = start(tmp_path / "log-one", stage, settings, inputs, tmp_path / "one", f"{run}/one")
    for process, words in ((whole, tmp_path / "log-whole"), (again, log), (alone, tmp_path / "log-one")):
        process.join(200)
        assert process.exitcode == 0, words.read_text()
    assert f"format warm-up: goes on after step {int(snapshot[-8:])}" in log.read_text()
    assert result(output) == result(tmp_path / "whole")
    numbers = [json.loads(line)["step"] for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert numbers == [*range(1, STEPS + 1), *range(1, 101)]
    alone_facts, together_facts = read_manifest(tmp_path / "one").facts, read_manifest(output).facts
    for facts in (alone_facts, together_facts):  # one process draws other thoughts than several
        del facts["tokens"], facts["history"][0]["tokens"]
    assert alone_facts == together_facts
