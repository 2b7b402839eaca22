"""What `pip install .` brings: the rooms' code and data, a command, and completion for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("rlpretrain", "components", "pipelines", "images")
NOT_INSTALLED = ("*.md", "*.png", "Dockerfile", "compiler.sh", "__pycache__")  # read and used in the repository alone


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """A wheel built offline, of a copy, since setuptools leaves its own folders in the tree."""
    folder = tmp_path_factory.mktemp("tree")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, folder)
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-w", "out"]
    done = subprocess.run(build, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return ZipFile(next((folder / "out").glob("*.whl")))


def test_a_wheel_holds_every_module_and_data_file_of_the_rooms(wheel: ZipFile, tmp_path: Path) -> None:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns(*NOT_INSTALLED))
    expected = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {"rlpretrain/py.typed", "pipelines/profiles/mini.yaml", "images/images.yaml"} <= held


def test_the_wheel_brings_the_command(wheel: ZipFile) -> None:
    [entry] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "rlp-pipelines = pipelines.__main__:main" in wheel.read(entry).decode()


def as_command(*given: str, **environment: str) -> str:
    code = "import sys; sys.argv[0] = 'rlp-pipelines'; from pipelines.__main__ import main; sys.exit(main())"
    run = [sys.executable, "-c", code, *given]
    return subprocess.run(run, capture_output=True, text=True, env=os.environ | environment, check=True).stdout


def test_the_command_completes_in_a_shell_and_the_module_offers_none() -> None:
    words = {"COMP_WORDS": "rlp-pipelines lin", "COMP_CWORD": "1"}
    assert as_command(_RLP_PIPELINES_COMPLETE="complete_bash", **words).split() == ["lineage"]
    assert "--install-completion" in as_command("--help")
    module = subprocess.run([sys.executable, "-m", "pipelines", "--help"], capture_output=True, text=True, check=True)
    assert "completion" not in module.stdout  # the shell would complete `python`
