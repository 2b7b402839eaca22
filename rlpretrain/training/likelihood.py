"""The likelihood trainer: base training, CPT, SFT and the format warm-up maximise the likelihood of tokens under a mask.

Documents are packed into one sequence and never attend across each other. Shapes: N documents, R their tokens.
"""

import sys
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
from rlpretrain.lengths import check_sequence
from rlpretrain.lm_head import token_logprobs
from rlpretrain.rollout.interface import RolloutEngine
from rlpretrain.scoring import sequence_states
from rlpretrain.settings import FormatWarmupSettings, LikelihoodSettings, OptimizerSettings, ThinkingSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.training.loop import Optimization, checkpoint_activations, derived_seed, numpy_random
from rlpretrain.training.precision import MixedPrecision, prepare
from rlpretrain.training.rewards import random_positions
from rlpretrain.training.sharding import Sharded
from rlpretrain.training.snapshots import Snapshots
from rlpretrain.training.steps import Steps
from rlpretrain.training.world import ALONE, World, join


@dataclass(frozen=True)
class Segment:
    """One document: its tokens, and which of them the loss is taken on (never the first, which has no context)."""

    tokens: np.ndarray
    learned: np.ndarray  # bool
    left: int = 0  # tokens of the document that were cut off

    @classmethod
    def of(cls, example: Example) -> "Segment":
        """All tokens after the prompt (SFT), or after the first one."""
        learned = np.arange(len(example.tokens)) >= max(1, example.prompt_length)
        return cls(example.tokens, learned)

    def cut(self, tokens: int) -> "Segment":
        """The first ``tokens`` tokens."""
        return Segment(self.tokens[:tokens], self.learned[:tokens], max(0, len(self.tokens) - tokens))


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


def accumulate(
    precision: MixedPrecision | Sharded, segments: Sequence[Segment], micro_batch: int, world: World = ALONE
) -> tuple[float, int]:
    """Add the gradient of the mean over all segments, those of other processes too, to the model, ``micro_batch`` a pass.

    Returns the loss and the number of tokens of all processes.
    """
    total = int(world.sums({"": sum(int(segment.learned.sum()) for segment in segments)})[""])
    loss = 0.0
    starts = list(range(0, len(segments), micro_batch))
    for turn in range(world.most(len(starts))):
        spare = turn >= len(starts)  # others have more to do, and a forward pass is everyone's
        start = starts[0 if spare else turn]
        part = precision.run(total_nll, segments[start : start + micro_batch]) / max(1, total)
        (part * 0.0 if spare else part).backward()
        loss += 0.0 if spare else float(part.detach())
    return world.sums({"": loss})[""], total


def _train(
    model: PreTrainedModel,
    examples: Iterator[Example],
    segments_of: Callable[[MixedPrecision | Sharded, list[Example], int], list[Segment]],
    settings: LikelihoodSettings,
    output: Path,
    label: str,
    snapshots: Snapshots | None,
    phase: int,
) -> int:
    """Train ``model``, the fp32 masters, on this process's share of what ``segments_of`` makes of a batch at a step from 1."""
    world = join()
    world.check_batch(settings.batch_documents, "batch_documents")
    over = world.told(snapshots.over(phase) if snapshots is not None else None)
    if over is not None:
        return over
    precision = prepare(model, settings.compute_dtype, world)
    precision.compute.train()
    if settings.activation_checkpointing:
        checkpoint_activations(precision.compute)
    optimization = Optimization(model, settings.optimizer, settings.steps)
    with Steps(model, optimization, examples, output, label, snapshots=snapshots, phase=phase, world=world) as steps:
        precision.refresh()
        told = False
        for step in steps:
            with steps.span("data"):
                batch = list(islice(examples, settings.batch_documents))
                segments = segments_of(precision, batch, step)
            if not world.most(any(segment.learned.any() for segment in segments)):
                raise UserError(
                    f"{label}: no document of step {step} has a token to learn: they are all prompt, or sequence_length "
                    f"{settings.sequence_length} cut the rest off; shard texts or completions, or raise sequence_length"
                )
            with steps.span("update"):
                loss, count = accumulate(precision, segments, settings.micro_batch, world)
                metrics = steps.update({"loss": loss}, [example.id for example in batch])
                precision.refresh()
            steps.tokens += count
            read = {
                "data/read": sum(len(segment.tokens) for segment in segments),
                "data/cut": sum(segment.left for segment in segments),
            }
            values = {"data/tokens": steps.tokens, **{name: int(n) for name, n in world.sums(read).items()}}
            if values["data/cut"] and not told and world.rank == 0:
                print(
                    f"{label}: documents are longer than sequence_length {settings.sequence_length} and are cut; data/cut in "
                    "the metrics counts the tokens that are not learned",
                    file=sys.stderr,
                )
            told = told or values["data/cut"] > 0
            steps.end(values if metrics is None else {"loss/nll": loss, **values, **metrics}, skipped=metrics is None)
    model.eval()
    return steps.tokens


