"""Three rewards behind one interface: information gain (RLP), prefix match (RPT), a verified answer (RLVR).

They differ in where a thought starts and in what it is worth; the thinking trainer is the same for all.
Shapes: B contexts, G thoughts each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.answers import BOXED, AnswerReader, equivalent_answer, last_answer, same_answer
from rlpretrain.data.shards import Example
from rlpretrain.errors import UserError
from rlpretrain.objectives import information_gain, prefix_match
from rlpretrain.scoring import Position, ScoredThoughts, score_unthinking
from rlpretrain.settings import ThinkingSettings, ThoughtSettings
from rlpretrain.thoughts import ThoughtFormat, Thoughts
from rlpretrain.training.proxy import Proxy
from rlpretrain.training.sharding import put_into
from rlpretrain.training.teacher import SlowCopy, SlowParts, slow_copy
from rlpretrain.training.world import World


@dataclass(frozen=True)
class Rewarded:
    """Rewards of B x G thoughts, and what there is to say about them."""

    reward_BG: Tensor
    metrics: dict[str, float]  # sums over the B x G thoughts, so that parts of a batch add up


class Reward(Protocol):
    """What a thinking objective asks of a thought."""

    prediction_tokens: int  # tokens after the thought that the reward looks at

    def positions(self, example: Example, random: np.random.Generator) -> list[Position]:
        """The places in ``example`` where thoughts start."""
        ...

    def begin_step(self, model: PreTrainedModel) -> None:
        """Called before each step's thoughts are scored."""
        ...

    def __call__(self, positions: list[Position], thoughts: Thoughts, scored: ScoredThoughts) -> Rewarded:
        """Rewards of G thoughts at each of B positions; ``thoughts`` and ``scored`` hold B x G rows."""
        ...

    def end_step(self, model: PreTrainedModel) -> None:
        """Called after each optimizer step."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Weights of its own that a snapshot of the training must hold, by name."""
        ...

    def restore(self, model: PreTrainedModel, weights: Mapping[str, Callable[[], Tensor]], world: World) -> None:
        """Take back what `weights` gave, as the first process reads it."""
        ...


