"""The engine that a stage's settings choose. vLLM is imported only where it is chosen."""

from transformers import PreTrainedModel

from rlpretrain.rollout.interface import RolloutEngine
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.settings import Engine, ThinkingSettings, VllmSettings
from rlpretrain.thoughts import ThoughtFormat


def build_engine(
    engine: Engine, vllm: VllmSettings, model: PreTrainedModel, max_length: int | None = None
) -> RolloutEngine:
    """An engine that samples from ``model``; UserError when it is not installed.

    ``max_length`` is the most tokens of a prompt and its continuation, by default the model's positions.
    """
    if engine == "torch":
        return TorchEngine(model)
    from rlpretrain.rollout.vllm_engine import VllmEngine

    return VllmEngine(model, vllm, max_length)


def thinking_engine(model: PreTrainedModel, form: ThoughtFormat, settings: ThinkingSettings) -> RolloutEngine:
    """The engine of a training stage, for its longest context and thought."""
    longest = settings.max_context + len(form.open_ids) + form.budget
    return build_engine(settings.engine, settings.vllm, model, longest)
