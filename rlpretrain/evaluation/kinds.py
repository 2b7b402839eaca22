"""Kinds of tokens: where thinking helps is told by what is to be predicted."""

import re

KINDS = ("number", "word start", "word rest", "punctuation", "operator", "space", "other")
_OPERATOR = re.compile(r"[+\-*/=<>^%|&~$\\]+")
_PUNCTUATION = re.compile(r"[^\w\s]+")


def token_kind(before: str, token: str) -> str:
    """What the next token is, by its characters and by whether it goes on with the word before it."""
    bare = token.strip()
    if not bare:
        return "space" if token else "other"
    if any(character.isdigit() for character in bare):
        return "number"
    if any(character.isalpha() for character in bare):
        goes_on = not token[0].isspace() and before[-1:].isalpha()
        return "word rest" if goes_on else "word start"
    if _OPERATOR.fullmatch(bare):
        return "operator"
    return "punctuation" if _PUNCTUATION.fullmatch(bare) else "other"
