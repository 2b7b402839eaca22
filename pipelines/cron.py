"""Whether a time table of five fields can be one: robfig/cron reads it, in Argo and, with seconds before it, in Kubeflow."""

import re

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# name, least and most, names of values from the least on
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 6, _DAYS),
)
_PART = re.compile(r"(?:[*?]|(\w+)(?:-(\w+))?)(?:/([1-9][0-9]{0,3}))?", re.ASCII)


def check_cron(cron: str) -> str:
    """``cron``; ValueError, in a line that names the mend, when it has other fields or values than there are."""
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        raise ValueError("needs five fields, minute hour day month weekday, for example '0 3 * * 1'")
    for text, (name, least, most, names) in zip(fields, _FIELDS, strict=True):
        numbers = {word: least + place for place, word in enumerate(names)}
        for part in text.split(","):
            match = _PART.fullmatch(part)
            ends = [_number(end, numbers) for end in match.groups()[:2] if end is not None] if match else [-1]
            if not all(least <= end <= most for end in ends) or ends != sorted(ends):
                known = f", or {names[0]} to {names[-1]}" if names else ""
                raise ValueError(
                    f"'{part}' is no {name}; use {least} to {most}{known}, *, 1-5, */2, and commas between them"
                )
    return cron


def _number(text: str, names: dict[str, int]) -> int:
    return int(text) if text.isdecimal() else names.get(text.lower(), -1)
