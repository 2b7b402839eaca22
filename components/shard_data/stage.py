"""Data sharding: sources to tokenised, deduplicated, decontaminated parquet shards."""

from pathlib import Path
from typing import Any

from components.frame import InputSpec
from rlpretrain.data.build import build_shards
from rlpretrain.settings import ShardDataSettings

KIND = "shards"
SETTINGS = ShardDataSettings
INPUTS = {"benchmarks": InputSpec("shards", required=False)}
VOLATILE = ()


def run(settings: ShardDataSettings, inputs: dict[str, Path], output: Path) -> dict[str, Any]:
    """Shard the sources, clear of the benchmarks' items when those are given; return the shards' facts."""
    return build_shards(settings, inputs.get("benchmarks"), output)
