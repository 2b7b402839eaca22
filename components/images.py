"""The one map from image to reference and digest that Kubeflow components are compiled with.

It lies in images/images.yaml, outside of what `code_digest` covers: an image cannot hold its own digest. RLP_IMAGES names
another file, for images of one's own or of a test.
"""

import os
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rlpretrain.artifacts import write_bytes_atomically
from rlpretrain.errors import UserError
from rlpretrain.strict_yaml import read_yaml

VARIABLE = "RLP_IMAGES"
_HEAD = """\
# The one map from image to reference and digest. `make images` and `make push` write it; compiling pipelines reads it and
# names an image by its digest once it has one.
"""


class Image(BaseModel):
    """Where an image is, NAME:TAG, and, once a registry has it, the digest there (sha256:...)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reference: str
    digest: str | None = None

    def pinned(self) -> str:
        """NAME@DIGEST, or NAME:TAG of an image that no registry has yet."""
        return self.reference if self.digest is None else f"{repository(self.reference)}@{self.digest}"


class ImageMap(BaseModel):
    """All images by name (data, train, eval), and the base that they were built on."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    base: str | None
    images: dict[str, Image]


def repository(reference: str) -> str:
    """NAME of NAME:TAG; a colon before a slash belongs to a registry's port."""
    name, colon, tag = reference.rpartition(":")
    return name if colon and "/" not in tag else reference


def map_file() -> Path:
    """The file of the map: what RLP_IMAGES names, else the project's own."""
    return Path(os.environ.get(VARIABLE) or str(files("images").joinpath("images.yaml")))


def read_map(path: Path) -> ImageMap:
    """The map in a file; UserError when there is none or it is malformed."""
    try:
        return ImageMap.model_validate(read_yaml(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; let {VARIABLE} name a map of images, or unset it") from None
    except (yaml.YAMLError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a map of images ({reason}); write it as images/images.yaml is") from None


def write_map(images: ImageMap, path: Path) -> None:
    """Write the map, with the comment that says what it is."""
    write_bytes_atomically(path, (_HEAD + yaml.safe_dump(images.model_dump(), sort_keys=False)).encode())


@cache
def image(name: str) -> str:
    """What compiled pipelines call image ``name`` (data, train or eval)."""
    found = read_map(map_file()).images.get(name)
    if found is None:
        raise UserError(f"{map_file()}: has no image '{name}'; add it as images/images.yaml has it")
    return found.pinned()
