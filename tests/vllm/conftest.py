"""vLLM has an environment of its own (`make test-vllm`): elsewhere nothing of this folder is collected."""

import importlib.util

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from rlpretrain.models import use_fast_layers
from rlpretrain.settings import VllmSettings
from rlpretrain.tokenizer import load_tokenizer
from tests.components.conftest import make_shards

__all__ = ["make_shards"]  # the stages' fixture

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]

SMALL = VllmSettings(cache_gib=0.1, eager=True)  # starts in seconds


def small_model(family: str, seed: int = 0) -> PreTrainedModel:
    """A random Qwen3, or a random Llama with tied embeddings, in fp32; vLLM's CPU kernels want heads of 32 channels."""
    torch.manual_seed(seed)
    tokenizer = load_tokenizer("builtin:characters")
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,  # wide, so that tokens matter
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    if family == "llama":
        model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True))
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**shape))
    use_fast_layers(model)
    return model.eval()
