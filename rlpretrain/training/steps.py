"""The steps of a training, which both trainers go through: recorded, saved, continued where an earlier attempt stood.

A step ends in an update of the weights or is left out, when a number in it is not finite. SIGTERM or Ctrl-C ends the training with a
snapshot: at once while a step has not touched the weights yet, as after the step before it, else after the step.
"""

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from rlpretrain.data.loader import ShardLoader
from rlpretrain.data.shards import Example
from rlpretrain.errors import UserError
from rlpretrain.memory import Trimmer
from rlpretrain.training.health import Health
from rlpretrain.training.loop import METRICS_FILE, TIMINGS_FILE, Optimization, Record
from rlpretrain.training.randomness import random_states, restore_random_states
from rlpretrain.training.sharding import put_into, whole_tensors
from rlpretrain.training.snapshots import GROUPS, MODEL, OPTIMIZER, REWARD, Snapshot, Snapshots, snapshot_name
from rlpretrain.training.world import ALONE, World

THOUGHTS_FILE = "thoughts.jsonl"
SKIPPED_FILE = "skipped.jsonl"  # steps that were left out, with their documents' ids
_KEPT_FILES = (METRICS_FILE, TIMINGS_FILE, THOUGHTS_FILE, SKIPPED_FILE)
STOPPED = 128 + signal.SIGTERM  # the exit code of a process that SIGTERM ended
_TOLD = 8  # documents in an error
_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # a scheduler's, and Ctrl-C


class Stopped(SystemExit):
    """One of the signals came; the exit code makes a scheduler try again."""

    def __init__(self) -> None:
        super().__init__(STOPPED)


class HasWeights(Protocol):
    """What has weights of its own to save: RLP's reward, whose teacher follows the model."""

    def weights(self) -> dict[str, Tensor]:
        """By name; none before the first step."""
        ...

    def restore(self, model: PreTrainedModel, weights: Mapping[str, Callable[[], Tensor]], world: World) -> None:
        """Take back what `weights` gave, as the first process reads it."""
        ...


