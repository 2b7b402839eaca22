"""The Dockerfiles, without an engine: linted, fed from files that exist, and with what their stages import."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from components.frame import STAGES
from components.images import map_file, read_map
from images.build import NAMES
from tests.images.imports import ROOT, held, imported, named, stages_of

# Named in an extra though none of our modules imports it, and who does.
_TRAIN = "training, whose image the evaluation's starts from"
FOR_OTHERS = {
    "gguf": "transformers, to read GGUF weights",
    "accelerate": "lm-eval's models of transformers",
    **dict.fromkeys(("kubeflow-trainer-api", "kubernetes", "safetensors", "urllib3"), _TRAIN),
}


def dockerfile(name: str) -> Path:
    return ROOT / "images" / name / "Dockerfile"


def instructions(name: str) -> list[tuple[str, str]]:
    """Instruction and the rest of each, with continued lines joined and comments left out."""
    lines = [line for line in dockerfile(name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_every_stage_runs_in_one_image_and_every_image_has_a_dockerfile() -> None:
    assert set(read_map(map_file()).images) == set(NAMES)
    assert sorted(stage for name in NAMES for stage in stages_of(name)) == sorted([*STAGES, "report_status"])
    assert sorted(path.parent.name for path in (ROOT / "images").glob("*/Dockerfile")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_hadolint_finds_nothing(name: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", str(dockerfile(name))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_exists_and_is_let_into_the_build(name: str) -> None:
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for word, rest in instructions(name):
        if word == "COPY" and "--from=" not in rest:
            for source in [part for part in rest.split() if not part.startswith("--")][:-1]:
                assert (ROOT / source).exists(), f"{source} is not there"
                assert f"!{source}" in let_in, f".dockerignore keeps {source} out"


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_from_an_argument_and_ends_as_a_user_without_rights(name: str) -> None:
    found = instructions(name)
    stages = {match[1] for _, rest in found if (match := re.search(r" AS (\w+)$", rest))}
    arguments = [rest for word, rest in found if word == "ARG"]
    for word, rest in found:
        if word == "FROM":
            image = rest.split()[0]
            assert image in stages or image.strip("${}") in arguments, (
                f"FROM {image}: not an argument without a default"
            )
    users = [rest for word, rest in found if word == "USER"]
    # eval and the last stage of train inherit the user of the stage that they start from
    assert users and re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


@pytest.mark.parametrize("name", NAMES)
def test_code_comes_after_dependencies(name: str) -> None:
    """So that a change of code rebuilds the last layers alone."""
    lines = [f"{word} {rest}" for word, rest in instructions(name)]
    installed = next(index for index, line in enumerate(lines) if "install.py" in line and line.startswith("RUN"))
    code = [index for index, line in enumerate(lines) if re.match(r"COPY --chmod=\d+ (rlpretrain|components) ", line)]
    assert len(code) == 2 and min(code) > installed


@pytest.mark.parametrize("name", NAMES)
def test_it_fetches_through_pip_and_apt_alone_and_pip_is_configured_by_secrets(name: str) -> None:
    for word, rest in instructions(name):
        assert word != "ADD"
        if "install.py" in rest and word == "RUN":
            assert "--mount=type=secret,id=pip" in rest and "--mount=type=secret,id=ca" in rest
    for path in (dockerfile(name), *(ROOT / "images").glob("*.*")):
        for address in re.findall(r"https?://[\w.-]+", path.read_text(encoding="utf-8")):
            assert address == "http://127.0.0.1", f"{path.name} names {address}"


@pytest.mark.parametrize("name", NAMES)
def test_it_says_whether_it_is_well(name: str) -> None:
    words = {word: rest for word, rest in instructions(name)}
    assert words["CMD"] in words["HEALTHCHECK"]
    module = re.search(r"components\.(\w+)", words["CMD"])
    assert module is not None and module[1] in stages_of(name) and "--self-check" in words["CMD"]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_holds_what_its_stages_import(name: str) -> None:
    there = held(name)
    for stage in stages_of(name):
        for distribution, module in imported(stage).items():
            assert distribution in there, (
                f"{stage} imports {distribution} in {module}; add it to the extra `{name}` of pyproject.toml"
            )


@pytest.mark.parametrize("name", NAMES)
def test_an_image_names_nothing_that_its_stages_do_not_import(name: str) -> None:
    used = {distribution for stage in stages_of(name) for distribution in imported(stage)}
    for requirement in named(name):
        assert canonicalize_name(requirement.name) in used | set(FOR_OTHERS), f"{requirement} is in `{name}` for nobody"


@pytest.mark.parametrize("name", NAMES)
def test_what_an_image_holds_is_in_the_lock(name: str) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = {canonicalize_name(line.partition("==")[0]) for line in lock.splitlines()}
    # Of CUDA and what comes with it the versions are fixed by torch itself; setuptools is no matter of ours.
    accepted = {each for each in held(name) if each.startswith(("nvidia-", "cuda-", "triton"))}
    assert held(name) - accepted - locked == set()


def test_sharding_needs_no_torch() -> None:
    assert "torch" not in held("data")
