"""Kubeflow faces of the ablations: a point's training and evaluation, and the page of them all.

A point is an item of a loop. kfp cannot put an item's field into a string there, so these faces take the item's label and
the place of the run, and put the place of the artifact together themselves.
"""

from typing import List  # noqa: UP035  kfp reads annotations by this name

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Model, Output

from components.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def shard_point(
    settings: dict,
    label: str,
    seed: int,
    run_uri: str,
    code_digest: str,
    benchmarks: Input[Dataset],
    shards: Output[Dataset],
):
    """Shard the documents of a point that reads others."""
    from pathlib import Path

    from components.frame import run_component

    inputs = {"benchmarks": Path(benchmarks.path)}
    print(f"point: {label}", flush=True)
    run_component("shard_data", settings, inputs, Path(shards.path), f"{run_uri}/shard-{label}", seed)


@dsl.component(base_image=image("train"), install_kfp_package=False)
def pretrain_point(
    settings: dict,
    label: str,
    seed: int,
    run_uri: str,
    code_digest: str,
    shards: Input[Dataset],
    base: Input[Model],
    checkpoint: Output[Model],
):
    """Continue the base model by RLP with a point's settings."""
    from pathlib import Path

    from components.frame import run_component

    inputs = {"shards": Path(shards.path), "checkpoint": Path(base.path)}
    print(f"point: {label}", flush=True)
    run_component("pretrain", settings, inputs, Path(checkpoint.path), f"{run_uri}/pretrain-{label}", seed)


@dsl.component(base_image=image("eval"), install_kfp_package=False)
def evaluate_point(
    settings: dict,
    label: str,
    seed: int,
    run_uri: str,
    code_digest: str,
    model: Input[Model],
    benchmarks: Input[Dataset],
    held_out: Input[Dataset],
    evaluation: Output[Dataset],
):
    """Evaluate a point's model; the evaluation carries the point's label."""
    from pathlib import Path

    from components.frame import run_component

    inputs = {
        "checkpoint": Path(model.path),
        "benchmarks": Path(benchmarks.path),
        "held_out": Path(held_out.path),
    }
    settings = {**settings, "label": label}
    run_component("evaluate", settings, inputs, Path(evaluation.path), f"{run_uri}/evaluate-{label}", seed)


@dsl.component(base_image=image("eval"), install_kfp_package=False)
def ablate(
    settings: dict,
    publish_uri: str,
    code_digest: str,
    base: Input[Dataset],
    points: Input[List[Dataset]],  # noqa: UP006
    ablations: Output[Dataset],
    page: Output[HTML],
    others: Input[List[Dataset]] = None,  # noqa: UP006
):
    """Draw every ablation beside the paper's: curves, tables and the page."""
    import shutil
    from pathlib import Path

    from components.frame import run_component

    evaluations = [*points, *(others or [])]
    inputs = {f"points.{number}": Path(evaluation.path) for number, evaluation in enumerate(evaluations)}
    run_component("ablate", settings, {"base": Path(base.path), **inputs}, Path(ablations.path), publish_uri)
    shutil.copyfile(Path(ablations.path) / "index.html", page.path)
