"""A claim on an artifact's place in S3: one writer at a time, without clocks that agree and without a server of locks.

The claim is an object that is made with If-None-Match and rewritten, with If-Match, every few seconds. Whoever finds one
watches it; when it has stood still for LEASE_SECONDS its writer is dead, and one of those who watch takes it over.
"""

import hashlib
import json
import sys
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from rlpretrain.errors import UserError
from rlpretrain.stores.interface import CLAIM
from rlpretrain.stores.s3errors import CHANGED, MISSING, code_of

LEASE_SECONDS = 60.0
_BEATS = 6  # in a lease
_LOOK_SECONDS = 1.0


class Claim:
    """Of one writer; ``call`` and ``get`` are S3Store's ways to ask the server."""

    def __init__(self, call: Callable[..., Any], get: Callable[[str], tuple[bytes, str]], place: str) -> None:
        self.lost = False
        self._call = call
        self._get = get
        self._place = place
        self._writer = uuid.uuid4().hex
        self._beat = 0
        self._etag = ""
        self._renewed = 0.0  # when it was ours for certain
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="claim", daemon=True)

    def acquire(self, ended: Callable[[], bool]) -> bool:
        """Wait for the claim; False when ``ended`` came first."""
        standing, since = "", time.monotonic()
        while not self._put({"IfNoneMatch": "*"}):
            found = self._read()
            if found is not None and found != standing:
                if not standing:
                    print(f"{self._place}: another writer is at work here; waiting for it", file=sys.stderr, flush=True)
                standing, since = found, time.monotonic()
            if found is not None and time.monotonic() - since > LEASE_SECONDS and self._put({"IfMatch": found}):
                break
            if ended():
                return False
            time.sleep(min(_LOOK_SECONDS, LEASE_SECONDS / _BEATS))
        self._thread.start()
        return True

    def check(self) -> None:
        """UserError when the claim is another writer's by now, for this process stood still for too long."""
        with self._lock:
            self.lost = self.lost or not self._put({"IfMatch": self._etag})
        self.check_here()

    def check_here(self) -> None:
        """The same without asking the server: UserError also when another writer may have taken over by now."""
        if self.lost or time.monotonic() - self._renewed > LEASE_SECONDS:
            raise UserError(f"{self._place}: another writer took over, for this one stood still too long; try again")

    def release(self) -> None:
        """Let others in."""
        self._released.set()
        self._thread.join()
        if not self.lost:
            try:
                self._call("delete_object", CLAIM, IfMatch=self._etag)
            except ClientError as error:
                if code_of(error) not in (*CHANGED, *MISSING):
                    raise

    def _keep(self) -> None:
        while not self._released.wait(LEASE_SECONDS / _BEATS):
            try:
                with self._lock:
                    self.lost = not self._put({"IfMatch": self._etag})
            except (
                Exception
            ):  # the server cannot be reached: the transfer itself will say so, or the next beat gets through
                continue
            if self.lost:
                return

    def _put(self, condition: dict[str, str]) -> bool:
        """Write the claim under a condition; whether it is ours then."""
        self._beat += 1
        sent = time.monotonic()
        body = json.dumps({"writer": self._writer, "beat": self._beat}).encode()
        checksum = b64encode(hashlib.sha256(body).digest()).decode()
        try:
            self._etag = self._call("put_object", CLAIM, Body=body, ChecksumSHA256=checksum, **condition)["ETag"]
            self._renewed = sent
            return True
        except ClientError as error:
            if code_of(error) not in (*CHANGED, *MISSING):
                raise
        return self._is_ours()

    def _is_ours(self) -> bool:
        """After a refusal: a request whose answer was lost is sent again, and then stands in its own way."""
        asked = time.monotonic()
        try:
            body, etag = self._get(CLAIM)
        except ClientError as error:
            if code_of(error) not in MISSING:
                raise
            return False
        if json.loads(body)["writer"] != self._writer:
            return False
        self._etag = etag
        self._renewed = asked
        return True

    def _read(self) -> str | None:
        """The standing claim's ETag; None when it is gone."""
        try:
            return self._call("head_object", CLAIM)["ETag"]
        except ClientError as error:
            if code_of(error) not in MISSING:
                raise
            return None
