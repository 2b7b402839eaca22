"""Telling whether an answer is the reference answer: one rule for the verifiable reward and for the benchmarks."""

from decimal import Decimal, InvalidOperation


def same_answer(answer: str, reference: str) -> bool:
    """Equal as text, or as numbers, whose thousands separators, leading $ and closing full stop do not count."""
    if answer.strip() == reference.strip():
        return True
    value = _number(answer)
    return value is not None and value == _number(reference)


def _number(text: str) -> Decimal | None:
    try:
        value = Decimal(text.strip().removeprefix("$").removesuffix(".").replace(",", ""))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
