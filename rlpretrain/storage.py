"""s3:// and file:// behind one small interface: transfer with checksums, and publication by manifest last.

An artifact at a URI exists when its manifest.json does. Endpoint, region and credentials of S3 come from boto3's own
environment and files (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, roles, ...); see boto3's guide to configuration.
"""

import base64
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, Protocol
from urllib.parse import quote, unquote

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)

from rlpretrain.artifacts import (
    MANIFEST,
    check_files,
    file_sha256,
    parse_manifest,
    read_manifest,
    write_bytes_atomically,
)
from rlpretrain.errors import UserError

MULTIPART_BYTES = 8 * 2**20
_ATTEMPTS = 6  # in all; AWS_MAX_ATTEMPTS overrides it
_TRANSFER = TransferConfig(multipart_threshold=MULTIPART_BYTES, multipart_chunksize=MULTIPART_BYTES, max_concurrency=8)
_MISSING = ("NoSuchKey", "404", "NotFound")
_REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "403", "Forbidden")
_DAMAGED = ("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest")


class Store(Protocol):
    """Objects by key below one root. All raise UserError for what a user can mend."""

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        """Store a file; refused when its bytes are not those of the hex ``sha256``."""

    def get_file(self, key: str, path: Path) -> None:
        """Fetch an object into a file, whose folder must exist."""

    def get_bytes(self, key: str) -> bytes:
        """An object's content."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def delete(self, key: str) -> None:
        """Remove an object."""

    def keys(self) -> Iterator[str]:
        """Keys of all objects below the root."""


class FileStore:
    """A folder of this machine, or of a mounted file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        target = self.root / key
        partial = target.with_name(f".{target.name}.partial")
        with self._errors(key):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, partial)
            if file_sha256(partial) != sha256:
                partial.unlink()
                raise _damaged(str(target))
            partial.replace(target)

    def get_file(self, key: str, path: Path) -> None:
        with self._errors(key):
            shutil.copyfile(self.root / key, path)

    def get_bytes(self, key: str) -> bytes:
        with self._errors(key):
            return (self.root / key).read_bytes()

    def exists(self, key: str) -> bool:
        return (self.root / key).is_file()

    def delete(self, key: str) -> None:
        with self._errors(key):
            (self.root / key).unlink(missing_ok=True)

    def keys(self) -> Iterator[str]:
        for path in sorted(self.root.rglob("*")):
            unfinished = path.name.startswith(".") and path.name.endswith(".partial")
            if path.is_file() and not unfinished:
                yield path.relative_to(self.root).as_posix()

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise UserError(f"{self.root / key} does not exist; check the address") from None
        except OSError as error:
            raise UserError(
                f"{self.root / key}: {error.strerror}; check the address, its rights and the disk"
            ) from None


