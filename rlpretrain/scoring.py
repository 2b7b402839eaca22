"""Log-probabilities of thoughts and of the tokens after them, in one forward pass; the LM head only where it is read.

Shapes: N sequences, L padded tokens, D width, R positions read, T thought tokens, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlpretrain.objectives import next_token_logprob, restrict_vocabulary
from rlpretrain.thoughts import ThoughtFormat, Thoughts

HEAD_ROWS = 4096  # positions a chunk of the LM head: bounds memory, changes no value


@dataclass(frozen=True)
class Position:
    """A place in a document: the context before it and the text's own tokens from it on."""

    context: np.ndarray  # token ids x_<t, cut to the most context allowed
    next_tokens: np.ndarray  # x_t, x_t+1, ...; RLP reads the first
    document: str = ""  # the document's id


@dataclass(frozen=True)
class ScoredThoughts:
    """What one pass over context, thought and suffix says of N thoughts."""

    logprob_NT: Tensor  # log pi_theta of the thought's tokens at the sampling temperature, with gradient
    entropy_NT: Tensor  # nats, of the policy that sampled them, without gradient
    reasoned_N: Tensor  # S_pred, eq. 3, at temperature 1, without gradient
    predicted_NM: Tensor  # greedy predictions of the M tokens after the thought, each after the text's own before it


def logits_at(model: PreTrainedModel, hidden_RD: Tensor) -> Tensor:
    """The LM head on chosen hidden states: logits (R, V)."""
    return model.get_output_embeddings()(hidden_RD)


def hidden_states(model: PreTrainedModel, sequences: list[list[int]]) -> Tensor:
    """Last hidden states (N, L, D) of right-padded sequences; a causal model never looks at the padding."""
    longest = max(len(sequence) for sequence in sequences)
    tokens_NL = torch.zeros(len(sequences), longest, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        tokens_NL[row, : len(sequence)] = torch.tensor(sequence)
    return model.base_model(input_ids=tokens_NL.to(model.device), use_cache=False).last_hidden_state


def token_logprobs(
    model: PreTrainedModel, hidden_RD: Tensor, token_R: Tensor, excluded: Tensor | None = None, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log p(token) and entropy, both (R,) in nats, of softmax(logits / temperature) without the ``excluded`` ids.

    The head runs in chunks that are computed again in backward: memory does not grow with R x V.
    """

    def chunk(hidden: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        logits = restrict_vocabulary(logits_at(model, hidden).float() / temperature, excluded)
        logprobs = logits.log_softmax(dim=-1)
        with torch.no_grad():
            entropy = -torch.where(logprobs.isinf(), 0.0, logprobs.exp() * logprobs).sum(dim=-1)
        return logprobs.gather(-1, token.unsqueeze(-1)).squeeze(-1), entropy

    parts = [
        checkpoint(chunk, hidden, token, use_reentrant=False)
        for hidden, token in zip(hidden_RD.split(HEAD_ROWS), token_R.split(HEAD_ROWS), strict=True)
    ]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def score_thoughts(
    model: PreTrainedModel,
    form: ThoughtFormat,
    positions: list[Position],
    thoughts: Thoughts,
    exclude_delimiters: bool,
    prediction_tokens: int = 1,
) -> ScoredThoughts:
    """One pass over context, thought and suffix for each of the N thoughts; ``positions`` holds one entry a thought.

    ``prediction_tokens`` M is how many of the text's tokens after the thought are predicted; with 0 (RLVR, where the
    response ends the sequence) the positions need no next tokens and ``reasoned_N`` is zero.
    """
    device = model.device
    sequences, prompts, ends = [], [], []
    for row, position in enumerate(positions):
        prompt = form.prompt(position.context)
        following = position.next_tokens[: max(0, prediction_tokens - 1)].tolist()
        sequence = prompt + thoughts.row(row) + form.suffix(position.context, bool(thoughts.finished_N[row]))
        prompts.append(len(prompt))
        ends.append(len(sequence) - 1)
        sequences.append(sequence + following)
    hidden_NLD = hidden_states(model, sequences)

    mask_NT = thoughts.mask_NT.to(device)
    rows, columns = mask_NT.nonzero(as_tuple=True)
    starts_N = torch.tensor(prompts, device=device) - 1  # the hidden state before a token predicts it
    forbidden = torch.tensor(form.forbidden_ids, device=device)
    logprob_R, entropy_R = token_logprobs(
        model,
        hidden_NLD[rows, starts_N[rows] + columns],
        thoughts.tokens_NT.to(device)[mask_NT],
        forbidden,
        form.temperature,
    )
    logprob_NT = torch.zeros(mask_NT.shape, dtype=torch.float32, device=device).masked_scatter(mask_NT, logprob_R)
    entropy_NT = torch.zeros_like(logprob_NT).masked_scatter(mask_NT, entropy_R)

    if prediction_tokens == 0:
        nothing_N0 = torch.zeros(len(positions), 0, dtype=torch.long, device=device)
        return ScoredThoughts(logprob_NT, entropy_NT, torch.zeros(len(positions), device=device), nothing_N0)
    with torch.no_grad():  # the reward is a constant for the gradient
        excluded = _delimiters(form, exclude_delimiters, device)
        next_token_N = torch.tensor([int(position.next_tokens[0]) for position in positions], device=device)
        ends_N = torch.tensor(ends, device=device)
        reach_M = torch.arange(prediction_tokens, device=device)
        columns_NM = (ends_N.unsqueeze(-1) + reach_M).clamp(max=hidden_NLD.shape[1] - 1)
        every_N1 = torch.arange(len(sequences), device=device).unsqueeze(-1)
        logits_NMV = restrict_vocabulary(logits_at(model, hidden_NLD[every_N1, columns_NM]).float(), excluded)
        reasoned_N = next_token_logprob(logits_NMV[:, 0], next_token_N)
    return ScoredThoughts(logprob_NT, entropy_NT, reasoned_N, logits_NMV.argmax(dim=-1))


@torch.no_grad()
def score_unthinking(
    model: PreTrainedModel,
    form: ThoughtFormat,
    positions: list[Position],
    exclude_delimiters: bool,
    micro_batch: int = 64,
) -> Tensor:
    """S_ema, eq. 4: log p(x_t | x_<t) without a thought, shape (B,), at temperature 1."""
    excluded = _delimiters(form, exclude_delimiters, model.device)
    scores = []
    for start in range(0, len(positions), micro_batch):
        part = positions[start : start + micro_batch]
        hidden_NLD = hidden_states(model, [position.context.tolist() for position in part])
        last_N = torch.tensor([len(position.context) - 1 for position in part], device=model.device)
        hidden_ND = hidden_NLD[torch.arange(len(part), device=model.device), last_N]
        next_token_N = torch.tensor([int(position.next_tokens[0]) for position in part], device=model.device)
        scores.append(next_token_logprob(logits_at(model, hidden_ND).float(), next_token_N, excluded))
    return torch.cat(scores)


def _delimiters(form: ThoughtFormat, exclude: bool, device: torch.device) -> Tensor | None:
    return torch.tensor(form.delimiter_ids, device=device) if exclude else None