class Steps:
    """Iterates over the numbers of the steps that are left; a context manager around them.

    Within a step: `span` around its parts, then `update` once the gradient has been added up, then `end`. The model, the
    optimizer, ``random`` and ``reward`` are those of the first attempt's start; entering brings them to where the newest
    snapshot stood.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        optimization: Optimization,
        examples: Iterator[Example],
        output: Path,
        label: str,
        *,
        snapshots: Snapshots | None = None,
        phase: int = 0,
        random: np.random.Generator | None = None,
        reward: HasWeights | None = None,
        world: World = ALONE,
    ) -> None:
        self.model = model
        self.optimization = optimization
        self.examples = examples
        self.output = output
        self.label = label
        self.snapshots = snapshots
        self.phase = phase
        self.random = random
        self.reward = reward
        self.world = world
        self.steps = optimization.steps
        self.tokens = 0  # processed so far; the trainer adds to it
        self.skipped = 0
        self.health = Health()
        self._trim = Trimmer()
        self._scores: list[float] = []  # of the steps since the last snapshot
        self._in_danger = False  # between an update's beginning and a step's end
        self._stopped_by = ""  # the signal that came to this process

    def __enter__(self) -> Self:
        # The first process reads and writes snapshots, whole ones, so that any number of processes can go on from them.
        snapshot = self.snapshots.newest if self.snapshots and self.world.rank == 0 else None
        state = self.world.told(None if snapshot is None else snapshot.state)
        if state is not None and state["phase"] == self.phase:
            self._restore(state, snapshot)
        self.record = Record(self.output, self.steps, self.label, self.optimization.done)
        self._here = self._position()
        self._saved = time.monotonic()
        if self.snapshots and threading.current_thread() is threading.main_thread():
            self._handlers_before = {each: signal.signal(each, self._on_signal) for each in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.record.__exit__(kind, error, trace)
        if self.snapshots is None:
            return
        if threading.current_thread() is threading.main_thread():
            for each, before in self._handlers_before.items():
                signal.signal(each, signal.SIG_IGN if kind is Stopped else before)
        if kind is None:
            self.snapshots.phases[str(self.phase)] = self.tokens
        if kind is Stopped:
            done = self._here["done"]
            if done or self.phase:
                self._save()
                self.snapshots.wait()
                self.world.most(0)  # a process that ends at once would have torchrun stop the first one's upload
            print(
                f"{self.label}: stopped by {self._stopped_by or 'a signal to another process'}; the same command goes on after step {done}",
                file=sys.stderr,
                flush=True,
            )

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.optimization.done + 1, self.steps + 1))

    def span(self, name: str) -> Any:
        """See `Record.span`."""
        return self.record.span(name)

    def update(self, checked: Mapping[str, float], documents: Sequence[str]) -> dict[str, float] | None:
        """Move the weights by the gradient that was added up; returns its metrics.

        None when one of ``checked`` or the gradient is not finite: then the step is left out and the ids of its documents
        are written down. UserError after too many of those.
        """
        self._in_danger = True
        norm = self.optimization.clip()
        wrong = [name for name, value in {**checked, "gradient": norm}.items() if not math.isfinite(value)]
        rate = self.optimization.step(apply=not wrong)
        if wrong:
            self._leave_out(wrong, documents)
            return None
        return {"optim/lr": rate, "optim/grad_norm": norm}

    def end(self, metrics: Mapping[str, float], skipped: bool = False) -> None:
        """Record the step and save where the training stands when it is time."""
        notes: dict[str, Any] = {"skipped": True} if skipped else {}
        warnings = self.health.warnings(metrics)
        if warnings:
            notes["warnings"] = warnings
        for news in self.health.news():
            print(f"{self.label}: warning at step {self.optimization.done}: {news}", file=sys.stderr)
        self.record.step(self.optimization.done, metrics, notes)
        if "skipped" not in notes:
            self._scores.append(metrics["reward/mean"] if "reward/mean" in metrics else -metrics["loss/nll"])
        self._here = self._position()
        self._trim()
        if self.snapshots is None:
            return
        stop = self.world.most(bool(self._stopped_by))  # of several processes all stop after the same step
        if not stop and self.world.told(self._due()):
            self._save()
        self._in_danger = False
        if stop or (self._stopped_by and self.world.alone):
            raise Stopped

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # a second one would end the snapshot that is saved now
        self._stopped_by = signal.Signals(number).name
        if not self._in_danger and self.world.alone:
            raise Stopped

    def _leave_out(self, wrong: list[str], documents: Sequence[str]) -> None:
        step = self.optimization.done
        self.skipped += 1
        with (self.output / SKIPPED_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "not_finite": wrong, "documents": list(documents)}) + "\n")
        what = f"the {' and the '.join(wrong)} of step {step} {'is' if len(wrong) == 1 else 'are'} not finite"
        if self.skipped > self.optimization.settings.max_skipped_steps:
            left = self.output / SKIPPED_FILE
            place = self.snapshots.leave(left) if self.snapshots else str(left)
            raise UserError(
                f"{self.label}: {what}, and {self.skipped - 1} steps were left out before (max_skipped_steps); its documents, "
                f"{', '.join(documents[:_TOLD])}{', ...' if len(documents) > _TOLD else ''}, are in {place}; lower optimizer.learning_rate or inspect the data"
            )
        print(f"{self.label}: {what}; it is left out, its documents are in {SKIPPED_FILE}", file=sys.stderr)

    def _due(self) -> bool:
        assert self.snapshots is not None
        settings = self.snapshots.settings
        by_steps = settings.every_steps is not None and self.optimization.done % settings.every_steps == 0
        waited = time.monotonic() - self._saved
        return by_steps or (settings.every_minutes is not None and waited >= 60 * settings.every_minutes)

    def _position(self) -> dict[str, Any]:
        """Where the training stands, beside its weights."""
        if self.snapshots is None:
            return {}
        assert isinstance(self.examples, ShardLoader)
        return {
            "phase": self.phase,
            "phases": dict(self.snapshots.phases),
            "done": self.optimization.done,
            "tokens": self.tokens,
            "skipped": self.skipped,
            "health": dict(self.health.counts),
            "loader": self.examples.state(),
            "sampler": None if self.random is None else self.random.bit_generator.state,
            "random": random_states(),
        }

    def _save(self) -> None:
        assert self.snapshots is not None
        self._scores, scores = [], self._scores
        state = {
            **self._here,
            "random": self.world.collected(self._here["random"]),
            "score": sum(scores) / len(scores) if scores else None,
        }
        groups: dict[str, Iterable[tuple[str, Tensor]]] = {
            MODEL: whole_tensors(self.model.named_parameters()),
            OPTIMIZER: whole_tensors(self.optimization.state()),
            REWARD: whole_tensors([] if self.reward is None else self.reward.weights().items()),
        }
        if self.world.rank == 0:
            files = [file for name in _KEPT_FILES if (file := self.output / name).exists()]
            name = snapshot_name(self.phase, self._here["done"])
            self.snapshots.save(name, state, self.model.config.to_json_string(), files, groups)
        else:  # gathering a tensor takes all processes
            for tensors in groups.values():
                for _ in tensors:
                    pass
        self._saved = time.monotonic()

    def _restore(self, state: dict[str, Any], snapshot: Snapshot | None) -> None:
        """Stand where ``state`` says, with the tensors of the first process's ``snapshot``."""
        assert self.snapshots is not None and isinstance(self.examples, ShardLoader)
        weights, optimizer, reward = ({} if snapshot is None else snapshot.tensors(group) for group in GROUPS)
        for name, parameter in self.model.named_parameters():
            put_into(parameter, weights.get(name), self.world)
        self.optimization.restore(optimizer, state["done"], self.world)
        if self.reward is not None and self.world.told(len(reward)):
            self.reward.restore(self.model, reward, self.world)
        self.snapshots.phases = state["phases"]
        self.tokens, self.skipped = state["tokens"], state["skipped"]
        self.health.counts = state["health"]
        self.examples.restore(state["loader"])
        if self.random is not None:
            self.random.bit_generator.state = state["sampler"]
        if snapshot is not None:
            snapshot.put_back(self.output, _KEPT_FILES)
            print(f"{self.label}: goes on after step {state['done']}", file=sys.stderr)
        restore_random_states(state["random"][self.world.rank % len(state["random"])])