def random_positions(
    example: Example,
    count: int,
    max_context: int,
    eos: int | None,
    random: np.random.Generator,
    worth: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[Position]:
    """Up to ``count`` distinct random tokens of a document, each with at least one token of context before it.

    A closing end-of-text token is no token of the text and is never predicted. ``worth`` names the tokens of a text to
    choose from; by default all.
    """
    length = len(example.tokens)
    if eos is not None and length > 2 and example.tokens[-1] == eos:
        length -= 1
    assert length >= 2, "shards hold no document shorter than two tokens"
    every = np.arange(1, length) if worth is None else worth(example.tokens[:length])
    places = random.choice(every, size=min(count, len(every)), replace=False)
    return [
        Position(example.tokens[max(0, t - max_context) : t], example.tokens[t:length], example.id, t)
        for t in sorted(places.tolist())
    ]


class InformationGain:
    """RLP: r = S_pred - S_ema (eq. 5) against an EMA teacher that does not think, fp32, started on the first batch."""

    prediction_tokens = 1

    def __init__(self, form: ThoughtFormat, settings: ThinkingSettings, eos: int | None) -> None:
        self.form = form
        self.settings = settings
        self.eos = eos
        self.slow: SlowCopy | SlowParts | None = None

    @property
    def teacher(self) -> PreTrainedModel | None:
        """The teacher in fp32, where one process has the whole of it."""
        return self.slow.model if isinstance(self.slow, SlowCopy) else None

    def positions(self, example: Example, random: np.random.Generator) -> list[Position]:
        return random_positions(example, self.settings.positions, self.settings.max_context, self.eos, random)

    def begin_step(self, model: PreTrainedModel) -> None:
        if self.slow is None:  # Algorithm 1: phi = theta on the first batch
            self.slow = slow_copy(model, self.settings.compute_dtype)
        self.slow.begin_step()

    def __call__(self, positions: list[Position], thoughts: Thoughts, scored: ScoredThoughts) -> Rewarded:
        assert self.slow is not None
        settings = self.settings
        baseline_B = score_unthinking(
            self.slow.compute, self.form, positions, settings.exclude_delimiters, settings.micro_batch
        )
        reasoned_BG = scored.reasoned_N.view(len(positions), -1)
        gain_BG = information_gain(reasoned_BG, baseline_B)
        metrics = {
            "reward/gain": float(gain_BG.sum()),
            "reward/s_pred": float(reasoned_BG.sum()),
            "reward/s_ema": float(baseline_B.sum()) * gain_BG.shape[1],
        }
        return Rewarded(gain_BG, metrics)

    def end_step(self, model: PreTrainedModel) -> None:
        assert self.slow is not None
        self.slow.follow(model, self.settings.ema_decay)

    def weights(self) -> dict[str, Tensor]:
        return {} if self.slow is None else self.slow.weights()

    def restore(self, model: PreTrainedModel, weights: Mapping[str, Callable[[], Tensor]], world: World) -> None:
        self.slow = slow_copy(model, self.settings.compute_dtype)
        for name, weight in self.slow.weights().items():
            put_into(weight, weights.get(name), world)
        self.slow.follow(model, 1.0)


class PrefixMatch:
    """RPT: 1 when the greedy prediction of the next tokens after the thought is the text's own, else 0.

    The prediction is greedy where the RPT paper samples it; greedy decoding agrees with the text exactly when the
    teacher-forced arg-max does, so the pass that scores the thought also rewards it. A cut-off thought earns nothing.
    """

    def __init__(self, settings: ThinkingSettings, eos: int | None, proxy: Proxy | None = None) -> None:
        """Thoughts start at any token, or where ``proxy`` finds it worth its while."""
        self.settings = settings
        self.eos = eos
        self.prediction_tokens = settings.prediction_tokens
        self.worth = None if proxy is None else proxy.places

    def positions(self, example: Example, random: np.random.Generator) -> list[Position]:
        settings = self.settings
        return random_positions(example, settings.positions, settings.max_context, self.eos, random, self.worth)

    def begin_step(self, model: PreTrainedModel) -> None:
        pass

    def __call__(self, positions: list[Position], thoughts: Thoughts, scored: ScoredThoughts) -> Rewarded:
        group = len(thoughts.finished_N) // len(positions)
        wanted = scored.predicted_NM.shape[1]
        truth = torch.full((len(positions), wanted), -1, dtype=torch.long)
        lengths = torch.zeros(len(positions), dtype=torch.long)
        for row, position in enumerate(positions):
            following = torch.from_numpy(position.next_tokens[:wanted].astype(np.int64))
            truth[row, : len(following)] = following
            lengths[row] = len(following)
        device = scored.predicted_NM.device
        match_N = prefix_match(
            scored.predicted_NM,
            truth.repeat_interleave(group, dim=0).to(device),
            lengths.repeat_interleave(group).to(device),
        )
        reward_BG = (match_N * thoughts.finished_N.to(device)).view(len(positions), group)
        return Rewarded(reward_BG, {"reward/match": float(reward_BG.sum())})

    def end_step(self, model: PreTrainedModel) -> None:
        pass

    def weights(self) -> dict[str, Tensor]:
        return {}

    def restore(self, model: PreTrainedModel, weights: Mapping[str, Callable[[], Tensor]], world: World) -> None:
        pass


class VerifiedAnswer:
    """RLVR: 1 when the answer found in the response equals the reference, else 0; no answer, or a cut-off one, earns 0."""

    prediction_tokens = 0

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, answer_pattern: str, thought: ThoughtSettings, max_context: int
    ) -> None:
        """A boxed answer is read after the thought that the prompt has opened, and compared as mathematics."""
        self.tokenizer = tokenizer
        self.read: Callable[[str], str | None] = partial(last_answer, pattern=answer_pattern)
        self.same = same_answer
        if answer_pattern == BOXED:
            self.read = AnswerReader([BOXED], thought.open, thought.close, opened=True)
            self.same = equivalent_answer
        self.max_context = max_context
        self.answers: dict[str, str] = {}

    def positions(self, example: Example, random: np.random.Generator) -> list[Position]:
        self.check(example)
        self.answers[example.id] = example.answer
        return [Position(example.tokens, example.tokens[:0], example.id)]

    def check(self, example: Example) -> None:
        """UserError when a problem has no answer, or more tokens than a context: cut, it would be another problem."""
        if not example.answer:
            raise UserError(f"document {example.id} has no answer to verify; shard problems with answer_field set")
        if len(example.tokens) > self.max_context:
            raise UserError(
                f"problem {example.id} has {len(example.tokens)} tokens, more than thinking.max_context {self.max_context}; "
                "raise it, or leave such problems out by max_document_tokens of their shards' settings"
            )

    def begin_step(self, model: PreTrainedModel) -> None:
        pass

    def __call__(self, positions: list[Position], thoughts: Thoughts, scored: ScoredThoughts) -> Rewarded:
        group = len(thoughts.finished_N) // len(positions)
        rewards = []
        for row in range(len(thoughts.finished_N)):
            answer = self.answers[positions[row // group].document]
            correct = bool(thoughts.finished_N[row]) and self.matches(thoughts.row(row)[:-1], answer)
            rewards.append(float(correct))
        reward_BG = torch.tensor(rewards, device=scored.reasoned_N.device).view(len(positions), group)
        return Rewarded(reward_BG, {"reward/correct": float(reward_BG.sum())})

    def matches(self, response: list[int], answer: str) -> bool:
        """Whether the answer found in the response is the reference answer."""
        found = self.read(self.tokenizer.decode(response, skip_special_tokens=False))
        return found is not None and self.same(found, answer)

    def end_step(self, model: PreTrainedModel) -> None:
        pass

    def weights(self) -> dict[str, Tensor]:
        return {}

    def restore(self, model: PreTrainedModel, weights: Mapping[str, Callable[[], Tensor]], world: World) -> None:
        pass
