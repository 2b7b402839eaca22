"""The one map from image to reference that Kubeflow components are compiled with."""

from functools import cache
from importlib.resources import files

import yaml


@cache
def image(name: str) -> str:
    """The reference of image ``name`` (data, train or eval)."""
    return str(yaml.safe_load(files("components").joinpath("images.yaml").read_text(encoding="utf-8"))[name])
