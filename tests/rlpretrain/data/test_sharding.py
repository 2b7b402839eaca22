"""From sources to shards and back: same bytes, nothing lost or doubled, clear of the benchmarks, flat memory."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpretrain.data.blend import blend
from rlpretrain.data.build import build_shards
from rlpretrain.data.documents import Document
from rlpretrain.data.loader import ShardLoader
from rlpretrain.data.shards import Example, ShardWriter, read_shards
from rlpretrain.errors import UserError
from rlpretrain.settings import ShardDataSettings


def _settings(path, **changes) -> ShardDataSettings:
    source = {"name": "lines", "kind": "jsonl", "path": str(path), **changes.pop("source", {})}
    values = {"tokenizer": {"name": "builtin:characters"}, "sources": [source], "workers": 1, **changes}
    return ShardDataSettings.model_validate(values)


def _write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _build(tmp_path, name, settings, benchmarks=None):
    output = tmp_path / name
    output.mkdir()
    return output, build_shards(settings, benchmarks, output)


@pytest.fixture
def corpus(tmp_path):
    return _write(tmp_path / "corpus.jsonl", [{"text": f"document {i} says {i * i}"} for i in range(700)])


def test_same_bytes_whatever_the_workers(tmp_path, corpus):
    folders = [
        _build(tmp_path, f"w{workers}", _settings(corpus, workers=workers, shard_tokens=3000, held_out_fraction=0.1))[0]
        for workers in (1, 2)
    ]
    names = sorted(p.relative_to(folders[0]) for p in folders[0].rglob("*") if p.is_file())
    assert len([name for name in names if name.name.startswith("train-")]) > 3
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_splits_by_hash_and_counts(tmp_path, corpus):
    folder, facts = _build(tmp_path, "out", _settings(corpus, held_out_fraction=0.2))
    train = {example.id for example in read_shards(folder, "train")}
    held_out = {example.id for example in read_shards(folder, "held_out")}
    assert not train & held_out
    assert facts["documents"] == {"train": len(train), "held_out": len(held_out)} and len(train | held_out) == 700
    assert 80 < len(held_out) < 200


def test_duplicates_and_short_documents_are_removed_and_counted(tmp_path):
    rows = [{"text": text} for text in ("same", "same\r\n", "other", "", "other")]
    folder, facts = _build(tmp_path, "out", _settings(_write(tmp_path / "rows.jsonl", rows)))
    assert [len(e.tokens) for e in read_shards(folder, "train")] == [5, 6]
    assert facts["duplicates_removed"] == 2
    assert facts["too_short_removed"] == 1


def test_decontamination_catches_planted_items(tmp_path):
    question = "a farmer has seven brown cows and buys four more how many cows stand in the field now"
    items = [{"prompt": question, "answer": "11"}, {"prompt": "sum+1+2=", "answer": "3"}]
    source = {"prompt_field": "prompt", "answer_field": "answer", "name": "bench"}
    evaluation = _settings(_write(tmp_path / "items.jsonl", items), purpose="evaluation", source=source)
    benchmarks, _ = _build(tmp_path, "bench", evaluation)
    rows = [
        {"text": f"Once upon a time, {question.upper()}?"},
        {"text": "sum+1+2=3"},
        {"text": "a farmer has seven brown horses"},
        {"text": "sum+1+3=4"},
    ]
    folder, facts = _build(tmp_path, "out", _settings(_write(tmp_path / "rows.jsonl", rows)), benchmarks)
    assert facts["contaminated_removed"] == 2 and facts["documents"]["train"] == 2
    report = json.loads((folder / "decontamination.json").read_text())
    assert report["removed_by_benchmark"] == {"bench": 2} and len(report["examples"]) == 2


def _shards(tmp_path_factory, documents, shard_tokens):
    folder = tmp_path_factory.mktemp("shards")
    writer = ShardWriter(folder, "train", shard_tokens)
    import numpy as np

    for index in range(documents):
        writer.add(Example(str(index), np.array([1, 2, 3], dtype=np.int32), 0))
    writer.close()
    return folder


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 50), st.integers(0, 60))
def test_ranks_cover_every_document_once_and_resume_anywhere(tmp_path_factory, documents, ranks, tokens, stop):
    ranks = min(ranks, documents)
    folder = _shards(tmp_path_factory, documents, tokens)
    seen = []
    for rank in range(ranks):
        loader = ShardLoader(folder, seed=3, rank=rank, world_size=ranks)
        mine = len(range(rank, documents, ranks))
        order = [next(loader).id for _ in range(mine)]
        seen += order
        stopped = ShardLoader(folder, seed=3, rank=rank, world_size=ranks)
        first = [next(stopped).id for _ in range(stop)]
        resumed = ShardLoader(folder, seed=3, rank=rank, world_size=ranks)
        resumed.restore(stopped.state())
        whole = ShardLoader(folder, seed=3, rank=rank, world_size=ranks)
        assert first + [next(resumed).id for _ in range(5)] == [next(whole).id for _ in range(stop + 5)]
    assert sorted(seen, key=int) == [str(index) for index in range(documents)]


def test_too_many_ranks_and_empty_splits_are_named(tmp_path_factory):
    folder = _shards(tmp_path_factory, 2, 100)
    with pytest.raises(UserError, match="fewer documents than the 3 ranks"):
        next(ShardLoader(folder, seed=0, rank=2, world_size=3))
    with pytest.raises(UserError, match="no document of split 'held_out'"):
        ShardLoader(folder, "held_out", seed=0)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=5), st.integers(1, 200))
def test_blend_keeps_each_source_within_one_document_of_its_share(weights, documents):
    sources = {
        str(n): (iter([Document(f"{n}", source=str(n))] * documents), weight) for n, weight in enumerate(weights)
    }
    taken = [document.source for document in blend(sources, documents)]
    for n, weight in enumerate(weights):
        assert abs(taken.count(str(n)) - documents * weight / sum(weights)) <= len(weights)


@pytest.mark.parametrize(
    ("rows", "source", "message"),
    [
        ([], {}, "the corpus is empty"),
        ([{"text": "x"}], {"text_field": "x"}, None),
        ([{"body": "x"}], {}, "has no column 'text'; it has: body"),
        ([{"text": "ab"}], {"path": "/nowhere"}, "holds no .jsonl file"),
        ([{"text": "ab"}], {"kind": "generator", "generator": "none", "documents": 1}, "unknown generator 'none'"),
    ],
)
def test_wrong_sources_are_one_line(tmp_path, rows, source, message):
    path = _write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=message) as raised:
        _build(tmp_path, "out", _settings(path, source=source))
    assert "\n" not in str(raised.value)


def test_gsm_templates_are_disjoint(tmp_path):
    from rlpretrain.data.gsm_symbolic import generate

    stories = {}
    for split in ("train", "test"):
        documents = list(generate(documents=60, split=split, seed=1, form="problem"))
        assert len(documents) == 60
        # A story without names and numbers is its template, nearly.
        stories[split] = {" ".join(w for w in d.prompt.split() if w.islower() and w.isalpha()) for d in documents}
    assert not stories["train"] & stories["test"]


PROBE = """
import json, resource, sys
from pathlib import Path
from rlpretrain.data.build import build_shards
from rlpretrain.settings import ShardDataSettings
rows, folder = int(sys.argv[1]), Path(sys.argv[2])
corpus = folder / f"{rows}.jsonl"
with corpus.open("w") as file:
    for index in range(rows):
        file.write(json.dumps({"text": f"{index} " + "word " * 60}) + "\\n")
output = folder / f"out{rows}"
output.mkdir()
settings = {"tokenizer": {"name": "builtin:characters"}, "workers": 1, "shard_tokens": 200000,
            "sources": [{"name": "s", "kind": "jsonl", "path": str(corpus)}]}
build_shards(ShardDataSettings.model_validate(settings), None, output)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_stays_flat_as_the_corpus_grows_tenfold(tmp_path):
    peaks = []
    for rows in (1500, 15000):
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(rows), str(tmp_path)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] <= 1.10 * peaks[0], peaks
