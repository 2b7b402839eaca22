"""s3:// and file:// behind one small interface: transfer with checksums, and publication by manifest last.

An artifact at a URI exists when its manifest.json does. Once published it stays as it is: the manifest is written only where
there is none, or where a wall-clock file that it lists is lost. Endpoint, region and credentials of S3 come from boto3's own
environment and files (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, roles, ...); see boto3's guide to configuration.
"""

import re
import tempfile
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from rlpretrain.artifacts import (
    MANIFEST,
    FileEntry,
    Manifest,
    check_files,
    differing_files,
    file_sha256,
    parse_manifest,
    read_manifest,
    stays_inside,
    write_bytes_atomically,
)
from rlpretrain.errors import UserError, local_errors
from rlpretrain.stores.files import FileStore
from rlpretrain.stores.interface import Store
from rlpretrain.stores.s3 import MULTIPART_BYTES, S3Store

__all__ = ["MULTIPART_BYTES", "FileStore", "S3Store", "Store", "connect", "create_bucket", "download_files"]


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
    """Create the bucket of an s3:// URI, or the folder of a file:// one, unless it is there."""
    store = _store(uri)
    if isinstance(store, S3Store):
        store.create_bucket()
    elif isinstance(store, FileStore):
        with local_errors(store.root):
            store.root.mkdir(parents=True, exist_ok=True)


def upload_folder(folder: Path, uri: str) -> None:
    """Publish a finished artifact: its files first, its manifest last, so that a half-written one stays invisible.

    Interrupted and called again, it goes on where it stopped. The artifact may be there already, which mends files of it that
    are missing or damaged; UserError when another one is, also when that one was published meanwhile.
    """
    manifest = read_manifest(folder)
    content = (folder / MANIFEST).read_bytes()
    store = connect(uri)
    _other_than(manifest, store, uri)
    with store.one_writer(lambda: store.exists(MANIFEST)) as check:
        standing = _other_than(manifest, store, uri)
        # Of the same artifact from another attempt the wall-clock files differ, and stay that one's unless they are lost.
        lost = {} if standing in (None, manifest) else _lost(standing, manifest, store)
        sent = manifest.files | (manifest.volatile if standing in (None, manifest) else lost)
        store.put_files({name: (folder / name, entry.sha256) for name, entry in sent.items()})
        check()
        if standing is None and not store.put_new(MANIFEST, content):
            _other_than(manifest, store, uri)
        elif standing is not None and lost:
            mended = standing.model_copy(update={"volatile": standing.volatile | lost})
            _put_bytes(store, MANIFEST, mended.content())


def _lost(standing: Manifest, manifest: Manifest, store: Store) -> dict[str, FileEntry]:
    """Our wall-clock files in the place of those that storage should hold and does not, read whole, and twice."""
    return {
        name: manifest.volatile[name]
        for name, entry in standing.volatile.items()
        if name in manifest.volatile
        and not (store.exists(name) and any(store.sha256(name) == (entry.size, entry.sha256) for _ in range(2)))
    }


def published(uri: str) -> Manifest | None:
    """The manifest of the artifact at a URI; None when there is none. UserError when it is damaged."""
    store = connect(uri)
    return _manifest(store, uri) if store.exists(MANIFEST) else None


def _other_than(manifest: Manifest, store: Store, uri: str) -> Manifest | None:
    """What is published there, if anything; UserError when it is another artifact."""
    standing = _manifest(store, uri) if store.exists(MANIFEST) else None
    if standing is not None and standing.digest != manifest.digest:
        raise UserError(
            f"{uri}: another artifact is published there (digest {standing.digest[:12]}, not {manifest.digest[:12]}); "
            "choose another place or name of the run"
        )
    return standing


def _manifest(store: Store, uri: str) -> Manifest:
    return parse_manifest(store.get_bytes(MANIFEST), f"{uri.rstrip('/')}/{MANIFEST}")


def download_folder(uri: str, folder: Path) -> None:
    """Fetch an artifact and verify every file; UserError when there is none or a file is corrupted.

    ``folder`` becomes an artifact, by its manifest, only once all its files are right. Files that lie there complete and right
    are not fetched again, and a file that was interrupted goes on where it stopped.
    """
    store = connect(uri)
    if not store.exists(MANIFEST):
        raise UserError(f"{uri}: no finished artifact there (no {MANIFEST}); check the address")
    content = store.get_bytes(MANIFEST)
    manifest = parse_manifest(content, f"{uri.rstrip('/')}/{MANIFEST}")
    with local_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
    wanted = differing_files(folder, manifest)
    for name in wanted:
        _make_room(folder, name, uri)
    store.get_files({name: (folder / name, entry.sha256) for name, entry in wanted.items()})
    check_files(folder, manifest)
    with local_errors(folder / MANIFEST):
        write_bytes_atomically(folder / MANIFEST, content)


def _make_room(folder: Path, name: str, uri: str) -> None:
    """The folder of a file below ``folder``; UserError when its name, or a link that lies there, leads out of it."""
    target = folder / name
    if not stays_inside(name) or not target.parent.resolve().is_relative_to(folder.resolve()) or target.is_symlink():
        raise UserError(f"{uri}: key {name!r} leaves its folder; rename it")
    with local_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)


def list_artifacts(uri: str) -> list[str]:
    """URIs of the finished artifacts below a prefix, in order."""
    store = connect(uri)
    paths = [PurePosixPath(key) for key in store.keys()]  # noqa: SIM118 (a store is no mapping)
    folders = sorted(str(path.parent) for path in paths if path.name == MANIFEST)
    if uri.startswith("file:"):
        folders = [quote(folder) for folder in folders]
    return [uri.rstrip("/") if folder == "." else f"{uri.rstrip('/')}/{folder}" for folder in folders]


def remove_artifacts(uri: str, names: re.Pattern[str]) -> None:
    """Remove the artifacts right below a prefix whose whole name matches, manifests first: half of one is never taken for one."""
    store = connect(uri)
    for key in sorted(store.keys(), key=lambda key: not key.endswith(MANIFEST)):
        if names.fullmatch(key.partition("/")[0]):
            store.delete(key)


def read_bytes(uri: str) -> bytes:
    """Content of the one object that a URI names."""
    store, key = _object(uri)
    return store.get_bytes(key)


def write_bytes(uri: str, content: bytes) -> None:
    """Store one object, over what stood there."""
    _put_bytes(*_object(uri), content)


def _put_bytes(store: Store, key: str, content: bytes) -> None:
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
    with local_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not keys:
        store, key = _object(uri.rstrip("/"))
        if not store.exists(key):
            raise UserError(f"{uri}: nothing is there; check the address")
        keys = [key]
    for key in keys:
        _make_room(folder, key, uri)
    store.get_files({key: (folder / key, None) for key in keys})


def _object(uri: str) -> tuple[Store, str]:
    """The store that holds the object a URI names, and its key there."""
    name = uri.rpartition("/")[2]
    if not name:
        raise UserError(f"'{uri}': names no file; give the address of one")
    store = connect(uri.removesuffix(name) or ".")
    return store, unquote(name) if uri.startswith("file:") else name
