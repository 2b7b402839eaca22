"""A document as sources give it, and the normal form in which it is hashed and tokenised."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Document:
    """A text to learn from. A problem or benchmark item has a prompt and an answer, and no text."""

    text: str
    prompt: str = ""  # no loss is taken on it
    answer: str = ""
    source: str = ""

    @property
    def id(self) -> str:
        """16 hex digits of the sha256 of the content; equal content has equal ids."""
        return hashlib.sha256("\0".join((self.prompt, self.text, self.answer)).encode()).hexdigest()[:16]

    def normalised(self) -> "Document":
        """Unicode NFC, newlines as \\n, no control characters, no blanks around the whole text."""
        return Document(normalise(self.text).strip(), normalise(self.prompt), self.answer.strip(), self.source)


def normalise(text: str) -> str:
    """NFC, \\r\\n and \\r as \\n, control characters other than tab and newline removed."""
    return _CONTROL.sub("", unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n"))
