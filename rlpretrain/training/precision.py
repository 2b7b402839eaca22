"""bf16 compute with fp32 masters: the optimizer moves fp32 weights, forward and backward run on a bf16 copy of them."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlpretrain.errors import UserError
from rlpretrain.gradients import add_up_in
from rlpretrain.settings import ComputeDtype
from rlpretrain.training.sharding import Sharded, sharded
from rlpretrain.training.world import World


def compute_dtype(setting: ComputeDtype, device: torch.device, where: str = "") -> torch.dtype:
    """The type that ``setting`` asks for on ``device``; auto is bf16 where the hardware multiplies it.

    Raises UserError, naming ``where``, for a type that the device lacks.
    """
    native = _multiplies_bf16(device)
    if setting == "bfloat16" and not native:
        raise UserError(
            f"{where}compute_dtype: this machine's {device.type} has no bf16 instructions; set it to float32 or auto"
        )
    return torch.bfloat16 if setting != "float32" and native else torch.float32


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def cast_parameters(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast the parameters in place; buffers, such as the rotary frequencies, keep their precision."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def prepare(model: PreTrainedModel, setting: ComputeDtype, world: World) -> "MixedPrecision | Sharded":
    """What trains ``model``: on several processes it is sharded, once for all phases of a stage."""
    dtype = compute_dtype(setting, world.device)
    if world.alone:
        return MixedPrecision(model, dtype)
    before = sharded(model)
    if before is not None and before.dtype != dtype:
        raise UserError("compute_dtype: on several processes 'likelihood' and 'thinking' must have the same one")
    return before or Sharded(model, dtype, world)


class MixedPrecision:
    """A model of fp32 masters, and the model that computes: the same one for fp32, else a copy that follows it."""

    def __init__(self, masters: PreTrainedModel, dtype: torch.dtype) -> None:
        """Gradients of the copy arrive at the masters in fp32, so that they add up exactly over micro-batches."""
        self.compute = masters
        self._pairs: list[tuple[Tensor, Tensor]] = []
        if dtype == torch.float32:
            return
        self.compute = deepcopy(masters)
        cast_parameters(self.compute, dtype)
        self._pairs = list(zip(masters.parameters(), self.compute.parameters(), strict=True))
        for master, copy in self._pairs:
            add_up_in(copy, master)
            if copy.requires_grad:
                copy.register_post_accumulate_grad_hook(_hand_over_to(master))

    @property
    def sampler(self) -> PreTrainedModel:
        """What samples and scores without gradient: the computing model."""
        return self.compute

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """``work(model, *arguments)`` as one forward pass of the computing model."""
        return work(self.compute, *arguments)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the masters' values; call it whenever they have changed."""
        for master, copy in self._pairs:
            copy.copy_(master)


def _hand_over_to(master: Tensor) -> Any:
    def hand_over(copy: Tensor) -> None:
        if copy.grad is None:  # it is in the master already, see `gradients`
            return
        gradient, copy.grad = copy.grad.float(), None
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)

    return hand_over
