"""Docker Engine: the client that can build with secrets, and an engine started here where none runs (root on Debian)."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from rlpretrain.errors import UserError

START_SECONDS = 60.0
_BUNDLED_BUILDKIT = range(19, 23)  # majors of the client that need no buildx for BuildKit


@cache
def client() -> str:
    """A docker command that speaks BuildKit; UserError when there is none."""
    found = [Path(folder) / "docker" for folder in os.get_exec_path() if (Path(folder) / "docker").is_file()]
    for command in map(str, found):
        if subprocess.run([command, "buildx", "version"], capture_output=True).returncode == 0:
            return command
        version = subprocess.run([command, "--version"], capture_output=True, text=True).stdout
        major = re.search(r"version (\d+)\.", version)
        if major and int(major[1]) in _BUNDLED_BUILDKIT:
            return command
    raise UserError("no docker command with BuildKit; install Docker Engine and its buildx (on Debian 12: docker.io)")


def docker(*arguments: str, quiet: bool = False) -> str:
    """Run docker; returns what it prints when ``quiet``. UserError with its last line when it fails."""
    done = subprocess.run(
        [client(), *arguments],
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
    )
    if done.returncode:
        said = (
            f": {done.stderr.strip().splitlines()[-1]}" if quiet and done.stderr.strip() else "; see its output above"
        )
        raise UserError(f"docker {arguments[0]} failed{said}")
    return done.stdout or ""


def inspect(reference: str) -> dict[str, Any] | None:
    """What the engine knows of an image; None when it has none of that name."""
    try:
        return json.loads(docker("image", "inspect", reference, quiet=True))[0]
    except UserError:
        return None


def running() -> bool:
    """Whether an engine answers."""
    return subprocess.run([client(), "info"], capture_output=True).returncode == 0


@contextmanager
def engine(log: Path) -> Iterator[None]:
    """An engine for the time of the block: the one that answers, else one started here, which needs root.

    Ours has no bridge and changes no firewall, so it starts where the kernel allows neither; containers and builds then use the
    host's network. Its images stay in the engine's usual place, so that a later start finds them.
    """
    if running():
        yield
        return
    if os.getuid() != 0 or shutil.which("dockerd") is None:
        raise UserError("no Docker Engine answers; start one, or install docker.io and run this as root")
    with tempfile.TemporaryDirectory() as folder, log.open("wb") as said:
        socket = f"unix://{folder}/docker.sock"
        command = ["dockerd", "--host", socket, "--pidfile", f"{folder}/docker.pid", "--exec-root", f"{folder}/exec"]
        command += ["--storage-driver", "overlay2", "--bridge", "none", "--iptables=false", "--ip6tables=false"]
        process = subprocess.Popen(command, stdout=said, stderr=said)
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = socket
        try:
            _wait(process, log)
            yield
        finally:
            process.terminate()
            process.wait()
            _unmount_below(folder)
            if before is None:
                del os.environ["DOCKER_HOST"]
            else:
                os.environ["DOCKER_HOST"] = before


def _unmount_below(folder: str) -> None:
    """Give back what the engine leaves mounted, the host's network namespace, so that its folder can go."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        place = line.split()[1]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", place], check=True)


def _wait(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if running():
            return
        time.sleep(0.2)
    raise UserError(f"Docker Engine did not start; see {log}")
