"""S3 as a store: parallel parts with checksums end to end, transfers that go on where they stopped, one writer at a time.

boto3 tries requests again, with jitter, after lost connections, 5xx and SlowDown (its standard mode). Tried again here is what
it does not see: bodies cut or damaged on their way, answers that are no XML, uploads that the server forgot.
"""

import hashlib
import os
import random
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rlpretrain.artifacts import write_bytes_atomically
from rlpretrain.errors import Damaged, UserError, local_errors
from rlpretrain.stores.claim import Claim
from rlpretrain.stores.interface import CLAIM, Stored, Unfinished
from rlpretrain.stores.pieces import Piece, PieceFile, PieceReader, pieces_of, read_piece
from rlpretrain.stores.s3errors import (
    CHANGED,
    LOST_UPLOAD,
    MISSING,
    DamagedOnTheWay,
    code_of,
    damaged,
    may_pass,
    one_line,
    told,
)

T = TypeVar("T")
MULTIPART_BYTES = 8 * 2**20  # a part of an upload; S3 takes no smaller ones than 5 MiB
RANGE_BYTES = 8 * 2**20  # a part of a download
# Bodies on their way at a time, each in memory; where threads outnumber the cores by far, they hold each other up.
WORKERS = min(10, 2 * (os.cpu_count() or 1))
TRIES = 6  # of what boto3 does not try again
READ_TIMEOUT = 60.0  # seconds without a byte until a connection counts as lost
_ATTEMPTS = 6  # of boto3, in all; AWS_MAX_ATTEMPTS overrides it
_LONGEST_PAUSE = 8.0  # seconds


