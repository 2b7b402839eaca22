"""Our step by phase: rollout, update (the scored forward, its backward, the optimizer) and teacher."""

from unittest import mock

from transformers import PreTrainedModel

from rlpretrain import scoring
from rlpretrain.models import use_fast_layers
from rlpretrain.rollout import torch_engine
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


def _trainer(shape: Shape, dtype: str, fast: bool, clock: Clock) -> ThinkingTrainer:
    tokenizer = tokenizer_of(shape)
    model = model_of(shape, tokenizer)
    if fast:
        use_fast_layers(model)
    settings = ThinkingSettings(
        steps=1,
        batch_contexts=shape.documents,
        positions=shape.positions,
        group=shape.group,
        max_context=shape.length,
        micro_batch=shape.positions * shape.group,  # a document a pass
        compute_dtype=dtype,
        activation_checkpointing=fast,
        thought=thought_settings(shape),
        optimizer=OPTIMIZER,
    )
    form = form_of(shape, tokenizer)
    reward = _TimedGain(form, settings, tokenizer.eos_token_id)
    reward.clock = clock
    return ThinkingTrainer(model, TorchEngine(model), tokenizer, form, reward, settings, SEED)


def _steps(shape: Shape, dtype: str, count: int, fast: bool) -> Steps:
    clock = Clock()
    trainer = _trainer(shape, dtype, fast, clock)
    positions = positions_of(shape)
    optimization = Optimization(trainer.model, OPTIMIZER, count)
    steps = []
    for step in range(1, count + 1):
        with clock.span("rollout"):
            thoughts = trainer.sample(positions, derived_seed(SEED, "rollout", step)).tokens
        assert all(len(thought) == shape.thought for group in thoughts for thought in group)
        with clock.span("update"):
            trainer.reward.begin_step(trainer.model)
            trainer.accumulate(positions, thoughts)
            optimization.clip()
            optimization.step()
            trainer.precision.refresh()
            trainer.reward.end_step(trainer.model)
        steps.append(clock.take())
    return steps


def fast_steps(shape: Shape, dtype: str, count: int) -> Steps:
    """The step as it is meant to be run."""
    return _steps(shape, dtype, count, fast=True)


def plain_steps(shape: Shape, dtype: str, count: int) -> Steps:
    """The plain twin: every thought carries its document, on transformers' own layers and cache."""
    with (
        mock.patch.object(scoring, "can_share_prefixes", return_value=False),
        mock.patch.object(torch_engine, "can_share_prefixes", return_value=False),
    ):
        return _steps(shape, dtype, count, fast=False)
