"""A model whose fp32 masters, gradients and optimizer state lie in parts on several processes (FSDP2).

Forward and backward gather a layer's weights in the computing precision when its turn comes. Whoever samples, or scores without
gradient, uses `Sharded.whole` instead, a copy of the model in that precision on every process: sampling would gather every layer
for every token, and processes whose thoughts end sooner would wait for the others for ever. RLP's teacher is scored on the same
copy, its weights put in for that time.

What one process does with in-place gradients (`gradients`) and a copy in bf16 (`precision`) FSDP does here; the shared prefix, the
LM head in blocks and packed weights while sampling stay.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rlpretrain.gradients import DirectEmbedding
from rlpretrain.training.world import World


class Sharded:
    """Shards ``masters`` in place; satisfies what trainers ask of `precision.MixedPrecision`."""

    def __init__(self, masters: PreTrainedModel, dtype: torch.dtype, world: World) -> None:
        self.dtype = dtype
        self.world = world
        self.whole = deepcopy(masters).requires_grad_(False).eval()
        for parameter in self.whole.parameters():
            parameter.data = parameter.data.to(dtype)
        self._sampling = False
        self.compute = _shard(masters, dtype, world)
        masters._sharded = self  # type: ignore[assignment]

    @property
    def sampler(self) -> PreTrainedModel:
        """The whole copy, from now on kept up to date on this process's device."""
        if not self._sampling:
            self._sampling = True
            self.whole.to(self.world.device)
            self.refresh()
        return self.whole

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """``work(model, *arguments)`` as one forward pass: every process must make as many."""
        return self.compute.run_as_forward(work, *arguments)

    def refresh(self) -> None:
        """Take over the masters' values into the whole copy, where it is used; call it whenever they have changed."""
        if self._sampling:
            self.fill(dict(self.compute.named_parameters()))

    @torch.no_grad()
    def fill(self, parts: dict[str, Tensor]) -> None:
        """Gather ``parts``, masters or a teacher's, into the whole copy."""
        for name, parameter in self.whole.named_parameters():
            parameter.copy_(whole_tensor(parts[name]))

    def for_saving(self) -> PreTrainedModel:
        """The whole copy in fp32 with the masters' values; the training is over then."""
        self.whole.cpu().float()
        self.fill(dict(self.compute.named_parameters()))
        return self.whole


def _shard(model: PreTrainedModel, dtype: torch.dtype, world: World) -> Any:
    for module in model.modules():
        if type(module) is DirectEmbedding:  # FSDP needs the gradient where autograd puts it
            module.__class__ = nn.Embedding  # type: ignore[assignment]
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for module in (*layers, model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
        assert isinstance(module, FSDPModule)
        # Gradients are added up: each process's loss is divided by the whole batch already.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    model.run_as_forward = MethodType(lambda self, work, *arguments: work(self, *arguments), model)  # type: ignore[assignment]
    register_fsdp_forward_method(model, "run_as_forward")
    return model


def sharded(model: PreTrainedModel) -> Sharded | None:
    """What `Sharded` made of ``model``; None when it is whole."""
    return getattr(model, "_sharded", None)


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor of which each process may hold a part; all of them must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_tensors(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Named tensors, whole, one at a time."""
    for name, tensor in tensors:
        yield name, whole_tensor(tensor.detach())


@torch.no_grad()
def put_into(target: Tensor, read: Callable[[], Tensor] | None, world: World) -> None:
    """Copy what the first process reads into a tensor of which each process may hold a part."""
    if world.alone:
        assert read is not None
        target.copy_(read())
        return
    value = (
        read().to(target.device)
        if read is not None
        else torch.empty(target.shape, dtype=target.dtype, device=target.device)
    )
    if isinstance(target, DTensor):
        target.to_local().copy_(distribute_tensor(value, target.device_mesh, target.placements).to_local())
    else:
        torch.distributed.broadcast(value, src=0)
        target.copy_(value)
