"""From sources to shards: same bytes, every document counted once, clear of the benchmarks, flat memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlpretrain.artifacts import write_manifest
from rlpretrain.data.build import build_shards
from rlpretrain.data.shards import read_shards
from rlpretrain.errors import UserError
from rlpretrain.settings import ShardDataSettings, parse_settings


def make_settings(path: Path, **changes: Any) -> ShardDataSettings:
    source = {"name": "lines", "kind": "jsonl", "path": str(path), **changes.pop("source", {})}
    values = {"tokenizer": {"name": "builtin:characters"}, "sources": [source], "workers": 1, **changes}
    return ShardDataSettings.model_validate(values)


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def build(output: Path, settings: ShardDataSettings, benchmarks: Path | None = None) -> tuple[Path, dict[str, Any]]:
    output.mkdir()
    return output, build_shards(settings, benchmarks, output)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "corpus.jsonl", [{"text": f"document {i} says {i * i}"} for i in range(700)])


def test_same_bytes_whatever_the_workers(tmp_path: Path, corpus: Path) -> None:
    folders = [
        build(
            tmp_path / f"w{workers}",
            make_settings(corpus, workers=workers, shard_tokens=3000, held_out_fraction=0.1),
        )[0]
        for workers in (1, 2)
    ]
    names = sorted(path.relative_to(folders[0]) for path in folders[0].rglob("*") if path.is_file())
    assert len([name for name in names if name.name.startswith("train-")]) > 3
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_sources_of_one_name_are_refused() -> None:
    source = {"name": "a", "kind": "text", "path": "a.txt"}
    values = {"tokenizer": {"name": "builtin:characters"}, "sources": [source, source | {"path": "b.txt"}]}
    with pytest.raises(UserError, match="two sources share the name 'a'; give each its own"):
        parse_settings(ShardDataSettings, values)


def test_every_document_is_in_one_split_and_counted(tmp_path: Path, corpus: Path) -> None:
    folder, facts = build(tmp_path / "out", make_settings(corpus, held_out_fraction=0.2))
    train = {example.id for example in read_shards(folder, "train")}
    held_out = {example.id for example in read_shards(folder, "held_out")}
    assert not train & held_out
    assert facts["documents"] == {"train": len(train), "held_out": len(held_out)}
    assert len(train | held_out) == 700
    assert 80 < len(held_out) < 200


def test_datasets_loads_the_shards_of_a_split(tmp_path: Path, corpus: Path) -> None:
    import datasets
    from transformers import AutoTokenizer

    folder, _ = build(tmp_path / "out", make_settings(corpus, held_out_fraction=0.2, shard_tokens=3000))
    files = {split: str(folder / f"{split}-*.parquet") for split in ("train", "held_out")}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    for split in files:
        ours = list(read_shards(folder, split))
        assert loaded[split]["id"][:] == [example.id for example in ours]
        assert loaded[split][3]["tokens"] == ours[3].tokens.tolist()
    text = AutoTokenizer.from_pretrained(folder / "tokenizer").decode(loaded["train"][0]["tokens"])
    assert text.startswith("document ")


def test_a_document_keeps_its_side_in_another_blend(tmp_path: Path, corpus: Path) -> None:
    other = write_rows(tmp_path / "other.jsonl", [{"text": f"other {i}"} for i in range(300)])
    alone, _ = build(tmp_path / "alone", make_settings(corpus, held_out_fraction=0.2))
    sources = [{"name": name, "kind": "jsonl", "path": str(tmp_path / f"{name}.jsonl")} for name in ("other", "corpus")]
    both, _ = build(tmp_path / "both", make_settings(other, held_out_fraction=0.2, sources=sources, seed=5))
    held_out = {example.id for example in read_shards(both, "held_out")}
    assert not held_out & {example.id for example in read_shards(alone, "train")}


def test_no_question_is_on_both_sides(tmp_path: Path) -> None:
    """As in OpenThoughts3: sixteen answers a question, of which none may be held out while another is trained on."""
    thought = "<think>{n} x {n}, the {take}th way</think>"
    rows = [
        {
            "conversations": [
                {"from": "human", "value": f"What is {n} x {n}?" + (" " if take % 2 else "")},
                {"from": "gpt", "value": thought.format(n=n, take=take) + f"\\boxed{{{n * n}}}"},
            ]
        }
        for take in range(16)
        for n in range(60)
    ]
    source = {"conversion": "openthoughts"}
    path = write_rows(tmp_path / "rows.jsonl", rows)  # type: ignore[arg-type]
    folder, _ = build(tmp_path / "out", make_settings(path, source=source, held_out_fraction=0.3))
    sides = {}
    for split in ("train", "held_out"):
        prompts = [tuple(example.tokens[: example.prompt_length]) for example in read_shards(folder, split)]
        sides[split] = set(prompts)
        assert len(prompts) == 16 * len(sides[split])
    assert not sides["train"] & sides["held_out"]
    assert len(sides["train"] | sides["held_out"]) == 60
    assert 6 < len(sides["held_out"]) < 30


def test_duplicates_and_short_documents_are_removed_and_counted(tmp_path: Path) -> None:
    rows = [{"text": text} for text in ("same", "same\r\n", "other", "", "other")]
    folder, facts = build(tmp_path / "out", make_settings(write_rows(tmp_path / "rows.jsonl", rows)))
    assert [len(example.tokens) for example in read_shards(folder, "train")] == [5, 6]
    assert facts["duplicates_removed"] == 2
    assert facts["too_short_removed"] == 1


def test_cut_documents_are_counted(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "abc"}, {"text": "abcd"}, {"text": "abcde"}])
    _, facts = build(tmp_path / "out", make_settings(rows, max_document_tokens=5))
    assert (facts["cut"], facts["tokens"]["train"]) == (1, 4 + 5 + 5), "an end-of-text token each"


def test_a_benchmark_keeps_its_size(tmp_path: Path) -> None:
    """An item that stands twice in a published set is asked twice."""
    rows = [{"prompt": "sum+1+2=", "answer": "3"}] * 2
    source = {"prompt_field": "prompt", "answer_field": "answer"}
    settings = make_settings(write_rows(tmp_path / "items.jsonl", rows), purpose="evaluation", source=source)
    folder, facts = build(tmp_path / "out", settings)
    assert facts["documents"] == {"test": 2} and len(list(read_shards(folder, "test"))) == 2


def test_a_small_benchmark_does_not_shorten_the_others(tmp_path: Path) -> None:
    sizes = {"few": 3, "many": 10, "one": 1}
    for name, size in sizes.items():
        write_rows(tmp_path / f"{name}.jsonl", [{"problem": f"{name} {n}?", "answer": "7"} for n in range(size)])
    sources = [
        {"name": name, "kind": "jsonl", "path": str(tmp_path / f"{name}.jsonl"), "conversion": "math500"}
        for name in sizes
    ]
    folder, facts = build(tmp_path / "out", make_settings(tmp_path, purpose="evaluation", sources=sources))
    assert facts["sources"] == sizes and facts["documents"] == {"test": 14}
    assert {name: row["documents"] for name, row in facts["blend"].items()} == sizes
    assert [example.source for example in read_shards(folder, "test")] == ["few"] * 3 + ["many"] * 10 + ["one"]


def test_planted_benchmark_items_are_removed_and_reported(tmp_path: Path) -> None:
    question = "a farmer has seven brown cows and buys four more how many cows stand in the field now"
    items = [{"prompt": question, "answer": "11"}, {"prompt": "sum+1+2=", "answer": "3"}]
    source = {"prompt_field": "prompt", "answer_field": "answer", "name": "bench"}
    evaluation = make_settings(write_rows(tmp_path / "items.jsonl", items), purpose="evaluation", source=source)
    benchmarks, facts = build(tmp_path / "bench", evaluation)
    assert facts["documents"] == {"test": 2}
    rows = [
        {"text": f"Once upon a time, {question.upper()}?"},
        {"text": "sum+1+2=3"},
        {"text": "a farmer has seven brown horses"},
        {"text": "sum+1+3=4"},
    ]
    folder, facts = build(tmp_path / "out", make_settings(write_rows(tmp_path / "rows.jsonl", rows)), benchmarks)
    assert facts["contaminated_removed"] == 2 and facts["documents"]["train"] == 2
    report = json.loads((folder / "decontamination.json").read_text())
    assert report["removed"] == 2 and len(report["examples"]) == 2
    assert report["benchmarks"] == {"bench": {"items": 2, "documents_removed": 2}}


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([], {}, "the corpus is empty"),
        ([{"text": ""}], {}, "the corpus is empty; removed: 1 shorter than two tokens"),
        ([{"text": "ab"}], {"held_out_fraction": 1e-9}, "holds out none of 1 documents; raise it"),
        ([{"text": "ab"}], {"purpose": "evaluation"}, "evaluation item .* has a text"),
    ],
)
def test_corpora_that_cannot_be_used(
    tmp_path: Path, rows: list[dict[str, str]], changes: dict[str, Any], message: str
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=message) as raised:
        build(tmp_path / "out", make_settings(path, **changes))
    assert "\n" not in str(raised.value)


PROBE = """
import json, os, sys, threading, time
from pathlib import Path
from rlpretrain.data import tokenising
from rlpretrain.artifacts import write_manifest
from rlpretrain.data.build import build_shards
from rlpretrain.settings import ShardDataSettings
workers, folder = int(sys.argv[1]), Path(sys.argv[2])
tokenising.CHUNK_DOCUMENTS = 32  # small next to the small corpus already
peak = 0

