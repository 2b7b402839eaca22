"""Log-probabilities of thoughts and of the tokens after them, in one forward pass over documents and their thoughts.

A document is computed once for all its places and thoughts where the model's layers allow it (`shared_prefix`), and once
for every thought where they do not. Shapes: B positions, G thoughts each, N = B x G, R packed rows, D width, T thought
tokens, M predicted tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlpretrain.lm_head import exact_logits_at, token_logprobs
from rlpretrain.objectives import next_token_logprob, restrict_vocabulary
from rlpretrain.shared_prefix import Forest, can_share_prefixes, run_plan, share_prefixes
from rlpretrain.thoughts import ThoughtFormat, Thoughts


@dataclass(frozen=True)
class Position:
    """A place in a document: the context before it and the text's own tokens from it on."""

    context: np.ndarray  # token ids x_<t, cut to the most context allowed
    next_tokens: np.ndarray  # x_t, x_t+1, ...; RLP reads the first
    document: str = ""  # the document's id
    offset: int = 0  # the document's tokens before the place, also those that the context was cut by


@dataclass(frozen=True)
class ScoredThoughts:
    """What one pass over context, thought and suffix says of N thoughts."""

    logprob_NT: Tensor  # log pi_theta of the thought's tokens at the sampling temperature, with gradient
    entropy_NT: Tensor  # nats, of the policy that sampled them, without gradient
    reasoned_N: Tensor  # S_pred, eq. 3, at temperature 1, without gradient
    predicted_NM: Tensor  # greedy predictions of the M tokens after the thought, each after the text's own before it


def score_thoughts(
    model: PreTrainedModel,
    form: ThoughtFormat,
    positions: Sequence[Position],
    thoughts: Thoughts,
    exclude_delimiters: bool,
    prediction_tokens: int = 1,
) -> ScoredThoughts:
    """One pass over context, thought and suffix of G thoughts at each of B positions; ``thoughts`` holds B x G rows.

    ``prediction_tokens`` M is how many of the text's tokens after the thought are predicted; with 0 (RLVR, where the
    response ends the sequence) the positions need no next tokens and ``reasoned_N`` is zero.
    """
    device = model.device
    group = len(thoughts.finished_N) // len(positions)
    repeated = [position for position in positions for _ in range(group)]
    branches, ends = [], []
    for row, position in enumerate(repeated):
        following = position.next_tokens[: max(0, prediction_tokens - 1)].tolist()
        closed = thoughts.row(row) + form.suffix(position.context, bool(thoughts.finished_N[row]))
        branches.append([*form.open_ids, *closed, *following])
        ends.append(len(form.open_ids) + len(closed) - 1)
    hidden_RD, starts_N = _branch_states(model, [position.context.tolist() for position in positions], branches)

    mask_NT = thoughts.mask_NT.to(device)
    rows, columns = mask_NT.nonzero(as_tuple=True)
    first_N = starts_N + len(form.open_ids) - 1  # the hidden state before a token predicts it
    forbidden = torch.tensor(form.forbidden_ids, device=device)
    logprob_R, entropy_R = token_logprobs(
        model, hidden_RD[first_N[rows] + columns], thoughts.tokens_NT.to(device)[mask_NT], forbidden, form.temperature
    )
    logprob_NT = torch.zeros(mask_NT.shape, dtype=torch.float32, device=device).masked_scatter(mask_NT, logprob_R)
    entropy_NT = torch.zeros_like(logprob_NT).masked_scatter(mask_NT, entropy_R)

    if prediction_tokens == 0:
        nothing_N0 = torch.zeros(len(repeated), 0, dtype=torch.long, device=device)
        return ScoredThoughts(logprob_NT, entropy_NT, torch.zeros(len(repeated), device=device), nothing_N0)
    with torch.no_grad():  # the reward is a constant for the gradient
        ends_N1 = (starts_N + torch.tensor(ends, device=device)).unsqueeze(-1)
        rows_NM = ends_N1 + torch.arange(prediction_tokens, device=device)
        # Past a document's end there is nothing to predict: those columns are never read.
        hidden_NMD = hidden_RD[rows_NM.clamp(max=len(hidden_RD) - 1)]
        logits_NMV = restrict_vocabulary(
            exact_logits_at(model, hidden_NMD), _delimiters(form, exclude_delimiters, device)
        )
        reasoned_N = next_token_logprob(logits_NMV[:, 0], _next_token(repeated, device))
    return ScoredThoughts(logprob_NT, entropy_NT, reasoned_N, logits_NMV.argmax(dim=-1))