class S3Store:
    """A prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        retries: Any = {"mode": "standard"}
        if "AWS_MAX_ATTEMPTS" not in os.environ:
            retries["total_max_attempts"] = _ATTEMPTS
        # Checksums are asked for where they are wanted: other S3 servers refuse those boto3 adds by itself.
        config = Config(
            connect_timeout=10,
            read_timeout=READ_TIMEOUT,
            retries=retries,
            max_pool_connections=4 * WORKERS,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # Bodies carry a checksum that is signed and that the server compares: a second one for the signature says no more.
            s3={"payload_signing_enabled": False},
        )
        self._claim: Claim | None = None  # of the block that `one_writer` is around
        self._room = threading.BoundedSemaphore(WORKERS)
        try:
            # A session of its own: boto3's default one keeps the credentials of its first use.
            self.client: Any = boto3.session.Session().client("s3", config=config)
        except (BotoCoreError, ValueError) as error:
            raise UserError(f"S3 is configured wrongly: {one_line(error)}; check the AWS_ variables") from None

    # --- writing ---

    def put_files(self, files: Mapping[str, tuple[Path, str]]) -> None:
        present = {stored.key for stored in self.stored()}
        _side_by_side(self._put, [(key, path, sha256, key in present) for key, (path, sha256) in files.items()])

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        self._put(key, path, sha256, present=True)

    def put_new(self, key: str, content: bytes) -> bool:
        with self._told(key):
            try:
                self._call("put_object", key, Body=content, ChecksumSHA256=_sha256(content), IfNoneMatch="*")
            except ClientError as error:
                if code_of(error) not in CHANGED:
                    raise
                # It may be this very request that stored it, whose answer was lost.
                return self.get_bytes(key) == content
        return True

    @contextmanager
    def one_writer(self, ended: Callable[[], bool]) -> Iterator[Callable[[], None]]:
        claim = Claim(self._call, self._object, self._place(""))
        with self._told(CLAIM):
            claimed = claim.acquire(ended)
        self._claim = claim if claimed else None
        try:
            yield claim.check if claimed else lambda: None
        finally:
            self._claim = None
            if claimed:
                with self._told(CLAIM):
                    claim.release()

    def delete(self, key: str) -> None:
        with self._told(key):
            self._call("delete_object", key)

    # --- reading ---

    def get_files(self, files: Mapping[str, tuple[Path, str | None]]) -> None:
        _side_by_side(self._get, [(key, path, sha256) for key, (path, sha256) in files.items()])

    def get_file(self, key: str, path: Path) -> None:
        self._get(key, path, None)

    def get_bytes(self, key: str) -> bytes:
        with self._told(key):
            return self._object(key)[0]

    def sha256(self, key: str) -> tuple[int, str]:
        with self._told(key):
            head = self._head(key, required=True)
            assert head is not None
            digest = hashlib.sha256()
            for piece in pieces_of(head["ContentLength"], RANGE_BYTES):
                digest.update(self._fetch(key, piece, head))
        return head["ContentLength"], digest.hexdigest()

    def exists(self, key: str) -> bool:
        with self._told(key):
            return self._head(key) is not None

    def keys(self) -> Iterator[str]:
        for stored in self.stored():
            yield stored.key

    def stored(self) -> Iterator[Stored]:
        with self._told(""):
            entries = self._pages("list_objects_v2", "Contents", Prefix=self.prefix)
        for entry in entries:
            key = entry["Key"].removeprefix(self.prefix)
            # Some tools put empty objects named like folders.
            if key and not key.endswith("/"):
                yield Stored(key, entry["Size"], time.time() - entry["LastModified"].timestamp())

    def unfinished(self) -> Iterator[Unfinished]:
        with self._told(""):
            entries = self._pages("list_multipart_uploads", "Uploads", Prefix=self.prefix)
        for entry in entries:
            age = time.time() - entry["Initiated"].timestamp()
            yield Unfinished(entry["Key"].removeprefix(self.prefix), entry["UploadId"], age)

    def abort(self, upload: Unfinished) -> None:
        with self._told(upload.key):
            self._abort(upload.key, upload.upload)

    def require_bucket(self) -> None:
        """UserError when there is no such bucket: some servers would make one up on the first write."""
        with self._told(""):
            _again(self._ask_for_bucket)

    def create_bucket(self) -> None:
        """Create the bucket unless it is there."""
        with self._told(""):
            try:
                _again(self._ask_for_bucket)
            except ClientError as error:
                if code_of(error) != "NoSuchBucket":
                    raise
                # S3's first region is the default, and must not be named.
                region = self.client.meta.region_name
                default = region in (None, "us-east-1", "aws-global")
                place = {} if default else {"CreateBucketConfiguration": {"LocationConstraint": region}}
                self.client.create_bucket(Bucket=self.bucket, **place)

    # --- one file ---

    def _put(self, key: str, path: Path, sha256: str, present: bool) -> None:
        """Send one file; ``present``: something may be there already."""
        with self._told(key):
            put = self._put_whole if _size(path) < MULTIPART_BYTES else self._put_parts
            _again(lambda: put(key, path, sha256, present), _needs_the_whole)

    def _put_whole(self, key: str, path: Path, sha256: str, present: bool) -> None:
        with self._room:
            with local_errors(path):
                body = path.read_bytes()
            if hashlib.sha256(body).hexdigest() != sha256:
                raise damaged(self._place(key))
            checksum = _base64(sha256)
            if not (present and self._holds(key, len(body), sha256, ChecksumSHA256=checksum)):
                self._require_claim()
                self._call("put_object", key, Body=body, ChecksumSHA256=checksum, Metadata={"sha256": sha256})

    def _put_parts(self, key: str, path: Path, sha256: str, present: bool) -> None:
        """Send a large file. The server checks the CRC-32 of each part, and what it is sent has the sha256 of the whole."""
        pieces = pieces_of(_size(path), MULTIPART_BYTES)
        if present and self._holds(key, pieces[-1].end, sha256):
            reader = PieceReader(path, pieces)
            sums = [_crc32(reader.next()[1]) for _ in pieces]
            if self._holds(key, pieces[-1].end, sha256, ChecksumCRC32=_composite(sums)) and reader.sha256() == sha256:
                return
        upload, begun = self._resumed(key, path, pieces)
        if upload is None:
            made = self._call("create_multipart_upload", key, ChecksumAlgorithm="CRC32", Metadata={"sha256": sha256})
            upload = made["UploadId"]
        reader = PieceReader(path, pieces)
        try:
            parts = _side_by_side(self._put_part, [(key, reader, upload, begun)] * len(pieces))
        except ClientError as error:
            if not begun or code_of(error) != "InvalidRequest":
                raise
            # Another tool began that upload, with checksums of another kind.
            self._abort(key, upload)
            raise DamagedOnTheWay("an upload that was begun before takes no more parts") from error
        if reader.sha256() != sha256:
            self._abort(key, upload)
            raise damaged(self._place(key))
        parts.sort(key=lambda part: part["PartNumber"])
        self._require_claim()
        self._call("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts})
        checksum = _composite([part["ChecksumCRC32"] for part in parts])
        if not self._holds(key, pieces[-1].end, sha256, ChecksumCRC32=checksum):
            raise DamagedOnTheWay("what was stored is not what was sent")

    def _put_part(
        self, key: str, reader: PieceReader, upload: str, begun: Mapping[int, dict[str, Any]]
    ) -> dict[str, Any]:
        """Send the next part, unless the upload has it already."""
        with self._room:
            piece, body = reader.next()
            part = {"PartNumber": piece.number, "ChecksumCRC32": _crc32(body)}
            there = begun.get(piece.number)
            if there and there["ChecksumCRC32"] == part["ChecksumCRC32"]:
                return there
            answer = self._call("upload_part", key, UploadId=upload, Body=body, **part)
        return {**part, "ETag": answer["ETag"]}

    def _require_claim(self) -> None:
        """UserError when this writer's claim may be another's by now: what it stores could overwrite that one's."""
        if self._claim:
            self._claim.check_here()

    def _resumed(self, key: str, path: Path, pieces: list[Piece]) -> tuple[str | None, dict[int, dict[str, Any]]]:
        """An upload of this file that was begun before, and its parts; others of this key are dropped."""
        found: tuple[str | None, dict[int, dict[str, Any]]] = None, {}
        for begun in self._pages("list_multipart_uploads", "Uploads", Prefix=self.prefix + key):
            if begun["Key"] != self.prefix + key:
                continue
            upload = begun["UploadId"]
            parts = self._same_parts(key, path, pieces, upload) if found[0] is None else None
            if parts:
                found = upload, parts
            else:
                self._abort(key, upload)
        return found

    def _same_parts(self, key: str, path: Path, pieces: list[Piece], upload: str) -> dict[int, dict[str, Any]] | None:
        """The finished parts of an upload; None when one of them is not this file's."""
        by_number = {piece.number: piece for piece in pieces}
        parts = {}
        for part in self._pages("list_parts", "Parts", Key=self.prefix + key, UploadId=upload):
            piece = by_number.get(part["PartNumber"])
            if piece is None or part["Size"] != piece.length:
                return None
            body = read_piece(path, piece)
            checksum, listed = _crc32(body), part.get("ChecksumCRC32")
            # Not every server lists the checksum; the ETag of a part is its MD5 then.
            same = listed == checksum if listed else part["ETag"].strip('"') == hashlib.md5(body).hexdigest()
            if not same:
                return None
            parts[piece.number] = {"PartNumber": piece.number, "ETag": part["ETag"], "ChecksumCRC32": checksum}
        return parts

    def _holds(self, key: str, size: int, sha256: str, **checksums: str) -> bool:
        """Whether a complete object of this content is there; ``checksums`` are compared where the server has them."""
        head = self._head(key)
        if head is None or head["ContentLength"] != size or head["Metadata"].get("sha256") != sha256:
            return False
        return all(head.get(name, checksum) == checksum for name, checksum in checksums.items())

    def _get(self, key: str, path: Path, sha256: str | None) -> None:
        with self._told(key):
            with self._room:
                body, head = self._first(key)
                expected, size = sha256 or _known_sha256(head), head["size"]
                if len(body) == size and (expected is None or hashlib.sha256(body).hexdigest() == expected):
                    with local_errors(path):
                        write_bytes_atomically(path, body)
                    return
            target = PieceFile(path, size, head["ETag"], RANGE_BYTES)
            if len(body) == target.pieces[0].length:
                target.write(target.pieces[0], body)
            del body
            _side_by_side(self._get_piece, [(key, piece, head, target) for piece in target.missing()])
            if not target.is_right(expected):
                _side_by_side(self._settle, [(key, piece, head, target) for piece in target.pieces])
                if not target.is_right(expected):
                    target.drop()
                    raise Damaged(
                        f"{self._place(key)}: corrupted in storage, its bytes have another checksum; make it again"
                    )
            target.finish()

    def _first(self, key: str) -> tuple[bytes, dict[str, Any]]:
        """The first range of an object, for a small one all of it, and what the server says of the object, with its `size`."""

        def get() -> tuple[bytes, dict[str, Any]]:
            try:
                answer = self.client.get_object(**self._at(key), Range=f"bytes=0-{RANGE_BYTES - 1}")
            except ClientError as error:
                if code_of(error) not in ("InvalidRange", "416"):  # what an empty object has
                    raise
                head = self._head(key, required=True)
                assert head is not None
                return b"", {**head, "size": 0}
            size = int(answer["ContentRange"].rpartition("/")[2])
            return _whole_body(answer["Body"], min(size, RANGE_BYTES)), {**answer, "size": size}

        return _again(get)

    def _get_piece(self, key: str, piece: Piece, head: Mapping[str, Any], target: PieceFile) -> None:
        with self._room:
            target.write(piece, self._fetch(key, piece, head))

    def _settle(self, key: str, piece: Piece, head: Mapping[str, Any], target: PieceFile) -> None:
        """Read a part of a file with a wrong checksum until two readings agree: S3 has no checksums of ranges."""
        seen = {target.checksum(piece)}
        for _ in range(TRIES):
            with self._room:
                body = self._fetch(key, piece, head)
                checksum = crc32(body)
                if checksum in seen:
                    target.write(piece, body)
                    return
            seen.add(checksum)
        raise DamagedOnTheWay(f"no two of {TRIES} readings of bytes {piece.start} to {piece.end} agree")

    def _fetch(self, key: str, piece: Piece, head: Mapping[str, Any]) -> bytes:
        if piece.length == 0:
            return b""

        def get() -> bytes:
            # If-Match: all parts are of one and the same object, also when another takes its place meanwhile.
            where = {"Range": f"bytes={piece.start}-{piece.end - 1}", "IfMatch": head["ETag"]}
            return _whole_body(self.client.get_object(**self._at(key), **where)["Body"], piece.length)

        return _again(get)

    def _object(self, key: str) -> tuple[bytes, str]:
        """A small object and its ETag."""

        def get() -> tuple[bytes, str]:
            # The checksum that was stored with it is compared by boto3.
            answer = self.client.get_object(**self._at(key), ChecksumMode="ENABLED")
            return answer["Body"].read(), answer["ETag"]

        return _again(get)

    def _head(self, key: str, required: bool = False) -> dict[str, Any] | None:
        try:
            return self._call("head_object", key, ChecksumMode="ENABLED")
        except ClientError as error:
            if required or code_of(error) not in MISSING:
                raise
            return None

    def _abort(self, key: str, upload: str) -> None:
        try:
            self._call("abort_multipart_upload", key, UploadId=upload)
        except ClientError as error:
            if code_of(error) not in LOST_UPLOAD:
                raise

    def _pages(self, operation: str, field: str, **where: Any) -> list[dict[str, Any]]:
        def pages() -> list[dict[str, Any]]:
            found = self.client.get_paginator(operation).paginate(Bucket=self.bucket, **where)
            return [entry for page in found for entry in page.get(field, [])]

        return _again(pages)

    def _call(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        return _again(lambda: getattr(self.client, operation)(**self._at(key), **arguments))

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    def _place(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def _ask_for_bucket(self) -> None:
        """ClientError, NoSuchBucket for one, unless the bucket can be listed. HEAD's answer has no body to tell by."""
        self.client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)

    def _told(self, key: str) -> Any:
        return told(self._place(key), self.bucket, self.client.meta.endpoint_url)


def _again(call: Callable[[], T], passes: Callable[[Exception], bool] = may_pass) -> T:
    """``call``, tried again after errors that may pass, with pauses of random length."""
    for tried in range(1, TRIES):
        try:
            return call()
        except Exception as error:
            if not passes(error):
                raise
        time.sleep(random.random() * min(0.1 * 2**tried, _LONGEST_PAUSE))
    return call()


def _needs_the_whole(error: Exception) -> bool:
    """Whether a file is to be sent from its beginning, for its upload is gone or came out wrong."""
    return code_of(error) in LOST_UPLOAD or isinstance(error, DamagedOnTheWay)


def _side_by_side(call: Callable[..., T], arguments: Iterable[tuple[Any, ...]]) -> list[T]:
    """Results, as they come, of calls in threads; the first error ends what has not begun."""
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(call, *each) for each in arguments]
        try:
            return [future.result() for future in as_completed(futures)]
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def _known_sha256(head: Mapping[str, Any]) -> str | None:
    """What storage itself says of an object's content, for files without a manifest."""
    stored = head.get("ChecksumSHA256", "")
    if stored and "-" not in stored:
        return b64decode(stored).hex()
    return head["Metadata"].get("sha256")


def _whole_body(body: Any, length: int) -> bytes:
    content = body.read()
    if len(content) != length:
        raise DamagedOnTheWay(f"{len(content)} bytes came instead of {length}")
    return content


def _sha256(content: bytes) -> str:
    return b64encode(hashlib.sha256(content).digest()).decode()


def _crc32(content: bytes) -> str:
    return b64encode(crc32(content).to_bytes(4, "big")).decode()


def _base64(sha256: str) -> str:
    return b64encode(bytes.fromhex(sha256)).decode()


def _composite(checksums: Sequence[str]) -> str:
    """S3's checksum of an object out of parts: that of the parts' checksums, and their number."""
    return f"{_crc32(b''.join(map(b64decode, checksums)))}-{len(checksums)}"


def _size(path: Path) -> int:
    with local_errors(path):
        return path.stat().st_size
