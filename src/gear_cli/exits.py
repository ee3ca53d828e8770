"""How a command ends: exit codes, and the exceptions that stand for them."""

from __future__ import annotations

import os
from enum import IntEnum

__all__ = ["Exit", "Failure", "UsageError", "reason"]


class Exit(IntEnum):
    """The exit codes, the same for every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_SERVER = 3
    TIMEOUT = 4
    INTERRUPTED = 130  # as shells report SIGINT
    BROKEN_PIPE = 141  # as shells report SIGPIPE


class Failure(Exception):
    """The command cannot do what it was asked to; the message is one sentence for the user.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        """Store the message and the exit code."""
        super().__init__(message)
        self.code = code


class UsageError(Failure):
    """The command line is not valid, or names a file that cannot be used."""

    def __init__(self, message: str) -> None:
        """Store the message."""
        super().__init__(message, Exit.USAGE)


def reason(error: OSError) -> str:
    """Return a short description of an operating system error."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or (str(error.args[0]) if error.args else type(error).__name__)
