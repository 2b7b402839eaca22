"""Storage through a network that breaks, with rivals, on disks that fill up. The long form of the storm is in tests/soak."""

import email.utils
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import FlexibleChecksumError

from rlpretrain import storage
from rlpretrain.artifacts import MANIFEST, file_sha256, read_manifest, verify, write_manifest
from rlpretrain.errors import Damaged, UserError
from rlpretrain.s3server import EmbeddedS3
from rlpretrain.stores import claim, s3
from rlpretrain.stores.s3errors import told
from tests.rlpretrain.fault_proxy import KINDS, FaultProxy
from tests.rlpretrain.faults import PART, storm

CHILD = """
import sys
from pathlib import Path
from rlpretrain import storage
from rlpretrain.stores import claim, s3
s3.MULTIPART_BYTES = s3.RANGE_BYTES = {part}
claim.LEASE_SECONDS = 1.0
getattr(storage, sys.argv[1])(*(Path(each) if each.startswith("/") else each for each in sys.argv[2:]))
"""


def artifact(folder: Path, seed: int = 0, size: int = 6 * PART, **files: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "large.bin").write_bytes(os.urandom(size))
    (folder / "timings").write_text(f"{uuid.uuid4()}\n")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_manifest(folder, kind="shards", settings={}, inputs={}, seed=seed, facts={}, volatile=["timings"])
    return folder


