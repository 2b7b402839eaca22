"""The whole way from sources to shards: blend, normalise, deduplicate, decontaminate, tokenise, split, write.

The same settings and sources give the same bytes, whatever the number of workers.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlpretrain.artifacts import MANIFEST, read_manifest
from rlpretrain.data.blend import Blend, Deduplicated, InTurn
from rlpretrain.data.conversions import TEMPLATES
from rlpretrain.data.decontamination import ContaminationIndex, Report
from rlpretrain.data.documents import Document, normalise
from rlpretrain.data.facts import REPORT_FILE
from rlpretrain.data.shards import Example, ShardWriter, read_shards
from rlpretrain.data.sources import check_hub, read_source
from rlpretrain.data.tokenising import Dropped, Encoder, encode_all
from rlpretrain.errors import UserError
from rlpretrain.settings import ShardDataSettings, SourceSettings
from rlpretrain.tokenizer import load_tokenizer, origin_of, tokenizer_digest

TOKENIZER_FOLDER = "tokenizer"


def build_shards(settings: ShardDataSettings, benchmarks: Path | None, output: Path) -> dict[str, Any]:
    """Write the shards, their tokenizer and the decontamination report to ``output``; return the manifest's facts.

    ``benchmarks`` is a folder of evaluation shards to stay clear of. Raises UserError when a source cannot be read, an
    evaluation item is unusable, or a part is left empty.
    """
    commits = check_hub(settings.sources)
    index = _contamination_index(settings, benchmarks)
    tokenizer = load_tokenizer(settings.tokenizer.name, settings.tokenizer.revision, settings.tokenizer.add_tokens)
    encoder = Encoder(tokenizer, settings.max_document_tokens, index)
    tokenizer.save_pretrained(output / TOKENIZER_FOLDER)
    with tempfile.TemporaryDirectory(prefix=".scratch-", dir=output) as scratch:  # a /tmp may lie in memory
        origins: dict[str, dict[str, Any]] = {source.name: {} for source in settings.sources}
        sources = {
            source.name: read_source(source, settings.seed, Path(scratch), origins[source.name])
            for source in (_pinned(source, commits) for source in settings.sources)
        }
        blend: Blend | InTurn = InTurn(sources)
        if settings.purpose == "documents" or settings.documents is not None:
            weights = {source.name: source.weight for source in settings.sources}
            blend = Blend({name: (read, weights[name]) for name, read in sources.items()}, settings.documents)
        documents = (document.normalised() for document in blend)
        unique = Deduplicated(documents, Path(scratch))
        # Benchmark items are never deduplicated away: a published set keeps its size.
        kept = documents if settings.purpose == "evaluation" else unique
        written = _write(kept, encoder, settings, Report(index), output)
    facts = written | {
        "blend": {
            source.name: {"weight": source.weight, "documents": blend.taken[source.name]} for source in settings.sources
        },
        "duplicates_removed": unique.removed,
        "tokenizer_digest": tokenizer_digest(tokenizer),
        "origins": origins | {"tokenizer": _tokenizer_origin(settings, tokenizer)},
    }
    _refuse_empty_parts(facts, settings)
    return facts


def _tokenizer_origin(settings: ShardDataSettings, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return origin_of(settings.tokenizer.name, settings.tokenizer.revision, tokenizer)


def _pinned(source: SourceSettings, commits: Mapping[tuple[str, str | None], str]) -> SourceSettings:
    """A source of the hub at its commit: a branch goes on while it is read."""
    revision = commits.get((str(source.dataset), source.revision), source.revision)
    return source.model_copy(update={"revision": revision})


def _contamination_index(settings: ShardDataSettings, benchmarks: Path | None) -> ContaminationIndex | None:
    if benchmarks is None:
        return None
    if settings.purpose == "evaluation":
        raise UserError("input 'benchmarks' is for training documents; leave it out with purpose 'evaluation'")
    items = read_shards(benchmarks, "test")
    index = ContaminationIndex(items, settings.decontamination_ngram, _templates(settings, benchmarks))
    if not index.items:
        raise UserError("input 'benchmarks' holds no test items; give shards made with purpose 'evaluation'")
    return index


def _templates(settings: ShardDataSettings, benchmarks: Path) -> list[str]:
    """How prompts of documents and items are put, by conversions and by sources; the plain prompt is no template."""
    told = read_manifest(benchmarks).settings.get("sources", []) if (benchmarks / MANIFEST).exists() else []
    own = {source.prompt_template for source in settings.sources} | {source["prompt_template"] for source in told}
    return [normalise(template) for template in (*TEMPLATES, *sorted(own - {"{prompt}"}))]


def _write(
    documents: Iterable[Document], encoder: Encoder, settings: ShardDataSettings, report: Report, output: Path
) -> dict[str, Any]:
    """Write examples to their split and the report beside them; count everything."""
    splits = ("test",) if settings.purpose == "evaluation" else ("train", "held_out")
    writers = {split: ShardWriter(output, split, settings.shard_tokens) for split in splits}
    sources: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    cut = 0
    try:
        for result in encode_all(_checked(documents, settings), encoder, settings.workers):
            if isinstance(result, Example):
                writers[_split(result, settings)].add(result)
                sources[result.source] += 1
                cut += result.cut
                continue
            if settings.purpose == "evaluation":
                raise UserError(_unusable(result, settings))
            dropped[result.reason] += 1
            if result.match is not None:
                report.add(result.id, result.match)
    finally:
        for writer in writers.values():
            writer.close()
    (output / REPORT_FILE).write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
    return {
        "documents": {split: writer.documents for split, writer in writers.items()},
        "tokens": {split: writer.tokens for split, writer in writers.items()},
        "shards": {split: writer.shards for split, writer in writers.items()},
        "sources": dict(sorted(sources.items())),
        "cut": cut,
        "contaminated_removed": dropped["contaminated"],
        "too_short_removed": dropped["too_short"],
        "prompt_too_long_removed": dropped["prompt_too_long"],
    }


def _checked(documents: Iterable[Document], settings: ShardDataSettings) -> Iterator[Document]:
    """Benchmark items must have a prompt and an answer, and nothing else; training documents pass as they are."""
    for document in documents:
        if settings.purpose == "evaluation" and (document.text or not document.prompt or not document.answer):
            wrong = "has a text" if document.text else f"has no {'answer' if document.prompt else 'prompt'}"
            raise UserError(
                f"evaluation item {document.id} of '{document.source}' {wrong}; "
                "an item is a prompt and an answer: set prompt_field and answer_field"
            )
        yield document


def _unusable(result: Dropped, settings: ShardDataSettings) -> str:
    reason = {
        "prompt_too_long": f"is longer than max_document_tokens {settings.max_document_tokens}",
        "too_short": "has no token in its prompt",
    }[result.reason]
    return f"evaluation item {result.id} of '{result.source}' {reason}; mend the setting or the item"


def _split(example: Example, settings: ShardDataSettings) -> str:
    """By hash, so that a question or a document is on the same side in every blend it is part of."""
    if settings.purpose == "evaluation":
        return "test"
    return "held_out" if example.side < settings.held_out_fraction * 2**32 else "train"


def _refuse_empty_parts(facts: dict[str, Any], settings: ShardDataSettings) -> None:
    documents: dict[str, int] = facts["documents"]
    total = sum(documents.values())
    if total == 0:
        raise UserError(
            f"the corpus is empty; removed: {facts['too_short_removed']} shorter than two tokens or a prompt alone, "
            f"{facts['prompt_too_long_removed']} with too long a prompt, {facts['contaminated_removed']} contaminated, "
            f"{facts['duplicates_removed']} duplicates; mend the sources"
        )
    if documents.get("train") == 0:
        raise UserError(f"held_out_fraction {settings.held_out_fraction} holds out all {total} documents; lower it")
    if documents.get("held_out") == 0 and settings.held_out_fraction > 0:
        raise UserError(
            f"held_out_fraction {settings.held_out_fraction} holds out none of {total} documents; raise it or set it to 0"
        )
