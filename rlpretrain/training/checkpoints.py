"""What a training stage starts from and leaves behind: a model folder that transformers loads by path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.chat import set_chat_template
from rlpretrain.data.facts import shard_facts
from rlpretrain.errors import UserError
from rlpretrain.lengths import check_room
from rlpretrain.model_card import history_of, training_record, write_card
from rlpretrain.models import load_model, save_model
from rlpretrain.settings import HeldOutGainSettings, Settings, ThinkingSettings, ThoughtSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.tokenizer import load_tokenizer, tokenizer_digest
from rlpretrain.training.loop import METRICS_FILE, TIMINGS_FILE
from rlpretrain.training.sharding import sharded

MODEL_FOLDER = "model"
__all__ = [
    "METRICS_FILE",
    "MODEL_FOLDER",
    "TIMINGS_FILE",
    "check_lengths",
    "described",
    "open_checkpoint",
    "save_checkpoint",
]


def open_checkpoint(checkpoint: Path, shards: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of a checkpoint and its tokenizer; UserError when the shards were cut by another tokenizer."""
    folder = checkpoint / MODEL_FOLDER
    tokenizer = load_tokenizer(str(folder))
    if tokenizer_digest(tokenizer) != tokenizer_digest(load_tokenizer(str(shards / "tokenizer"))):
        raise UserError(
            "input 'shards' was tokenised with another tokenizer than input 'checkpoint' uses; "
            "shard the data again with the model's tokenizer"
        )
    return load_model(folder), tokenizer


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
    objective: str,
    steps: int,
    tokens: int,
    thought: ThoughtSettings | None = None,
) -> dict[str, Any]:
    """Write the model folder, whose chat template opens a ``thought``; returns the facts for the checkpoint's manifest.

    Of several processes all must call it.
    """
    set_chat_template(tokenizer, thought)
    shards = sharded(model)
    if shards is not None:
        model = shards.for_saving()
    save_model(model, tokenizer, output / MODEL_FOLDER)
    return {
        "objective": objective,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "tokens": tokens,
        "tokenizer_digest": tokenizer_digest(tokenizer),
    }


def described(output: Path, settings: Settings, inputs: Mapping[str, Path], facts: dict[str, Any]) -> dict[str, Any]:
    """Write the model's card; returns the checkpoint's facts with its data and its history."""
    before = history_of(inputs.get("checkpoint"))
    facts = {
        **facts,
        "data": shard_facts(inputs["shards"]),
        "history": [*before, training_record(settings, facts, inputs["shards"])],
    }
    write_card(output / MODEL_FOLDER, facts, output / METRICS_FILE)
    return facts


def check_lengths(
    model: PreTrainedModel, form: ThoughtFormat, settings: ThinkingSettings | HeldOutGainSettings, following: int = 1
) -> None:
    """UserError when context, thought and ``following`` predicted tokens do not fit the model's positions."""
    room = getattr(model.config, "max_position_embeddings", None)
    if room is not None:
        check_room(settings, form.overhead + following, room)