class S3Store:
    """A prefix of a bucket. Uploads carry a SHA-256 that the server checks; large files go in parts."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        retries: Any = {"mode": "standard"}
        if "AWS_MAX_ATTEMPTS" not in os.environ:
            retries["total_max_attempts"] = _ATTEMPTS
        # Checksums are asked for where they are wanted: other S3 servers refuse those boto3 adds by itself.
        config = Config(
            connect_timeout=10,
            read_timeout=60,
            retries=retries,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            # A session of its own: boto3's default one keeps the credentials of its first use.
            self.client: Any = boto3.session.Session().client("s3", config=config)
        except (BotoCoreError, ValueError) as error:
            raise UserError(f"S3 is configured wrongly: {_one_line(error)}; check the AWS_ variables") from None

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        place = {"Bucket": self.bucket, "Key": self.prefix + key}
        with self._errors(key):
            if path.stat().st_size < MULTIPART_BYTES:
                checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
                self.client.put_object(**place, Body=path.read_bytes(), ChecksumSHA256=checksum)
                return
            # The server checks each part; S3 has no SHA-256 of a whole multipart object, so that one is checked here.
            if file_sha256(path) != sha256:
                raise _damaged(self._place(key))
            extra = {"ChecksumAlgorithm": "SHA256", "Metadata": {"sha256": sha256}}
            self.client.upload_file(str(path), **place, ExtraArgs=extra, Config=_TRANSFER)

    def get_file(self, key: str, path: Path) -> None:
        with self._errors(key):
            self.client.download_file(self.bucket, self.prefix + key, str(path), Config=_TRANSFER)

    def get_bytes(self, key: str) -> bytes:
        with self._errors(key):
            return self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()

    def exists(self, key: str) -> bool:
        with self._errors(key):
            try:
                self.client.head_object(Bucket=self.bucket, Key=self.prefix + key)
            except ClientError as error:
                if _code(error) not in _MISSING:
                    raise
                return False
        return True

    def delete(self, key: str) -> None:
        with self._errors(key):
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def keys(self) -> Iterator[str]:
        with self._errors(""):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            found = [entry["Key"].removeprefix(self.prefix) for page in pages for entry in page.get("Contents", [])]
        # Some tools put empty objects named like folders.
        yield from (key for key in found if key and not key.endswith("/"))

    def require_bucket(self) -> None:
        """UserError when there is no such bucket: some servers would make one up on the first write."""
        with self._errors(""):
            self._ask_for_bucket()

    def create_bucket(self) -> None:
        """Create the bucket unless it is there."""
        with self._errors(""):
            try:
                self._ask_for_bucket()
            except ClientError as error:
                if _code(error) != "NoSuchBucket":
                    raise
                # S3's first region is the default, and must not be named.
                region = self.client.meta.region_name
                default = region in (None, "us-east-1", "aws-global")
                place = {} if default else {"CreateBucketConfiguration": {"LocationConstraint": region}}
                self.client.create_bucket(Bucket=self.bucket, **place)

    def _place(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def _ask_for_bucket(self) -> None:
        """ClientError, NoSuchBucket for one, unless the bucket can be listed. HEAD's answer has no body to tell by."""
        self.client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn what a user can mend into one line."""
        place = self._place(key)
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError):
            mend = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a role"
            raise UserError(f"{place}: no S3 credentials; {mend}") from None
        except (EndpointConnectionError, ConnectTimeoutError):
            endpoint = self.client.meta.endpoint_url
            mend = "check AWS_ENDPOINT_URL_S3 and that the server runs"
            raise UserError(f"{place}: the S3 endpoint {endpoint} cannot be reached; {mend}") from None
        except ClientError as error:
            self._refuse(error, place)
        except Boto3Error as error:
            # boto3's transfers wrap the server's answer.
            if isinstance(error.__context__, ClientError):
                self._refuse(error.__context__, place)
            raise UserError(f"{place}: the transfer failed ({_one_line(error)}); try again") from None
        except BotoCoreError as error:
            raise UserError(f"{place}: the transfer failed ({_one_line(error)}); try again") from None

    def _refuse(self, error: ClientError, place: str) -> NoReturn:
        code = _code(error)
        if code == "NoSuchBucket":
            raise UserError(f"{place}: there is no bucket '{self.bucket}'; create it or mend the address") from None
        if code in _MISSING:
            raise UserError(f"{place} does not exist; check the address") from None
        if code in _REFUSED:
            mend = "check the key, its secret and its rights"
            raise UserError(f"{place}: the S3 server refused the credentials ({code}); {mend}") from None
        if code in _DAMAGED:
            raise _damaged(place) from None
        raise UserError(f"{place}: S3 answered {code or 'an error'}: {_one_line(error)}") from None


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _damaged(place: str) -> UserError:
    cause = "the file changed after its manifest was written, or was damaged on its way"
    return UserError(f"{place}: the bytes have a wrong checksum and were refused; {cause}")


def connect(uri: str) -> Store:
    """The store at an s3:// or file:/// URI, or at a plain path; UserError for another scheme or a missing bucket.

    As other S3 tools have it, nothing in an s3:// address is percent-decoded; in a file:/// address it is.
    """
    store = _store(uri)
    if isinstance(store, S3Store):
        store.require_bucket()
    return store


def _store(uri: str) -> Store:
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if bucket:
            return S3Store(bucket, prefix)
    elif uri.startswith("file:///"):
        return FileStore(Path(unquote(uri.removeprefix("file://"))))
    elif uri and ":" not in uri.partition("/")[0]:  # "s3:/bucket" is a slip, not a folder
        return FileStore(Path(uri))
    raise UserError(f"'{uri}': not an address that can be read or written; write s3://BUCKET/PREFIX or file:///PATH")


def create_bucket(uri: str) -> None:
    """Create the bucket of an s3:// URI unless it is there; nothing to do for other addresses."""
    store = _store(uri)
    if isinstance(store, S3Store):
        store.create_bucket()


