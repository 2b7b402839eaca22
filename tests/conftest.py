"""What all tests share: no network, and a real S3 server for those that ask for it."""

import os

# Before any import of the libraries, which read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlpretrain.s3server import EmbeddedS3


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """One server for the session; the environment does not point to it. Most tests want `s3` or `s3_bucket`."""
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> EmbeddedS3:
    """The session's S3 server, with boto3's environment, also that of child processes, pointing to it for one test."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    # The credentials and settings of whoever runs the tests are not to be used.
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def s3_bucket(s3: EmbeddedS3) -> str:
    """URI of a fresh, empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One real browser for the session."""
    from tests.browser import launched  # Playwright is loaded for the tests that look at pages alone

    with launched() as browser:
        yield browser


@pytest.fixture
def browse(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages for one test, see `tests.browser.visiting`."""
    from tests.browser import visiting

    with visiting(chromium) as visit:
        yield visit