def refused(call, *arguments) -> str:
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_storm_of_faults_loses_nothing_and_lets_no_wrong_byte_through(
    s3: EmbeddedS3, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = storm(s3, s3_bucket, tmp_path, faults=32, seed=0, monkeypatch=monkeypatch)
    assert outcome.wrong == outcome.lost == 0, outcome
    assert set(outcome.faults) == set(KINDS), outcome


def kill_midway(arguments: list[str], proxy: FaultProxy, requests: int, marks: str) -> None:
    """Start a transfer in a process of its own and kill it once that many of its parts have passed."""
    proxy.delay, ours = 0.15, proxy.connections
    process = subprocess.Popen([sys.executable, "-c", CHILD.format(part=PART), *arguments])
    while sum(marks in f"{method} {target}" for method, target in proxy.passed) < requests:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    proxy.delay = 0.0
    # What the dead one had asked for is passed on all the same, also by a connection that nobody has accepted yet.
    passed = -1
    while proxy.connections > ours or len(proxy.passed) > passed:
        passed = len(proxy.passed)
        time.sleep(0.5)


def test_killed_transfers_go_on_where_they_stopped(
    s3: EmbeddedS3, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, uri = artifact(tmp_path / "made", size=8 * PART), f"{s3_bucket}/it"
    name = "large.bin"
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        kill_midway(["upload_folder", str(folder), uri], proxy, 6, "partNumber=")
        assert storage.list_artifacts(s3_bucket) == []
        bucket, stored = s3_bucket.removeprefix("s3://"), boto3.session.Session().client("s3")
        upload = stored.list_multipart_uploads(Bucket=bucket, Prefix=f"it/{name}")["Uploads"][0]["UploadId"]
        done = {
            part["PartNumber"] for part in stored.list_parts(Bucket=bucket, Key=f"it/{name}", UploadId=upload)["Parts"]
        }
        proxy.passed.clear()
        subprocess.run([sys.executable, "-c", CHILD.format(part=PART), "upload_folder", str(folder), uri], check=True)
        sent = [target for method, target in proxy.passed if method == "PUT" and "partNumber=" in target]
        assert done and len(sent) <= 8 - len(done)  # a part that was on its way when we looked arrived later
        assert not list(storage.connect(uri).unfinished())

        proxy.passed.clear()
        kill_midway(["download_folder", uri, str(tmp_path / "back")], proxy, 6, f"GET /{bucket}/it/{name}")
        noted = len((tmp_path / "back" / f".{name}.pieces").read_text().splitlines()) - 1
        assert not (tmp_path / "back" / MANIFEST).exists()
        proxy.passed.clear()
        subprocess.run(
            [sys.executable, "-c", CHILD.format(part=PART), "download_folder", uri, str(tmp_path / "back")], check=True
        )
        fetched = sum(f"/it/{name}" in target for method, target in proxy.passed if method == "GET")
        assert noted and fetched <= 9 - noted  # the first range tells the size, and is asked for once more
    assert verify(tmp_path / "back") == read_manifest(folder)
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == sorted([name, MANIFEST, "timings"])


@pytest.mark.parametrize("kind", ["s3", "file"])
def test_of_writers_at_one_place_one_wins_and_the_others_are_told(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = request.getfixturevalue("s3_bucket") if kind == "s3" else f"file://{tmp_path}/store"
    monkeypatch.setattr(claim, "LEASE_SECONDS", 20.0)
    monkeypatch.setattr(claim, "_LOOK_SECONDS", 0.05)
    folders = [artifact(tmp_path / f"{seed}", seed, size=10_000, shared=b"same") for seed in range(4)]

    def publish(folder: Path, uri: str) -> str:
        try:
            storage.upload_folder(folder, uri)
            return "won"
        except UserError as error:
            return "told" if "another artifact is published there" in str(error) else str(error)

    for turn in range(2):
        uri = f"{place}/{turn}"
        with ThreadPoolExecutor(len(folders)) as pool:
            outcomes = list(pool.map(publish, folders, [uri] * len(folders)))
        assert Counter(outcomes) == {"won": 1, "told": len(folders) - 1}
        storage.download_folder(uri, tmp_path / f"back-{turn}")
        assert verify(tmp_path / f"back-{turn}") == read_manifest(folders[outcomes.index("won")])
        assert list(storage.connect(uri).keys()) and not storage.exists(f"{uri}/.publishing")


def test_a_dead_writers_claim_is_taken_over(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "LEASE_SECONDS", 1.0)
    assert storage.connect(f"{s3_bucket}/it").put_new(".publishing", b'{"writer": "dead", "beat": 7}')
    storage.upload_folder(artifact(tmp_path / "made", size=10), f"{s3_bucket}/it")
    storage.download_folder(f"{s3_bucket}/it", tmp_path / "back")


def test_a_writer_whose_claim_may_be_anothers_stores_nothing_more(s3_bucket: str, tmp_path: Path) -> None:
    folder = artifact(tmp_path / "made", size=100)
    store = storage.connect(s3_bucket)
    with store.one_writer(lambda: False):
        store._claim._renewed -= claim.LEASE_SECONDS + 1  # it stood still, beats and all
        with pytest.raises(UserError, match="another writer took over"):
            store.put_files({"large.bin": (folder / "large.bin", file_sha256(folder / "large.bin"))})
    assert not store.exists("large.bin")


def test_a_checksum_that_never_fits_is_damage_and_no_bad_line() -> None:
    with pytest.raises(Damaged, match="corrupted in storage"), told("s3://b/k", "b", "http://here"):
        raise FlexibleChecksumError(error_msg="they differ")


def test_what_cannot_be_tried_again_is_not(s3: EmbeddedS3, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        store = storage.connect(s3_bucket)
        proxy.passed.clear()
        assert "does not exist" in refused(store.get_bytes, "missing")
        assert len(proxy.passed) == 1
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        proxy.passed.clear()
        assert "refused the credentials" in refused(storage.connect, s3_bucket)
        assert len(proxy.passed) == 1


@pytest.mark.parametrize(("hours", "says"), [(3, "180 minutes behind"), (-3, "180 minutes ahead")])
def test_a_wrong_clock(
    s3: EmbeddedS3, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, hours: float, says: str
) -> None:
    with FaultProxy(s3.endpoint) as proxy:
        proxy.skew = email.utils.formatdate(time.time() + hours * 3600, usegmt=True)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        line = refused(storage.list_artifacts, s3_bucket)
    assert says in line and "set this machine's clock" in line


@pytest.fixture
def small_files():
    """No file of this process may grow beyond 100 kB: what a full disk does, for whoever runs the tests."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [200_000, 2 * PART + 1])
def test_a_full_disk_is_one_line_and_the_fetch_goes_on_once_there_is_room(
    s3_bucket: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(s3, "RANGE_BYTES", PART)
    storage.upload_folder(artifact(tmp_path / "made", size=size), f"{s3_bucket}/it")
    request.getfixturevalue("small_files")
    line = refused(storage.download_folder, f"{s3_bucket}/it", tmp_path / "back")
    assert "large.bin: File too large; free space or take another disk" in line
    assert not (tmp_path / "back" / MANIFEST).exists()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    storage.download_folder(f"{s3_bucket}/it", tmp_path / "back")


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/proc/mounts").exists(), reason="only root can mount a small tmpfs")
def test_a_small_and_a_read_only_disk(s3_bucket: str, tmp_path: Path) -> None:
    folder, disk = artifact(tmp_path / "made", size=2**20), tmp_path / "disk"
    storage.upload_folder(folder, f"{s3_bucket}/it")
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        line = refused(storage.download_folder, f"{s3_bucket}/it", disk / "back")
        assert "No space left on device; free space or take another disk" in line
        assert "No space left on device" in refused(storage.upload_folder, folder, f"file://{disk}/store")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for call in (
            lambda: storage.download_folder(f"{s3_bucket}/it", disk / "other"),
            lambda: storage.upload_folder(folder, f"file://{disk}/other"),
        ):
            assert "Read-only file system; give a place that can be written" in refused(call)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_password_of_an_endpoint_is_not_told(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://someone:hunter2@127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    line = refused(storage.list_artifacts, s3_bucket)
    assert "hunter2" not in line and "someone" not in line and "***@127.0.0.1:1" in line
