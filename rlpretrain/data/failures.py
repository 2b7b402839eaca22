"""How a library's error reads inside a message of one line."""


def one_line(error: Exception) -> str:
    """The error's text on one line, at most 300 characters; its type where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__
