"""What every contender of a shape works on: the same random weights, token ids and thought format, from one seed."""

from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlpretrain.gradients import DirectEmbedding
from rlpretrain.linear import FastLinear
from rlpretrain.models import new_model
from rlpretrain.scoring import Position
from rlpretrain.settings import ArchitectureSettings, OptimizerSettings, ThoughtSettings
from rlpretrain.thoughts import ThoughtFormat
from tests.bench.shapes import Shape

SEED = 1
TEMPERATURE = 0.7
OPTIMIZER = OptimizerSettings(learning_rate=1e-6)
_SPECIAL = ("<pad>", "<eos>", "<think>", "</think>")


def tokenizer_of(shape: Shape) -> PreTrainedTokenizerBase:
    """One word a token, so that text and ids say the same."""
    words = [*_SPECIAL, *(f"w{index}" for index in range(len(_SPECIAL), shape.vocabulary))]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=["<think>", "</think>"],
        padding_side="left",
    )


_PLAIN: dict[type[nn.Module], type[nn.Module]] = {FastLinear: nn.Linear, DirectEmbedding: nn.Embedding}


def model_of(shape: Shape, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """As transformers builds it: our layers are for `use_fast_layers` to put in."""
    architecture = ArchitectureSettings(
        layers=shape.layers,
        width=shape.width,
        heads=shape.heads,
        key_value_heads=shape.key_value_heads,
        feed_forward=shape.feed_forward,
        max_positions=2048,
    )
    model = new_model(architecture, tokenizer, SEED)
    for module in model.modules():
        if type(module) in _PLAIN:
            module.__class__ = _PLAIN[type(module)]
    return model


def form_of(shape: Shape, tokenizer: PreTrainedTokenizerBase) -> ThoughtFormat:
    """A format in which every thought lasts exactly T tokens: the close cannot be sampled."""
    form = ThoughtFormat.build(thought_settings(shape), tokenizer)
    return replace(form, forbidden_ids=(*form.forbidden_ids, form.close_id))


def thought_settings(shape: Shape) -> ThoughtSettings:
    return ThoughtSettings(budget=shape.thought, temperature=TEMPERATURE)


def documents_of(shape: Shape, count: int, length: int) -> list[np.ndarray]:
    """Random documents without special tokens."""
    random = np.random.default_rng(SEED)
    return list(random.integers(len(_SPECIAL), shape.vocabulary, (count, length), dtype=np.int32))


def positions_of(shape: Shape) -> list[Position]:
    """The step's contexts, K a document."""
    return [
        Position(tokens[:place], tokens[place:], f"document-{index}")
        for index, tokens in enumerate(documents_of(shape, shape.documents, shape.length + 1))
        for place in shape.places
    ]
