"""The images, really built and run: `make test-images` (root on Debian, with docker.io, debootstrap and docker-registry).

On a Debian of debootstrap: data, train and eval for a CPU, pushed to a registry on loopback, and the tiny reproduction run in
them, named by digest, with a read-only root and no rights, against the embedded S3 server; then the same without containers.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.images import VARIABLE, ImageMap, read_map
from images.build import NAMES, build, push
from images.debian_base import import_debian
from images.engine import docker, engine, inspect
from images.indexes import build_secrets
from rlpretrain.artifacts import code_digest
from rlpretrain.s3server import EmbeddedS3
from rlpretrain.storage import download_folder, list_artifacts, read_bytes

ROOT = Path(__file__).parents[2]
TAG = "test-cpu"
USER = 10001  # of the Dockerfiles
CALM = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
SEED = 3
WHERE = ("inside", "beside")
# As strict as a cluster may be: nothing but /tmp can be written, no capability, no way to get one.
STRICT = ["--read-only", "--tmpfs", "/tmp:exec", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]


@pytest.fixture(scope="module", autouse=True)
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with engine(tmp_path_factory.mktemp("engine") / "dockerd.log"):
        yield


@pytest.fixture(scope="module")
def built(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageMap, Path]:
    """The map of freshly built images, and its file. Layers of an earlier time are used again where nothing changed."""
    path = tmp_path_factory.mktemp("map") / "images.yaml"
    shutil.copyfile(ROOT / "images" / "images.yaml", path)
    return build(import_debian(), "cpu", TAG, NAMES, "", "", path), path


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on loopback, which engines take without TLS."""
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(folder)}}, "http": {"addr": address}}
    (folder / "config.yml").write_text(yaml.safe_dump(settings))
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
        try:
            _wait_for(address)
            yield address
        finally:
            process.terminate()
            process.wait()


def _wait_for(address: str) -> None:
    host, port = address.split(":")
    for _ in range(100):
        try:
            socket.create_connection((host, int(port))).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the registry did not start")


@pytest.fixture(scope="module")
def pushed(built: tuple[ImageMap, Path], registry: str) -> tuple[ImageMap, Path]:
    return push(registry, built[1]), built[1]


