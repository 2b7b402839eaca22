"""Architectures described by settings: transformers configurations of three families, and what they hold and compute."""

from dataclasses import dataclass
from typing import Any

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlpretrain.errors import UserError
from rlpretrain.settings import ArchitectureSettings

_FAMILIES: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "nemotron_h": (NemotronHConfig, NemotronHForCausalLM),
}
_LAYERS = {"M": "mamba", "*": "attention", "-": "mlp"}  # NVIDIA's letters in a hybrid pattern


def random_model(settings: ArchitectureSettings, tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedModel:
    """A model of random weights; its vocabulary is the settings' own or else the tokenizer's.

    Raises UserError when that leaves tokens out, or there is neither.
    """
    config_class, model_class = _FAMILIES[settings.family]
    return model_class(config_class(**_fields(settings, tokenizer)))


def check_vocabulary(settings: ArchitectureSettings, tokens: int, where: str = "") -> None:
    """UserError, naming ``where``, when the embedding has no row for some of a tokenizer's ``tokens``."""
    if settings.vocabulary is not None and settings.vocabulary < tokens:
        raise UserError(
            f"{where}architecture: vocabulary {settings.vocabulary} is less than the tokenizer's {tokens} tokens; "
            "raise it, or leave it out"
        )


def _fields(settings: ArchitectureSettings, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, Any]:
    """The configuration of transformers' class for the family."""
    head_width = settings.head_width or settings.width // settings.heads
    if tokenizer is not None:
        check_vocabulary(settings, len(tokenizer))
    vocabulary = settings.vocabulary or (len(tokenizer) if tokenizer is not None else None)
    if vocabulary is None:
        raise UserError("architecture: vocabulary is needed where there is no tokenizer to count")
    common = {
        "vocab_size": vocabulary,
        "hidden_size": settings.width,
        "intermediate_size": settings.feed_forward,
        "num_attention_heads": settings.heads,
        "num_key_value_heads": settings.key_value_heads,
        "head_dim": head_width,
        "max_position_embeddings": settings.max_positions,
        "tie_word_embeddings": settings.tied,
        "initializer_range": settings.width
        ** -0.5,  # 0.02 suits widths of thousands; a narrow model barely learns from it
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id if tokenizer is not None else None,
        "pad_token_id": tokenizer.pad_token_id if tokenizer is not None else None,
    }
    if settings.family != "nemotron_h":
        return common | {"num_hidden_layers": settings.layers}
    assert settings.pattern is not None  # its settings say so
    return common | {
        "layers_block_type": [_LAYERS[letter] for letter in settings.pattern],
        "mamba_num_heads": settings.mamba_heads,
        "mamba_head_dim": settings.mamba_head_width,
        "ssm_state_size": settings.mamba_state,
        "n_groups": settings.mamba_groups,
        "expand": max(1, settings.mamba_heads * settings.mamba_head_width // settings.width),
    }


@dataclass(frozen=True)
class Size:
    """How large a model is, for plans."""

    parameters: int  # all of them
    blocks: int  # without embedding and LM head: what every token is multiplied with
    head: int  # width x vocabulary, where logits are read
    attention: int  # attention layers x their query width: a token's products with one key cost 4 times that, forward
    key_value: int  # numbers of keys and values that a token leaves behind


def size_of(settings: ArchitectureSettings, vocabulary: int) -> Size:
    """Counted from the shape, without building the model."""
    head_width = settings.head_width or settings.width // settings.heads
    query, key_value = settings.heads * head_width, settings.key_value_heads * head_width
    gates = 2 if settings.family == "nemotron_h" else 3  # Nemotron-H's feed-forward layers have no gate
    attention = 2 * settings.width * (query + key_value)
    feed_forward = gates * settings.width * settings.feed_forward
    if settings.family == "nemotron_h":
        assert settings.pattern is not None
        kinds = {letter: settings.pattern.count(letter) for letter in _LAYERS}
        blocks = kinds["M"] * _mamba(settings) + kinds["*"] * attention + kinds["-"] * feed_forward
        attention_layers, norms = kinds["*"], len(settings.pattern) + 1
    else:
        extra = 2 * head_width if settings.family == "qwen3" else 0  # norms of queries and keys
        blocks = settings.layers * (attention + feed_forward + extra)
        attention_layers, norms = settings.layers, 2 * settings.layers + 1
    blocks += norms * settings.width
    head = (settings.vocabulary or vocabulary) * settings.width
    return Size(
        parameters=blocks + head * (1 if settings.tied else 2),
        blocks=blocks,
        head=head,
        attention=attention_layers * query,
        key_value=2 * attention_layers * key_value,
    )


def _mamba(settings: ArchitectureSettings) -> int:
    """Parameters of a Mamba-2 layer: in and out projections, convolution of width 4 with bias, A, D, dt's bias, norm."""
    inner = settings.mamba_heads * settings.mamba_head_width
    mixed = inner + 2 * settings.mamba_groups * settings.mamba_state
    projected = settings.width * (inner + mixed + settings.mamba_heads) + inner * settings.width
    return projected + mixed * 5 + 3 * settings.mamba_heads + inner
