"""Mistakes at the command line: one line that names the field or flag and the mend, exit code 2, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = ("run", "--profile", "tiny", "--name", "mistake")


def pipelines(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line as a person calls it; its runs, if it comes that far, lie in ``folder``."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pipelines", *arguments]
    if arguments[0] != "compile":
        command += ["--runs", str(folder / "runs")]
    variables = {**os.environ, **environment}
    return subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, timeout=300)


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--profile", "nope"), ("unknown profile 'nope'", "mini", "tiny")),
        (("compile", "--profile", "nope"), ("unknown profile 'nope'",)),
        (("run", "--resume", "it", "--seeds", "3"), ("--resume takes the run's own options", "leave --seeds out")),
        ((*RUN, "--set", "rlp.thinking.group=1"), ("rlp.thinking.group", "greater than or equal to 2")),
        ((*RUN, "--set", "rlp.thinking.thought.budget=0"), ("rlp.thinking.thought.budget", "(given: 0)")),
        ((*RUN, "--set", "rlp.thinking.grupo=4"), ("unknown setting 'rlp.thinking.grupo'",)),
        ((*RUN, "--set", "rpl.steps=4"), ("unknown setting 'rpl'", "rlp")),
        ((*RUN, "--set", "rlp.steps"), ("--set rlp.steps", "STAGE.FIELD=VALUE")),
        ((*RUN, "--set", "rlp.objective.deep=4"), ("'objective' holds no settings",)),
        ((*RUN, "--set", "rlp.objective={"), ("--set rlp.objective={", "YAML")),
        ((*RUN, "--set", "rlp.objective=rlpt"), ("rlp.objective", "rlpt")),
        ((*RUN, "--set", "evaluate.suite=minni"), ("evaluate.suite: unknown suite 'minni'; known: gsm, mini, paper",)),
        (
            ("ablate", "--profile", "tiny", "--set", "ablations.thought_budget=[900]"),
            ("ablations.thought_budget: ", "thought.budget 900"),
        ),
        (
            ("compile", "--profile", "tiny", "--set", "shard_sft.sources.0.generator=nope", "--output", "x"),
            ("shard_sft: source 'sft': unknown generator 'nope'",),
        ),
        (("run", "--profile", "tiny", "--name", "../elsewhere"), ("--name ../elsewhere",)),
        (("run", "--profile", "tiny", "--name", "latest"), ("--name latest",)),
        (("run", "--seed", "-1"), ("'--seed'", "greater than or equal to 0")),
        (
            ("run", "--seed", "2147483647", "--seeds", "3"),
            ("--seed 2147483647 --seeds 3: a stage's seed", "to 2147483647"),
        ),
        (
            (*RUN, "--seed", "2147483647", "--set", "sft.seed=1"),
            ("--seed 2147483647: a stage's seed, its settings' own",),
        ),
        (("run", "--sed", "1"), ("No such option: --sed",)),
        (("compare",), ("Missing argument 'uris'",)),
        ((*RUN, "--set", "rlp.seed=2020-13-45"), ("--set rlp.seed=2020-13-45", "YAML")),
        (("compile", "--profile", "tiny", "--output", "/nowhere/x.yaml"), ("/nowhere/x.yaml: No such file",)),
        (
            ("compile", "--profile", "tiny", "--cron", "0 3 * * 1", "--output", "x"),
            ("--cron: goes with --target argo",),
        ),
    ],
)
def test_before_any_work(tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_one_line(pipelines(tmp_path, *arguments), *words)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mistake").mkdir(parents=True)
    assert_one_line(pipelines(tmp_path, *RUN), "exists; choose another --name")


def test_a_mistake_that_only_a_stage_can_see(tmp_path: Path, s3: str) -> None:
    """It comes up from the stage's process through the runner, still as one line."""
    change = ("--set", "shard_benchmarks.max_document_tokens=4")
    assert_one_line(pipelines(tmp_path, *RUN, *change), "is longer than max_document_tokens 4", "mend the setting")
    assert (tmp_path / "runs" / "mistake" / "log.txt").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path, s3: str) -> None:
    (tmp_path / "runs").write_text("a file")
    assert_one_line(pipelines(tmp_path, *RUN), f"--runs: {tmp_path}/runs/mistake cannot be made (Not a directory)")
    assert_one_line(pipelines(tmp_path, *RUN, AWS_ENDPOINT_URL_S3=""), "--runs: ", ".s3 cannot be made")
    output = ("--output", str(tmp_path / "runs"))
    assert_one_line(pipelines(tmp_path, "compare", "s3://rlp/a", *output), "--output: ", "cannot be made (File exists)")


@pytest.mark.parametrize("place", ["s3://", "s3:/rlp/runs", ""])
def test_artifacts_at_no_address(tmp_path: Path, s3: str, place: str) -> None:
    assert_one_line(pipelines(tmp_path, *RUN, "--artifacts", place), f"'{place}': not an address")
    assert not (tmp_path / "runs" / "mistake").exists()


def test_storage_that_refuses_the_credentials(tmp_path: Path, s3: str) -> None:
    assert_one_line(pipelines(tmp_path, *RUN, AWS_SECRET_ACCESS_KEY="wrong"), "credentials")


def test_storage_that_is_not_there(tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    done = pipelines(tmp_path, *RUN, "--endpoint", "http://127.0.0.1:9", **keys)
    assert_one_line(done, "cannot be reached")


def test_comparing_what_is_no_run(tmp_path: Path, s3_bucket: str) -> None:
    assert_one_line(pipelines(tmp_path, "compare", f"{s3_bucket}/nothing"), "holds no evaluation of a run")


def test_an_input_with_a_wrong_name(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("{suite: mini}")
    arguments = ["--settings", str(settings), "--input", f"chekpoint={tmp_path}", "--output", str(tmp_path / "out")]
    command = [sys.executable, "-m", "components.evaluate", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert_one_line(done, "unknown input 'chekpoint'", "checkpoint, benchmarks, held_out")
