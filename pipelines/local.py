"""The same DAG on one machine: kfp's local runner, one process a task, artifacts in S3 as on a cluster.

Unless an S3 endpoint is configured, an embedded server is started on loopback; its data lie in RUNS/.s3.
"""

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kfp import local

from pipelines.profile import Profile
from pipelines.reproduction import reproduction
from rlpretrain.errors import UserError
from rlpretrain.s3server import EmbeddedS3
from rlpretrain.storage import create_bucket, download_folder

BUCKET = "s3://rlp"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_STAGE_ERROR = re.compile(r"rlpretrain\.errors\.UserError: (.*)")


@contextmanager
def storage(runs: Path) -> Iterator[None]:
    """S3 as the environment configures it, or the embedded server's for the time of the block."""
    if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        yield
        return
    with EmbeddedS3(runs / ".s3") as server:
        before = dict(os.environ)
        os.environ.update(server.environment())
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def run_local(name: str, profile_name: str, profile: Profile, seed: int, runs: Path, artifacts_uri: str) -> str:
    """Run the reproduction to its end; returns the URI that holds its artifacts.

    Raises UserError with the failed stage's own line when a stage was given something wrong.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"--name {name}: use lower-case letters, digits, '.', '_' and '-'")
    uri = f"{artifacts_uri}/{name}"
    folder = runs / name
    if folder.exists():
        raise UserError(f"{folder} exists; choose another --name or remove it")
    folder.mkdir(parents=True)
    create_bucket(uri)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / "tasks"),
        raise_on_error=True,
    )
    pipeline = reproduction(profile_name, profile)
    with _captured(folder / "log.txt") as log:
        try:
            pipeline(run_name=name, seed=seed, artifacts_uri=artifacts_uri)
        except RuntimeError as error:
            raise _explained(log, error) from None
    return uri


def fetch_report(uri: str, folder: Path) -> None:
    """The comparison of a run into ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    download_folder(f"{uri}/compare", folder)


def default_name(profile: str, seed: int) -> str:
    """PROFILE-TIME-SEED."""
    return f"{profile}-{time.strftime('%Y%m%d-%H%M%S')}-s{seed}"


@contextmanager
def _captured(path: Path) -> Iterator[Path]:
    """Send all output of the tasks to a file, and to the terminal the lines that tell how far the run is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    os.close(writer)
    import threading

    relay = threading.Thread(target=_relay, args=(reader, path, saved[1]), daemon=True)
    relay.start()
    try:
        yield path
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        relay.join()
        for descriptor in saved:
            os.close(descriptor)


_TASK = re.compile(r"Executing task .*?'([^']+)'|Task .*?'([^']+)'.* finished with status \S*?(SUCCESS|FAILURE)")
_STEP = re.compile(r"^(base|cpt|rlp|rpt|sft|rlvr|format warm-up): step .*")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def _relay(reader: int, path: Path, terminal: int) -> None:
    started: dict[str, float] = {}
    with os.fdopen(reader, "r", errors="replace") as lines, path.open("w", encoding="utf-8") as log:
        for raw in lines:
            line = _ANSI.sub("", raw)
            log.write(line)
            log.flush()
            shown = ""
            if match := _TASK.search(line):
                if match[1]:
                    started[match[1]] = time.monotonic()
                else:
                    seconds = time.monotonic() - started.get(match[2], time.monotonic())
                    shown = f"{match[3].lower():>8}  {match[2]}  {seconds:.1f} s\n"
            elif match := re.search(_STEP.pattern[1:], line):
                shown = f"          {match[0].strip()}\n"
            if shown:
                os.write(terminal, shown.encode())


def _explained(log: Path, error: Exception) -> Exception:
    """The failed stage's own line out of the log."""
    text = log.read_text(encoding="utf-8", errors="replace")
    found = _STAGE_ERROR.findall(text)
    if found:
        return UserError(found[-1].strip())
    return RuntimeError(f"{error}; the log is {log}")


def scratch() -> Any:
    """A temporary folder."""
    return tempfile.TemporaryDirectory()
