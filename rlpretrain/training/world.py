"""The processes that train one model together, as torchrun starts them; alone by default."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from rlpretrain.errors import UserError

Item = TypeVar("Item")


_CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This process among ``size`` of them, and the device that it computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    @property
    def alone(self) -> bool:
        return self.size == 1

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's part; the parts of all ranks are everything."""
        return list(items[self.rank :: self.size])

    def place(self, model: PreTrainedModel) -> None:
        """Move a model to this process's device, where it has the whole of it; `sharding` moves parts."""
        if self.alone:
            model.to(self.device)

    def check_batch(self, size: int, name: str) -> None:
        """UserError when a batch has nothing for some process."""
        if size < self.size:
            raise UserError(f"{name}: {size} a step is less than one for each of {self.size} processes; raise it")

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value summed over all processes, in the order of the ranks' sum on every one."""
        if self.alone:
            return dict(values)
        total = torch.tensor([float(value) for value in values.values()], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(values, total.tolist(), strict=True))

    def most(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.alone:
            return value
        largest = torch.tensor(value, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def told(self, value: Any) -> Any:
        """The first process's value, on all of them."""
        if self.alone:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def collected(self, value: Any) -> list[Any]:
        """Every process's value, by rank."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


ALONE = World()


def join() -> World:
    """The world that torchrun's environment describes; the first call meets the other processes."""
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if gpu else torch.device("cpu")
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return World(device=device)
    if not dist.is_initialized():
        if gpu:
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    return World(dist.get_rank(), size, device)
