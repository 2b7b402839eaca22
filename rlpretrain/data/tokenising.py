"""Documents to token ids in several processes, with constant memory and in the documents' order.

Worker processes import this module, so it stays clear of torch and transformers, which take seconds to import.
"""

import multiprocessing
import os
import pickle
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from rlpretrain.data.decontamination import ContaminationIndex, Match
from rlpretrain.data.documents import Document
from rlpretrain.data.shards import Example
from rlpretrain.errors import UserError

CHUNK_DOCUMENTS = 128
CHUNK_CHARACTERS = (
    2**19
)  # a chunk of long documents ends earlier: while it is tokenised, a character takes some 30 bytes


@dataclass(frozen=True)
class Dropped:
    """A document that does not reach the shards. ``match`` says what a contaminated one shares."""

    id: str
    source: str
    reason: Literal["contaminated", "too_short", "prompt_too_long"]
    match: Match | None = None


class Encoder:
    """Turns documents into examples; leaves out those that meet ``index`` and those that nothing can be learnt from."""

    def __init__(self, tokenizer: Any, max_tokens: int | None = None, index: ContaminationIndex | None = None) -> None:
        """``tokenizer`` is a fast tokenizer of transformers; UserError for a slow one."""
        if not getattr(tokenizer, "is_fast", False):
            raise UserError("tokenizer.name: only fast tokenizers (with a tokenizer.json) can shard data; convert it")
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # a copy: its settings change here
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._opening = [bos] if getattr(tokenizer, "add_bos_token", False) and bos is not None else []
        self._closing = [] if eos is None else [eos]
        self._max_tokens = max_tokens
        self._index = index

    def __call__(self, documents: list[Document]) -> list[Example | Dropped]:
        """One result a document, in order."""
        index = self._index
        matches = [index.find(f"{index.problem(d.prompt)} {d.text}") if index else None for d in documents]
        # Prompt and text apart, so that the prompt's tokens are the very ones a model is prompted with.
        prompts = self._ids([document.prompt for document in documents])
        texts = self._ids([document.text for document in documents])
        return [
            Dropped(document.id, document.source, "contaminated", match)
            if match
            else self._example(document, prompt, text)
            for document, prompt, text, match in zip(documents, prompts, texts, matches, strict=True)
        ]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        # fast: the same ids without the offsets, which nobody reads
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _example(self, document: Document, prompt: list[int], text: list[int]) -> Example | Dropped:
        problem = not document.text
        given = [*self._opening, *prompt]
        tokens = given if problem else [*given, *text, *self._closing]
        cut = False
        if self._max_tokens is not None:
            if len(given) > self._max_tokens - (0 if problem else 1):  # a cut prompt is another problem
                return Dropped(document.id, document.source, "prompt_too_long")
            cut = len(tokens) > self._max_tokens
            tokens = tokens[: self._max_tokens]
        # A text needs a token to predict and one before it; a problem needs a prompt and an answer.
        if not (prompt and document.answer) if problem else len(tokens) < 2:
            return Dropped(document.id, document.source, "too_short")
        shown = document.prompt if problem else ""
        ids = np.array(tokens, dtype=np.int32)
        return Example(document.id, ids, len(given), document.answer, document.source, shown, document.side, cut)


def encode_all(documents: Iterable[Document], encode: Encoder, workers: int) -> Iterator[Example | Dropped]:
    """Results in the order of ``documents``, whatever ``workers`` is; at most two chunks a worker are in memory."""
    chunks = _chunks(documents)
    if workers == 1:
        for chunk in chunks:
            yield from encode(chunk)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of the parent's libraries
    # The encoder travels in a file: it is larger than a pipe, so that workers would start one after another.
    with tempfile.NamedTemporaryFile() as file:
        pickle.dump(encode, file)
        file.flush()
        pool = ProcessPoolExecutor(workers, context, _start_worker, (file.name,))
        try:
            waiting: deque[Future[list[Example | Dropped]]] = deque()
            for chunk in chunks:
                waiting.append(pool.submit(_run_worker, chunk))
                if len(waiting) >= 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    chunk: list[Document] = []
    characters = 0
    for document in documents:
        chunk.append(document)
        characters += len(document.text) + len(document.prompt)
        if len(chunk) >= CHUNK_DOCUMENTS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


_encode: Encoder | None = None  # set once in each worker process, so that tokenizer and index travel once


def _start_worker(encoder_file: str) -> None:
    global _encode
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _encode = pickle.loads(Path(encoder_file).read_bytes())


def _run_worker(chunk: list[Document]) -> list[Example | Dropped]:
    assert _encode is not None
    return _encode(chunk)
