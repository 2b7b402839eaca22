"""Errors whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """A mistake the user can mend.

    The message is one line that names the field, file or flag and the mend. Command lines print it
    as ``error: MESSAGE`` and leave with exit code 2, without a traceback.
    """
