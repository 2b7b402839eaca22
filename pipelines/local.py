"""The same DAG on one machine: kfp's local runner, one process a task, artifacts in S3 as on a cluster.

Unless an S3 endpoint is configured, an embedded server is started on loopback; its data lie in RUNS/.s3.
"""

import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
from kfp import local

from components.frame import DEBUG
from pipelines.live import LiveView, on_terminal
from pipelines.progress import Progress, captured, stage_error, tail
from pipelines.reproduction import task_names
from pipelines.runs import FILE as RUN_FILE
from pipelines.runs import check_name
from rlpretrain.artifacts import code_digest
from rlpretrain.errors import UserError
from rlpretrain.s3server import EmbeddedS3
from rlpretrain.storage import create_bucket, download_folder

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
FOREIGN = ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_PROFILE")  # of the user's own account: the server knows none
_LAST_SECONDS = 120.0  # that a stopped training has to save itself; Ctrl-C once more ends it at once


class TaskFailed(Exception):
    """A task of a run broke for a reason of its own; the message ends with the last lines of the log."""


@contextmanager
def storage(runs: Path, endpoint: str | None = None) -> Iterator[None]:
    """S3 at ``endpoint`` or as the environment configures it; else the embedded server's, for the time of the block."""
    before = dict(os.environ)
    try:
        if endpoint:
            os.environ[ENDPOINTS[0]] = endpoint
        if any(os.environ.get(name) for name in ENDPOINTS):
            yield
            return
        _reach_loopback_directly()
        make_folder(runs / ".s3", "--runs")
        with EmbeddedS3(runs / ".s3") as server:
            for name in FOREIGN:
                os.environ.pop(name, None)
            os.environ.update(server.environment())
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def storage_of(place: str, runs: Path, endpoint: str | None = None) -> AbstractContextManager[None]:
    """`storage` where ``place`` lies in it; a folder needs no server."""
    return storage(runs, endpoint) if place.startswith("s3://") else nullcontext()


def _reach_loopback_directly() -> None:
    """Keep requests to the embedded server away from a configured HTTP proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name, ""), "127.0.0.1")))


def check_free(names: list[str], runs: Path) -> None:
    """UserError when a name cannot be a run's, or is another run's already."""
    for name in names:
        check_name(name)
        if (runs / name).exists():
            raise UserError(f"{runs / name} exists; choose another --name or remove it")


def make_folder(folder: Path, flag: str) -> Path:
    """The folder, made where it is missing; UserError, naming ``flag``, when it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{flag}: {folder} cannot be made ({error.strerror}); give a folder that can be written"
        ) from None
    return folder


def run_local(
    name: str,
    pipeline: Any,
    seed: int,
    runs: Path,
    artifacts_uri: str,
    tasks_in_all: int = 0,
    runner: local.SubprocessRunner | local.DockerRunner | None = None,
) -> str:
    """Run a pipeline to its end; returns the URI that holds its artifacts. ``tasks_in_all`` counts those in loops too.

    ``runner`` is kfp's; by default a process a task.

    Run again under the name of a run that was killed, it goes on: finished tasks are fetched from storage, and the training
    that was under way starts from its newest snapshot there. The tasks' own folders go when the run is complete, for their
    artifacts are in storage; a failed run keeps them.
    Raises UserError with the failed stage's own line when a stage was given something wrong, else TaskFailed.
    """
    create_bucket(artifacts_uri)
    artifacts_uri = artifacts_uri.rstrip("/")
    uri = f"{artifacts_uri}/{name}"
    folder = make_folder(runs / name, "--runs")
    tasks, log = folder / "tasks", folder / "log.txt"
    for attempt in tasks.glob("*"):  # one that was killed: what counts of it is in storage
        shutil.rmtree(attempt)
    runner = runner or local.SubprocessRunner(use_venv=False)
    progress, everything = Progress(task_names(pipeline), tasks_in_all), bool(os.environ.get(DEBUG))
    view = LiveView(name, progress) if on_terminal() and not everything else nullcontext(progress)
    try:
        with temporary_folder() as scratch, view as watcher, captured(log, watcher, everything), children_stopped():
            local.init(runner=runner, pipeline_root=str(tasks), workspace_root=scratch, raise_on_error=True)
            pipeline(run_name=name, seed=seed, artifacts_uri=artifacts_uri, code_digest=code_digest())
    except RuntimeError:  # what kfp raises when a task fails
        if os.environ.get(DEBUG):
            raise
        mistake = stage_error(log)
        if mistake is not None:
            raise UserError(mistake) from None
        raise TaskFailed(f"{progress.failed or 'the run'} failed; the end of {log}:\n{tail(log)}") from None
    shutil.rmtree(tasks)
    return uri


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A temporary folder for the tasks of the block: kfp leaves one a task behind."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="rlp-") as folder:
        os.environ["TMPDIR"] = folder
        try:
            yield folder
        finally:
            del os.environ["TMPDIR"]
            if before is not None:
                os.environ["TMPDIR"] = before


@contextmanager
def children_stopped() -> Iterator[None]:
    """When Ctrl-C or SIGTERM ends the block, end the tasks that run, so that none works on beside the run that goes on."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        # A group of its own has the embedded S3 server, which takes what a task still sends.
        tasks = [each for each in psutil.Process().children(recursive=True) if _in_our_group(each.pid)]
        for task in tasks:
            with suppress(psutil.NoSuchProcess):
                task.terminate()
        with suppress(KeyboardInterrupt):
            _, tasks = psutil.wait_procs(tasks, timeout=_LAST_SECONDS)
        for task in tasks:
            with suppress(psutil.NoSuchProcess):
                task.kill()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_our_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == os.getpgrp()
    except ProcessLookupError:  # it ended meanwhile
        return False


@contextmanager
def resumable(name: str, runs: Path, endpoint: str | None = None) -> Iterator[None]:
    """When Ctrl-C ends the block, say how the run goes on."""
    try:
        yield
    except KeyboardInterrupt:
        command = ["python", "-m", "pipelines", "run", "--resume", name]
        command += [] if runs == Path("runs") else ["--runs", str(runs)]
        command += ["--endpoint", endpoint] if endpoint else []
        if (runs / name / RUN_FILE).exists():
            print(f"stopped; go on with: {shlex.join(command)}", file=sys.stderr, flush=True)
        raise


def fetch_report(uri: str, folder: Path) -> None:
    """The page and its figures, an artifact at ``uri``, into ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    download_folder(uri, folder)


def point_latest(runs: Path, name: str) -> None:
    """Let RUNS/latest lead to the newest run; the swap is atomic."""
    link = runs / f".latest-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(runs / "latest")


def default_name(profile: str, seed: int) -> str:
    """PROFILE-TIME-SEED."""
    return f"{profile}-{time.strftime('%Y%m%d-%H%M%S')}-s{seed}"
