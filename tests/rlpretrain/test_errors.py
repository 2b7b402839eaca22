"""What a line for a person at the keyboard keeps to itself, and what it makes readable."""

import pytest

from rlpretrain.errors import UserError, masked, printable


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://user:secret@host/path", "http://***@host/path"),
        ("http://u:secr@et@host", "http://***@host"),
        ("http://u:secr'et@host:9000: refused", "http://***@host:9000: refused"),
        ('http://u:secr"et@host', "http://***@host"),
        ("a http://u:secret@a and b https://u:secret@b/c@d", "a http://***@a and b https://***@b/c@d"),
        ("hf://datasets/some/set@main and s3://rlp/runs", "hf://datasets/some/set@main and s3://rlp/runs"),
        ("someone@example.org", "someone@example.org"),
    ],
)
def test_users_and_passwords_of_addresses_are_masked(given: str, shown: str) -> None:
    assert masked(given) == shown and "secr" not in shown
    assert str(UserError(given)) == shown


def test_terminal_codes_are_shown_not_obeyed() -> None:
    assert printable("\x1b[2Jit\x07\n\x9b\u202e é\tµ") == "\\x1b[2Jit\\x07\\x0a\\x9b\\x202e é\\x09µ"
    assert printable("plain ✓ text") == "plain ✓ text"
    assert str(UserError("two\nlines\x1b]0;owned\x07")) == "two lines\\x1b]0;owned\\x07"
