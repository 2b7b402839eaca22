"""fp32 linear layers through oneDNN on CPUs with AVX-512.

PyTorch multiplies fp32 matrices on the CPU with MKL, which leaves AVX-512 unused on processors of other makers: there oneDNN,
which PyTorch brings along and uses for bf16 alone, is more than twice as fast. The result is fp32 all the same; its last
bits differ, as they do between any two BLAS libraries.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def use_fast_linears(model: PreTrainedModel) -> None:
    """Let every linear layer of ``model`` compute by `linear`; parameters, names and saved files stay as they are."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = FastLinear


class FastLinear(nn.Linear):
    """An nn.Linear whose forward pass is `linear`, or with weights in oneDNN's own layout while they are `packed`."""

    _packed: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        if self._packed is not None:
            return _onednn(input, self._packed, self.bias)
        return linear(input, self.weight, self.bias)


@contextmanager
def packed(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, the `FastLinear` layers of a bf16 model on a CPU multiply from copies in a layout for few rows.

    For generation, where a few rows meet every weight and reading the weights takes the time; without gradients. In fp32 the
    copies would be as large as the masters, so that there nothing is packed.
    """
    layers = [module for module in model.modules() if type(module) is FastLinear and _packable(module.weight)]
    for layer in layers:
        layer._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _FEW_ROWS)
    try:
        yield
    finally:
        for layer in layers:
            layer._packed = None


_FEW_ROWS = 16


def _packable(weight: Tensor) -> bool:
    return _AVAILABLE and weight.device.type == "cpu" and weight.dtype == torch.bfloat16


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows (..., D) times weight (V, D) transposed, plus bias (V,): torch.nn.functional.linear, with gradients."""
    if not _fast(rows, weight):
        return nn.functional.linear(rows, weight, bias)
    return _OneDnnLinear.apply(rows, weight, bias)


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """left (R, D) times right (D, C), without gradient of its own."""
    return _onednn(left, right.t(), None) if _fast(left, right) else left @ right


def _fast(*tensors: Tensor) -> bool:
    return _AVAILABLE and all(t.dtype == torch.float32 and t.device.type == "cpu" and t.numel() > 0 for t in tensors)


_AVAILABLE = torch.backends.mkldnn.is_available() and "AVX512" in torch.backends.cpu.get_cpu_capability()


def _onednn(rows_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows_RD, weight_VD, bias_V, "none", [], "")


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _onednn(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        grad = gradients[0]
        flat_grad, flat_rows = grad.reshape(-1, grad.shape[-1]), rows.reshape(-1, rows.shape[-1])
        d_rows = matmul(flat_grad, weight).view_as(rows) if ctx.needs_input_grad[0] else None
        d_weight = matmul(flat_grad.t(), flat_rows) if ctx.needs_input_grad[1] else None
        d_bias = flat_grad.sum(dim=0) if ctx.needs_input_grad[2] else None
        return d_rows, d_weight, d_bias
