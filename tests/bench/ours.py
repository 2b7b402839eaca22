"""Our step by phase: rollout, update (the scored forward, its backward, the optimizer) and teacher."""

from typing import Any

from transformers import PreTrainedModel

from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.scoring import Position, ScoredThoughts
from rlpretrain.settings import ThinkingSettings
from rlpretrain.thoughts import Thoughts
from rlpretrain.training.loop import Optimization, derived_seed
from rlpretrain.training.rewards import InformationGain, Rewarded
from rlpretrain.training.thinking import ThinkingTrainer
from tests.bench.clock import Clock
from tests.bench.material import (
    OPTIMIZER,
    SEED,
    form_of,
    model_of,
    positions_of,
    thought_settings,
    tokenizer_of,
)
from tests.bench.shapes import Shape

Steps = list[dict[str, float]]  # seconds by phase, an entry a step


class _TimedGain(InformationGain):
    """Information gain, with the teacher's share of the step on the clock."""

    clock: Clock

    def begin_step(self, model: PreTrainedModel) -> None:
        with self.clock.span("teacher"):
            super().begin_step(model)

    def __call__(self, positions: list[Position], thoughts: Thoughts, scored: ScoredThoughts) -> Rewarded:
        with self.clock.span("teacher"):
            return super().__call__(positions, thoughts, scored)

    def end_step(self, model: PreTrainedModel) -> None:
        with self.clock.span("teacher"):
            super().end_step(model)


def _fast(shape: Shape, dtype: str) -> dict[str, Any]:
    """Settings of the step as it is meant to be run."""
    assert dtype == "float32", "the trainer computes in the weights' dtype"
    return {}


def _plain(shape: Shape, dtype: str) -> dict[str, Any]:
    """Settings of the twin that shares nothing and batches simply; so far the same trainer."""
    return _fast(shape, dtype)


def _trainer(shape: Shape, changes: dict[str, Any], clock: Clock) -> ThinkingTrainer:
    tokenizer = tokenizer_of(shape)
    model = model_of(shape, tokenizer)
    settings = ThinkingSettings(
        steps=1,
        batch_contexts=shape.documents,
        positions=shape.positions,
        group=shape.group,
        max_context=shape.length,
        thought=thought_settings(shape),
        optimizer=OPTIMIZER,
        **changes,
    )
    form = form_of(shape, tokenizer)
    reward = _TimedGain(form, settings, tokenizer.eos_token_id)
    reward.clock = clock
    return ThinkingTrainer(model, TorchEngine(model), tokenizer, form, reward, settings, SEED)


def _steps(shape: Shape, count: int, changes: dict[str, Any]) -> Steps:
    clock = Clock()
    trainer = _trainer(shape, changes, clock)
    positions = positions_of(shape)
    optimization = Optimization(trainer.model, OPTIMIZER, count)
    trainer.model.eval()
    steps = []
    for step in range(1, count + 1):
        with clock.span("rollout"):
            thoughts = trainer.sample(positions, derived_seed(SEED, "rollout", step))
        assert all(len(thought) == shape.thought for group in thoughts for thought in group)
        with clock.span("update"):
            trainer.reward.begin_step(trainer.model)
            trainer.accumulate(positions, thoughts)
            optimization.step()
            trainer.reward.end_step(trainer.model)
        steps.append(clock.take())
    return steps


def fast_steps(shape: Shape, dtype: str, count: int) -> Steps:
    return _steps(shape, count, _fast(shape, dtype))


def plain_steps(shape: Shape, dtype: str, count: int) -> Steps:
    return _steps(shape, count, _plain(shape, dtype))
