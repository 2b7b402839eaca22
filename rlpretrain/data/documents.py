"""A document as sources give it, and the normal form in which it is hashed and tokenised."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass

_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")  # page and paragraph breaks end a line too
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]")  # C0 without tab and newline, DEL, C1, byte order mark
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, out of a broken \u escape; cannot be encoded
_UNUSUAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")  # all of the above, in one scan


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

    @property
    def side(self) -> int:
        """32 bits that choose its split: of its prompt, so that all answers to a question stay together, or of its content."""
        return int(hashlib.sha256(self.prompt.encode()).hexdigest()[:8] if self.prompt else self.id[:8], 16)

    def normalised(self) -> "Document":
        """Every part in normal form; no blanks around the text, but for those that part it from its prompt."""
        text, prompt = normalise(self.text).rstrip(), normalise(self.prompt)
        return Document(
            text if prompt else text.lstrip(),
            prompt,
            normalise(self.answer).strip(),
            self.source,
        )


def normalise(text: str) -> str:
    """NFC, every line end as \\n, control characters other than tab and newline removed, half characters as U+FFFD."""
    if _UNUSUAL.search(text):
        text = _SURROGATE.sub("\ufffd", _CONTROL.sub("", _LINE_END.sub("\n", text)))
    return unicodedata.normalize("NFC", text)
