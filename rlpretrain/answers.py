"""Reading an answer out of a response, and telling whether it is the reference answer.

One rule serves the verifiable reward and the benchmarks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

BOXED = "boxed"  # in place of a pattern: the content of the last \boxed{...}
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_LETTER = re.compile(r"(?:\\(?:text|mathrm|mathbf|textbf)\s*\{)?\s*\(?\s*([A-J])\s*\)?\s*\}?\s*(?:[.:)].*)?", re.DOTALL)
_SCIENTIFIC = re.compile(r"(?<=\d)e([+-]?\d+)\b")
_VERIFY_SECONDS = 5  # of symbolic comparison; an answer that takes longer is wrong


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
    for box in reversed(list(_BOX.finditer(text))):
        start = box.end()
        if text[start : start + 1] != "{":
            bare = re.match(r"[^\s$.,]+", text[start:])
            if bare:
                return bare.group()
            continue
        depth = 0
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0) * (text[end - 1] != "\\")
            if depth == 0:
                return text[start + 1 : end]
    return None


def same_answer(answer: str, reference: str) -> bool:
    """Equal as text, or as numbers, whose thousands separators, leading $ and closing full stop do not count."""
    if answer.strip() == reference.strip():
        return True
    value = _number(answer)
    return value is not None and value == _number(reference)


def equivalent_answer(answer: str, reference: str) -> bool:
    """The same answer, or the same mathematics: as `same_answer`, or equal when both are parsed (Math-Verify).

    A reference of one letter is a choice: then the answer must name that option, whatever stands around it.
    """
    if re.fullmatch(r"[A-J]", reference.strip()):
        chosen = _LETTER.fullmatch(answer.strip())
        return chosen is not None and chosen.group(1) == reference.strip()
    return same_answer(answer, reference) or _same_mathematics(answer, reference)


def _same_mathematics(answer: str, reference: str) -> bool:
    # lm-eval's extra [math] brings it; it imports sympy, which takes a second.
    from math_verify import parse, verify

    latex = (_SCIENTIFIC.sub(r"\\times 10^{\1}", text) for text in (reference, answer))
    gold, found = (parse(f"${text}$", parsing_timeout=_VERIFY_SECONDS) for text in latex)
    return bool(gold) and bool(found) and verify(gold, found, timeout_seconds=_VERIFY_SECONDS)


def _number(text: str) -> Decimal | None:
    try:
        value = Decimal(text.strip().removeprefix("$").removesuffix(".").replace(",", ""))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
