"""A file in pieces: which ones a transfer is made of, and a download that goes on where it was stopped.

Until it is whole a download lies beside its place as .NAME.partial, with .NAME.pieces, a line a piece that has arrived:
its number and the CRC-32 of what was written. After a restart a piece counts when its bytes still have that CRC-32; what
decides about the file is the sha256 of the whole, which is taken while the pieces travel.
"""

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from rlpretrain.artifacts import file_sha256
from rlpretrain.errors import local_errors

MOST_PIECES = 10_000  # what S3 allows an upload


@dataclass(frozen=True)
class Piece:
    """Bytes ``start`` to ``end``, without the latter, of a file; numbers begin at 1, as S3's do."""

    number: int
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


def pieces_of(size: int, piece_bytes: int) -> list[Piece]:
    """A file of ``size`` bytes in pieces of ``piece_bytes``, larger ones where there would be too many; one at least."""
    while piece_bytes * MOST_PIECES < size:
        piece_bytes *= 2
    starts = range(0, size, piece_bytes) if size else [0]
    return [Piece(number, start, min(start + piece_bytes, size)) for number, start in enumerate(starts, start=1)]


def read_piece(path: Path, piece: Piece) -> bytes:
    """A piece of a local file."""
    with local_errors(path), path.open("rb") as file:
        file.seek(piece.start)
        return file.read(piece.length)


class PieceReader:
    """A local file that is read once, piece by piece in order, by whichever thread asks for the next one."""

    def __init__(self, path: Path, pieces: Sequence[Piece]) -> None:
        self._path = path
        self._pieces = iter(pieces)
        self._digest = hashlib.sha256()
        self._lock = threading.Lock()

    def next(self) -> tuple[Piece, bytes]:
        """The next piece and its bytes; StopIteration after the last one."""
        with self._lock:
            piece = next(self._pieces)
            body = read_piece(self._path, piece)
            self._digest.update(body)
        return piece, body

    def sha256(self) -> str:
        """sha256 of the bytes that were handed out."""
        return self._digest.hexdigest()


class PieceFile:
    """A file that is written piece by piece, from several threads; ``version`` names the content it is fetched from."""

    def __init__(self, path: Path, size: int, version: str, piece_bytes: int) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.partial")
        self.journal = path.with_name(f".{path.name}.pieces")
        self.pieces = pieces_of(size, piece_bytes)
        self._sums: dict[int, int] = {}
        self._lock = threading.Lock()
        self._whole: Any = hashlib.sha256()  # of the first pieces; None once a piece was replaced
        self._hashed = 0  # how many pieces that is
        self._hashing = threading.Lock()
        heading = f"{size} {piece_bytes} {version}"
        with local_errors(path):
            if not self._resume(heading):
                self.journal.write_text(heading + "\n")
                with self.partial.open("wb") as file:
                    file.truncate(size)

    def missing(self) -> list[Piece]:
        """What has yet to be fetched."""
        return [piece for piece in self.pieces if piece.number not in self._sums]

    def write(self, piece: Piece, body: bytes) -> None:
        """Put a piece in its place and note it down."""
        with local_errors(self.path):
            descriptor = os.open(self.partial, os.O_WRONLY)
            try:
                written = 0
                while written < len(body):  # a disk that fills up takes a part, and fails at the next
                    written += os.pwrite(descriptor, memoryview(body)[written:], piece.start + written)
            finally:
                os.close(descriptor)
            with self._lock:
                if piece.number in self._sums:
                    self._whole = None
                self._sums[piece.number] = crc32(body)
                with self.journal.open("a") as journal:
                    journal.write(f"{piece.number} {self._sums[piece.number]}\n")
            self._hash_on()

    def checksum(self, piece: Piece) -> int:
        """CRC-32 of a piece as it was written."""
        return self._sums[piece.number]

    def is_right(self, sha256: str | None) -> bool:
        """Whether the pieces, all of them there, together have this sha256; None is right always."""
        if sha256 is None:
            return True
        with local_errors(self.path):
            self._hash_on()
            return (file_sha256(self.partial) if self._whole is None else self._whole.hexdigest()) == sha256

    def finish(self) -> None:
        """Give the file its name."""
        with local_errors(self.path):
            os.replace(self.partial, self.path)
            self.journal.unlink()

    def drop(self) -> None:
        """Forget what has arrived."""
        with local_errors(self.path):
            self.partial.unlink(missing_ok=True)
            self.journal.unlink(missing_ok=True)

    def _resume(self, heading: str) -> bool:
        """Take over what an earlier attempt has fetched of the same content; whether there was such an attempt."""
        try:
            first, *lines = self.journal.read_text(errors="replace").split("\n")
        except FileNotFoundError:
            return False
        if first != heading or not self.partial.is_file() or self.partial.stat().st_size != self.pieces[-1].end:
            return False
        noted = dict(line.split(" ", 1) for line in lines if " " in line)
        for piece in self.pieces:
            checksum = crc32(read_piece(self.partial, piece))
            if noted.get(str(piece.number)) == str(checksum):
                self._sums[piece.number] = checksum
        return True

    def _hash_on(self) -> None:
        """Take the pieces that are there without a gap into the sha256 of the whole, unless another thread is at it."""
        if not self._hashing.acquire(blocking=False):
            return
        try:
            whole = self._whole
            while whole and self._hashed < len(self.pieces) and self.pieces[self._hashed].number in self._sums:
                whole.update(read_piece(self.partial, self.pieces[self._hashed]))
                self._hashed += 1
        finally:
            self._hashing.release()
