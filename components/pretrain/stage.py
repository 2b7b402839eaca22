"""Pretraining: make or import the base model, continue it on text (cpt), or teach it to think first (rlp, rpt)."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.frame import InputSpec
from components.training import TRAINING
from rlpretrain.data.loader import ShardLoader
from rlpretrain.errors import UserError
from rlpretrain.models import fit_embeddings, load_model, new_model
from rlpretrain.rollout.engines import thinking_engine
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.settings import PretrainSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.tokenizer import load_tokenizer, origin_of
from rlpretrain.training.checkpoints import TIMINGS_FILE, check_lengths, described, open_checkpoint, save_checkpoint
from rlpretrain.training.likelihood import train_likelihood, warm_up_format
from rlpretrain.training.proxy import Proxy, build_proxy
from rlpretrain.training.rewards import InformationGain, PrefixMatch, Reward
from rlpretrain.training.snapshots import Snapshots
from rlpretrain.training.thinking import ThinkingTrainer
from rlpretrain.training.world import join

KIND = "checkpoint"
SETTINGS = PretrainSettings
INPUTS = {"shards": InputSpec("shards"), "checkpoint": InputSpec("checkpoint", required=False)}
VOLATILE = (TIMINGS_FILE,)
__all__ = ["INPUTS", "KIND", "SETTINGS", "TRAINING", "VOLATILE", "run"]


def run(settings: PretrainSettings, inputs: dict[str, Path], output: Path, snapshots: Snapshots) -> dict[str, Any]:
    """Train by ``settings.objective`` on the shards; write a checkpoint; return its facts."""
    shards = inputs["shards"]
    model, tokenizer = _start(settings, inputs)
    join().place(model)
    examples = ShardLoader(shards, seed=settings.seed)
    label = settings.objective
    steps = tokens = 0
    proxy: Proxy | None = None
    if settings.objective in ("base", "cpt"):
        assert settings.likelihood is not None
        tokens += train_likelihood(model, examples, settings.likelihood, output, label, snapshots)
        steps += settings.likelihood.steps
        if settings.format_warmup is not None:
            assert settings.thinking is not None
            check_lengths(model, ThoughtFormat.build(settings.thinking.thought, tokenizer), settings.thinking)
            tokens += warm_up_format(
                model,
                TorchEngine(model),
                tokenizer,
                examples,
                settings.format_warmup,
                settings.thinking,
                settings.seed,
                output,
                snapshots,
            )
            steps += settings.format_warmup.steps
    else:
        assert settings.thinking is not None
        form = ThoughtFormat.build(settings.thinking.thought, tokenizer)
        check_lengths(model, form, settings.thinking, settings.thinking.prediction_tokens)
        engine = thinking_engine(model, form, settings.thinking)
        reward: Reward
        if settings.objective == "rlp":
            reward = InformationGain(form, settings.thinking, tokenizer.eos_token_id)
        else:
            chosen = settings.thinking.proxy
            proxy = None if chosen is None else build_proxy(chosen, model, tokenizer)
            reward = PrefixMatch(settings.thinking, tokenizer.eos_token_id, proxy)
        trainer = ThinkingTrainer(model, engine, tokenizer, form, reward, settings.thinking, settings.seed)
        tokens += trainer.train(examples, output, label, snapshots)
        steps += settings.thinking.steps
    thought = settings.thinking.thought if settings.thinking is not None else None
    facts = save_checkpoint(model, tokenizer, output, settings.objective, steps, tokens, thought)
    return described(output, settings, inputs, {**facts, "origins": _origins(settings, inputs, model, proxy)})


def _origins(
    settings: PretrainSettings, inputs: dict[str, Path], model: PreTrainedModel, proxy: Proxy | None
) -> dict[str, Any]:
    """The models that came from outside of the run."""
    origins = {}
    if "checkpoint" not in inputs and settings.initial_model is not None:
        origins["initial_model"] = origin_of(settings.initial_model, settings.initial_revision, model)
    chosen = settings.thinking.proxy if settings.thinking is not None else None
    if proxy is not None and chosen is not None and chosen.model is not None:
        origins["proxy"] = origin_of(chosen.model, chosen.revision, proxy.model)
    return origins


def _start(settings: PretrainSettings, inputs: dict[str, Path]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if "checkpoint" in inputs:
        return open_checkpoint(inputs["checkpoint"], inputs["shards"])
    if settings.objective != "base":
        raise UserError(f"objective '{settings.objective}' starts from a base model; give --input checkpoint=PATH")
    tokenizer = load_tokenizer(str(inputs["shards"] / "tokenizer"))
    if settings.initial_model is None:
        return new_model(settings.architecture, tokenizer, settings.seed), tokenizer
    model = load_model(settings.initial_model, settings.initial_revision)
    fit_embeddings(model, tokenizer)
    return model, tokenizer
