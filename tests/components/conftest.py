"""Small real inputs for stages: shards of the synthetic corpora and a random checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlpretrain.artifacts import write_manifest
from rlpretrain.data.build import build_shards
from rlpretrain.models import new_model
from rlpretrain.settings import ArchitectureSettings, ShardDataSettings, parse_settings
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.checkpoints import save_checkpoint

SHAPE = ArchitectureSettings(layers=1, width=16, heads=2, key_value_heads=2, feed_forward=16, max_positions=96)


@pytest.fixture(scope="session")
def make_shards() -> Callable[..., Path]:
    """Shards of a generator in a folder: ``make_shards(folder, "mini_documents", held_out_fraction=0.5)``."""

    def make(folder: Path, generator: str, tokens: tuple[str, ...] = (), **settings: object) -> Path:
        source = {"name": "mini", "kind": "generator", "generator": generator, "documents": 32}
        if settings.get("purpose") == "evaluation":
            source["split"] = "test"
        values = {
            "sources": [source],
            "tokenizer": {"name": "builtin:characters", "add_tokens": tokens},
            "workers": 1,
            **settings,
        }
        folder.mkdir()
        facts = build_shards(parse_settings(ShardDataSettings, values), None, folder)
        write_manifest(folder, kind="shards", settings={}, inputs={}, seed=0, facts=facts)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of random weights, as the stage pretrain leaves it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = load_tokenizer("builtin:characters")
    facts = save_checkpoint(new_model(SHAPE, tokenizer, 0), tokenizer, folder, "base", 1, 1)
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    (folder / "timings.jsonl").write_text('{"step": 1, "time/step": 0.5}\n')
    write_manifest(folder, kind="checkpoint", settings={}, inputs={}, seed=0, facts=facts, volatile=("timings.jsonl",))
    return folder
