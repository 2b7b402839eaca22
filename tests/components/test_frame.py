"""The frame of every stage, around a stage that copies its input."""

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from components import frame
from components.frame import DEBUG, InputSpec, Stage, load_stage, main, run_component, run_stage
from rlpretrain.artifacts import Manifest, read_manifest, verify, write_manifest
from rlpretrain.errors import UserError
from rlpretrain.s3server import EmbeddedS3
from rlpretrain.settings import Settings


class CopySettings(Settings):
    times: int = Field(1, ge=1)
    seed: int = 0


def copy(settings: CopySettings, inputs: dict[str, Path], output: Path) -> dict[str, Any]:
    """The text of the input, some times over, and a file of the wall clock's kind."""
    (output / "text.txt").write_text((inputs["source"] / "text.txt").read_text() * settings.times)
    (output / "timings.jsonl").write_text(f"{output}\n")
    return {"times": settings.times}


STAGE = Stage(
    "pretrain",
    "checkpoint",
    CopySettings,
    {"source": InputSpec("shards"), "extra": InputSpec("shards", required=False)},
    ("timings.jsonl",),
    copy,
)


@pytest.fixture(autouse=True)
def stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "load_stage", lambda name: STAGE)
    monkeypatch.delenv(DEBUG, raising=False)


def artifact(folder: Path, kind: str = "shards") -> Path:
    folder.mkdir(parents=True)
    (folder / "text.txt").write_text("abc")
    write_manifest(folder, kind=kind, settings={}, inputs={}, seed=0, facts={})
    return folder


def run(tmp_path: Path, output: str = "out", settings: dict[str, Any] | None = None, **inputs: Path) -> Manifest:
    return run_stage("pretrain", settings or {}, inputs, tmp_path / output)


def test_a_stage_leaves_a_verified_artifact_that_names_its_inputs(tmp_path: Path) -> None:
    source = artifact(tmp_path / "source")
    manifest = run(tmp_path, settings={"times": 2, "seed": 7}, source=source)
    assert verify(tmp_path / "out", "checkpoint") == manifest
    assert (tmp_path / "out" / "text.txt").read_text() == "abcabc"
    assert manifest.inputs == {"source": read_manifest(source).digest}
    assert manifest.settings == {"times": 2, "seed": 7} and manifest.seed == 7 and manifest.facts == {"times": 2}
    assert list(manifest.volatile) == ["timings.jsonl"]


def test_the_same_work_has_the_same_digest_wherever_it_lies(tmp_path: Path) -> None:
    source = artifact(tmp_path / "source")
    first, second = run(tmp_path, "here", source=source), run(tmp_path, "there", source=source)
    assert first.digest == second.digest
    assert first.volatile != second.volatile


def test_what_an_unfinished_attempt_left_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(settings: CopySettings, inputs: dict[str, Path], output: Path) -> dict[str, Any]:
        (output / "half.txt").write_text("half")
        raise RuntimeError("broken")

    source = artifact(tmp_path / "source")
    with monkeypatch.context() as patch:
        patch.setattr(frame, "load_stage", lambda name: replace(STAGE, run=breaks))
        with pytest.raises(RuntimeError, match="broken"):
            run(tmp_path, source=source)
    assert (tmp_path / "out" / "half.txt").exists()
    run(tmp_path, source=source)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "text.txt", "timings.jsonl"]


def test_an_output_that_would_be_lost_or_cannot_be_written(tmp_path: Path) -> None:
    source = artifact(tmp_path / "source")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="mine holds files that no stage left there"):
        run(tmp_path, "mine", source=source)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    for output in ("mine/thesis.txt", "mine/thesis.txt/below"):
        with pytest.raises(UserError, match=r"thesis\.txt.*: Not a directory; give a folder"):
            run(tmp_path, output, source=source)
    (tmp_path / "empty").mkdir()
    assert run(tmp_path, "empty", source=source).kind == "checkpoint"


def test_a_finished_artifact_is_not_overwritten(tmp_path: Path) -> None:
    source = artifact(tmp_path / "source")
    run(tmp_path, source=source)
    with pytest.raises(UserError, match="already holds a finished artifact"):
        run(tmp_path, source=source)


def test_publishing_puts_the_artifact_where_it_was_told(tmp_path: Path) -> None:
    source = artifact(tmp_path / "source")
    run_stage("pretrain", {}, {"source": source}, tmp_path / "out", f"file://{tmp_path}/published")
    assert verify(tmp_path / "published") == read_manifest(tmp_path / "out")


def test_a_place_that_cannot_be_published_to_is_told_before_the_work(tmp_path: Path, s3: EmbeddedS3) -> None:
    source = artifact(tmp_path / "source")
    with pytest.raises(UserError, match="there is no bucket 'no-such-bucket'"):
        run_stage("pretrain", {}, {"source": source}, tmp_path / "out", "s3://no-such-bucket/a")
    assert not (tmp_path / "out").exists()


