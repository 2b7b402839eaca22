"""Runs in storage are checked whole, cleared of what nobody reads, and followed back to where they came from."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipelines.__main__ import main
from rlpretrain import storage
from rlpretrain.artifacts import MANIFEST, file_sha256, write_manifest
from rlpretrain.s3server import EmbeddedS3

TASKS = {
    "shard-corpus": ("shards", {}, {"origins": {"corpus": {"dataset": "some/set", "revision": "abc123"}}}),
    "train-base": ("checkpoint", {"shards": "shard-corpus"}, {}),
    "pretrain-rlp": ("checkpoint", {"shards": "shard-corpus", "checkpoint": "train-base"}, {}),
    "compare": ("comparison", {"rlp": "pretrain-rlp"}, {}),
}


@pytest.fixture
def run_uri(s3_bucket: str, tmp_path: Path) -> str:
    """A published run of four artifacts."""
    uri, digests = f"{s3_bucket}/runs/one", {}
    for task, (kind, inputs, facts) in TASKS.items():
        folder = tmp_path / task
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "data.bin").write_bytes(task.encode() * 100)
        (folder / "timings").write_text("1\n")
        given = {name: digests[source] for name, source in inputs.items()}
        manifest = write_manifest(
            folder, kind=kind, settings={"task": task}, inputs=given, seed=0, facts=facts, volatile=["timings"]
        )
        digests[task] = manifest.digest
        storage.upload_folder(folder, f"{uri}/{task}")
    return uri


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line; gives its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pipelines", *arguments])
        code = main()
        return code, *capsys.readouterr()

    return run


def put(uri: str, key: str, content: bytes, scratch: Path) -> None:
    (scratch / "object").write_bytes(content)
    storage.connect(uri).put_file(key, scratch / "object", file_sha256(scratch / "object"))


def test_a_whole_run_is_whole(run_uri: str, command: Any) -> None:
    code, output, errors = command("verify", run_uri)
    assert (code, errors) == (0, "")
    assert [line.split() for line in output.splitlines()[:-1]] == [["whole", task] for task in sorted(TASKS)]
    assert output.splitlines()[-1] == "4 artifacts, 0 faults"


def test_every_fault_of_a_run_has_its_line(run_uri: str, tmp_path: Path, command: Any) -> None:
    put(f"{run_uri}/train-base", "deep/data.bin", b"train-bose" * 100, tmp_path)
    put(f"{run_uri}/compare", "timings", b"11\n", tmp_path)
    storage.connect(f"{run_uri}/shard-corpus").delete("deep/data.bin")
    manifest = storage.read_bytes(f"{run_uri}/pretrain-rlp/{MANIFEST}")
    put(f"{run_uri}/pretrain-rlp", MANIFEST, manifest.replace(b'"seed": 0', b'"seed": 1'), tmp_path)
    code, output, errors = command("verify", run_uri)
    assert code == 2 and output.count("fault ") == 4 and output.endswith("4 artifacts, 5 faults\n")
    lines = errors.splitlines()
    assert len(lines) == 5 and all(line.startswith(f"fault: {run_uri}/") for line in lines)
    for says in (
        "train-base/deep/data.bin: corrupted, its checksum is not the manifest's",
        "compare/timings: has 3 bytes, not the manifest's 2",
        "shard-corpus/deep/data.bin: listed in the manifest but missing",
        "pretrain-rlp/manifest.json: the manifest was altered",
        "compare/manifest.json: input 'rlp' (digest",
    ):
        assert sum(says in line for line in lines) == 1, says


def test_a_place_without_a_run_is_a_mistake(s3_bucket: str, command: Any) -> None:
    for name in ("verify", "gc"):
        code, _, errors = command(name, f"{s3_bucket}/nothing")
        assert code == 2 and errors.count("\n") == 1 and "holds no finished artifact" in errors


def test_gc_lists_and_removes_what_nobody_reads_and_no_more(run_uri: str, tmp_path: Path, command: Any) -> None:
    before = set(storage.connect(run_uri).keys())
    bucket, _, prefix = run_uri.removeprefix("s3://").partition("/")
    client = boto3.session.Session().client("s3")
    upload = client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/train-base/deep/data.bin")["UploadId"]
    client.upload_part(
        Bucket=bucket, Key=f"{prefix}/train-base/deep/data.bin", UploadId=upload, PartNumber=1, Body=b"1"
    )
    waste = ["train-base/stray.bin", "half/model.bin", "half/.publishing", "checkpoints/pretrain-rlp/step-1/a.bin"]
    kept = {"checkpoints/sft-rlp/step-1/a.bin", "status.json"}
    for key in (*waste, *kept):
        put(run_uri, key, b"12345", tmp_path)
    code, output, _ = command("gc", run_uri)  # all but the checkpoint of a published task is too young
    assert code == 0 and output.count("\n") == 2 and "checkpoint of pretrain-rlp, which is published" in output
    time.sleep(1.1)  # storage tells times by the second
    code, output, _ = command("gc", run_uri, "--hours", "0")
    lines = output.splitlines()
    assert code == 0 and lines[-1] == "5 objects, 20 bytes could go; --remove deletes them"
    assert all(sum(f"/{key}  (" in line for line in lines) == 1 for key in waste)
    assert "train-base/deep/data.bin  (unfinished upload)" in output and "claim of a dead writer" in output
    assert command("gc", run_uri, "--hours", "0", "--remove")[1].endswith("5 objects, 20 bytes removed\n")
    assert set(storage.connect(run_uri).keys()) == before | kept
    assert command("gc", run_uri, "--hours", "0")[1].startswith("0 objects")
    assert command("verify", run_uri)[0] == 0


def test_gc_keeps_its_hands_off_damaged_artifacts_and_the_insides_of_one(
    run_uri: str, tmp_path: Path, command: Any
) -> None:
    put(f"{run_uri}/train-base", MANIFEST, b"{", tmp_path)
    time.sleep(1.1)
    assert command("gc", run_uri, "--hours", "0", "--remove")[1].startswith("0 objects")
    put(f"{run_uri}/compare/deep", MANIFEST, storage.read_bytes(f"{run_uri}/compare/{MANIFEST}"), tmp_path)
    code, _, errors = command("gc", f"{run_uri}/compare/deep", "--hours", "0", "--remove")
    assert code == 2 and f"lies within the artifact {run_uri}/compare" in errors
    assert storage.exists(f"{run_uri}/compare/deep/data.bin")


def test_gc_refuses_a_folder_of_runs_whose_reports_look_like_artifacts(tmp_path: Path, command: Any) -> None:
    (tmp_path / "one" / "report").mkdir(parents=True)
    (tmp_path / "one" / "run.json").write_text("{}")
    write_manifest(tmp_path / "one" / "report", kind="comparison", settings={}, inputs={}, seed=0, facts={})
    code, _, errors = command("gc", str(tmp_path), "--hours", "0", "--remove")
    assert code == 2 and "is a folder of --runs, not of artifacts" in errors
    assert (tmp_path / "one" / "run.json").exists()


def test_lineage_leads_back_to_data_and_code(run_uri: str, command: Any) -> None:
    code, output, _ = command("lineage", f"{run_uri}/compare")
    lines = output.splitlines()
    assert code == 0 and lines[0].startswith("compare (comparison ") and "code " in lines[0] and "\x1b" not in output
    assert "checkpoint: train-base (checkpoint " in output and "dataset some/set, revision abc123" in output
    assert output.count("shard-corpus (shards ") == 2 and output.count("as above") == 1
    assert "libraries: datasets " in lines[-1] and "torch " in lines[-1]
    code, output, _ = command("lineage", f"{run_uri}/compare", "--json")
    found = json.loads(output)
    assert code == 0 and len(found["artifacts"]) == 4 and found["missing"] == []
    corpus = next(each for each in found["artifacts"].values() if each["name"] == "shard-corpus")
    assert corpus["origins"] == {"corpus": {"dataset": "some/set", "revision": "abc123"}}
    assert corpus["libraries"]["torch"] and corpus["settings"] == {"task": "shard-corpus"}
    assert found["artifacts"][found["artifact"]]["name"] == "compare"


def test_lineage_says_what_is_not_there(run_uri: str, command: Any) -> None:
    store = storage.connect(f"{run_uri}/shard-corpus")
    store.delete(MANIFEST)
    code, output, _ = command("lineage", f"{run_uri}/compare")
    assert code == 0 and output.count("not in this run") == 2
    code, _, errors = command("lineage", f"{run_uri}/shard-corpus")
    assert code == 2 and "no finished artifact there" in errors


def test_folders_are_looked_after_as_well(tmp_path: Path, s3: EmbeddedS3, command: Any) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "data").write_text("1")
    write_manifest(folder, kind="shards", settings={}, inputs={}, seed=0, facts={})
    storage.upload_folder(folder, f"file://{tmp_path}/run/shard-corpus")
    assert command("verify", f"file://{tmp_path}/run")[0] == 0
    assert command("lineage", f"file://{tmp_path}/run/shard-corpus")[0] == 0
    (tmp_path / "run" / "shard-corpus" / ".data.partial").write_text("half")
    code, output, errors = command("gc", f"file://{tmp_path}/run", "--hours", "0", "--remove")
    assert (code, errors) == (0, "") and ".data.partial" in output
    assert sorted(path.name for path in (tmp_path / "run" / "shard-corpus").iterdir()) == ["data", MANIFEST]
