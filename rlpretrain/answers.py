"""Reading an answer out of a response, and telling whether it is the reference answer.

The verifiable reward and the benchmarks read boxed answers alike, after the thought. A reward's own pattern reads the whole
response, so that it can ask for the thought's end as well; a benchmark's never reads a thought.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from rlpretrain.mathematics import same_mathematics

BOXED = "boxed"  # in place of a pattern: the content of the last \boxed{...}
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_BARE = re.compile(r"[^\s$.,]+")
_BRACE = re.compile(r"(?<!\\)[{}]")
_TEXT = r"\\(?:text|mathrm|mathbf|textbf)\s*\{"
_LETTER = re.compile(rf"\(?(?:{_TEXT})? ?\(? ?([A-J]) ?\)? ?\}}?\)? ?(?:[.:)].*)?")
_ALL_TEXT = re.compile(rf"{_TEXT}([^{{}}]*)\}}")
_SCIENTIFIC = re.compile(r"(?<=\d)e([+-]?\d+)\b")
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[, ]| )(?=\d{3}\b)")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d*)?")  # 1,234,567, and 12,34,567 as in India
_UNIT = re.compile(r"(?<=\d)\s+([A-Za-z]{3}[A-Za-z ]*)$")


@dataclass(frozen=True)
class AnswerReader:
    """How the answers of a suite are read."""

    patterns: Sequence[str]  # the first one that is found decides, by its last match; one group each, or BOXED
    think_open: str = "<think>"
    think_close: str = "</think>"
    opened: bool = False  # whether the prompt has opened a thought already

    def __call__(self, response: str) -> str | None:
        """The answer, stripped; None when there is none, above all when a thought was left open."""
        spoken = self.spoken(response)
        if spoken is None:
            return None
        for pattern in self.patterns:
            found = last_answer(spoken, pattern)
            if found is not None:
                return found.strip() or None
        return None

    def spoken(self, response: str) -> str | None:
        """What follows the last thought, stripped; None when a thought is still open at the end.

        A thought is not an answer: numbers in it are guesses on the way, and lm-eval would grade an open one as a whole.
        """
        _thought, close, rest = response.rpartition(self.think_close)
        if not close and self.opened:
            return None
        return None if self.think_open in rest else rest.strip()


def last_answer(text: str, pattern: str) -> str | None:
    """The last match of ``pattern``'s only group, or for BOXED the content of the last box; None when there is none."""
    if pattern == BOXED:
        return _last_boxed(text)
    found = re.findall(pattern, text, flags=re.DOTALL)
    return found[-1] if found else None


def _last_boxed(text: str) -> str | None:
    """The content of the last closed \\boxed{...}, or the token after a \\boxed without braces."""
    closes = _closing_braces(text)
    for box in reversed(list(_BOX.finditer(text))):
        start = box.end()
        if text[start : start + 1] != "{":
            bare = _BARE.match(text, start)
            if bare:
                return bare.group()
        elif start in closes:
            return text[start + 1 : closes[start]]
    return None


def _closing_braces(text: str) -> dict[int, int]:
    """Where each brace that is closed is closed; escaped ones are no braces. One pass: a model may open thousands."""
    closes: dict[int, int] = {}
    opened: list[int] = []
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            opened.append(brace.start())
        elif opened:
            closes[opened.pop()] = brace.start()
    return closes


def same_answer(answer: str, reference: str) -> bool:
    """Equal as text, or as numbers, whose thousands separators, leading $ and closing mark do not count."""
    if answer.strip() == reference.strip():
        return True
    value = _number(answer)
    return value is not None and value == _number(reference)


def equivalent_answer(answer: str, reference: str) -> bool:
    """The same answer, or the same mathematics: as `same_answer`, or equal when both are parsed (Math-Verify).

    A reference of one letter is a choice: then the answer must name that option, whatever stands around it.
    """
    # Single blanks: of a thousand each optional one of a pattern could be any.
    answer, reference = (" ".join(text.split()) for text in (answer, reference))
    if re.fullmatch(r"[A-J]", reference):
        chosen = _LETTER.fullmatch(answer)
        return chosen is not None and chosen.group(1) == reference
    return same_answer(answer, reference) or same_mathematics(_latex(answer), _latex(reference))


def _latex(answer: str) -> str:
    """What Math-Verify reads wrongly put in other words: all in \\text, thin thousands, units in plain words, 1e3."""
    answer = answer.strip()
    whole = _ALL_TEXT.fullmatch(answer)
    if whole and whole.group(1).strip()[:1].isdigit():
        answer = whole.group(1).strip()
    answer = _UNIT.sub(r"\\text{ \1}", _THOUSANDS.sub("", answer))
    return _SCIENTIFIC.sub(r"\\times 10^{\1}", answer)


def _number(text: str) -> Decimal | None:
    digits = text.strip().removeprefix("$").rstrip(".,")
    if _GROUPED.fullmatch(digits):  # another comma parts the members of a list: 1,5 is not 15
        digits = digits.replace(",", "")
    try:
        value = Decimal(digits)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
