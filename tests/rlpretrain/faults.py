"""Artifacts published and fetched through a network that breaks: what both `make test` and `make soak` run, in two lengths."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlpretrain import storage
from rlpretrain.artifacts import verify, write_manifest
from rlpretrain.errors import UserError
from rlpretrain.s3server import EmbeddedS3
from rlpretrain.stores import claim, s3
from tests.rlpretrain.fault_proxy import FaultProxy

PART = 5 * 2**20  # S3's smallest
RANGE = 2**20
RESTARTS = 5  # of one transfer


@dataclass
class Outcome:
    """What a storm of faults did."""

    artifacts: int = 0
    wrong: int = 0
    lost: int = 0
    restarts: int = 0
    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        return (
            f"{self.requests} requests, {self.faults.total()} faults ({kinds}); {self.artifacts} artifacts published and fetched, "
            f"{self.restarts} transfers started again, {self.wrong} wrong bytes accepted, {self.lost} artifacts lost"
        )


def storm(
    server: EmbeddedS3, bucket: str, folder: Path, faults: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> Outcome:
    """Publish and fetch artifacts, through the proxy, until it has injected ``faults`` faults; look at each without it."""
    monkeypatch.setattr(s3, "MULTIPART_BYTES", PART)
    monkeypatch.setattr(s3, "RANGE_BYTES", RANGE)
    monkeypatch.setattr(s3, "READ_TIMEOUT", 1.0)
    monkeypatch.setattr(s3, "_LONGEST_PAUSE", 0.5)
    monkeypatch.setattr(claim, "LEASE_SECONDS", 10.0)
    # boto3 pauses for up to 20 seconds after SlowDown, which a storm need not wait for.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff._MAX_BACKOFF", 0.2)
    outcome, number = Outcome(), 0
    with FaultProxy(server.endpoint, seed, rate=0.25) as proxy:
        while proxy.faults.total() < faults:
            here, uri = folder / f"{number}", f"{bucket}/{number}"
            manifest = _artifact(here / "made", seed * 1000 + number)
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
            sent = _persistently(lambda here=here, uri=uri: storage.upload_folder(here / "made", uri), outcome)
            fetched = sent and _persistently(
                lambda here=here, uri=uri: storage.download_folder(uri, here / "fetched"), outcome
            )
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
            outcome.artifacts += 1
            outcome.lost += not fetched
            if fetched:
                storage.download_folder(uri, here / "stored")
                for copy in ("fetched", "stored"):
                    outcome.wrong += verify(here / copy) != manifest or _content(here / copy) != _content(here / "made")
            number += 1
        listed = storage.list_artifacts(bucket)
        outcome.lost += number - len(listed)
        outcome.faults, outcome.requests = proxy.faults, len(proxy.passed) + proxy.faults["reset"]
    return outcome


def _persistently(transfer, outcome: Outcome) -> bool:
    for _ in range(RESTARTS):
        try:
            transfer()
            return True
        except UserError:
            outcome.restarts += 1
            time.sleep(0.1)
    return False


def _artifact(folder: Path, seed: int):
    rng = random.Random(seed)
    (folder / "nested").mkdir(parents=True)
    for name, size in (
        ("empty", 0),
        ("nested/small", 1000),
        ("whole", RANGE),
        ("large", 2 * PART + rng.randrange(RANGE)),
    ):
        (folder / name).write_bytes(rng.randbytes(size))
    (folder / "timings").write_text(f"{rng.random()}\n")
    return write_manifest(folder, kind="shards", settings={}, inputs={}, seed=seed, facts={}, volatile=["timings"])


def _content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
