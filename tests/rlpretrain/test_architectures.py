"""Models from settings, and their sizes counted without building them."""

import pytest
import torch

from rlpretrain.architectures import random_model, size_of
from rlpretrain.errors import UserError
from rlpretrain.models import new_model
from rlpretrain.settings import ArchitectureSettings, parse_settings
from rlpretrain.tokenizer import load_tokenizer

QWEN3_1_7B = {
    "family": "qwen3",
    "layers": 28,
    "width": 2048,
    "heads": 16,
    "key_value_heads": 8,
    "head_width": 128,
    "feed_forward": 6144,
    "vocabulary": 151936,
    "max_positions": 32768,
}
NEMOTRON_12B = {
    "family": "nemotron_h",
    "pattern": "M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M-",
    "width": 5120,
    "heads": 40,
    "key_value_heads": 8,
    "head_width": 128,
    "feed_forward": 20480,
    "vocabulary": 131072,
    "tied": False,
    "max_positions": 131072,
    "mamba_heads": 128,
    "mamba_head_width": 80,
    "mamba_state": 128,
    "mamba_groups": 8,
}
SMALL = {"width": 32, "heads": 4, "key_value_heads": 2, "feed_forward": 48}
SHAPES = {
    "llama": {**SMALL, "layers": 2},
    "llama untied": {**SMALL, "layers": 2, "tied": False, "vocabulary": 100},
    "qwen3": {**SMALL, "layers": 2, "family": "qwen3", "head_width": 16},
    "nemotron_h": {**SMALL, "family": "nemotron_h", "pattern": "M-*-M", "tied": False},
    "Qwen3 1.7B": QWEN3_1_7B,
    "Nemotron Nano 12B v2": NEMOTRON_12B,
}


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_counted_without_building(name: str) -> None:
    settings = parse_settings(ArchitectureSettings, SHAPES[name])
    tokenizer = load_tokenizer("builtin:characters")
    with torch.device("meta"):
        model = random_model(settings, tokenizer)
    size = size_of(settings, len(tokenizer))
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert size.head == model.get_output_embeddings().weight.numel()


def test_the_published_sizes() -> None:
    assert size_of(parse_settings(ArchitectureSettings, QWEN3_1_7B), 0).parameters == pytest.approx(1.72e9, rel=0.002)
    assert size_of(parse_settings(ArchitectureSettings, NEMOTRON_12B), 0).parameters == pytest.approx(
        12.31e9, rel=0.002
    )


@pytest.mark.parametrize("name", ["llama", "qwen3", "nemotron_h"])
def test_keys_and_values_are_those_of_the_attention_layers(name: str) -> None:
    settings = parse_settings(ArchitectureSettings, SHAPES[name])
    tokenizer = load_tokenizer("builtin:characters")
    model = new_model(settings, tokenizer, seed=0).eval()
    length = 7
    cache = model(torch.arange(4, 4 + length).unsqueeze(0), use_cache=True).past_key_values
    kept = sum(
        layer.keys.numel() + layer.values.numel() for layer in cache.layers if getattr(layer, "keys", None) is not None
    )
    assert kept == length * size_of(settings, len(tokenizer)).key_value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 33, "heads": 4}, "width 33 does not give 4 heads"),
        ({"width": 24, "heads": 8}, "width 24 does not give 8 heads an even number"),  # three cannot be rotated
        ({"width": 32, "heads": 3, "head_width": 10}, "family 'llama' needs a width that 3 heads divide"),
        ({"heads": 4, "key_value_heads": 3}, "4 heads cannot share 3"),
        ({"heads": 4, "key_value_heads": 8}, "4 heads cannot share 8"),
        ({**SHAPES["nemotron_h"], "mamba_heads": 8, "mamba_groups": 3}, "8 mamba_heads cannot share 3 mamba_groups"),
        ({**SHAPES["nemotron_h"], "pattern": "M-M"}, "needs a layer of attention"),
        ({"vocabulary": 99}, "vocabulary 99 is less than the tokenizer's 100 tokens; raise it, or leave it out"),
    ],
)
def test_shapes_that_do_not_work_out(values: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        random_model(parse_settings(ArchitectureSettings, values), load_tokenizer("builtin:characters"))


def test_a_hybrid_needs_its_pattern() -> None:
    with pytest.raises(UserError, match="needs 'pattern'"):
        parse_settings(ArchitectureSettings, {"family": "nemotron_h"})
    with pytest.raises(UserError, match="needs 'pattern'"):
        parse_settings(ArchitectureSettings, {"pattern": "M*-"})
