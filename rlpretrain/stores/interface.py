"""What every store can do. Keys are relative names below the store's root; all raise UserError for what a user can mend."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CLAIM = ".publishing"  # the object, or the locked file, by which a writer keeps others out of an artifact's place


@dataclass(frozen=True)
class Stored:
    """An object, its size in bytes and its age in seconds."""

    key: str
    size: int
    age: float


@dataclass(frozen=True)
class Unfinished:
    """An upload in parts that was begun and not ended, the server's name for it, and its age in seconds."""

    key: str
    upload: str
    age: float


class Store(Protocol):
    """Objects by key below one root."""

    def put_files(self, files: Mapping[str, tuple[Path, str]]) -> None:
        """Store files, side by side; each is refused when its bytes are not those of its hex sha256.

        What is there already, complete and right, is not sent again.
        """

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        """Store one file."""

    def put_new(self, key: str, content: bytes) -> bool:
        """Store an object unless the key is taken by other content; whether it was free."""

    def one_writer(self, ended: Callable[[], bool]) -> AbstractContextManager[Callable[[], None]]:
        """Keep other writers out for the time of the block; gives it a check, UserError when another one got in.

        While another one is at work this waits until ``ended`` says that waiting has no use; the block then runs all the same.
        """

    def get_files(self, files: Mapping[str, tuple[Path, str | None]]) -> None:
        """Fetch objects, side by side, into files, whose folders must exist; with a hex sha256, these bytes or UserError.

        A fetch that was interrupted goes on where it stopped.
        """

    def get_file(self, key: str, path: Path) -> None:
        """Fetch one object, checked against the checksum that the store has of it, if it has one."""

    def get_bytes(self, key: str) -> bytes:
        """A small object's content."""

    def sha256(self, key: str) -> tuple[int, str]:
        """Size and hex sha256 of an object, read whole."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def delete(self, key: str) -> None:
        """Remove an object."""

    def keys(self) -> Iterator[str]:
        """Keys of all objects below the root."""

    def stored(self) -> Iterator[Stored]:
        """All objects below the root."""

    def unfinished(self) -> Iterator[Unfinished]:
        """All unfinished uploads below the root."""

    def abort(self, upload: Unfinished) -> None:
        """Drop an unfinished upload and what it has stored."""
