"""SFT: maximise the likelihood of completions; no loss is taken on prompts."""

from pathlib import Path
from typing import Any

from components.frame import InputSpec
from components.training import TRAINING
from rlpretrain.data.loader import ShardLoader
from rlpretrain.settings import FinetuneSettings
from rlpretrain.training.checkpoints import TIMINGS_FILE, described, open_checkpoint, save_checkpoint
from rlpretrain.training.likelihood import train_likelihood
from rlpretrain.training.snapshots import Snapshots
from rlpretrain.training.world import join

KIND = "checkpoint"
SETTINGS = FinetuneSettings
INPUTS = {"shards": InputSpec("shards"), "checkpoint": InputSpec("checkpoint")}
VOLATILE = (TIMINGS_FILE,)
__all__ = ["INPUTS", "KIND", "SETTINGS", "TRAINING", "VOLATILE", "run"]


def run(settings: FinetuneSettings, inputs: dict[str, Path], output: Path, snapshots: Snapshots) -> dict[str, Any]:
    """Fine-tune the checkpoint on the shards; write a checkpoint; return its facts."""
    model, tokenizer = open_checkpoint(inputs["checkpoint"], inputs["shards"])
    join().place(model)
    examples = ShardLoader(inputs["shards"], seed=settings.seed)
    tokens = train_likelihood(model, examples, settings.likelihood, output, "sft", snapshots)
    facts = save_checkpoint(model, tokenizer, output, "sft", settings.likelihood.steps, tokens)
    return described(output, settings, inputs, facts)
