"""A laptop run that is killed goes on with what it had finished."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.runs import Given, recall, remember
from rlpretrain.errors import UserError


def test_the_options_of_a_run_are_kept(tmp_path: Path) -> None:
    given = Given(
        "mine", "tiny", 3, 2, "base,rlp", ["base.likelihood.steps=2"], False, "s3://rlp/runs", "s3://rlp/mirror"
    )
    remember(tmp_path, given)
    assert recall(tmp_path, "mine") == given
    with pytest.raises(UserError, match=r"--resume yours: .* holds no run of that name; known: mine"):
        recall(tmp_path, "yours")
    (tmp_path / "mine" / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"--resume mine: .*run.json is damaged"):
        recall(tmp_path, "mine")


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """All processes are killed while the base is trained; then the shards are fetched and the base goes on, in S3's data."""
    command = [sys.executable, "-m", "pipelines", "run", "--runs", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    changes = ["base.likelihood.steps=5000", "base.snapshots.every_steps=20"]
    options = ["--profile", "tiny", "--name", "it", "--arms", "base,cpt", *(f"--set={change}" for change in changes)]
    killed = subprocess.Popen([*command, *options], env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    snapshots = tmp_path / "it" / "tasks"
    deadline = time.monotonic() + 240
    while not list(snapshots.glob("**/.snapshots/0-00000040/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    again = subprocess.Popen([*command, "--resume", "it"], env=environment, start_new_session=True)
    log = tmp_path / "it" / "log.txt"
    while "goes on after step" not in (said := log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(again.pid, signal.SIGKILL)
    again.wait()
    assert "base: goes on after step" in said
    assert (
        said.count("holds this result already; it is fetched") >= 2
    )  # benchmarks and corpus; kfp chooses the order of others
