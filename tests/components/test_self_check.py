"""The self-check of a stage: a line each, no secret, and an exit code that a scheduler can go by."""

import sys

import pytest

from components.frame import main
from rlpretrain.s3server import EmbeddedS3

LINES = ["stage", "versions", "user", "gpu", "s3"]


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str]]:
    code = main("shard_data", ["--self-check", *arguments])
    return code, dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())


def test_all_is_well_where_s3_answers(s3: EmbeddedS3, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = check(capsys)
    assert code == 0 and list(said) == LINES
    assert said["stage"].startswith("shard_data loads, code ") and "transformers" in said["versions"]
    assert said["s3"] == f"{s3.endpoint} answers and takes the credentials"
    assert s3.secret_key not in str(said) and s3.access_key not in str(said)


def test_a_place_to_publish_to_is_asked_for_by_name(s3_bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys, "--publish", f"{s3_bucket}/runs")[1]["s3"].startswith(f"{s3_bucket}/runs answers")
    code, said = check(capsys, "--publish", "s3://nowhere/runs")
    assert code == 1 and said["s3"].startswith("FAILED, ") and "there is no bucket 'nowhere'" in said["s3"]


def test_wrong_credentials_fail_and_are_not_shown(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    code, said = check(capsys)
    assert code == 1 and said["s3"].startswith("FAILED, ") and "check the key and its secret" in said["s3"]
    assert "not-the-secret" not in str(said)


def test_a_server_that_does_not_answer_fails(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    code, said = check(capsys)
    assert code == 1 and "Could not connect" in said["s3"] and list(said) == LINES


def test_without_credentials_s3_is_not_asked(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    code, said = check(capsys)
    assert code == 0 and said["s3"].startswith("no credentials, so not asked")


def test_a_stage_that_does_not_load_fails(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "components.shard_data.stage", None)  # as where a package is missing
    code, said = check(capsys)
    assert code == 1 and said["stage"].startswith("FAILED, ") and list(said) == LINES