def train_likelihood(
    model: PreTrainedModel,
    examples: Iterator[Example],
    settings: LikelihoodSettings,
    output: Path,
    label: str,
    snapshots: Snapshots | None = None,
) -> int:
    """Take ``settings.steps`` steps on ``examples``; returns the number of tokens trained on. Updates ``model``.

    ``snapshots``, for which ``examples`` must be a `ShardLoader`: where it saves itself, and goes on from. Raises UserError
    for documents longer than the model's positions.
    """
    room = getattr(model.config, "max_position_embeddings", None)
    if room is not None:
        check_sequence(settings, room, "likelihood.")
    world = join()

    def segments_of(_: MixedPrecision | Sharded, batch: list[Example], step: int) -> list[Segment]:
        return [Segment.of(example).cut(settings.sequence_length) for example in world.share(batch)]

    return _train(model, examples, segments_of, settings, output, label, snapshots, phase=0)


def warm_up_format(
    model: PreTrainedModel,
    engine: RolloutEngine,
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterator[Example],
    settings: FormatWarmupSettings,
    thinking: ThinkingSettings,
    seed: int,
    output: Path,
    snapshots: Snapshots | None = None,
) -> int:
    """Teach a model that has never met the delimiters to read on after a thought; returns the tokens trained on.

    Each document gets one thought, sampled from the model itself, at a random place. The loss is taken on the document's
    own tokens alone, so that the warm-up teaches the template and not what to think. It is a stage's second phase.
    """
    form = ThoughtFormat.build(thinking.thought, tokenizer)

    world = join()

    def segments_of(precision: MixedPrecision | Sharded, batch: list[Example], step: int) -> list[Segment]:
        engine.use(precision.sampler)
        drawn = derived_seed(seed, "warm-up", step)
        return _with_thoughts(batch, engine, form, thinking, tokenizer.eos_token_id, drawn, world)

    likelihood = LikelihoodSettings(
        steps=settings.steps,
        batch_documents=settings.batch_documents,
        sequence_length=thinking.max_context + form.overhead + form.budget,
        micro_batch=thinking.micro_batch,
        compute_dtype=thinking.compute_dtype,
        activation_checkpointing=thinking.activation_checkpointing,
        optimizer=OptimizerSettings(learning_rate=settings.learning_rate),
    )
    tokens = _train(model, examples, segments_of, likelihood, output, "format warm-up", snapshots, phase=1)
    return tokens


def _with_thoughts(
    batch: list[Example],
    engine: RolloutEngine,
    form: ThoughtFormat,
    thinking: ThinkingSettings,
    eos: int | None,
    seed: int,
    world: World,
) -> list[Segment]:
    random = numpy_random(seed)
    everyones = [random_positions(example, 1, thinking.max_context, eos, random)[0] for example in batch]
    positions = world.share(everyones)
    numbers = world.share(range(len(everyones)))
    thoughts = engine.generate(
        [form.prompt(position.context) for position in positions],
        group=1,
        max_new_tokens=form.budget,
        temperature=form.temperature,
        stop_ids={form.close_id},
        forbidden_ids=set(form.forbidden_ids),
        seed=seed,
        batch=len(positions),
        seeds=None if world.alone else [derived_seed(seed, number) for number in numbers],
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
