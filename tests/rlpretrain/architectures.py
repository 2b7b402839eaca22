"""Small random models of the classes that the fast paths are held to, and of a hybrid that takes the plain one."""

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 40
SHARING = ("llama", "qwen3")  # every layer attends to all tokens before it
HYBRID = "nemotron_h"  # Mamba-2 and attention


def small_model(name: str, seed: int = 0, vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """In fp32 and in eval mode; grouped-query attention; Llama with tied embeddings."""
    common = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,  # wide, so that tokens matter
    }
    torch.manual_seed(seed)
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**common, num_hidden_layers=2, tie_word_embeddings=True)).eval()
    if name == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**common, num_hidden_layers=2, head_dim=16)).eval()
    mamba = {"mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 1, "ssm_state_size": 8, "chunk_size": 8}
    config = NemotronHConfig(**common, **mamba, head_dim=8, layers_block_type=["mamba", "attention", "mlp"])
    return NemotronHForCausalLM(config).eval()
