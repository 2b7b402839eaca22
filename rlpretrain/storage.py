"""s3:// and file:// behind one small interface: transfer with checksums, and publication by manifest last.

An artifact at a URI exists when its manifest.json does. Endpoint, region and credentials of S3 come from boto3's own
environment and files (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, roles, ...); see boto3's guide to configuration.
"""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)

from rlpretrain.artifacts import MANIFEST, file_sha256, parse_manifest, read_manifest, verify
from rlpretrain.errors import UserError

MULTIPART_BYTES = 8 * 2**20
_TRANSFER = TransferConfig(multipart_threshold=MULTIPART_BYTES, multipart_chunksize=MULTIPART_BYTES, max_concurrency=8)


class Store(Protocol):
    """Objects by key below one root."""

    def put_file(self, key: str, path: Path, sha256: str) -> None: ...

    def get_file(self, key: str, path: Path) -> None: ...

    def get_bytes(self, key: str) -> bytes: ...

    def exists(self, key: str) -> bool: ...

    def keys(self) -> Iterator[str]: ...


class FileStore:
    """A folder of this machine, or of a mounted file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        shutil.copyfile(path, partial)
        partial.replace(target)

    def get_file(self, key: str, path: Path) -> None:
        self._must_exist(key)
        shutil.copyfile(self.root / key, path)

    def get_bytes(self, key: str) -> bytes:
        self._must_exist(key)
        return (self.root / key).read_bytes()

    def exists(self, key: str) -> bool:
        return (self.root / key).is_file()

    def keys(self) -> Iterator[str]:
        for path in sorted(self.root.rglob("*")):
            if path.is_file():
                yield path.relative_to(self.root).as_posix()

    def _must_exist(self, key: str) -> None:
        if not self.exists(key):
            raise UserError(f"{self.root / key} does not exist; check the address")


class S3Store:
    """A prefix of a bucket. Uploads carry a SHA-256 that the server checks; large files go in parts."""

    def __init__(self, bucket: str, prefix: str, client: Any = None) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        # A session of its own: boto3's default one keeps the first credentials that it ever saw.
        self.client = client or boto3.session.Session().client(
            "s3",
            config=Config(
                connect_timeout=10,
                read_timeout=60,
                retries={"mode": "standard", "max_attempts": 5},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def require_bucket(self) -> None:
        """UserError when there is no such bucket: some servers would make one up on the first write."""
        try:
            with self._errors(""):
                self.client.head_bucket(Bucket=self.bucket)
        except MissingKeyError:
            _raise_for("NoSuchBucket", f"s3://{self.bucket}", self.bucket, MissingKeyError())

    def create_bucket(self) -> None:
        """Create the bucket unless it is there."""
        with self._errors(""):
            if self.bucket not in {entry["Name"] for entry in self.client.list_buckets()["Buckets"]}:
                self.client.create_bucket(Bucket=self.bucket)

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        with self._errors(key):
            if path.stat().st_size < MULTIPART_BYTES:
                body = path.read_bytes()
                checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
                self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=body, ChecksumSHA256=checksum)
            else:
                extra = {"ChecksumAlgorithm": "SHA256", "Metadata": {"sha256": sha256}}
                self.client.upload_file(str(path), self.bucket, self.prefix + key, ExtraArgs=extra, Config=_TRANSFER)

    def get_file(self, key: str, path: Path) -> None:
        with self._errors(key):
            self.client.download_file(self.bucket, self.prefix + key, str(path), Config=_TRANSFER)

    def get_bytes(self, key: str) -> bytes:
        with self._errors(key):
            return self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()

    def exists(self, key: str) -> bool:
        try:
            with self._errors(key):
                self.client.head_object(Bucket=self.bucket, Key=self.prefix + key)
        except FileNotFoundError:
            return False
        return True

    def keys(self) -> Iterator[str]:
        with self._errors(""):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            for page in pages:
                for entry in page.get("Contents", []):
                    yield entry["Key"].removeprefix(self.prefix)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn what a user can mend into one line."""
        place = f"s3://{self.bucket}/{self.prefix}{key}"
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError):
            raise UserError(f"{place}: no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a role") from None
        except EndpointConnectionError:
            endpoint = self.client.meta.endpoint_url
            raise UserError(f"{place}: the S3 endpoint {endpoint} cannot be reached; check AWS_ENDPOINT_URL_S3") from None
        except ClientError as error:
            _raise_for(error.response.get("Error", {}).get("Code", ""), place, self.bucket, error)
        except S3UploadFailedError as error:
            code = next((c for c in ("NoSuchBucket", "AccessDenied", "InvalidAccessKeyId") if c in str(error)), "")
            _raise_for(code, place, self.bucket, error)
        except BotoCoreError as error:
            raise UserError(f"{place}: the transfer failed ({error}); try again") from None


