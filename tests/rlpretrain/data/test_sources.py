"""Sources: files, s3:// prefixes, data sets of the hub, generators, and what goes wrong with them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpretrain.artifacts import file_sha256
from rlpretrain.data.documents import Document
from rlpretrain.data.sources import read_source
from rlpretrain.errors import UserError
from rlpretrain.settings import SourceSettings
from rlpretrain.storage import connect

Reader = Callable[..., list[Document]]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def read_all(**settings: Any) -> list[Document]:
        documents = list(read_source(SourceSettings(name="src", **settings), 0, scratch))
        assert not list(scratch.iterdir())
        return documents

    return read_all


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_jsonl_of_a_folder_in_the_order_of_names(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": "two"}, {"text": None}])
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "one"}])
    with gzip.open(tmp_path / "in" / "deep" / "c.jsonl.gz", "wt") as file:
        file.write('\n{"text": "three"}\n')
    (tmp_path / "in" / "notes.csv").write_text("no")
    documents = read(kind="jsonl", path=str(tmp_path / "in"))
    assert [document.text for document in documents] == ["one", "two", "", "three"]
    assert {document.source for document in documents} == {"src"}
    assert len(read(kind="jsonl", path=str(tmp_path / "in"), documents=2)) == 2


def test_parquet_with_prompt_template_and_answer(read: Reader, tmp_path: Path) -> None:
    pq.write_table(pa.table({"q": ["2+2?"], "a": [4], "other": [[1]]}), tmp_path / "x.parquet")
    (document,) = read(
        kind="parquet",
        path=str(tmp_path / "x.parquet"),
        prompt_field="q",
        answer_field="a",
        prompt_template="Q: {prompt} A:",
    )
    assert document == Document("", "Q: 2+2? A:", "4", "src")


def test_a_plain_text_file_is_one_document(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst\n\nstill first")
    (tmp_path / "b.md").write_text("second")
    assert [d.text for d in read(kind="text", path=str(tmp_path))] == ["first\n\nstill first", "second"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_missing_column_is_named_with_its_file(read: Reader, tmp_path: Path, kind: str) -> None:
    if kind == "jsonl":
        write_jsonl(tmp_path / "x.jsonl", [{"body": "b", "title": "t"}])
    else:
        pq.write_table(pa.table({"body": ["b"], "title": ["t"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=rf"x\.{kind} has no column 'text'; it has: body, title"):
        read(kind=kind, path=str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("jsonl", b'{"text": "a"}\n{broken\n', "x.jsonl line 2 is not JSON"),
        ("jsonl", b"[" * 100_000, "x.jsonl line 1 is not JSON"),
        ("jsonl", b'{"text": ' + b"9" * 5_000 + b"}", "x.jsonl line 1 is not JSON"),
        ("jsonl", b"[1]\n", "x.jsonl line 1 is not a JSON object"),
        ("jsonl", b'{"text": "\xff"}\n', "x.jsonl is not UTF-8"),
        ("jsonl", b'{"text": ["a"]}\n', "column 'text' holds a list"),
        ("parquet", b"no parquet", "x.parquet is no readable parquet file"),
        ("text", b"\xff", "x.txt is not UTF-8"),
    ],
)
def test_damaged_files(read: Reader, tmp_path: Path, kind: str, content: bytes, message: str) -> None:
    (tmp_path / ("x.txt" if kind == "text" else f"x.{kind}")).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read(kind=kind, path=str(tmp_path))
    assert "\n" not in str(raised.value)


def test_places_that_hold_nothing(read: Reader, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing does not exist"):
        read(kind="jsonl", path=str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"holds no \.txt or \.md file"):
        read(kind="text", path=str(tmp_path))


def test_s3_prefix_and_single_object(read: Reader, tmp_path: Path, s3_bucket: str) -> None:
    for name, text in (("b.jsonl", "two"), ("a.jsonl", "one"), ("readme.txt", "none")):
        path = write_jsonl(tmp_path / name, [{"text": text}])
        connect(f"{s3_bucket}/raw").put_file(name, path, file_sha256(path))
    assert [d.text for d in read(kind="jsonl", path=f"{s3_bucket}/raw/")] == ["one", "two"]
    assert [d.text for d in read(kind="jsonl", path=f"{s3_bucket}/raw/b.jsonl")] == ["two"]
    for wrong in (f"{s3_bucket}/nothing", f"{s3_bucket}/raw/c.jsonl"):
        with pytest.raises(UserError, match=r"holds no \.jsonl"):
            read(kind="jsonl", path=wrong)


def test_hub_data_set_is_read_at_its_revision(read: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load_dataset(name: str, subset: str | None, **options: Any) -> list[dict[str, str]]:
        asked.update(options, name=name, subset=subset)
        return [{"text": "one"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read(kind="huggingface", dataset="a/b", revision="v1", split="test") == [Document("one", source="src")]
    assert asked == {"name": "a/b", "subset": None, "revision": "v1", "split": "test", "streaming": True}


def test_hub_that_cannot_be_reached_gives_one_line(read: Reader) -> None:
    with pytest.raises(UserError, match="cannot read data set nobody/nothing at v1") as raised:
        read(kind="huggingface", dataset="nobody/nothing", revision="v1")
    assert "\n" not in str(raised.value)


def test_generators_and_their_mistakes(read: Reader) -> None:
    assert len(read(kind="generator", generator="mini_documents", documents=3)) == 3
    with pytest.raises(UserError, match="unknown generator 'nope'; known: gsm_symbolic"):
        read(kind="generator", generator="nope", documents=1)
    with pytest.raises(UserError, match="options do not fit the generator"):
        read(kind="generator", generator="mini_documents", documents=1, options={"colour": "red"})
