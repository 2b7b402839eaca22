"""The end of a run: `status.json` beside the artifacts, and a message to a webhook where RLP_WEBHOOK_URL names one.

The address comes from the environment alone, where a cluster puts it out of a secret: as a parameter it would stand in the
run's page and in the database. A webhook that cannot be reached is a warning, never a failed run.
"""

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rlpretrain.errors import UserError
from rlpretrain.storage import list_artifacts, write_bytes

STATUS_FILE = "status.json"
SCHEMA_VERSION = 1
WEBHOOK_ENV = "RLP_WEBHOOK_URL"
WEBHOOK_SECONDS = 10.0
_SUCCEEDED = ("SUCCEEDED", "COMPLETE", "SUCCESS")  # Kubeflow's words, Argo's, kfp's on one machine


def report(run_name: str, run_uri: str, state: str, job: str = "", error: str = "") -> dict[str, Any]:
    """Write the status of the run whose artifacts lie below ``run_uri``, notify, and return the status."""
    ended = "SUCCEEDED" if state.upper() in _SUCCEEDED else state.upper()
    artifacts = [uri.rpartition("/")[2] for uri in list_artifacts(run_uri)]
    status = {
        "schema_version": SCHEMA_VERSION,
        "run_name": run_name,
        "state": ended,
        "job": job,
        "error": "" if ended == "SUCCEEDED" else error,
        "artifacts": artifacts,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_bytes(f"{run_uri}/{STATUS_FILE}", f"{json.dumps(status, indent=2)}\n".encode())
    print(f"{run_name}: {ended}, {len(artifacts)} artifacts, {run_uri}/{STATUS_FILE}")
    if address := os.environ.get(WEBHOOK_ENV):
        problem = notify(address, status, run_uri)
        print(f"warning: the webhook did not take the status: {problem}" if problem else "the webhook was told")
    return status


def notify(address: str, status: dict[str, Any], run_uri: str) -> str | None:
    """Post the status as JSON, with a `text` that chat services show; returns what went wrong, without the address."""
    text = f"RLP run {status['run_name']}: {status['state']}. {run_uri}"
    body = json.dumps({"text": text, "status": status}).encode()
    try:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=WEBHOOK_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return f"it answered {error.code}"
    except (OSError, ValueError) as error:
        return type(getattr(error, "reason", error)).__name__


def run_report(run_name: str, run_uri: str, state: str, job: str = "", error: str = "") -> None:
    """`report` as the body of a task: what a user can mend ends the process with one line and exit code 2."""
    try:
        report(run_name, run_uri, state, job, error)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def main(arguments: Iterable[str] | None = None) -> None:
    """The shell form."""
    parser = argparse.ArgumentParser(prog="python -m components.report_status")
    parser.add_argument("--run-name", required=True)
    parser.add_argument("--publish", required=True, metavar="URI", help="s3:// or file:// place of the run's artifacts")
    parser.add_argument("--state", required=True, help="how the run ended, for example Succeeded")
    parser.add_argument("--job", default="", help="the scheduler's name of the run")
    parser.add_argument("--error", default="", help="what went wrong")
    options = parser.parse_args(None if arguments is None else list(arguments))
    run_report(options.run_name, options.publish, options.state, options.job, options.error)