class MissingKeyError(UserError, FileNotFoundError):
    """An object that is not there."""


def _raise_for(code: str, place: str, bucket: str, error: Exception) -> None:
    if code == "NoSuchBucket":
        raise UserError(f"{place}: there is no bucket '{bucket}'; create it or mend the address") from None
    if code in ("NoSuchKey", "404", "NotFound"):
        raise MissingKeyError(f"{place} does not exist; check the address") from None
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403", "Forbidden"):
        raise UserError(f"{place}: the S3 server refused the credentials ({code}); check the key, its secret and its rights") from None
    if code in ("BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest"):
        raise UserError(f"{place}: the bytes arrived with a wrong checksum and were refused; upload again") from None
    raise UserError(f"{place}: S3 answered {code or type(error).__name__}: {' '.join(str(error).split())}") from None


def connect(uri: str) -> Store:
    """The store at an s3:// or file:// URI, or at a plain path; UserError for another scheme or a missing bucket."""
    parts = urlsplit(uri)
    if parts.scheme == "s3" and parts.netloc:
        store = S3Store(parts.netloc, unquote(parts.path))
        store.require_bucket()
        return store
    if parts.scheme in ("", "file") and not parts.netloc:
        return FileStore(Path(unquote(parts.path)))
    raise UserError(f"{uri}: not an address that can be read or written; write s3://BUCKET/PREFIX or file:///PATH")


def create_bucket(uri: str) -> None:
    """Create the bucket of an s3:// URI unless it is there."""
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        S3Store(parts.netloc, "").create_bucket()


def upload_folder(folder: Path, uri: str) -> None:
    """Publish a finished artifact: its files first, its manifest last, so that a half-written one stays invisible."""
    manifest = read_manifest(folder)
    store = connect(uri)
    for name, entry in {**manifest.files, **manifest.volatile}.items():
        store.put_file(name, folder / name, entry.sha256)
    store.put_file(MANIFEST, folder / MANIFEST, file_sha256(folder / MANIFEST))


def download_folder(uri: str, folder: Path) -> None:
    """Fetch an artifact and verify every file; UserError when there is none or a file is corrupted."""
    store = connect(uri)
    if not store.exists(MANIFEST):
        raise UserError(f"{uri}: no finished artifact there (no {MANIFEST}); check the address")
    content = store.get_bytes(MANIFEST)
    manifest = parse_manifest(content, f"{uri}/{MANIFEST}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*manifest.files, *manifest.volatile):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        store.get_file(name, folder / name)
    (folder / MANIFEST).write_bytes(content)
    verify(folder)


def list_artifacts(uri: str) -> list[str]:
    """URIs of the finished artifacts below a prefix, in order."""
    base = uri.rstrip("/")
    folders = sorted(str(PurePosixPath(key).parent) for key in connect(uri).keys() if PurePosixPath(key).name == MANIFEST)
    return [base if folder == "." else f"{base}/{folder}" for folder in folders]


def download_files(uri: str, folder: Path) -> None:
    """Fetch raw data: every file below a prefix, or the one that the URI names."""
    store = connect(uri)
    keys = list(store.keys())
    if not keys:
        parent, _, name = uri.rstrip("/").rpartition("/")
        store, keys = connect(parent), [name]
        if not store.exists(name):
            raise UserError(f"{uri}: nothing is there; check the address")
    for key in keys:
        target = folder / key
        if not target.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{uri}: key '{key}' leaves its folder; rename it")
        target.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(key, target)
