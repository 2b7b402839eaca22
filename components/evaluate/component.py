"""Kubeflow face of evaluation."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import image


@dsl.component(base_image=image("eval"), install_kfp_package=False)
def evaluate(
    settings: dict,
    seed: int,
    publish_uri: str,
    code_digest: str,
    model: Input[Model],
    benchmarks: Input[Dataset],
    held_out: Input[Dataset],
    evaluation: Output[Dataset],
):
    """Benchmark a model and measure the information gain of its thoughts on held-out text."""
    from pathlib import Path

    from components.frame import run_component

    inputs = {
        "checkpoint": Path(model.path),
        "benchmarks": Path(benchmarks.path),
        "held_out": Path(held_out.path),
    }
    run_component("evaluate", settings, inputs, Path(evaluation.path), publish_uri, seed)
