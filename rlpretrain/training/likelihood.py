"""The likelihood trainer: base training, CPT, SFT and the format warm-up maximise the likelihood of tokens under a mask.

Documents are packed into one sequence and never attend across each other. Shapes: N documents, R their tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.data.shards import Example
from rlpretrain.errors import UserError
from rlpretrain.lm_head import token_logprobs
from rlpretrain.rollout.interface import RolloutEngine
from rlpretrain.scoring import sequence_states
from rlpretrain.settings import FormatWarmupSettings, LikelihoodSettings, OptimizerSettings, ThinkingSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.training.loop import Optimization, Record, checkpoint_activations, derived_seed, numpy_random
from rlpretrain.training.precision import MixedPrecision, compute_dtype
from rlpretrain.training.rewards import random_positions


@dataclass(frozen=True)
class Segment:
    """One document: its tokens, and which of them the loss is taken on (never the first, which has no context)."""

    tokens: np.ndarray
    learned: np.ndarray  # bool

    @classmethod
    def of(cls, example: Example) -> "Segment":
        """All tokens after the prompt (SFT), or after the first one."""
        learned = np.arange(len(example.tokens)) >= max(1, example.prompt_length)
        return cls(example.tokens, learned)

    def cut(self, tokens: int) -> "Segment":
        """The first ``tokens`` tokens."""
        return Segment(self.tokens[:tokens], self.learned[:tokens])


def total_nll(model: PreTrainedModel, segments: Sequence[Segment]) -> Tensor:
    """The sum over all segments' learned tokens of the negative log-likelihood, in nats.

    Documents stand side by side without padding and do not attend across each other.
    """
    hidden_RD, starts_N = sequence_states(model, [segment.tokens.tolist() for segment in segments])
    rows, targets = [], []
    for segment, start in zip(segments, starts_N.tolist(), strict=True):
        places = np.flatnonzero(segment.learned)
        rows.append(start + places - 1)  # the hidden state before a token predicts it
        targets.append(segment.tokens[places])
    rows_R, target_R = (torch.from_numpy(np.concatenate(p).astype(np.int64)).to(model.device) for p in (rows, targets))
    logprob_R, _ = token_logprobs(model, hidden_RD[rows_R], target_R)
    return -logprob_R.sum()


def accumulate(model: PreTrainedModel, segments: Sequence[Segment], micro_batch: int) -> tuple[float, int]:
    """Add the gradient of the mean over all segments to the model, ``micro_batch`` a pass; returns loss and tokens."""
    total = sum(int(segment.learned.sum()) for segment in segments)
    loss = 0.0
    for start in range(0, len(segments), micro_batch):
        part = total_nll(model, segments[start : start + micro_batch]) / total
        part.backward()
        loss += float(part.detach())
    return loss, total


def _train(
    model: PreTrainedModel,
    next_batch: Callable[[PreTrainedModel, int], list[Segment]],
    settings: LikelihoodSettings,
    output: Path,
    label: str,
) -> int:
    """Train ``model``, the fp32 masters, on what ``next_batch`` gives for the computing model and a step from 1."""
    tokens = 0
    precision = MixedPrecision(model, compute_dtype(settings.compute_dtype, model.device))
    precision.compute.train()
    if settings.activation_checkpointing:
        checkpoint_activations(precision.compute)
    optimization = Optimization(model, settings.optimizer, settings.steps)
    with Record(output, settings.steps, label) as record:
        for step in range(1, settings.steps + 1):
            with record.span("data"):
                segments = next_batch(precision.compute, step)
            if not any(segment.learned.any() for segment in segments):
                raise UserError(
                    f"{label}: no document of step {step} has a token to learn: they are all prompt, or sequence_length "
                    f"{settings.sequence_length} cut the rest off; shard texts or completions, or raise sequence_length"
                )
            with record.span("update"):
                loss, count = accumulate(precision.compute, segments, settings.micro_batch)
                metrics = optimization.step()
                precision.refresh()
            tokens += count
            read = sum(len(segment.tokens) for segment in segments)
            record.step(step, {"loss/nll": loss, "data/tokens": tokens, "data/read": read, **metrics})
    model.eval()
    return tokens


def train_likelihood(
    model: PreTrainedModel, examples: Iterator[Example], settings: LikelihoodSettings, output: Path, label: str
) -> int:
    """Take ``settings.steps`` steps on ``examples``; returns the number of tokens trained on. Updates ``model``."""

    def next_batch(_: PreTrainedModel, step: int) -> list[Segment]:
        batch = islice(examples, settings.batch_documents)
        return [Segment.of(example).cut(settings.sequence_length) for example in batch]

    return _train(model, next_batch, settings, output, label)


def warm_up_format(
    model: PreTrainedModel,
    engine: RolloutEngine,
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterator[Example],
    settings: FormatWarmupSettings,
    thinking: ThinkingSettings,
    seed: int,
    output: Path,
) -> int:
    """Teach a model that has never met the delimiters to read on after a thought; returns the tokens trained on.

    Each document gets one thought, sampled from the model itself, at a random place. The loss is taken on the document's
    own tokens alone, so that the warm-up teaches the template and not what to think.
    """
    form = ThoughtFormat.build(thinking.thought, tokenizer)

    def next_batch(compute: PreTrainedModel, step: int) -> list[Segment]:
        engine.use(compute)
        batch = list(islice(examples, settings.batch_documents))
        return _with_thoughts(
            batch, engine, form, thinking, tokenizer.eos_token_id, derived_seed(seed, "warm-up", step)
        )

    likelihood = LikelihoodSettings(
        steps=settings.steps,
        batch_documents=settings.batch_documents,
        sequence_length=thinking.max_context + form.overhead + form.budget,
        micro_batch=thinking.micro_batch,
        compute_dtype=thinking.compute_dtype,
        activation_checkpointing=thinking.activation_checkpointing,
        optimizer=OptimizerSettings(learning_rate=settings.learning_rate),
    )
    tokens = _train(model, next_batch, likelihood, output, "format warm-up")
    engine.use(model)
    return tokens


def _with_thoughts(
    batch: list[Example],
    engine: RolloutEngine,
    form: ThoughtFormat,
    thinking: ThinkingSettings,
    eos: int | None,
    seed: int,
) -> list[Segment]:
    random = numpy_random(seed)
    positions = [random_positions(example, 1, thinking.max_context, eos, random)[0] for example in batch]
    thoughts = engine.generate(
        [form.prompt(position.context) for position in positions],
        group=1,
        max_new_tokens=form.budget,
        temperature=form.temperature,
        stop_ids={form.close_id},
        forbidden_ids=set(form.forbidden_ids),
        seed=seed,
        batch=len(positions),
    )
    segments = []
    for position, [thought] in zip(positions, thoughts, strict=True):
        context = position.context
        inserted = [*form.open_ids, *thought, *form.suffix(context, thought[-1] == form.close_id)]
        rest = position.next_tokens[: thinking.max_context - len(context)]
        if len(rest) == 0:  # the context fills the window: the predicted token itself still counts
            rest = position.next_tokens[:1]
        tokens = np.concatenate([context, np.array(inserted), rest])
        learned = np.ones(len(tokens), dtype=bool)
        learned[0] = False
        learned[len(context) : len(context) + len(inserted)] = False
        segments.append(Segment(tokens, learned))
    return segments