def upload_folder(folder: Path, uri: str) -> None:
    """Publish a finished artifact: its files first, its manifest last, so that a half-written one stays invisible."""
    manifest = read_manifest(folder)
    store = connect(uri)
    if store.exists(MANIFEST) and store.get_bytes(MANIFEST) != (folder / MANIFEST).read_bytes():
        # Another artifact stands there: it must not be seen while its files change one by one.
        store.delete(MANIFEST)
    for name, entry in {**manifest.files, **manifest.volatile}.items():
        store.put_file(name, folder / name, entry.sha256)
    store.put_file(MANIFEST, folder / MANIFEST, file_sha256(folder / MANIFEST))


def download_folder(uri: str, folder: Path) -> None:
    """Fetch an artifact and verify every file; UserError when there is none or a file is corrupted.

    ``folder`` becomes an artifact, by its manifest, only once all its files are right.
    """
    store = connect(uri)
    if not store.exists(MANIFEST):
        raise UserError(f"{uri}: no finished artifact there (no {MANIFEST}); check the address")
    content = store.get_bytes(MANIFEST)
    manifest = parse_manifest(content, f"{uri.rstrip('/')}/{MANIFEST}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in (*manifest.files, *manifest.volatile):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        store.get_file(name, folder / name)
    check_files(folder, manifest)
    write_bytes_atomically(folder / MANIFEST, content)


def list_artifacts(uri: str) -> list[str]:
    """URIs of the finished artifacts below a prefix, in order."""
    store = connect(uri)
    paths = [PurePosixPath(key) for key in store.keys()]  # noqa: SIM118 (a store is no mapping)
    folders = sorted(str(path.parent) for path in paths if path.name == MANIFEST)
    if uri.startswith("file:"):
        folders = [quote(folder) for folder in folders]
    return [uri.rstrip("/") if folder == "." else f"{uri.rstrip('/')}/{folder}" for folder in folders]


def read_bytes(uri: str) -> bytes:
    """Content of the one object that a URI names."""
    store, key = _object(uri)
    return store.get_bytes(key)


def write_bytes(uri: str, content: bytes) -> None:
    """Store one object, over what stood there."""
    store, key = _object(uri)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "content"
        path.write_bytes(content)
        store.put_file(key, path, file_sha256(path))


def exists(uri: str) -> bool:
    """Whether a URI names an object (not a prefix or folder)."""
    store, key = _object(uri)
    return store.exists(key)


def download_files(uri: str, folder: Path) -> None:
    """Fetch raw data: every file below a prefix, or the one that the URI names."""
    store = connect(uri)
    keys = list(store.keys())
    if not keys:
        store, key = _object(uri.rstrip("/"))
        if not store.exists(key):
            raise UserError(f"{uri}: nothing is there; check the address")
        keys = [key]
    for key in keys:
        target = folder / key
        if not target.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{uri}: key '{key}' leaves its folder; rename it")
        target.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(key, target)


def _object(uri: str) -> tuple[Store, str]:
    """The store that holds the object a URI names, and its key there."""
    name = uri.rpartition("/")[2]
    if not name:
        raise UserError(f"'{uri}': names no file; give the address of one")
    store = connect(uri.removesuffix(name) or ".")
    return store, unquote(name) if uri.startswith("file:") else name