def watch():  # not the kernel's own peak, which imports raised beyond what follows
    global peak
    while True:
        peak = max(peak, int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
for rows in (600, 6000):
    corpus = folder / f"{rows}.jsonl"
    with corpus.open("w") as file:
        for index in range(rows):
            file.write(json.dumps({"text": f"{index} " + "word " * 600}) + "\\n")
    output = folder / f"out{rows}"
    output.mkdir()
    peak = 0
    settings = {"tokenizer": {"name": "builtin:characters"}, "workers": workers, "shard_tokens": 100000,
                "sources": [{"name": "s", "kind": "jsonl", "path": str(corpus)}]}
    build_shards(ShardDataSettings.model_validate(settings), None, output)
    print(corpus.stat().st_size, peak)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells a process's memory there")
@pytest.mark.parametrize("workers", [1, 2])
def test_memory_stays_flat_as_the_corpus_grows_tenfold(tmp_path: Path, workers: int) -> None:
    """The peak grows by less than the text that was added: nothing keeps the documents, let alone their tokens."""
    command = [sys.executable, "-c", PROBE, str(workers), str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (small, before), (large, after) = (map(int, line.split()) for line in said.splitlines()[-2:])
    assert after - before < 0.6 * (large - small), (before, after)


@pytest.mark.parametrize("whose", ["conversion's", "source's"])
def test_a_template_contaminates_nothing_and_hides_no_short_item(tmp_path: Path, whose: str) -> None:
    around = "Read the task with care, take all the time you need, and end with the number: {prompt} Now begin."
    short, other = "Compute 9 choose 8.", "Compute 12 choose 4 times 9 choose 2."
    rows = [{"problem": short, "answer": "9", "solution": "\\boxed{9}"}]
    source = {"prompt_field": "problem", "answer_field": "answer", "prompt_template": around, "name": "bench"}
    if whose == "conversion's":
        source = {"conversion": "math500", "name": "bench"}
    settings = make_settings(write_rows(tmp_path / "items.jsonl", rows), purpose="evaluation", source=source)
    benchmarks, facts = build(tmp_path / "bench", settings)
    told = settings.model_dump(mode="json")
    write_manifest(benchmarks, kind="shards", settings=told, inputs={}, seed=0, facts=facts)
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": f"{short} It is 9."}, {"text": f"{other} It is 17820."}])
    _, facts = build(tmp_path / "texts", make_settings(texts), benchmarks)
    assert (facts["contaminated_removed"], facts["documents"]["train"]) == (1, 1)
    rows.append({"problem": other, "answer": "17820", "solution": "\\boxed{17820}"})
    source |= {"name": "problems"} | ({"conversion": "math_problem"} if "conversion" in source else {})
    problems = make_settings(write_rows(tmp_path / "problems.jsonl", rows), source=source)
    _, facts = build(tmp_path / "problems", problems, benchmarks)
    assert (facts["contaminated_removed"], facts["documents"]["train"]) == (1, 1)
