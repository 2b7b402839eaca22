"""Manifests: what makes a digest, what breaks one, and that nothing outside of the folder can be named."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpretrain.artifacts import (
    MANIFEST,
    Manifest,
    canonical_digest,
    code_digest,
    file_sha256,
    parse_manifest,
    read_manifest,
    verify,
    write_manifest,
)
from rlpretrain.errors import Damaged, UserError

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-4, the empty message


def make(folder: Path, **changes: Any) -> Manifest:
    """A small artifact with one nested and one wall-clock file."""
    (folder / "nested").mkdir(parents=True, exist_ok=True)
    (folder / "nested" / "data.bin").write_bytes(b"\x00\x01\x02")
    (folder / "empty").write_bytes(b"")
    (folder / "timings.jsonl").write_text("1.25\n")
    arguments: dict[str, Any] = {
        "kind": "shards",
        "settings": {"rate": 0.1, "names": ("a", "b")},
        "inputs": {"benchmarks": "ab" * 32},
        "seed": 7,
        "facts": {"documents": 3},
        "volatile": ("timings.jsonl", "not-there.jsonl"),
    }
    return write_manifest(folder, **{**arguments, **changes})


def rewrite(folder: Path, change: dict[str, Any]) -> None:
    """Alter fields of a manifest and make its digest fit again, as a forger would."""
    value = json.loads((folder / MANIFEST).read_text()) | change
    value["digest"] = canonical_digest({k: v for k, v in value.items() if k not in ("digest", "volatile")})
    (folder / MANIFEST).write_text(json.dumps(value))


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def test_file_sha256_is_the_standard_one(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert file_sha256(tmp_path / "empty") == EMPTY_SHA256


def test_a_written_manifest_reads_back_and_lists_every_file(tmp_path: Path) -> None:
    written = make(tmp_path)
    assert read_manifest(tmp_path, "shards") == written == verify(tmp_path)
    assert set(written.files) == {"nested/data.bin", "empty"}
    assert set(written.volatile) == {"timings.jsonl"}
    assert (written.files["empty"].sha256, written.files["empty"].size) == (EMPTY_SHA256, 0)
    assert written.code_version == code_digest()
    assert written.libraries["torch"]


def test_the_digest_covers_all_but_wall_clock_and_place(tmp_path: Path) -> None:
    digest = make(tmp_path / "a").digest
    assert make(tmp_path / "elsewhere").digest == digest
    assert make(tmp_path / "b", seed=8).digest != digest
    assert make(tmp_path / "c", inputs={}).digest != digest
    assert make(tmp_path / "d", facts={"documents": 4}).digest != digest
    assert make(tmp_path / "e", settings={}).digest != digest
    (tmp_path / "a" / "timings.jsonl").write_text("99\n")
    again = write_manifest(
        tmp_path / "a",
        **{
            name: getattr(read_manifest(tmp_path / "a"), name)
            for name in ("kind", "settings", "inputs", "seed", "facts")
        },
        volatile=["timings.jsonl"],
    )
    assert again.digest == digest
    assert str(tmp_path) not in (tmp_path / "a" / MANIFEST).read_text()


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    assert (tmp_path / "a" / MANIFEST).read_bytes() == (tmp_path / "b" / MANIFEST).read_bytes()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_any_facts_survive_the_round_trip(tmp_path_factory: pytest.TempPathFactory, facts: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("facts")
    written = write_manifest(folder, kind="evaluation", settings={}, inputs={}, seed=0, facts=facts)
    assert read_manifest(folder) == written


def test_a_manifest_left_half_written_is_neither_read_nor_listed(tmp_path: Path) -> None:
    (tmp_path / f".{MANIFEST}.partial").write_text('{"schema_version"')
    with pytest.raises(UserError, match="no finished artifact"):
        read_manifest(tmp_path)
    make(tmp_path)
    assert set(verify(tmp_path).files) == {"nested/data.bin", "empty"}


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError) as error:
            read_manifest(folder)
        assert "no finished artifact" in one_line(error)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(UserError) as error:
        verify(tmp_path, "checkpoint")
    assert "'shards'" in one_line(error) and "'checkpoint'" in one_line(error)


@pytest.mark.parametrize("name", ["nested/data.bin", "timings.jsonl"])
def test_a_corrupted_file_is_named(tmp_path: Path, name: str) -> None:
    make(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[0] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        verify(tmp_path)
    assert name in one_line(error) and "corrupted" in one_line(error)


def test_a_cut_and_a_missing_file_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "nested" / "data.bin").write_bytes(b"\x00")
    with pytest.raises(UserError, match=r"nested/data\.bin: corrupted"):
        verify(tmp_path)
    (tmp_path / "nested" / "data.bin").unlink()
    with pytest.raises(UserError, match=r"nested/data\.bin: listed in the manifest but missing"):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not a manifest"),
        (b'{"schema_version": 1', "not a manifest"),
        (b"\xff\xfe\x00", "not a manifest"),
        (b"[]", "not a manifest"),
        (b"{}", "not a manifest"),
        (b'{"schema_version": 2, "later": 1}', "schema version 2 is not 1"),
        (b'{"schema_version": 1}', "kind: Field required"),
    ],
)
def test_malformed_manifests_are_refused_in_one_line(text: bytes, says: str) -> None:
    with pytest.raises(UserError) as error:
        parse_manifest(text, "here")
    assert one_line(error).startswith("here: ") and says in one_line(error)


def test_another_version_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    text = make(tmp_path).content()
    with pytest.raises(Damaged, match="altered"):
        parse_manifest(text.replace(b'"schema_version": 1', b'"schema_version": 3'), "here")
    other = {**json.loads(text), "schema_version": 3}
    other["digest"] = canonical_digest(
        {name: each for name, each in other.items() if name not in ("digest", "volatile")}
    )
    with pytest.raises(UserError, match="schema version 3 is not 1") as error:
        parse_manifest(json.dumps(other), "here")
    assert not isinstance(error.value, Damaged)


def test_an_altered_manifest_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace('"documents": 3', '"documents": 4'))
    with pytest.raises(UserError, match="altered"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../out", "a/../../out", "/etc/out", "a\\..\\out", "..", ".", "", "./a", "a//b", "a/", "a\0b", MANIFEST],
)
@pytest.mark.parametrize("field", ["files", "volatile"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str, field: str) -> None:
    make(tmp_path)
    rewrite(tmp_path, {field: {name: {"sha256": EMPTY_SHA256, "size": 0}}})
    with pytest.raises(UserError) as error:
        read_manifest(tmp_path)
    assert "leaves its folder" in one_line(error)


def test_the_code_digest_is_a_sha256_and_stays() -> None:
    assert len(bytes.fromhex(code_digest())) == 32
    before = code_digest()
    code_digest.cache_clear()
    assert code_digest() == before
