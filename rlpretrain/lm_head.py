"""The LM head only where it is read, in chunks: peak memory does not grow with tokens x vocabulary.

Shapes: R positions read, D width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlpretrain.linear import linear, matmul
from rlpretrain.objectives import restrict_vocabulary

CHUNK_LOGITS = 2**22  # logits held at a time: 16 MiB in fp32; changes no value


def logits_at(model: PreTrainedModel, hidden_RD: Tensor) -> Tensor:
    """The LM head on chosen hidden states: logits (R, V) in the model's precision."""
    return model.get_output_embeddings()(hidden_RD)


def exact_logits_at(model: PreTrainedModel, hidden_RD: Tensor) -> Tensor:
    """Logits (R, V) in fp32 for evidence: bf16 would round them by up to 0.06 at 20, more than thoughts differ by."""
    head = model.get_output_embeddings()
    bias = None if head.bias is None else head.bias.float()
    return linear(hidden_RD.float(), head.weight.float(), bias)


def token_logprobs(
    model: PreTrainedModel, hidden_RD: Tensor, token_R: Tensor, excluded: Tensor | None = None, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log p(token), with gradient, and entropy, without: both (R,) in nats and fp32, of softmax(logits / temperature).

    ``excluded`` ids leave the vocabulary. Logits are computed again in the backward pass.
    """
    head = model.get_output_embeddings()
    return _TokenLogprobs.apply(hidden_RD, head.weight, head.bias, token_R, excluded, temperature)


class _TokenLogprobs(torch.autograd.Function):
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
        logprob_R = hidden_RD.new_empty(len(token_R), dtype=torch.float32)
        lse_R, entropy_R = torch.empty_like(logprob_R), torch.empty_like(logprob_R)
        for rows in _chunks(len(token_R), len(weight_VD)):
            logits_CV = _scaled_logits(hidden_RD[rows], weight_VD, bias_V, excluded, temperature)
            lse_C = logits_CV.logsumexp(dim=-1)
            lse_R[rows] = lse_C
            logprob_R[rows] = logits_CV.gather(-1, token_R[rows].unsqueeze(-1)).squeeze(-1) - lse_C
            logits_CV -= lse_C.unsqueeze(-1)
            # exp(-inf) x -inf of an excluded id is no number; it adds nothing.
            entropy_R[rows] = -(logits_CV.exp() * logits_CV.nan_to_num_(neginf=0.0)).sum(dim=-1)
        ctx.save_for_backward(hidden_RD, weight_VD, bias_V, token_R, excluded, lse_R)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy_R)
        return logprob_R, entropy_R

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_RD, weight_VD, bias_V, token_R, excluded, lse_R = ctx.saved_tensors
        grad_R = gradients[0] / ctx.temperature
        d_hidden_RD = torch.empty_like(hidden_RD)
        d_weight_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        d_bias_V = torch.zeros_like(bias_V) if bias_V is not None else None
        for rows in _chunks(len(token_R), len(weight_VD)):
            logits_CV = _scaled_logits(hidden_RD[rows], weight_VD, bias_V, excluded, ctx.temperature)
            # d log p(token) / d logits = one-hot - p
            d_logits_CV = logits_CV.sub_(lse_R[rows].unsqueeze(-1)).exp_().mul_(-grad_R[rows].unsqueeze(-1))
            d_logits_CV.scatter_add_(-1, token_R[rows].unsqueeze(-1), grad_R[rows].unsqueeze(-1))
            d_logits_CV = d_logits_CV.to(weight_VD.dtype)
            d_hidden_RD[rows] = matmul(d_logits_CV, weight_VD)
            if d_weight_VD is not None:
                d_weight_VD.addmm_(d_logits_CV.t(), hidden_RD[rows])  # in place: another V x D would double the peak
            if d_bias_V is not None:
                d_bias_V += d_logits_CV.sum(dim=0)
        return d_hidden_RD, d_weight_VD, d_bias_V, None, None, None


def _chunks(rows: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_LOGITS // vocabulary)
    return [slice(start, min(rows, start + size)) for start in range(0, rows, size)]


def _scaled_logits(
    hidden_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, excluded: Tensor | None, temperature: float
) -> Tensor:
    logits_CV = linear(hidden_CD, weight_VD, bias_V).float()
    return restrict_vocabulary(logits_CV if temperature == 1 else logits_CV.div_(temperature), excluded)
