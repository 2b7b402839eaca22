"""Artifacts and storage against a real S3 server."""

import json
import os

import boto3
import pytest
from botocore.exceptions import ClientError

from rlpretrain.artifacts import MANIFEST, read_manifest, verify, write_manifest
from rlpretrain.errors import UserError
from rlpretrain.storage import download_files, download_folder, list_artifacts, upload_folder


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "artifact"
    (folder / "deep").mkdir(parents=True)
    (folder / "small.txt").write_text("small")
    (folder / "deep" / "large.bin").write_bytes(os.urandom(20 * 2**20))
    (folder / "timings.jsonl").write_text("{}\n")
    write_manifest(
        folder, kind="shards", settings={"a": 1}, inputs={}, seed=0, facts={"n": 2}, volatile=["timings.jsonl"]
    )
    return folder


def test_round_trip_with_multipart(artifact, bucket, tmp_path):
    upload_folder(artifact, f"{bucket}/runs/one/shards")
    head = boto3.client("s3").head_object(Bucket=bucket[5:], Key="runs/one/shards/deep/large.bin")
    assert head["ETag"].strip('"').endswith("-3")  # three parts of 8 MiB
    assert list_artifacts(f"{bucket}/runs") == [f"{bucket}/runs/one/shards"]
    download_folder(f"{bucket}/runs/one/shards", tmp_path / "back")
    assert verify(tmp_path / "back", "shards").digest == read_manifest(artifact).digest
    assert (tmp_path / "back/deep/large.bin").read_bytes() == (artifact / "deep/large.bin").read_bytes()


def test_the_server_refuses_a_wrong_checksum(bucket):
    with pytest.raises(ClientError, match="BadDigest"):
        boto3.client("s3").put_object(
            Bucket=bucket[5:], Key="x", Body=b"body", ChecksumSHA256="0" * 43 + "="
        )


def test_a_half_written_artifact_is_invisible(artifact, bucket, tmp_path):
    boto3.client("s3").upload_file(str(artifact / "small.txt"), bucket[5:], "half/small.txt")
    assert list_artifacts(bucket) == []
    with pytest.raises(UserError, match="no finished artifact"):
        download_folder(f"{bucket}/half", tmp_path / "back")


def test_a_corrupted_object_is_named(artifact, bucket, tmp_path):
    upload_folder(artifact, f"{bucket}/a")
    boto3.client("s3").put_object(Bucket=bucket[5:], Key="a/small.txt", Body=b"SMALL")
    with pytest.raises(UserError, match=r"small\.txt: corrupted"):
        download_folder(f"{bucket}/a", tmp_path / "back")


def test_missing_key_bucket_and_wrong_credentials_are_one_line(artifact, bucket, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="nothing is there"):
        download_files(f"{bucket}/none", tmp_path)
    with pytest.raises(UserError, match="there is no bucket 'nobody-has-this'"):
        upload_folder(artifact, "s3://nobody-has-this/x")
    with pytest.raises(UserError, match="write s3://BUCKET"):
        upload_folder(artifact, "https://host/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match="refused the credentials") as raised:
        upload_folder(artifact, f"{bucket}/x")
    assert "\n" not in str(raised.value) and "wrong" not in str(raised.value).replace("credentials", "")


def test_raw_files_below_a_prefix(bucket, tmp_path):
    client = boto3.client("s3")
    for key in ("data/a.jsonl", "data/deep/b.jsonl"):
        client.put_object(Bucket=bucket[5:], Key=key, Body=b"{}")
    download_files(f"{bucket}/data", tmp_path)
    assert (tmp_path / "deep/b.jsonl").read_bytes() == b"{}"


def test_manifest_digest_ignores_volatile_files_and_sees_the_rest(artifact):
    before = read_manifest(artifact).digest
    settings = {"kind": "shards", "settings": {"a": 1}, "inputs": {}, "seed": 0, "facts": {"n": 2}}
    (artifact / "timings.jsonl").write_text("slower")
    assert write_manifest(artifact, **settings, volatile=["timings.jsonl"]).digest == before
    (artifact / "small.txt").write_text("Small")
    assert write_manifest(artifact, **settings, volatile=["timings.jsonl"]).digest != before


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
def test_names_that_leave_the_folder_are_refused(artifact, name):
    raw = json.loads((artifact / MANIFEST).read_text())
    raw["files"][name] = raw["files"].pop("small.txt")
    from rlpretrain.artifacts import Manifest

    raw["digest"] = Manifest.model_validate(raw).computed_digest()
    (artifact / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(UserError, match="leaves its folder"):
        read_manifest(artifact)


def test_altered_manifest_and_missing_file_are_named(artifact):
    (artifact / "small.txt").unlink()
    with pytest.raises(UserError, match=r"small\.txt: listed in the manifest but missing"):
        verify(artifact)
    raw = json.loads((artifact / MANIFEST).read_text())
    (artifact / MANIFEST).write_text(json.dumps({**raw, "seed": 5}))
    with pytest.raises(UserError, match="altered"):
        read_manifest(artifact)