@pytest.fixture(scope="module")
def runs(pushed: tuple[ImageMap, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The tiny reproduction inside the images and beside them; its reports, its manifests, and who owned the files."""
    os.environ[VARIABLE] = str(pushed[1])  # before the components are imported: that is when they are told their image
    from kfp import local as kfp_local

    from pipelines import local
    from pipelines.profile import load_profile
    from pipelines.reproduction import reproduction

    folder = tmp_path_factory.mktemp("runs")
    tasks = folder / "inside" / "tasks"
    found: dict[str, Any] = {"owners": set()}
    remove = shutil.rmtree

    def look_and_remove(path: Any, *arguments: Any, **options: Any) -> None:
        if Path(path) == tasks:
            found["owners"] = {each.stat().st_uid for each in tasks.rglob("*")}
        remove(path, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch, EmbeddedS3(folder / ".s3") as server:
        for name, value in {**server.environment(), **CALM}.items():
            patch.setenv(name, value)
        patch.setattr(shutil, "rmtree", look_and_remove)
        runner = kfp_local.DockerRunner(
            network_mode="host",
            environment={**server.environment(), **CALM},
            read_only=True,
            tmpfs={"/tmp": "exec"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
        # The stages' user makes the tasks' folders, so the one that holds them must be its own.
        tasks.mkdir(parents=True)
        os.chown(tasks, USER, USER)
        pipeline = reproduction("tiny", load_profile("tiny"))
        uri = local.run_local("inside", pipeline, SEED, folder, "s3://rlp/inside", runner=runner)
        local.fetch_report(f"{uri}/compare", folder / "inside-report")
        beside = local.run_local("inside", pipeline, SEED, folder / "beside", "s3://rlp/beside")
        local.fetch_report(f"{beside}/compare", folder / "beside-report")
        for name, place in zip(WHERE, (uri, beside), strict=True):
            found[f"{name}-report"] = folder / f"{name}-report"
            uris = list_artifacts(place)
            found[name] = {each.rsplit("/", 1)[1]: json.loads(read_bytes(f"{each}/manifest.json")) for each in uris}
        download_folder(f"{uri}/rlvr-rlp", folder / "fetched")  # verifies every file
        yield found
    del os.environ[VARIABLE]


def test_images_are_pinned_by_the_digest_that_the_registry_gave(pushed: tuple[ImageMap, Path], registry: str) -> None:
    images, path = pushed
    assert read_map(path) == images
    for name in NAMES:
        reference = images.images[name].pinned()
        assert reference.startswith(f"{registry}/rlp-pipelines/{name}-python@sha256:")
        docker("pull", reference, quiet=True)


def test_compiled_pipelines_name_images_by_digest(pushed: tuple[ImageMap, Path], tmp_path: Path) -> None:
    images, path = pushed
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "compile",
        "--profile",
        "tiny",
        "--output",
        str(tmp_path / "tiny.yaml"),
    ]
    subprocess.run(command, cwd=ROOT, env={**os.environ, VARIABLE: str(path)}, check=True)
    compiled = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    named = {each["container"]["image"] for each in compiled["deploymentSpec"]["executors"].values()}
    assert named == {image.pinned() for image in images.images.values()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("user", [[], ["--user", "4711:0"]], ids=["its user", "another user"])
def test_an_image_checks_itself_with_a_read_only_root(
    built: tuple[ImageMap, Path], s3_server: EmbeddedS3, name: str, user: list[str]
) -> None:
    environment = [part for pair in s3_server.environment().items() for part in ("--env", "=".join(pair))]
    command = ["run", "--rm", "--network", "host", *STRICT, *user, *environment, built[0].images[name].reference]
    said = dict(line.split(": ", 1) for line in docker(*command, quiet=True).splitlines())
    assert list(said) == ["stage", "versions", "user", "gpu", "s3"]
    assert code_digest()[:12] in said["stage"]
    assert said["user"].startswith(f"id {4711 if user else USER},")
    assert said["s3"] == f"{s3_server.endpoint} answers and takes the credentials"
    assert s3_server.secret_key not in str(said)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_build_machine_is_in_an_image(built: tuple[ImageMap, Path], name: str, tmp_path: Path) -> None:
    reference = built[0].images[name].reference
    with build_secrets() as secrets:
        lines = secrets["pip"].read_text().splitlines()
    words = {word for line in lines for word in line.partition("=")[2].split() if "://" in word}
    addresses = {word.split("://")[1].split(":")[0].split("/")[0] for word in words}
    known = inspect(reference)
    assert known is not None
    said = json.dumps(known["Config"]) + docker("history", "--no-trunc", reference, quiet=True)
    assert not [address for address in addresses if address in said]
    look = "find / -xdev '(' -name 'pip.conf' -o -path '/run/secrets/*' -size +0 -o -path '/root/.cache/*' -type f ')' 2>/dev/null"
    assert docker("run", "--rm", "--network", "none", "--user", "0", reference, "sh", "-c", look, quiet=True) == ""


def test_stages_ran_as_a_user_without_rights(runs: dict[str, Any]) -> None:
    assert runs["owners"] == {USER}


def test_every_task_published_its_artifact(runs: dict[str, Any]) -> None:
    assert set(runs["inside"]) == set(runs["beside"]) and len(runs["inside"]) == 24
    assert {manifest["code_version"] for manifest in runs["inside"].values()} == {code_digest()}


def test_results_are_those_of_a_run_without_containers(runs: dict[str, Any]) -> None:
    inside, beside = (json.loads((runs[f"{where}-report"] / "results.json").read_text()) for where in WHERE)
    assert without_origins(inside) == without_origins(beside)


def without_origins(results: dict[str, Any]) -> dict[str, Any]:
    """Results without what names the libraries of an image, or follows from those by digests."""
    for model in results["models"]:
        for source in model["sources"]:
            for field in ("digest", "inputs", "libraries"):
                del source[field]
    return results


def test_artifacts_are_the_same_bytes_inside_and_beside(runs: dict[str, Any]) -> None:
    """Manifests differ in `libraries`, which names what the image holds, and in digests; the page shows digests of inputs."""
    inside, beside = (runs[where] for where in WHERE)
    for task, manifest in inside.items():
        other = beside[task]
        if task != "compare":
            assert manifest["files"] == other["files"], f"{task} left other files"
        assert manifest["settings"] == other["settings"] and manifest["facts"] == other["facts"]
        held = {name: version for name, version in manifest["libraries"].items() if name != "python"}  # the base's own
        assert held.items() <= other["libraries"].items()
