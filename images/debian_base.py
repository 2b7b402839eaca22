"""A base image without a registry: Debian 12 with its Python 3.11, made by debootstrap and imported into the engine."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from images.engine import client, inspect
from rlpretrain.errors import UserError

REFERENCE = "rlp-pipelines/debian-python:12"
SUITE = "bookworm"
_PACKAGES = (
    "ca-certificates,python3,python3-venv,python3-distutils"  # the last is what python3-venv asks for by another name
)
_LEFT_OUT = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")


def import_debian() -> str:
    """Make the image unless the engine has it; returns its reference. UserError unless root, with debootstrap, runs this."""
    if inspect(REFERENCE) is not None:
        return REFERENCE
    if os.getuid() != 0 or shutil.which("debootstrap") is None:
        raise UserError("a Debian base takes root and debootstrap; run apt-get install debootstrap, or give BASE=")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", SUITE, str(root)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"debootstrap failed: {done.stdout.strip().splitlines()[-1]}")
        left_out = [f"--exclude=./{path}/*" for path in _LEFT_OUT]
        with subprocess.Popen(["tar", "-C", str(root), *left_out, "-c", "."], stdout=subprocess.PIPE) as archive:
            subprocess.run(
                [client(), "import", "-", REFERENCE], stdin=archive.stdout, check=True, stdout=subprocess.DEVNULL
            )
        assert archive.returncode == 0, "tar could not read what debootstrap made"
    return REFERENCE
