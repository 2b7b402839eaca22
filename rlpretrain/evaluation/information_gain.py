"""Information gain on held-out text: does thinking help this model here, against its own prediction without a thought?"""

import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.data.shards import read_shards
from rlpretrain.errors import UserError
from rlpretrain.evaluation.positions import Measured, measure, rounded, sample_line, spread_evenly
from rlpretrain.rollout.interface import RolloutEngine
from rlpretrain.settings import HeldOutGainSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.training.checkpoints import check_lengths
from rlpretrain.training.loop import numpy_random
from rlpretrain.training.rewards import random_positions


def held_out_gain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    shards: Path,
    settings: HeldOutGainSettings,
    seed: int,
    engine: RolloutEngine | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A summary (nats; stderr over positions) and ``settings.samples`` positions with a thought each.

    Positions, and which of them are kept, depend on ``seed`` and the shards alone, so that models are compared at the
    same places. ``engine`` samples the thoughts, by default the model itself; the model scores them. Raises UserError when
    the shards hold no held-out document.
    """
    form = ThoughtFormat.build(settings.thought, tokenizer)
    check_lengths(model, form, settings)
    examples = [example for _, example in zip(range(settings.documents), read_shards(shards, "held_out"), strict=False)]
    if not examples:
        raise UserError(f"the shards in {shards.name} hold no held-out document; raise held_out_fraction of shard_data")
    random = numpy_random(seed, "held-out positions")
    positions = [
        position
        for example in examples
        for position in random_positions(
            example, settings.positions, settings.max_context, tokenizer.eos_token_id, random
        )
    ]
    measured = measure(model, tokenizer, form, positions, settings, seed, engine)
    kept = spread_evenly(len(measured), settings.samples)
    return summary(measured, len(examples)), [sample_line(tokenizer, place, measured[place]) for place in kept]


def summary(measured: list[Measured], documents: int) -> dict[str, Any]:
    """Means over all positions and thoughts, and what the figures by position, kind and entropy are made from."""
    gains = [row.gain for row in measured]
    return {
        "mean": rounded(fmean(gains)),
        "stderr": rounded(stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0),
        "documents": documents,
        "positions": len(measured),
        "baseline_logprob": rounded(fmean(row.logprob_without for row in measured)),
        "reasoned_logprob": rounded(fmean(value for row in measured for value in row.logprob_with)),
        "thought_length": rounded(fmean(length for row in measured for length in row.lengths)),
        "cut_off": rounded(fmean(cut for row in measured for cut in row.cut_off)),
        "per_position": [rounded(gain) for gain in gains],
        "kind_per_position": [row.kind for row in measured],
        "entropy_per_position": [rounded(row.entropy) for row in measured],
    }
