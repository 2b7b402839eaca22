"""Find training documents that share a long n-gram with a benchmark item.

Words are lower-case runs of letters and digits, after NFKC. An item of at least ``ngram`` words is found by any ``ngram``
consecutive words of its prompt, or of its answer where that is as long (a worked solution). A shorter item is found
only whole: its words and punctuation marks, in order, at word boundaries. Marks count there because a small sum differs
from another in nothing else. What a template puts around a problem is no part of it: all problems share it.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from rlpretrain.data.shards import Example

_TOKEN = re.compile(r"\w+|[^\w\s]")
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that no power of it vanishes modulo 2^64
EXAMPLES = 20  # removed documents named in the report


@dataclass(frozen=True)
class Match:
    """What a document shares with benchmarks: the first item and n-gram found, and every benchmark concerned."""

    benchmarks: tuple[str, ...]
    item: str
    ngram: str


class ContaminationIndex:
    """All n-grams of the items. It is pickled once to every worker; long n-grams take 12 bytes each."""

    def __init__(self, items: Iterable[Example], ngram: int, templates: Sequence[str] = ()) -> None:
        """``templates``: how prompts may be put, each with {prompt} where the problem stands."""
        self.ngram = ngram
        self._around = [template.split("{prompt}", 1) for template in templates]
        self.items: list[tuple[str, str]] = []  # id, benchmark
        self._whole: dict[tuple[str, ...], list[int]] = {}  # short items by all their tokens
        self._whole_lengths: dict[str, set[int]] = {}  # their lengths, by first token
        hashes, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
        for item in items:
            number = len(self.items)
            self.items.append((item.id, item.source))
            problem = self.problem(item.prompt)
            tokens = _tokens(problem)
            if tokens and len(_words(tokens)) < ngram:
                self._whole.setdefault(tuple(tokens), []).append(number)
                self._whole_lengths.setdefault(tokens[0], set()).add(len(tokens))
            for text in (problem, item.answer):
                grams = np.unique(_gram_hashes(_words(_tokens(text)), ngram))
                hashes.append(grams)
                owners.append(np.full(len(grams), number, np.int32))
        unsorted = np.concatenate(hashes)
        order = np.argsort(unsorted, kind="stable")
        self._hashes, self._owners = unsorted[order], np.concatenate(owners)[order]

    def problem(self, prompt: str) -> str:
        """A prompt without its template."""
        for before, after in self._around:
            if len(prompt) > len(before) + len(after) and prompt.startswith(before) and prompt.endswith(after):
                return prompt[len(before) : len(prompt) - len(after)]
        return prompt

    def find(self, text: str) -> Match | None:
        """What ``text`` shares with the items; None when nothing."""
        tokens = _tokens(text)
        found = self._find_whole(tokens) + self._find_grams(_words(tokens))
        if not found:
            return None
        owners = [owner for _, all_owners in found for owner in all_owners]
        benchmarks = sorted({self.items[owner][1] for owner in owners})
        return Match(tuple(benchmarks), self.items[owners[0]][0], found[0][0])

    def _find_whole(self, tokens: list[str]) -> list[tuple[str, list[int]]]:
        found = []
        for start, token in enumerate(tokens):
            for length in sorted(self._whole_lengths.get(token, ())):
                gram = tuple(tokens[start : start + length])
                if gram in self._whole:
                    found.append((" ".join(gram), self._whole[gram]))
        return found

    def _find_grams(self, words: list[str]) -> list[tuple[str, list[int]]]:
        grams = _gram_hashes(words, self.ngram)
        if not len(grams) or not len(self._hashes):
            return []
        first = np.searchsorted(self._hashes, grams, "left")
        past = np.searchsorted(self._hashes, grams, "right")
        return [
            (" ".join(words[start : start + self.ngram]), self._owners[first[start] : past[start]].tolist())
            for start in np.flatnonzero(past > first).tolist()
        ]


@dataclass
class Report:
    """Counts what was removed, for decontamination.json."""

    index: ContaminationIndex | None
    removed: int = 0
    by_benchmark: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, document: str, match: Match) -> None:
        """Count the document with this id as removed, once for every benchmark it met."""
        self.removed += 1
        self.by_benchmark.update(match.benchmarks)
        if len(self.examples) < EXAMPLES:
            benchmark = ", ".join(match.benchmarks)
            self.examples.append(
                {"document": document, "benchmark": benchmark, "item": match.item, "ngram": match.ngram}
            )

    def as_dict(self) -> dict[str, Any]:
        items = Counter(benchmark for _, benchmark in self.index.items) if self.index else Counter()
        return {
            "ngram": self.index.ngram if self.index else None,
            "removed": self.removed,
            "benchmarks": {
                name: {"items": items[name], "documents_removed": self.by_benchmark[name]} for name in sorted(items)
            },
            "examples": self.examples,
        }


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall((text if text.isascii() else unicodedata.normalize("NFKC", text)).lower())


def _words(tokens: list[str]) -> list[str]:
    return [token for token in tokens if token[0].isalnum() or token[0] == "_"]


@lru_cache(2**16)
def _word_hash(word: str) -> int:
    # Not hash(): it differs between processes.
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _gram_hashes(words: list[str], length: int) -> np.ndarray:
    """uint64 polynomial hash of every run of ``length`` words, in order; empty when there are fewer."""
    count = len(words) - length + 1
    if count < 1:
        return np.empty(0, np.uint64)
    hashes = np.fromiter(map(_word_hash, words), np.uint64, len(words))
    grams = np.zeros(count, np.uint64)
    for offset in range(length):
        grams = grams * np.uint64(_MULTIPLIER) + hashes[offset : offset + count]  # wraps modulo 2^64, as meant
    return grams
