"""Shared fixtures. Tests run offline, on the CPU."""

import os
import secrets
from collections.abc import Iterator

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server for the session; boto3's environment points to it."""
    from rlpretrain.s3server import EmbeddedS3

    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server.endpoint


@pytest.fixture
def bucket(s3: str) -> str:
    """The URI of a fresh bucket."""
    from rlpretrain.storage import create_bucket

    uri = f"s3://test-{secrets.token_hex(6)}"
    create_bucket(uri)
    return uri
