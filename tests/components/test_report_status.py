"""The end of a run: its status in storage, and a webhook that may be there, wrong, slow or absent."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.report_status import stage
from components.report_status.stage import WEBHOOK_ENV, main, report
from rlpretrain.artifacts import write_manifest
from rlpretrain.storage import read_bytes, upload_folder


class Webhook(ThreadingHTTPServer):
    """A server that keeps what it is told, and answers `code` after `wait` seconds."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.code, self.wait = 200, 0.0
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook-s3cret"


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append(json.loads(body))
        time.sleep(self.server.wait)
        self.send_response(self.server.code)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    server = Webhook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(WEBHOOK_ENV, server.address)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run_uri(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv(WEBHOOK_ENV, raising=False)
    folder = tmp_path / "sft-rlp"
    folder.mkdir()
    (folder / "text").write_text("abc")
    write_manifest(folder, kind="checkpoint", settings={}, inputs={}, seed=0, facts={})
    upload_folder(folder, f"{s3_bucket}/runs/mine/sft-rlp")
    return f"{s3_bucket}/runs/mine"


def stored(uri: str) -> dict[str, Any]:
    return json.loads(read_bytes(f"{uri}/status.json"))


def test_a_failed_run_says_how_far_it_came(run_uri: str) -> None:
    report("mine", run_uri, "FAILED", "job-1", "Task arms failed.")
    status = stored(run_uri)
    assert status.pop("finished_at").endswith("+00:00")
    assert status == {
        "schema_version": 1,
        "run_name": "mine",
        "state": "FAILED",
        "job": "job-1",
        "error": "Task arms failed.",
        "artifacts": ["sft-rlp"],
    }


@pytest.mark.parametrize(("word", "state"), [("SUCCEEDED", "SUCCEEDED"), ("COMPLETE", "SUCCEEDED"), ("Error", "ERROR")])
def test_schedulers_words_for_an_end(run_uri: str, word: str, state: str) -> None:
    assert report("mine", run_uri, word)["state"] == state
    assert report("mine", run_uri, "Succeeded")["state"] == "SUCCEEDED", "a second try writes over the first"
    assert stored(run_uri)["state"] == "SUCCEEDED"


def test_the_webhook_is_told(run_uri: str, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK_ENV, webhook.address)
    status = report("mine", run_uri, "Succeeded")
    assert webhook.told == [{"text": f"RLP run mine: SUCCEEDED. {run_uri}", "status": status}]


@pytest.mark.parametrize("trouble", ["refused", "slow", "gone", "no address"])
def test_a_webhook_that_fails_is_a_warning_without_its_address(
    run_uri: str,
    webhook: Webhook,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(stage, "WEBHOOK_SECONDS", 0.2)
    webhook.code, webhook.wait = (500, 0.0) if trouble == "refused" else (200, 1.0)
    address = {"gone": "http://127.0.0.1:9/hook-s3cret", "no address": "hook-s3cret"}.get(trouble, webhook.address)
    monkeypatch.setenv(WEBHOOK_ENV, address)
    main(["--run-name", "mine", "--publish", run_uri, "--state", "Succeeded"])
    said = capsys.readouterr()
    assert "warning: the webhook did not take the status: " in said.out
    assert "s3cret" not in said.out + said.err
    assert stored(run_uri)["state"] == "SUCCEEDED"


def test_storage_that_is_not_there_is_one_line(s3: object) -> None:
    command = [sys.executable, "-m", "components.report_status", "--run-name", "a", "--state", "Failed"]
    done = subprocess.run([*command, "--publish", "s3://no-such-bucket/a"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
