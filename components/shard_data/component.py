"""Kubeflow face of data sharding."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def shard_benchmarks(settings: dict, seed: int, publish_uri: str, code_digest: str, shards: Output[Dataset]):
    """Shard evaluation items. `code_digest` makes the cache see changed code."""
    from pathlib import Path

    from components.frame import run_component

    run_component("shard_data", settings, {}, Path(shards.path), publish_uri, seed)


@dsl.component(base_image=image("data"), install_kfp_package=False)
def shard_data(
    settings: dict,
    seed: int,
    publish_uri: str,
    code_digest: str,
    benchmarks: Input[Dataset],
    shards: Output[Dataset],
):
    """Shard training documents, clear of the benchmarks' items."""
    from pathlib import Path

    from components.frame import run_component

    inputs = {"benchmarks": Path(benchmarks.path)}
    run_component("shard_data", settings, inputs, Path(shards.path), publish_uri, seed)
