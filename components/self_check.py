"""Whether a stage would work where it is: python -m components.STAGE --self-check [--publish URI].

One line each on versions, user, GPU and S3; no secret is printed. Exit code 0; 1 when the stage does not load, the folder for
temporary files cannot be written, or S3 is configured but does not answer or refuses the credentials.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

from rlpretrain.artifacts import LIBRARIES, code_digest
from rlpretrain.errors import UserError

S3_SECONDS = 5  # to wait for a connection, and for an answer
_NOT_ALLOWED = "AccessDenied"  # the key is right, but may not list all buckets


def self_check(stage: str, publish_uri: str = "") -> int:
    """Print a line for each check; returns the exit code. ``publish_uri``: ask for this place rather than for S3 as such."""
    checks: dict[str, Callable[[], str]] = {
        "stage": lambda: _stage(stage),
        "versions": _versions,
        "user": _user,
        "gpu": _gpu,
        "s3": lambda: _s3(publish_uri),
    }
    failed = 0
    for name, check in checks.items():
        try:
            print(f"{name}: {check()}", flush=True)
        except (ImportError, UserError, OSError) as error:
            failed = 1
            print(f"{name}: FAILED, {' '.join(str(error).split())}", flush=True)
    return failed


def _stage(name: str) -> str:
    importlib.import_module(f"components.{name}.stage")
    return f"{name} loads, code {code_digest()[:12]}"


def _versions() -> str:
    found = [f"python {platform.python_version()}"]
    for name in (*LIBRARIES, "kfp", "boto3"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue  # an image holds what its own stages import
    return ", ".join(found)


def _user() -> str:
    with tempfile.NamedTemporaryFile() as file:
        return f"id {os.getuid()}, temporary files in {Path(file.name).parent}"


def _gpu() -> str:
    if importlib.util.find_spec("torch") is None:
        return "none asked for (no torch here)"
    import torch

    if torch.version.cuda is None:
        return "none (torch is built for the CPU)"
    if not torch.cuda.is_available():
        return f"none visible (torch is built for CUDA {torch.version.cuda})"
    first = torch.cuda.get_device_properties(0)
    return f"{torch.cuda.device_count()} x {first.name}, {first.total_memory / 2**30:.0f} GiB each, CUDA {torch.version.cuda}"


def _s3(publish_uri: str) -> str:
    import boto3  # a second to import, like torch: after the lines that need neither
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    from rlpretrain.storage import connect

    if publish_uri:
        connect(publish_uri)
        return f"{publish_uri} answers and takes the credentials"
    session = boto3.session.Session()
    try:
        if session.get_credentials() is None:
            return "no credentials, so not asked; set the AWS_ variables or give --publish URI"
        config = Config(connect_timeout=S3_SECONDS, read_timeout=S3_SECONDS, retries={"total_max_attempts": 1})
        client = session.client("s3", config=config)
        client.list_buckets()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != _NOT_ALLOWED:
            raise UserError(f"{client.meta.endpoint_url} refused: {error}; check the key and its secret") from None
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"{error}; check the AWS_ variables and that the server runs") from None
    return f"{client.meta.endpoint_url} answers and takes the credentials"
