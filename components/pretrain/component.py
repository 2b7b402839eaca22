"""Kubeflow faces of pretraining: the base model, and the arms that continue it."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def train_base(
    settings: dict, seed: int, publish_uri: str, code_digest: str, shards: Input[Dataset], checkpoint: Output[Model]
):
    """Train or import the base model that every arm starts from."""
    from pathlib import Path

    from components.frame import run_component

    inputs = {"shards": Path(shards.path)}
    run_component("pretrain", settings, inputs, Path(checkpoint.path), publish_uri, seed)


@dsl.component(base_image=image("train"), install_kfp_package=False)
def pretrain(
    settings: dict,
    seed: int,
    publish_uri: str,
    code_digest: str,
    shards: Input[Dataset],
    base: Input[Model],
    checkpoint: Output[Model],
):
    """Continue the base model by the settings' objective: cpt, rlp or rpt."""
    from pathlib import Path

    from components.frame import run_component

    inputs = {"shards": Path(shards.path), "checkpoint": Path(base.path)}
    run_component("pretrain", settings, inputs, Path(checkpoint.path), publish_uri, seed)
