"""The whole way from sources to shards: blend, normalise, deduplicate, decontaminate, tokenise, split, write.

The same settings and sources give the same bytes, whatever the number of workers.
"""

import json
import multiprocessing
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from rlpretrain.data.blend import Deduplicated, blend
from rlpretrain.data.decontamination import Decontamination
from rlpretrain.data.documents import Document
from rlpretrain.data.shards import Example, ShardWriter
from rlpretrain.data.sources import read_source
from rlpretrain.errors import UserError
from rlpretrain.models import load_tokenizer, tokenizer_digest
from rlpretrain.settings import ShardDataSettings

CHUNK_DOCUMENTS = 512
TOKENIZER_FOLDER = "tokenizer"
REPORT_FILE = "decontamination.json"


def build_shards(settings: ShardDataSettings, benchmarks: Path | None, output: Path) -> dict[str, Any]:
    """Write the shards, their tokenizer and the decontamination report to ``output``; return the manifest's facts.

    ``benchmarks`` is a folder of evaluation shards to stay clear of. Raises UserError when nothing is left to write.
    """
    tokenizer = load_tokenizer(settings.tokenizer.name, settings.tokenizer.revision, settings.tokenizer.add_tokens)
    tokenizer.save_pretrained(output / TOKENIZER_FOLDER)
    sources = {
        source.name: (read_source(source, settings.seed), source.weight) for source in settings.sources
    }
    if len(sources) < len(settings.sources):
        raise UserError("sources: two sources share a name; give each its own")
    writers = {
        split: ShardWriter(output, split, settings.shard_tokens)
        for split in (["test"] if settings.purpose == "evaluation" else ["train", "held_out"])
    }
    blended: dict[str, int] = dict.fromkeys(sources, 0)
    too_short = 0
    with tempfile.TemporaryDirectory() as scratch:
        unique = Deduplicated(blend(sources, settings.documents), Path(scratch))
        clean = Decontamination(unique, benchmarks, settings.decontamination_ngram)
        for example in tokenised(clean, tokenizer, settings.max_document_tokens, settings.workers):
            if len(example.tokens) < 2:  # no token with a context before it: nothing can be predicted
                too_short += 1
                continue
            writers[_split(example, settings)].add(example)
            blended[example.source] = blended.get(example.source, 0) + 1
    for writer in writers.values():
        writer.close()
    documents = {split: writer.documents for split, writer in writers.items()}
    if sum(documents.values()) == 0:
        raise UserError(
            f"the corpus is empty: {too_short} documents were shorter than two tokens, {unique.removed} duplicates, "
            f"{clean.report()['removed']} contaminated; mend the sources"
        )
    (output / REPORT_FILE).write_text(json.dumps(clean.report(), indent=2) + "\n", encoding="utf-8")
    return {
        "documents": documents,
        "tokens": {split: writer.tokens for split, writer in writers.items()},
        "shards": {split: writer.shards for split, writer in writers.items()},
        "blend": blended,
        "duplicates_removed": unique.removed,
        "contaminated_removed": clean.report()["removed"],
        "too_short_removed": too_short,
        "tokenizer_digest": tokenizer_digest(tokenizer),
    }


def _split(example: Example, settings: ShardDataSettings) -> str:
    """By document hash, so that a document is on the same side in every blend it is part of."""
    if settings.purpose == "evaluation":
        return "test"
    return "held_out" if int(example.id[:8], 16) < settings.held_out_fraction * 2**32 else "train"


def tokenised(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase, max_tokens: int | None, workers: int
) -> Iterator[Example]:
    """Examples in the order of ``documents``; at most two chunks a worker are in memory."""
    encode = partial(_encode, tokenizer, max_tokens)
    chunks = _chunks(iter(documents), CHUNK_DOCUMENTS)
    if workers == 1:
        for chunk in chunks:
            yield from encode(chunk)
        return
    with multiprocessing.get_context("spawn").Pool(workers, _start_worker, (encode,)) as pool:
        waiting: deque[Any] = deque()
        for chunk in chunks:
            waiting.append(pool.apply_async(_run_worker, (chunk,)))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().get()
        while waiting:
            yield from waiting.popleft().get()


def _chunks(documents: Iterator[Document], size: int) -> Iterator[list[Document]]:
    while chunk := list(islice(documents, size)):
        yield chunk


_worker_encode: Any = None  # set once in each worker process, so that the tokenizer travels once


def _start_worker(encode: Any) -> None:
    global _worker_encode
    _worker_encode = encode


def _run_worker(chunk: list[Document]) -> list[Example]:
    return _worker_encode(chunk)


def _encode(
    tokenizer: PreTrainedTokenizerBase, max_tokens: int | None, chunk: list[Document]
) -> list[Example]:
    """Prompt and text are tokenised apart, so that the prompt's tokens are the ones a model is prompted with."""
    prompts = _ids(tokenizer, [document.prompt for document in chunk])
    texts = _ids(tokenizer, [document.text for document in chunk])
    examples = []
    for document, prompt, text in zip(chunk, prompts, texts, strict=True):
        problem = not document.text
        closing = [] if problem or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        tokens = np.array([*prompt, *text, *closing][:max_tokens], dtype=np.int32)
        if not document.text and not document.prompt:
            tokens = tokens[:0]
        shown = document.prompt if problem else ""
        examples.append(Example(document.id, tokens, len(prompt), document.answer, document.source, shown))
    return examples


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    # A very long document is fine here; the tokenizer's warning about the model's length is not about training data.
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
