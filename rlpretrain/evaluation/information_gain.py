"""Information gain on held-out text: does thinking help this model here, against its own prediction without a thought?

The baseline is the model itself, unthinking; in training it is the EMA teacher (eq. 4), which a model at rest equals.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.data.shards import read_shards
from rlpretrain.errors import UserError
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.scoring import Position, score_thoughts, score_unthinking
from rlpretrain.settings import HeldOutGainSettings
from rlpretrain.thoughts import ThoughtFormat, Thoughts
from rlpretrain.training.checkpoints import check_lengths
from rlpretrain.training.loop import derived_seed, numpy_random
from rlpretrain.training.rewards import random_positions


@torch.no_grad()
def held_out_gain(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, shards: Path, settings: HeldOutGainSettings, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A summary (nats; stderr over positions) and ``settings.samples`` thoughts with their gains.

    Positions depend on ``seed`` and the shards alone, so that models are compared at the same places. Raises UserError
    when the shards hold no held-out document.
    """
    form = ThoughtFormat.build(settings.thought, tokenizer)
    check_lengths(model, form, settings)
    examples = [example for _, example in zip(range(settings.documents), read_shards(shards, "held_out"), strict=False)]
    if not examples:
        raise UserError(f"the shards in {shards.name} hold no held-out document; raise held_out_fraction of shard_data")
    random = numpy_random(seed, "held-out positions")
    eos = tokenizer.eos_token_id
    positions = [
        position
        for example in examples
        for position in random_positions(example, settings.positions, settings.max_context, eos, random)
    ]
    groups = TorchEngine(model).generate(
        [form.prompt(position.context) for position in positions],
        group=settings.group,
        max_new_tokens=form.budget,
        temperature=form.temperature,
        stop_ids={form.close_id},
        forbidden_ids=set(form.forbidden_ids),
        seed=derived_seed(seed, "held-out thoughts"),
        batch=settings.batch,
        stem=len(form.open_ids),
    )
    baseline_B = score_unthinking(model, form, positions, settings.exclude_delimiters, settings.batch)
    thoughts = Thoughts.from_lists([thought for group in groups for thought in group], form.close_id)
    reasoned_BG = _reasoned(model, form, positions, groups, settings).view(len(positions), settings.group)
    gain_BG = (reasoned_BG - baseline_B.unsqueeze(-1)).cpu()
    per_position = gain_BG.mean(dim=1).tolist()
    summary = {
        "mean": _rounded(float(np.mean(per_position))),
        "stderr": _rounded(
            float(np.std(per_position, ddof=1)) / math.sqrt(len(per_position)) if len(positions) > 1 else 0.0
        ),
        "documents": len(examples),
        "positions": len(positions),
        "baseline_logprob": _rounded(float(baseline_B.mean())),
        "reasoned_logprob": _rounded(float(reasoned_BG.mean())),
        "thought_length": _rounded(float(thoughts.lengths_N.float().mean())),
        "cut_off": _rounded(float((~thoughts.finished_N).float().mean())),
        "per_position": [_rounded(value) for value in per_position],
    }
    shown = np.linspace(0, len(positions) - 1, min(settings.samples, len(positions))).round().astype(int)
    samples = [
        {
            "document": positions[b].document,
            "context": tokenizer.decode(positions[b].context.tolist()),
            "thought": tokenizer.decode(groups[b][0]),
            "next_token": tokenizer.decode(positions[b].next_tokens[:1].tolist()),
            "logprob_with": _rounded(float(reasoned_BG[b, 0])),
            "logprob_without": _rounded(float(baseline_B[b])),
            "gain": _rounded(float(gain_BG[b, 0])),
            "cut_off": groups[b][0][-1] != form.close_id,
        }
        for b in shown.tolist()
    ]
    return summary, samples


def _reasoned(
    model: PreTrainedModel,
    form: ThoughtFormat,
    positions: list[Position],
    groups: list[list[list[int]]],
    settings: HeldOutGainSettings,
) -> torch.Tensor:
    """S_pred of every thought, shape (B x G,)."""
    size = max(1, settings.batch // settings.group)
    parts = []
    for start in range(0, len(positions), size):
        part = positions[start : start + size]
        flat = Thoughts.from_lists([t for g in groups[start : start + size] for t in g], form.close_id)
        parts.append(score_thoughts(model, form, part, flat, settings.exclude_delimiters).reasoned_N)
    return torch.cat(parts)


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")
