"""Building and pushing the images, and the map that both keep."""

import re
from collections.abc import Sequence
from pathlib import Path

from components.images import Image, ImageMap, read_map, repository, write_map
from images.engine import docker, inspect
from images.indexes import build_secrets
from images.install import VLLM
from rlpretrain.errors import UserError

ROOT = Path(__file__).parents[1]
NAMES = ("data", "train", "eval")
VARIANTS = {"cuda": {}, "cpu": {"TORCH_VARIANT": "+cpu", "COMPILER": "no"}}
PREFIX = "rlp-pipelines"
_PINNED = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
_ARGUMENT = re.compile(r"^ARG (\w+)", re.MULTILINE)


def check_base(base: str | None) -> str:
    """The base image, when it is pinned by digest or was imported into this engine; else UserError with the mend.

    An imported image is known by its own content alone: no registry can move its name. One that was fetched by a tag tells the
    digest to write.
    """
    if base is None:
        raise UserError("no base image yet; give BASE=NAME@sha256:..., for images/README.md says how to choose it")
    if _PINNED.fullmatch(base):
        return base
    found = None if "@" in base else inspect(base)
    if found is None:
        raise UserError(f"BASE={base}: not pinned; write NAME@sha256:... with all 64 digits")
    if found["RepoDigests"]:
        raise UserError(f"BASE={base}: not pinned; write BASE={found['RepoDigests'][0]}")
    return base


def build(
    base: str | None,
    variant: str,
    tag: str,
    names: Sequence[str],
    extras: str,
    models: str,
    path: Path,
) -> ImageMap:
    """Build images, each of its folder's Dockerfile, and write their references to the map; digests come with a push."""
    before = read_map(path)
    base = check_base(base or before.base)
    arguments = {"BASE": base, "EXTRAS": extras, "MODEL_PACKAGES": models, **VARIANTS[variant]}
    shared = f"{PREFIX}/train-dependencies:{tag}"
    images = dict(before.images)
    with build_secrets() as secrets:
        if "train" in names or "eval" in names:
            _build("train", shared, arguments, secrets, "--target", "dependencies")
        for name in names:
            reference = f"{PREFIX}/{name}-python:{tag}"
            own = {"TRAIN_DEPENDENCIES": shared}
            if name == "data":  # nothing is sampled there
                own["EXTRAS"] = " ".join(extra for extra in extras.split() if extra != VLLM)
            _build(name, reference, arguments | own, secrets)
            images[name] = Image(reference=reference)
    images_map = ImageMap(base=base, images=images)
    write_map(images_map, path)
    return images_map


def _build(name: str, reference: str, arguments: dict[str, str], secrets: dict[str, Path], *options: str) -> None:
    file = ROOT / "images" / name / "Dockerfile"
    known = set(_ARGUMENT.findall(file.read_text(encoding="utf-8")))
    command = ["build", "--network", "host", "--file", str(file), "--tag", reference, *options]
    for argument, value in arguments.items():
        if argument in known:
            command += ["--build-arg", f"{argument}={value}"]
    for secret, source in secrets.items():
        command += ["--secret", f"id={secret},src={source}"]
    print(f"building {reference}", flush=True)
    docker(*command, str(ROOT))


def push(registry: str, path: Path) -> ImageMap:
    """Push the map's images to ``registry`` and write the digests it gave them to the map."""
    before = read_map(path)
    images = {}
    for name, image in before.images.items():
        local = image.reference
        if inspect(local) is None:
            raise UserError(f"image {local} is not here; run `make images` first")
        short = local[local.index(f"{PREFIX}/") :]
        reference = f"{registry.rstrip('/')}/{short}"
        docker("tag", local, reference)
        docker("push", reference)
        found = inspect(reference)
        assert found is not None
        digests = [each for each in found["RepoDigests"] if each.startswith(f"{repository(reference)}@")]
        images[name] = Image(reference=reference, digest=digests[0].partition("@")[2])
    images_map = ImageMap(base=before.base, images=images)
    write_map(images_map, path)
    return images_map