def test_a_place_that_holds_another_artifact_is_told_before_the_work(tmp_path: Path) -> None:
    source, place = artifact(tmp_path / "source"), f"file://{tmp_path}/published"
    first = run_stage("pretrain", {}, {"source": source}, tmp_path / "out", place)
    with pytest.raises(UserError, match="another artifact is published there"):
        run_stage("pretrain", {"times": 2}, {"source": source}, tmp_path / "other", place)
    assert not (tmp_path / "other").exists()
    assert run_stage("pretrain", {}, {"source": source}, tmp_path / "again", place).digest == first.digest


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), OSError(errno.EROFS, "ro"), RuntimeError("I/O error: full (os error 28)")],
)
def test_a_full_or_read_only_disk_during_the_work_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def breaks(settings: CopySettings, inputs: dict[str, Path], output: Path) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(frame, "load_stage", lambda name: replace(STAGE, run=breaks))
    with pytest.raises(UserError, match=r"out: (No space left on device; free|Read-only file system; give)"):
        run(tmp_path, source=artifact(tmp_path / "source"))


def test_wrong_inputs_are_named(tmp_path: Path) -> None:
    source = artifact(tmp_path / "source")
    with pytest.raises(UserError, match="input 'source' is missing"):
        run(tmp_path)
    with pytest.raises(UserError, match="unknown input 'sauce'; known: source, extra"):
        run(tmp_path, source=source, sauce=source)
    with pytest.raises(UserError, match="kind 'evaluation', but 'shards'"):
        run(tmp_path, source=artifact(tmp_path / "other", kind="evaluation"))
    with pytest.raises(UserError, match=r"no manifest\.json"):
        run(tmp_path, source=tmp_path)
    (source / "text.txt").write_text("abd")
    with pytest.raises(UserError, match=r"text\.txt: corrupted"):
        run(tmp_path, source=source)


def shell(tmp_path: Path, settings: dict[str, Any], *inputs: str) -> int:
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    given = [argument for each in inputs for argument in ("--input", each)]
    return main("pretrain", ["--settings", str(tmp_path / "settings.json"), *given, "--output", str(tmp_path / "out")])


def test_the_shell_form_does_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = artifact(tmp_path / "source")
    assert shell(tmp_path, {"times": 3}, f"source={source}") == 0
    assert verify(tmp_path / "out").facts == {"times": 3}
    assert "(checkpoint, digest " in capsys.readouterr().out


def test_the_shell_form_takes_the_runs_seed_as_components_do(tmp_path: Path) -> None:
    source = artifact(tmp_path / "source")
    (tmp_path / "settings.yaml").write_text("{seed: 3}")
    given = ["--settings", str(tmp_path / "settings.yaml"), "--input", f"source={source}", "--seed", "5"]
    assert main("pretrain", [*given, "--output", str(tmp_path / "out")]) == 0
    assert read_manifest(tmp_path / "out").seed == 8


@pytest.mark.parametrize(
    ("settings", "inputs", "message"),
    [
        ({"times": 0}, ["source={source}"], "times: Input should be greater than or equal to 1"),
        ({"tmies": 1}, ["source={source}"], "unknown setting 'tmies'"),
        ({}, [], "input 'source' is missing"),
        ({}, ["source"], "--input source: write it as NAME=PATH"),
        ({}, ["source={source}", "source={source}"], "--input source is given twice"),
        ({}, ["source={source}", "sauce={source}"], "unknown input 'sauce'"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], inputs: list[str], message: str
) -> None:
    source = artifact(tmp_path / "source")
    assert shell(tmp_path, settings, *(each.format(source=source) for each in inputs)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_in_a_component_too_unless_a_traceback_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as left:
        run_component("pretrain", {}, {}, tmp_path / "out")
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: pretrain: input 'source' is missing; give --input source=PATH\n"
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(UserError):
        run_component("pretrain", {}, {}, tmp_path / "out")


def test_the_pipelines_seed_is_added_to_the_stages_own(tmp_path: Path) -> None:
    source = artifact(tmp_path / "source")
    for seed, own, expected in (
        (0, {}, 0),
        (0, {"seed": 3}, 3),
        (5, {"seed": 3}, 8),
        (5, {"seed": 3.0}, 8),
        (5, {}, 5),
    ):
        run_component("pretrain", own, {"source": source}, tmp_path / f"{seed}{own}", seed=seed)
        assert read_manifest(tmp_path / f"{seed}{own}").seed == expected


def test_every_stage_declares_what_the_frame_needs() -> None:
    for name in frame.STAGES:
        declared = load_stage(name)
        assert declared.kind in ("shards", "checkpoint", "evaluation", "comparison", "ablations")
        assert issubclass(declared.settings, Settings)
        assert all(isinstance(spec, InputSpec) for spec in declared.inputs.values())
        assert callable(declared.run)