@torch.no_grad()
def score_unthinking(
    model: PreTrainedModel,
    form: ThoughtFormat,
    positions: Sequence[Position],
    exclude_delimiters: bool,
    micro_batch: int = 64,
) -> Tensor:
    """S_ema, eq. 4: log p(x_t | x_<t) without a thought, shape (B,), at temperature 1; ``micro_batch`` positions a pass."""
    excluded = _delimiters(form, exclude_delimiters, model.device)
    return torch.cat(
        [
            next_token_logprob(logits_BV, _next_token(part, model.device), excluded)
            for part, logits_BV in _unthinking_logits(model, positions, micro_batch)
        ]
    )


@torch.no_grad()
def score_and_entropy(
    model: PreTrainedModel,
    form: ThoughtFormat,
    positions: Sequence[Position],
    exclude_delimiters: bool,
    micro_batch: int = 64,
) -> tuple[Tensor, Tensor]:
    """`score_unthinking`, and the entropy in nats, shape (B,), of the same prediction: how open the next token is."""
    excluded = _delimiters(form, exclude_delimiters, model.device)
    scores, entropies = [], []
    for part, logits_BV in _unthinking_logits(model, positions, micro_batch):
        scores.append(next_token_logprob(logits_BV, _next_token(part, model.device), excluded))
        logprob_BV = restrict_vocabulary(logits_BV, excluded).log_softmax(dim=-1)
        # An excluded token adds 0, not NaN.
        entropies.append(-(logprob_BV.exp() * logprob_BV.clamp(min=-1e9)).sum(dim=-1))
    return torch.cat(scores), torch.cat(entropies)


def _unthinking_logits(
    model: PreTrainedModel, positions: Sequence[Position], micro_batch: int
) -> Iterator[tuple[Sequence[Position], Tensor]]:
    for start in range(0, len(positions), micro_batch):
        part = positions[start : start + micro_batch]
        hidden_BD = _last_states(model, [position.context.tolist() for position in part])
        yield part, exact_logits_at(model, hidden_BD)


def sequence_states(model: PreTrainedModel, sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Hidden states (R, D) of sequences that do not see each other, and the row (N,) that each starts at."""
    if can_share_prefixes(model):
        forest = Forest(sequences, device=model.device)
        starts = [start for start, _ in forest.trunk_spans]
        return run_plan(model, forest.tokens_R, forest.positions_R, forest), torch.tensor(starts, device=model.device)
    hidden_NLD = _padded_states(model, sequences)
    return hidden_NLD.flatten(0, 1), torch.arange(len(sequences), device=model.device) * hidden_NLD.shape[1]


def _branch_states(
    model: PreTrainedModel, contexts: list[list[int]], branches: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """Hidden states (R, D) of G branches after each context, and the row (N,) that each branch starts at."""
    group = len(branches) // len(contexts)
    if can_share_prefixes(model):
        trunks, trunk_of = share_prefixes(contexts)
        places = [(trunk, len(context)) for trunk, context in zip(trunk_of, contexts, strict=True)]
        forest = Forest(trunks, places, branches, model.device)
        starts_N = torch.tensor(forest.branch_starts, device=model.device)
        return run_plan(model, forest.tokens_R, forest.positions_R, forest), starts_N
    sequences = [contexts[row // group] + branch for row, branch in enumerate(branches)]
    hidden_RD, starts_N = sequence_states(model, sequences)
    before_N = torch.tensor([len(context) for context in contexts], device=model.device).repeat_interleave(group)
    return hidden_RD, starts_N + before_N


def _last_states(model: PreTrainedModel, contexts: list[list[int]]) -> Tensor:
    """Hidden states (B, D) of the contexts' last tokens."""
    trunks, trunk_of = share_prefixes(contexts)  # a causal model has read a prefix on the way
    hidden_RD, starts_D = sequence_states(model, [list(trunk) for trunk in trunks])
    lengths_B = torch.tensor([len(context) for context in contexts], device=model.device)
    return hidden_RD[starts_D[trunk_of] + lengths_B - 1]


def _padded_states(model: PreTrainedModel, sequences: list[list[int]]) -> Tensor:
    """Last hidden states (N, L, D) of right-padded sequences; a causal model never looks at the padding."""
    longest = max(len(sequence) for sequence in sequences)
    tokens_NL = torch.zeros(len(sequences), longest, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        tokens_NL[row, : len(sequence)] = torch.tensor(sequence)
    return model.base_model(input_ids=tokens_NL.to(model.device), use_cache=False).last_hidden_state


def _next_token(positions: Sequence[Position], device: torch.device) -> Tensor:
    return torch.tensor([int(position.next_tokens[0]) for position in positions], device=device)


def _delimiters(form: ThoughtFormat, exclude: bool, device: torch.device) -> Tensor | None:
    return torch.tensor(form.delimiter_ids, device=device) if exclude else None
