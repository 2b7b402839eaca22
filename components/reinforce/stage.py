"""RLVR: sample responses to problems, reward the verified ones, push the clipped surrogate."""

from pathlib import Path
from typing import Any

from components.frame import InputSpec
from components.training import TRAINING
from rlpretrain.data.loader import ShardLoader
from rlpretrain.data.shards import read_shards
from rlpretrain.rollout.engines import thinking_engine
from rlpretrain.settings import ReinforceSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.training.checkpoints import TIMINGS_FILE, check_lengths, described, open_checkpoint, save_checkpoint
from rlpretrain.training.rewards import VerifiedAnswer
from rlpretrain.training.snapshots import Snapshots
from rlpretrain.training.thinking import ThinkingTrainer
from rlpretrain.training.world import join

KIND = "checkpoint"
SETTINGS = ReinforceSettings
INPUTS = {"shards": InputSpec("shards"), "checkpoint": InputSpec("checkpoint")}
VOLATILE = (TIMINGS_FILE,)
__all__ = ["INPUTS", "KIND", "SETTINGS", "TRAINING", "VOLATILE", "run"]


def run(settings: ReinforceSettings, inputs: dict[str, Path], output: Path, snapshots: Snapshots) -> dict[str, Any]:
    """Reinforce the checkpoint on the shards' problems; write a checkpoint; return its facts."""
    model, tokenizer = open_checkpoint(inputs["checkpoint"], inputs["shards"])
    join().place(model)
    thinking = settings.thinking
    form = ThoughtFormat.response(thinking.thought, tokenizer)
    check_lengths(model, form, thinking)
    engine = thinking_engine(model, form, thinking)
    reward = VerifiedAnswer(tokenizer, settings.answer_pattern, thinking.thought, thinking.max_context)
    for example in read_shards(inputs["shards"], "train"):  # now, and not after hours
        reward.check(example)
    trainer = ThinkingTrainer(model, engine, tokenizer, form, reward, thinking, settings.seed)
    tokens = trainer.train(ShardLoader(inputs["shards"], seed=settings.seed), output, "rlvr", snapshots)
    facts = save_checkpoint(model, tokenizer, output, "rlvr", thinking.steps, tokens, thinking.thought)
    return described(output, settings, inputs, facts)
