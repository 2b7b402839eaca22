"""Errors whose message is meant for the person at the keyboard."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CREDENTIALS = re.compile(r"(?<=://)[^/\s]+@")  # up to the last @, for a password may hold one
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class UserError(Exception):
    """A mistake the user can mend.

    The message is one line that names the field, file or flag and the mend. Command lines print it
    as ``error: MESSAGE`` and leave with exit code 2, without a traceback.
    """

    def __init__(self, message: str) -> None:
        # Names of files, fields and keys come from outside, line breaks, terminal codes and all.
        super().__init__(printable(" ".join(masked(message).splitlines())))


class Damaged(UserError):
    """Of content that is not what it was when it was written, or is gone: trying again would give the same."""


def printable(line: str) -> str:
    """``line`` with \\x1b and the like in place of what is no printable character, line breaks too.

    Names and text that come from storage or a stage go through it on their way to a terminal, which would obey them.
    """
    if line.isprintable():
        return line
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in line)


def uncoloured(text: str) -> str:
    """``text`` without a terminal's colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def masked(text: str) -> str:
    """``text`` with user and password of every address, http://user:password@host, made unreadable."""
    return _CREDENTIALS.sub("***@", text)


@contextmanager
def local_errors(path: Path) -> Iterator[None]:
    """Turn a disk that is full, read-only or broken into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; {_mend(error.errno)}") from None


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a disk that is full or read-only into one line, whichever library finds it so; leave all other errors alone."""
    try:
        yield
    except Exception as error:
        # Libraries written in Rust name the number in their text alone.
        told = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
        if number not in (*_FULL, errno.EROFS):
            raise
        place = getattr(error, "filename", None) or folder
        raise UserError(f"{place}: {os.strerror(number)}; {_mend(number)}") from None


def _mend(number: int | None) -> str:
    if number in _FULL:
        return "free space or take another disk"
    if number in _READ_ONLY:
        return "give a place that can be written"
    return "check the path, its rights and the disk"
