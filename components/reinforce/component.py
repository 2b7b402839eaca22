"""Kubeflow face of the stage."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def reinforce(
    settings: dict,
    seed: int,
    publish_uri: str,
    code_digest: str,
    shards: Input[Dataset],
    model: Input[Model],
    checkpoint: Output[Model],
):
    """Reinforce a model on problems with verifiable answers."""
    from pathlib import Path

    from components.frame import run_component

    inputs = {"shards": Path(shards.path), "checkpoint": Path(model.path)}
    run_component("reinforce", settings, inputs, Path(checkpoint.path), publish_uri, seed)
