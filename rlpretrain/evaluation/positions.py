"""What thinking does at chosen places of a text: sampled thoughts, and the next token's log-probability with and without.

The baseline is the model itself, unthinking; in training it is the EMA teacher (eq. 4), which a model at rest equals.
Shapes: B positions, G thoughts each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.evaluation.kinds import token_kind
from rlpretrain.rollout.interface import RolloutEngine
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.scoring import Position, score_and_entropy, score_thoughts
from rlpretrain.settings import HeldOutGainSettings
from rlpretrain.thoughts import ThoughtFormat, Thoughts
from rlpretrain.training.loop import derived_seed

CONTEXT_KEPT = 2000  # characters of a context that are kept, its end


@dataclass(frozen=True)
class Measured:
    """What G thoughts did at one position; log-probabilities, entropy and gains in nats."""

    position: Position
    next_token: str
    kind: str  # one of KINDS
    logprob_without: float
    entropy: float  # of the next token without a thought
    logprob_with: list[float]  # a thought each
    thoughts: list[list[int]]
    close_id: int

    @property
    def gains(self) -> list[float]:
        return [value - self.logprob_without for value in self.logprob_with]

    @property
    def gain(self) -> float:
        """The mean over the thoughts."""
        return fmean(self.gains)

    @property
    def lengths(self) -> list[int]:
        return [len(thought) for thought in self.thoughts]

    @property
    def cut_off(self) -> list[bool]:
        """Whether each thought met its budget."""
        return [thought[-1] != self.close_id for thought in self.thoughts]


@torch.no_grad()
def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    form: ThoughtFormat,
    positions: Sequence[Position],
    settings: HeldOutGainSettings,
    seed: int,
    engine: RolloutEngine | None = None,
) -> list[Measured]:
    """Sample ``settings.group`` thoughts at each position and score the text's next token with and without them.

    ``engine`` samples, by default the model itself; the model scores.
    """
    groups = (engine or TorchEngine(model)).generate(
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
    excluded = settings.exclude_delimiters
    baseline_B, entropy_B = (
        values_B.tolist() for values_B in score_and_entropy(model, form, positions, excluded, settings.batch)
    )
    reasoned_BG = _reasoned(model, form, positions, groups, settings).view(len(positions), -1).tolist()
    measured = []
    for position, group, baseline, entropy, reasoned_G in zip(
        positions, groups, baseline_B, entropy_B, reasoned_BG, strict=True
    ):
        before, token = next_token_text(tokenizer, position)
        kind = token_kind(before, token)
        measured.append(Measured(position, token, kind, baseline, entropy, reasoned_G, group, form.close_id))
    return measured


def sample_line(tokenizer: PreTrainedTokenizerBase, place: int, row: Measured) -> dict[str, Any]:
    """One position as thoughts.jsonl holds it: its first thought, which is as random as any, without the delimiter that
    ended it. ``place``: its number."""
    words = row.thoughts[0] if row.cut_off[0] else row.thoughts[0][:-1]
    return {
        "position": place,
        "document": row.position.document,
        "context": tokenizer.decode(row.position.context.tolist())[-CONTEXT_KEPT:],
        "offset": row.position.offset,
        "thought": tokenizer.decode(words),
        "next_token": row.next_token,
        "kind": row.kind,
        "entropy": rounded(row.entropy),
        "logprob_with": rounded(row.logprob_with[0]),
        "logprob_without": rounded(row.logprob_without),
        "gain": rounded(row.gains[0]),
        "mean_gain": rounded(row.gain),
        "length": row.lengths[0],
        "cut_off": row.cut_off[0],
    }


def next_token_text(tokenizer: PreTrainedTokenizerBase, position: Position) -> tuple[str, str]:
    """The last token of the context and the next one as text. Decoded together: alone, a token may lose its blank."""
    last, following = int(position.context[-1]), int(position.next_tokens[0])
    before, both = tokenizer.decode([last]), tokenizer.decode([last, following])
    return before, both[len(before) :] if both.startswith(before) else tokenizer.decode([following])


def spread_evenly(count: int, wanted: int) -> list[int]:
    """Up to ``wanted`` of the numbers below ``count``, evenly spaced, the first and the last among them."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist()


def rounded(value: float) -> float:
    """Seven significant digits: all that fp32 holds."""
    return float(f"{value:.7g}")


def _reasoned(
    model: PreTrainedModel,
    form: ThoughtFormat,
    positions: Sequence[Position],
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
