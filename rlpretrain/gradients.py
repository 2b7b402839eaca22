"""Gradients of the largest weights, the embedding and the LM head, added straight to where a parameter's gradient adds up.

Autograd would make a dense vocabulary x width gradient for each use of such a weight in each pass, then add them: where the two
are tied three such blocks at a time, against one here. The same is done by Megatron-LM's gradient accumulation fusion.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def add_up_in(parameter: Tensor, master: Tensor) -> None:
    """Let the gradient of ``parameter``, a copy in another precision, add up in that of ``master``."""
    parameter._master = master  # type: ignore[attr-defined]


def gradient_of(parameter: Tensor) -> Tensor:
    """Where the gradient of ``parameter`` adds up: its own ``grad`` or its master's, made of zeros if there is none yet."""
    master: Tensor = getattr(parameter, "_master", parameter)
    if master.grad is None:
        master.grad = torch.zeros_like(master)
    return master.grad


class DirectEmbedding(nn.Embedding):
    """An nn.Embedding whose backward pass touches the rows of the tokens read alone."""

    def forward(self, input: Tensor) -> Tensor:
        return _Embedded.apply(self.weight, input, self.padding_idx)


def use_direct_embeddings(model: PreTrainedModel) -> None:
    """Let the embeddings of ``model`` be `DirectEmbedding`; parameters, names and saved files stay as they are."""
    for module in model.modules():
        if type(module) is nn.Embedding and not (module.sparse or module.scale_grad_by_freq or module.max_norm):
            module.__class__ = DirectEmbedding


class _Embedded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_VD: Tensor, tokens: Tensor, padding_id: int | None) -> Tensor:
        ctx.save_for_backward(weight_VD, tokens)
        ctx.padding_id = padding_id
        return nn.functional.embedding(tokens, weight_VD)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        weight_VD, tokens = ctx.saved_tensors
        tokens_R, grad_RD = tokens.flatten(), gradients[0].flatten(0, -2)
        if ctx.padding_id is not None:  # PyTorch's own does not train the padding's row either
            grad_RD = grad_RD.masked_fill((tokens_R == ctx.padding_id).unsqueeze(-1), 0.0)
        total_VD = gradient_of(weight_VD)
        total_VD.index_add_(0, tokens_R, grad_RD.to(total_VD.dtype))
        return None, None, None
