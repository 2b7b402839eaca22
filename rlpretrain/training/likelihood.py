"""The likelihood trainer: base training, CPT, SFT and the format warm-up maximise the likelihood of tokens under a mask.

Documents are packed into rows and never attend across each other. Shapes: N rows, L tokens a row.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.data.shards import Example
from rlpretrain.errors import UserError
from rlpretrain.rollout.interface import RolloutEngine
from rlpretrain.scoring import token_logprobs
from rlpretrain.settings import FormatWarmupSettings, LikelihoodSettings, OptimizerSettings, ThinkingSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.training.loop import Optimization, Record, derived_seed, numpy_random
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


@dataclass(frozen=True)
class Packed:
    """Rows of whole documents, right-padded; a document attends to itself alone."""

    tokens_NL: Tensor
    positions_NL: Tensor  # counted from 0 in each document
    document_NL: Tensor  # which document of the row a token belongs to; -1 is padding
    learned_NL: Tensor  # bool

    def attention_mask(self) -> Tensor:
        """(N, 1, L, L), true where a token may look. Padding looks at itself, so that no softmax row is empty."""
        length = self.tokens_NL.shape[1]
        same = self.document_NL.unsqueeze(-1) == self.document_NL.unsqueeze(-2)
        causal = torch.ones(length, length, dtype=torch.bool, device=same.device).tril()
        return (same & causal).unsqueeze(1)


def pack(segments: Iterable[Segment], row_tokens: int) -> Packed:
    """Longest documents first into the first row with room (first-fit decreasing); longer ones than a row are cut."""
    cut = [Segment(s.tokens[:row_tokens], s.learned[:row_tokens]) for s in segments]
    rows: list[list[Segment]] = []
    room: list[int] = []
    for segment in sorted(cut, key=lambda s: -len(s.tokens)):
        size = len(segment.tokens)
        place = next((i for i, left in enumerate(room) if left >= size), None)
        if place is None:
            rows.append([])
            room.append(row_tokens)
            place = len(rows) - 1
        rows[place].append(segment)
        room[place] -= size
    width = row_tokens - min(room)
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    positions = np.zeros_like(tokens)
    document = np.full_like(tokens, -1)
    learned = np.zeros((len(rows), width), dtype=bool)
    for row, members in enumerate(rows):
        start = 0
        for index, segment in enumerate(members):
            span = slice(start, start + len(segment.tokens))
            tokens[row, span] = segment.tokens
            positions[row, span] = np.arange(len(segment.tokens))
            document[row, span] = index
            learned[row, span] = segment.learned
            start = span.stop
    return Packed(*(torch.from_numpy(array) for array in (tokens, positions, document, learned)))


def mean_nll(model: PreTrainedModel, packed: Packed) -> tuple[Tensor, int]:
    """Mean negative log-likelihood (nats a token) over the learned tokens, and how many they are."""
    device = model.device
    hidden_NLD = model.base_model(
        input_ids=packed.tokens_NL.to(device),
        position_ids=packed.positions_NL.to(device),
        attention_mask=packed.attention_mask().to(device),
        use_cache=False,
    ).last_hidden_state
    targets = packed.learned_NL[:, 1:].to(device)
    logprob_R, _ = token_logprobs(model, hidden_NLD[:, :-1][targets], packed.tokens_NL[:, 1:].to(device)[targets])
    return -logprob_R.mean(), int(targets.sum())


def _train(
    model: PreTrainedModel,
    batches: Iterator[list[Segment]],
    optimizer: OptimizerSettings,
    steps: int,
    row_tokens: int,
    output: Path,
    label: str,
) -> int:
    tokens = 0
    model.train()
    optimization = Optimization(model, optimizer, steps)
    with Record(output, steps, label) as record:
        for step in range(1, steps + 1):
            with record.span("data"):
                packed = pack(next(batches), row_tokens)
            if not packed.learned_NL.any():
                raise UserError(
                    f"{label}: no document of step {step} has a token to learn: they are all prompt, or {row_tokens} tokens "
                    "a row cut the rest off; shard texts or completions, or raise sequence_length"
                )
            with record.span("update"):
                loss, count = mean_nll(model, packed)
                loss.backward()
                metrics = optimization.step()
            tokens += count
            record.step(step, {"loss/nll": float(loss.detach()), "data/tokens": tokens, **metrics})
    model.eval()
    return tokens


def train_likelihood(
    model: PreTrainedModel, examples: Iterator[Example], settings: LikelihoodSettings, output: Path, label: str
) -> int:
    """Take ``settings.steps`` steps on ``examples``; returns the number of tokens trained on. Updates ``model``."""

    def batches() -> Iterator[list[Segment]]:
        while True:
            yield [Segment.of(example) for example in islice(examples, settings.batch_documents)]

    return _train(model, batches(), settings.optimizer, settings.steps, settings.sequence_length, output, label)


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
    row_tokens = thinking.max_context + form.overhead + form.budget

    def batches() -> Iterator[list[Segment]]:
        step = 0
        while True:
            batch = list(islice(examples, settings.batch_documents))
            yield _with_thoughts(
                batch, engine, form, thinking, tokenizer.eos_token_id, derived_seed(seed, "warm-up", step)
            )
            step += 1

    optimizer = OptimizerSettings(learning_rate=settings.learning_rate)
    return _train(model, batches(), optimizer, settings.steps, row_tokens, output, "format warm-up")


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
