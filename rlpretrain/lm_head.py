"""The LM head only where it is read, in blocks of the vocabulary: peak memory does not grow with tokens x vocabulary.

Shapes: R positions read, D width, V vocabulary, C of it in a block.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlpretrain.gradients import gradient_of
from rlpretrain.linear import linear, matmul

CAST_ROWS = 2048  # rows of the head's weights that are cast to fp32 at a time
BLOCK_LOGITS = 2**20  # logits held at a time: 4 MiB in fp32; changes no value but by rounding
LOWEST = -1e30  # an excluded id's logit: its probability is 0, and 0 times it is no NaN, which infinity's would be


def logits_at(model: PreTrainedModel, hidden_RD: Tensor) -> Tensor:
    """The LM head on chosen hidden states: logits (R, V) in the model's precision."""
    return model.get_output_embeddings()(hidden_RD)


def exact_logits_at(model: PreTrainedModel, hidden_RD: Tensor) -> Tensor:
    """Logits (R, V) in fp32 for evidence: bf16 would round them by up to 0.06 at 20, more than thoughts differ by."""
    head = model.get_output_embeddings()
    if head.weight.dtype == torch.float32:
        return head(hidden_RD.float())
    exact_RD, parts = hidden_RD.float(), []
    for block in _slices(len(head.weight), CAST_ROWS):  # a whole copy in fp32 would take time and memory
        bias = None if head.bias is None else head.bias[block].float()
        parts.append(linear(exact_RD, head.weight[block].float(), bias))
    return torch.cat(parts, dim=-1)


def token_logprobs(
    model: PreTrainedModel, hidden_RD: Tensor, token_R: Tensor, excluded: Tensor | None = None, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log p(token), with gradient, and entropy, without: both (R,) in nats and fp32, of softmax(logits / temperature).

    ``excluded`` ids leave the vocabulary. Logits are computed again in the backward pass, which adds the weights' gradient to
    where it adds up (`gradients`) instead of returning it.
    """
    head = model.get_output_embeddings()
    return _TokenLogprobs.apply(hidden_RD, head.weight, head.bias, token_R, excluded, temperature)


class _TokenLogprobs(torch.autograd.Function):
    """Goes over the vocabulary block by block, all rows at once, so that a pass reads every weight once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_RD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        token_R: Tensor,
        excluded: Tensor | None,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        lse_R = hidden_RD.new_full((len(token_R),), LOWEST, dtype=torch.float32)
        mean_R, own_R = torch.zeros_like(lse_R), torch.zeros_like(lse_R)  # the expected logit, and the token's
        for block in _blocks(len(token_R), len(weight_VD)):
            logits_RC = _scaled_logits(hidden_RD, weight_VD, bias_V, excluded, temperature, block)
            rows, columns = _tokens_within(token_R, block)
            own_R[rows] = logits_RC[rows, columns]
            probability_RC = logits_RC.softmax(dim=-1)
            # The largest probability is exp(largest logit - lse).
            block_lse_R = logits_RC.amax(dim=-1) - probability_RC.amax(dim=-1).log()
            block_mean_R = (probability_RC.unsqueeze(1) @ logits_RC.unsqueeze(2)).flatten()
            joined_R = torch.logaddexp(lse_R, block_lse_R)
            mean_R = mean_R * (lse_R - joined_R).exp() + block_mean_R * (block_lse_R - joined_R).exp()
            lse_R = joined_R
        ctx.save_for_backward(hidden_RD, weight_VD, bias_V, token_R, excluded, lse_R)
        ctx.temperature = temperature
        entropy_R = lse_R - mean_R
        ctx.mark_non_differentiable(entropy_R)
        return own_R - lse_R, entropy_R

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_RD, weight_VD, bias_V, token_R, excluded, lse_R = ctx.saved_tensors
        grad_R = gradients[0] / ctx.temperature
        d_hidden_RD = torch.zeros_like(hidden_RD, dtype=torch.float32)
        d_weight_VD = gradient_of(weight_VD) if ctx.needs_input_grad[1] else None
        d_bias_V = torch.empty_like(bias_V) if bias_V is not None else None
        for block in _blocks(len(token_R), len(weight_VD)):
            logits_RC = _scaled_logits(hidden_RD, weight_VD, bias_V, excluded, ctx.temperature, block)
            # d log p(token) / d logits = one-hot - p
            d_logits_RC = logits_RC.sub_(lse_R.unsqueeze(-1)).exp_().mul_(-grad_R.unsqueeze(-1))
            rows, columns = _tokens_within(token_R, block)
            d_logits_RC[rows, columns] += grad_R[rows]
            d_logits_RC = d_logits_RC.to(weight_VD.dtype)
            d_hidden_RD += matmul(d_logits_RC, weight_VD[block])
            if d_weight_VD is not None:
                d_weight_VD[block] += matmul(d_logits_RC.t(), hidden_RD)
            if d_bias_V is not None:
                d_bias_V[block] = d_logits_RC.sum(dim=0)
        return d_hidden_RD.to(hidden_RD.dtype), None, d_bias_V, None, None, None


def _blocks(rows: int, vocabulary: int) -> list[slice]:
    return _slices(vocabulary, max(1, BLOCK_LOGITS // max(1, rows)))


def _slices(total: int, size: int) -> list[slice]:
    return [slice(start, min(total, start + size)) for start in range(0, total, size)]


def _tokens_within(token_R: Tensor, block: slice) -> tuple[Tensor, Tensor]:
    """The rows whose token lies in ``block``, and its column there."""
    rows = ((token_R >= block.start) & (token_R < block.stop)).nonzero().squeeze(-1)
    return rows, token_R[rows] - block.start


def _scaled_logits(
    hidden_RD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    excluded: Tensor | None,
    temperature: float,
    block: slice,
) -> Tensor:
    """The logits (R, C) of the vocabulary's ``block`` in fp32, excluded ids at `LOWEST`."""
    logits_RC = linear(hidden_RD, weight_VD[block], None if bias_V is None else bias_V[block]).float()
    if temperature != 1:
        logits_RC.div_(temperature)
    if excluded is not None:
        _, columns = _tokens_within(excluded, block)
        logits_RC.index_fill_(-1, columns, LOWEST)
    return logits_RC
