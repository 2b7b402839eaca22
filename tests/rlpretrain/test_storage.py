"""Storage against a real S3 server and against folders. moto would accept wrong checksums and wrong keys."""

import base64
import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from zlib import crc32

import boto3
import pytest
from botocore.exceptions import ClientError

from rlpretrain import storage
from rlpretrain.artifacts import MANIFEST, file_sha256, verify, write_manifest
from rlpretrain.errors import UserError
from rlpretrain.s3server import EmbeddedS3

LARGE = 2 * storage.MULTIPART_BYTES + 12345  # three parts, the last one short
WRONG_SHA256 = "00" * 32


def make_artifact(folder: Path, content: bytes = b"hello", large: bool = False) -> Path:
    (folder / "nested").mkdir(parents=True, exist_ok=True)
    (folder / "nested" / "data.bin").write_bytes(content)
    (folder / "timings.jsonl").write_text("1\n")
    if large:
        (folder / "large.bin").write_bytes(random.Random(0).randbytes(LARGE))
    write_manifest(folder, kind="shards", settings={}, inputs={}, seed=0, facts={}, volatile=["timings.jsonl"])
    return folder


def refused(call, *arguments) -> str:
    """The one line that a call refuses its arguments with."""
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def file_names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["s3", "file", "plain"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of each kind."""
    if request.param == "s3":
        return request.getfixturevalue("s3_bucket") + "/some prefix/100%25"
    root = tmp_path / "store"
    return f"{'file://' if request.param == 'file' else ''}{root}"


def test_an_artifact_goes_up_and_comes_back(place: str, tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    storage.upload_folder(folder, f"{place}/run/shards")
    storage.download_folder(f"{place}/run/shards/", tmp_path / "back")
    assert verify(tmp_path / "back", "shards") == verify(folder)
    assert file_names(tmp_path / "back") == file_names(folder)
    assert storage.read_bytes(f"{place}/run/shards/nested/data.bin") == b"hello"
    assert storage.exists(f"{place}/run/shards/{MANIFEST}")
    assert not storage.exists(f"{place}/run/shards/other")
    assert not storage.exists(f"{place}/run/shards")


def test_listed_addresses_can_be_read(place: str, tmp_path: Path) -> None:
    assert storage.list_artifacts(place) == []
    folder = make_artifact(tmp_path / "artifact")
    for name in ("b", "a", "deep/er one", "50%25"):
        storage.upload_folder(folder, f"{place}/{name}")
    listed = storage.list_artifacts(f"{place}/")
    assert len(listed) == 4 and listed[0].endswith("%25") and listed[1:3] == [f"{place}/a", f"{place}/b"]
    for number, uri in enumerate(listed):
        storage.download_folder(uri, tmp_path / f"back-{number}")
    assert storage.list_artifacts(f"{place}/a") == [f"{place}/a"]


def test_a_half_written_artifact_is_invisible(place: str, tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    store = storage.connect(f"{place}/half")
    for name in ("nested/data.bin", "timings.jsonl"):
        store.put_file(name, folder / name, file_sha256(folder / name))
    assert storage.list_artifacts(place) == []
    assert "no finished artifact" in refused(storage.download_folder, f"{place}/half", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_manifest_goes_last_and_only_where_there_is_none(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_artifact(tmp_path / "it")
    kind = type(storage.connect(place))
    plain_put, seen = kind.put_files, []

    def put_files(self, files: dict[str, tuple[Path, str]]) -> None:
        plain_put(self, files)
        seen.append((sorted(files), storage.exists(f"{place}/it/{MANIFEST}")))

    monkeypatch.setattr(kind, "put_files", put_files)
    storage.upload_folder(folder, f"{place}/it")
    assert seen == [(["nested/data.bin", "timings.jsonl"], False)]
    assert "another artifact is published there" in refused(
        storage.upload_folder, make_artifact(tmp_path / "other", b"other"), f"{place}/it"
    )
    storage.download_folder(f"{place}/it", tmp_path / "back")
    assert (tmp_path / "back" / "nested" / "data.bin").read_bytes() == b"hello"


def test_publishing_the_same_artifact_again_mends_what_is_missing_or_damaged(place: str, tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "it", large=True)
    storage.upload_folder(folder, f"{place}/it")
    store = storage.connect(f"{place}/it")
    (tmp_path / "bad").write_bytes(b"jello")
    store.put_file("nested/data.bin", tmp_path / "bad", file_sha256(tmp_path / "bad"))
    store.delete("large.bin")
    (folder / "timings.jsonl").write_text("2\n")  # another attempt's wall clock
    write_manifest(folder, kind="shards", settings={}, inputs={}, seed=0, facts={}, volatile=["timings.jsonl"])
    storage.upload_folder(folder, f"{place}/it")
    storage.download_folder(f"{place}/it", tmp_path / "back")
    assert (tmp_path / "back" / "timings.jsonl").read_text() == "1\n"


@pytest.mark.parametrize("damage", ["missing", "other bytes"])
def test_a_lost_wall_clock_file_is_replaced_by_another_attempts_and_the_manifest_says_so(
    place: str, tmp_path: Path, damage: str
) -> None:
    """Without that the artifact could never be fetched again: only its own attempt had those very bytes."""

    def attempt(number: int) -> Path:
        folder = tmp_path / f"attempt-{number}"
        folder.mkdir()
        (folder / "data.bin").write_bytes(b"hello")
        for name in ("timings.jsonl", "page.html"):
            (folder / name).write_text(f"{number}\n")
        volatile = ["timings.jsonl", "page.html"]
        write_manifest(folder, kind="shards", settings={}, inputs={}, seed=0, facts={}, volatile=volatile)
        return folder

    storage.upload_folder(attempt(1), f"{place}/it")
    first, store = storage.read_bytes(f"{place}/it/{MANIFEST}"), storage.connect(f"{place}/it")
    storage.upload_folder(attempt(2), f"{place}/it")
    assert storage.read_bytes(f"{place}/it/{MANIFEST}") == first, "what is whole stays as it is"
    if damage == "missing":
        store.delete("timings.jsonl")
    else:
        (tmp_path / "bad").write_text("0\n")
        store.put_file("timings.jsonl", tmp_path / "bad", file_sha256(tmp_path / "bad"))
    refused(storage.download_folder, f"{place}/it", tmp_path / "back")
    storage.upload_folder(attempt(3), f"{place}/it")
    storage.download_folder(f"{place}/it", tmp_path / "back")
    assert verify(tmp_path / "back").digest == verify(tmp_path / "attempt-1").digest
    assert (tmp_path / "back" / "timings.jsonl").read_text() == "3\n"
    assert (tmp_path / "back" / "page.html").read_text() == "1\n", "which was whole"


def test_an_unfinished_folder_is_not_published(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "no finished artifact" in refused(storage.upload_folder, tmp_path, f"{place}/it")


def test_a_file_changed_after_its_manifest_is_not_published(place: str, tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact", large=True)
    for name in ("nested/data.bin", "large.bin"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        line = refused(storage.upload_folder, folder, f"{place}/it")
        assert name in line and "wrong checksum" in line
        (folder / name).write_bytes(content)
        assert storage.list_artifacts(place) == []


def test_a_file_corrupted_in_storage_is_named_and_leaves_no_artifact(place: str, tmp_path: Path) -> None:
    storage.upload_folder(make_artifact(tmp_path / "artifact"), f"{place}/it")
    (tmp_path / "bad").write_bytes(b"jello")
    storage.connect(f"{place}/it").put_file("nested/data.bin", tmp_path / "bad", file_sha256(tmp_path / "bad"))
    back = make_artifact(tmp_path / "back", b"an older one")
    line = refused(storage.download_folder, f"{place}/it", back)
    assert "nested/data.bin" in line and "corrupted" in line
    assert not (back / MANIFEST).exists()


def test_a_file_missing_in_storage_is_named(place: str, tmp_path: Path) -> None:
    storage.upload_folder(make_artifact(tmp_path / "artifact"), f"{place}/it")
    storage.connect(f"{place}/it").delete("nested/data.bin")
    line = refused(storage.download_folder, f"{place}/it", tmp_path / "back")
    assert "nested/data.bin does not exist" in line


def test_a_manifest_in_storage_cannot_write_elsewhere(place: str, tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    forged = (folder / MANIFEST).read_text().replace("timings.jsonl", "../escaped.jsonl")
    (tmp_path / "forged").write_text(forged)
    storage.connect(f"{place}/it").put_file(MANIFEST, tmp_path / "forged", file_sha256(tmp_path / "forged"))
    assert "leaves its folder" in refused(storage.download_folder, f"{place}/it", tmp_path / "back")
    assert not (tmp_path / "escaped.jsonl").exists()


def test_raw_files_come_by_prefix_and_by_name(place: str, tmp_path: Path) -> None:
    store = storage.connect(f"{place}/raw")
    for key in ("a.jsonl", "deep/b.jsonl"):
        (tmp_path / "source").write_text(key)
        store.put_file(key, tmp_path / "source", file_sha256(tmp_path / "source"))
    storage.download_files(f"{place}/raw", tmp_path / "all")
    assert file_names(tmp_path / "all") == {"a.jsonl", "deep/b.jsonl"}
    storage.download_files(f"{place}/raw/deep/b.jsonl", tmp_path / "one")
    assert (tmp_path / "one" / "b.jsonl").read_text() == "deep/b.jsonl"
    assert "nothing is there" in refused(storage.download_files, f"{place}/nowhere", tmp_path / "none")


def test_a_missing_object(place: str) -> None:
    assert f"{place.removeprefix('file://')}/no/such does not exist" in refused(storage.read_bytes, f"{place}/no/such")
    assert "names no file" in refused(storage.read_bytes, f"{place}/")


@pytest.mark.parametrize(
    "uri", ["", "s3://", "s3:///key", "s3:/bucket/a", "http://host/a", "gs://b/a", "file:a", "file://host/a"]
)
def test_other_addresses_are_refused(uri: str) -> None:
    assert "s3://BUCKET/PREFIX" in refused(storage.connect, uri)


# --- what only a server can show ------------------------------------------------------------------


def test_large_files_go_in_parts_with_checksums(s3_bucket: str, tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact", large=True)
    storage.upload_folder(folder, f"{s3_bucket}/big")
    storage.download_folder(f"{s3_bucket}/big", tmp_path / "back")
    assert file_sha256(tmp_path / "back" / "large.bin") == file_sha256(folder / "large.bin")
    client, bucket = boto3.session.Session().client("s3"), s3_bucket.removeprefix("s3://")
    head = client.head_object(Bucket=bucket, Key="big/large.bin")
    assert head["ETag"].strip('"').endswith("-3")  # three parts
    assert head["Metadata"]["sha256"] == file_sha256(folder / "large.bin")
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_a_small_upload_with_a_wrong_checksum_is_refused_by_the_server(s3_bucket: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    line = refused(storage.connect(s3_bucket).put_file, "file", tmp_path / "file", WRONG_SHA256)
    assert f"{s3_bucket}/file" in line and "wrong checksum" in line
    assert not storage.exists(f"{s3_bucket}/file")


def test_a_large_upload_with_a_wrong_checksum_is_refused(s3_bucket: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(LARGE))
    assert "wrong checksum" in refused(storage.connect(s3_bucket).put_file, "file", tmp_path / "file", WRONG_SHA256)
    assert not storage.exists(f"{s3_bucket}/file")


def test_a_part_with_a_wrong_checksum_is_refused_by_the_server(s3_bucket: str) -> None:
    client, place = boto3.session.Session().client("s3"), {"Bucket": s3_bucket.removeprefix("s3://"), "Key": "parts"}
    upload = client.create_multipart_upload(**place, ChecksumAlgorithm="CRC32")["UploadId"]
    wrong = base64.b64encode(crc32(b"other").to_bytes(4, "big")).decode()
    with pytest.raises(ClientError, match=r"BadDigest|Checksum"):
        client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"part", ChecksumCRC32=wrong)
    client.abort_multipart_upload(**place, UploadId=upload)


def test_an_upload_that_another_tool_began_gives_way(s3_bucket: str, tmp_path: Path) -> None:
    path, client = tmp_path / "file", boto3.session.Session().client("s3")
    path.write_bytes(random.Random(0).randbytes(LARGE))
    place = {"Bucket": s3_bucket.removeprefix("s3://"), "Key": "file"}
    upload = client.create_multipart_upload(**place, ChecksumAlgorithm="SHA256")["UploadId"]
    first = path.read_bytes()[: storage.MULTIPART_BYTES]
    checksum = base64.b64encode(hashlib.sha256(first).digest()).decode()
    client.upload_part(**place, UploadId=upload, PartNumber=1, Body=first, ChecksumSHA256=checksum)
    storage.connect(s3_bucket).put_file("file", path, file_sha256(path))
    assert storage.connect(s3_bucket).sha256("file") == (LARGE, file_sha256(path))
    assert not client.list_multipart_uploads(Bucket=place["Bucket"]).get("Uploads")


def test_more_objects_than_a_page_are_listed(s3_bucket: str) -> None:
    client, bucket = boto3.session.Session().client("s3"), s3_bucket.removeprefix("s3://")
    for number in range(1001):
        client.put_object(Bucket=bucket, Key=f"many/{number}", Body=b"")
    client.put_object(Bucket=bucket, Key="many/folder/", Body=b"")
    assert len(list(storage.connect(f"{s3_bucket}/many").keys())) == 1001


def test_a_missing_bucket(s3: EmbeddedS3, tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact", large=True)
    for call in (
        lambda: storage.upload_folder(folder, "s3://no-such-bucket/a"),
        lambda: storage.download_folder("s3://no-such-bucket/a", tmp_path / "back"),
        lambda: storage.list_artifacts("s3://no-such-bucket/a"),
        lambda: storage.read_bytes("s3://no-such-bucket/a"),
        lambda: storage.exists("s3://no-such-bucket/a"),
        lambda: storage.download_files("s3://no-such-bucket/a", tmp_path / "back"),
    ):
        assert "there is no bucket 'no-such-bucket'" in refused(call)
    assert "Invalid bucket name" in refused(storage.read_bytes, "s3://Not A Bucket/a")


def test_create_bucket_twice(s3: EmbeddedS3) -> None:
    for _ in range(2):
        storage.create_bucket("s3://created-here/prefix")
        s3.create_bucket("created-here")
    assert storage.list_artifacts("s3://created-here") == []


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    folder = make_artifact(tmp_path / "artifact")
    monkeypatch.setenv(variable, "wrong")
    for call in (
        lambda: storage.upload_folder(folder, f"{s3_bucket}/a"),
        lambda: storage.download_folder(f"{s3_bucket}/a", tmp_path / "back"),
        lambda: storage.list_artifacts(s3_bucket),
        lambda: storage.create_bucket("s3://another"),
    ):
        line = refused(call)
        assert "refused the credentials" in line and "check the key" in line


def test_no_credentials(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "set AWS_ACCESS_KEY_ID" in refused(storage.list_artifacts, s3_bucket)


def test_an_unreachable_endpoint(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_artifact(tmp_path / "artifact")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    for call in (
        lambda: storage.upload_folder(folder, f"{s3_bucket}/a"),
        lambda: storage.list_artifacts(s3_bucket),
    ):
        assert "the S3 endpoint http://127.0.0.1:1 cannot be reached; check AWS_ENDPOINT_URL_S3" in refused(call)


@pytest.mark.parametrize(("variable", "value"), [("AWS_ENDPOINT_URL_S3", "nonsense"), ("AWS_PROFILE", "nobody")])
def test_a_wrong_configuration(s3_bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    line = refused(storage.list_artifacts, s3_bucket)
    assert "S3 is configured wrongly" in line and value in line


# --- the embedded server itself -------------------------------------------------------------------

START = """
import os, signal, sys
from pathlib import Path
from rlpretrain.s3server import EmbeddedS3
with EmbeddedS3(Path(sys.argv[1])) as server:
    print(server._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_later_start_serves_the_same_data(tmp_path: Path, s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, data = make_artifact(tmp_path / "artifact", large=True), tmp_path / "server"
    sockets = []
    for attempt in range(2):
        with EmbeddedS3(data) as server:
            sockets += [path for port in server._ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]
            for name, value in server.environment().items():
                monkeypatch.setenv(name, value)
            if attempt == 0:
                storage.create_bucket("s3://kept")
                storage.upload_folder(folder, "s3://kept/it")
            else:
                assert storage.list_artifacts("s3://kept") == ["s3://kept/it"]
                storage.download_folder("s3://kept/it", tmp_path / "back")
                storage.upload_folder(folder, "s3://kept/second")
                assert "another run's S3 server uses it" in refused(EmbeddedS3(data).__enter__)
    assert stat.S_IMODE((data / "s3.json").stat().st_mode) == 0o600
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert "cannot be reached" in refused(storage.list_artifacts, "s3://kept")  # it stopped
    assert sockets and not any(socket.exists() for socket in sockets)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_a_killed_run_leaves_no_server(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, str(tmp_path / "server")]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    pid = int(killed.stdout)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/cmdline").exists() and b"weed" in Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, f"server {pid} outlived its run"
        time.sleep(0.1)
    with EmbeddedS3(tmp_path / "server") as server:
        assert server.endpoint and os.path.exists(tmp_path / "server" / "data")
