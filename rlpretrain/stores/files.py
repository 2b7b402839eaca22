"""A folder of this machine, or of a mounted file system, as a store."""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rlpretrain.artifacts import file_sha256, write_bytes_atomically
from rlpretrain.errors import Damaged, local_errors
from rlpretrain.stores.interface import CLAIM, Stored, Unfinished
from rlpretrain.stores.s3errors import damaged

_PARTIAL = ".partial"
_LOOK_SECONDS = 0.2


class FileStore:
    """A folder. Files take their names in one rename; a lock, which ends with its process, keeps a second writer out."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_files(self, files: Mapping[str, tuple[Path, str]]) -> None:
        for key, (path, sha256) in files.items():
            self.put_file(key, path, sha256)

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        target = self.root / key
        partial = target.with_name(f".{target.name}{_PARTIAL}")
        with self._errors(key):
            if file_sha256(path) != sha256:
                raise damaged(str(target))
            if target.is_file() and target.stat().st_size == path.stat().st_size and file_sha256(target) == sha256:
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, partial)
            if file_sha256(partial) != sha256:
                partial.unlink()
                raise damaged(str(target))
            partial.replace(target)

    def put_new(self, key: str, content: bytes) -> bool:
        # Within `one_writer` nobody can come between the look and the rename.
        with self._errors(key):
            if (self.root / key).exists():
                return (self.root / key).read_bytes() == content
            (self.root / key).parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(self.root / key, content)
        return True

    @contextmanager
    def one_writer(self, ended: Callable[[], bool]) -> Iterator[Callable[[], None]]:
        path = self.root / f"{CLAIM}{_PARTIAL}"
        with self._errors(CLAIM):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = path.open("a")
        with lock:
            while not _locked(lock) and not ended():
                time.sleep(_LOOK_SECONDS)
            yield lambda: None  # nobody takes a lock from a living process

    def get_files(self, files: Mapping[str, tuple[Path, str | None]]) -> None:
        for key, (path, sha256) in files.items():
            self.get_file(key, path)
            if sha256 is not None and file_sha256(path) != sha256:
                path.unlink()
                raise Damaged(f"{self.root / key}: corrupted, its checksum is not the manifest's; make it again")

    def get_file(self, key: str, path: Path) -> None:
        with self._errors(key), (self.root / key).open("rb") as source, local_errors(path), path.open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)

    def get_bytes(self, key: str) -> bytes:
        with self._errors(key):
            return (self.root / key).read_bytes()

    def sha256(self, key: str) -> tuple[int, str]:
        with self._errors(key):
            return (self.root / key).stat().st_size, file_sha256(self.root / key)

    def exists(self, key: str) -> bool:
        return (self.root / key).is_file()

    def delete(self, key: str) -> None:
        with self._errors(key):
            (self.root / key).unlink(missing_ok=True)

    def keys(self) -> Iterator[str]:
        for stored in self.stored():
            if not _is_partial(stored.key):
                yield stored.key

    def stored(self) -> Iterator[Stored]:
        with self._errors(""):
            paths = sorted(self.root.rglob("*"))
        for path in paths:
            key = path.relative_to(self.root).as_posix()
            if path.is_file():
                status = path.stat()
                yield Stored(key, status.st_size, time.time() - status.st_mtime)

    def unfinished(self) -> Iterator[Unfinished]:
        return iter(())  # the .partial files that `stored` lists are all that an interrupted copy leaves

    def abort(self, upload: Unfinished) -> None:
        raise AssertionError("a folder has no uploads in parts")

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        with local_errors(self.root / key):
            try:
                yield
            except FileNotFoundError:
                raise Damaged(f"{self.root / key} does not exist; check the address") from None


def _is_partial(key: str) -> bool:
    name = key.rpartition("/")[2]
    return name.startswith(".") and name.endswith(_PARTIAL)


def _locked(file: object) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[arg-type]
    except BlockingIOError:
        return False
    return True
