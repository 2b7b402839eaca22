"""What a line for a person at the keyboard makes readable."""

from rlpretrain.errors import UserError, printable


def test_terminal_codes_are_shown_not_obeyed() -> None:
    assert printable("\x1b[2Jit\x07\n\x9b\u202e é\tµ") == "\\x1b[2Jit\\x07\\x0a\\x9b\\x202e é\\x09µ"
    assert printable("plain ✓ text") == "plain ✓ text"
    assert str(UserError("two\nlines\x1b]0;owned\x07")) == "two lines\\x1b]0;owned\\x07"
