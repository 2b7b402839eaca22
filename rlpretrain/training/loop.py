"""What both trainers share: the optimizer with its schedule, the records of a run, seeds; `steps` puts them together."""

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rlpretrain.settings import OptimizerSettings
from rlpretrain.training.sharding import put_into, whole_tensor
from rlpretrain.training.world import World

METRICS_FILE = "metrics.jsonl"  # values that the same code, settings and inputs give again
TIMINGS_FILE = "timings.jsonl"  # wall-clock values, which no run repeats
REPORT_SECONDS = 10.0


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed out of a run's seed and a purpose, so that no two uses share a random stream."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Keep a layer's input alone for the backward pass, in which the layer is computed again."""
    # The transformers that vLLM asks for has it under its old name.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = (
                True  # what checkpointing asks for; the modules within, dropout above all, stay as they are
            )


class Optimization:
    """AdamW on fp32 weights with a learning-rate schedule and gradient clipping."""

    def __init__(self, model: PreTrainedModel, settings: OptimizerSettings, steps: int) -> None:
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        parameters = list(named.values())
        # Norms and biases are not decayed, as in GPT-style training since GPT-2.
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
        self.parameters = named
        self.settings = settings
        self.steps = steps
        self.done = 0

    def learning_rate(self, step: int) -> float:
        """The rate of step 0, 1, ...: linear warm-up, then constant, cosine or linear to the final rate."""
        peak = self.settings.learning_rate
        if step < self.settings.warmup_steps:
            return peak * (step + 1) / self.settings.warmup_steps
        final = peak if self.settings.final_learning_rate is None else self.settings.final_learning_rate
        span = max(1, self.steps - 1 - self.settings.warmup_steps)
        progress = min(1.0, (step - self.settings.warmup_steps) / span)
        shape = {"constant": 0.0, "linear": progress, "cosine": (1 - math.cos(math.pi * progress)) / 2}
        return peak + (final - peak) * shape[self.settings.schedule]

    def clip(self) -> float:
        """Clip the accumulated gradient; returns its norm before that."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.max_grad_norm)
        return float(whole_tensor(norm))

    def step(self, apply: bool = True) -> float:
        """Apply the accumulated gradient, or drop it, and count the step; returns its learning rate."""
        rate = self.learning_rate(self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if apply:
            self.optimizer.step()
        # On a CPU gradients keep their place: freed and asked for again, they would leave holes in the heap.
        self.optimizer.zero_grad(set_to_none=not self._keeps_gradients)
        self.done += 1
        return rate

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """What AdamW remembers of every parameter."""
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                yield f"{key}.{name}", value

    def restore(self, tensors: Mapping[str, Callable[[], Tensor]], done: int, world: World) -> None:
        """Remember again what `state` gave after ``done`` steps, as the first process reads it."""
        self.done = done
        known = world.told(set(tensors))
        for name, parameter in self.parameters.items():
            if f"step.{name}" not in known:  # no gradient has reached it yet
                continue
            state = {"step": torch.zeros((), device=parameter.device)}
            state |= {key: torch.zeros_like(parameter, requires_grad=False) for key in ("exp_avg", "exp_avg_sq")}
            for key, value in state.items():
                put_into(value, tensors.get(f"{key}.{name}"), world)
            self.optimizer.state[parameter] = state
            if self._keeps_gradients:
                parameter.grad = torch.zeros_like(parameter)

    @property
    def _keeps_gradients(self) -> bool:
        return next(iter(self.parameters.values())).device.type == "cpu"


class Record:
    """Writes metrics and timings as JSON lines, and tells a person how far the work is."""

    def __init__(self, folder: Path, steps: int, label: str, done: int = 0) -> None:
        """``done`` of ``steps`` steps are on record already."""
        folder.mkdir(parents=True, exist_ok=True)
        self.metrics = (folder / METRICS_FILE).open("a", encoding="utf-8")
        self.timings = (folder / TIMINGS_FILE).open("a", encoding="utf-8")
        self.steps = steps
        self.done = done
        self.label = label
        self.started = self.reported = time.perf_counter()
        self.spans: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.metrics.close()
        self.timings.close()

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Add the block's seconds to the current step's timing ``time/NAME``."""
        start = time.perf_counter()
        yield
        key = f"time/{name}"
        self.spans[key] = self.spans.get(key, 0.0) + time.perf_counter() - start

    def step(self, step: int, values: Mapping[str, float], notes: Mapping[str, Any]) -> None:
        """Write the metrics, what there is to note and the timings of a finished step, counted from 1."""
        self.metrics.write(json.dumps({"step": step, **{k: _rounded(v) for k, v in values.items()}, **notes}) + "\n")
        self.timings.write(json.dumps({"step": step, **{k: round(v, 4) for k, v in self.spans.items()}}) + "\n")
        self.metrics.flush()
        self.timings.flush()
        self.spans = {}
        now = time.perf_counter()
        if now - self.reported >= REPORT_SECONDS or step == self.steps:
            self.reported = now
            rate = (step - self.done) / (now - self.started)
            shown = ", ".join(f"{key} {values[key]:.4g}" for key in _SHOWN if key in values)
            left = (self.steps - step) / rate
            print(
                f"{self.label}: step {step}/{self.steps}, {rate:.2f} steps/s, {left:.0f} s left, {shown}",
                file=sys.stderr,
            )


_SHOWN = ("loss/nll", "reward/mean", "reward/gain", "thought/length", "thought/cut_off")


def _rounded(value: float) -> float:
    """Seven significant digits: all that fp32 holds."""
    return float(f"{value:.7g}")


def numpy_random(*parts: int | str) -> np.random.Generator:
    """A numpy generator for one purpose of a run."""
    return np.random.default_rng(derived_seed(*parts))
