"""Writing to stdout and stderr: completely or with an error, and without control characters from peers."""

from __future__ import annotations

import os
import select
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .exits import Exit, Failure, reason

__all__ = ["Stdout", "discard_stdout", "flush_stdout", "printable", "say", "write", "write_line"]

_INDENT = "\n    "


def printable(text: str, *, lines: bool = False) -> str:
    r"""Replace control characters and the like by escapes (``\x1b``): they come from peers and could do anything.

    Args:
        text: what to show.
        lines: keep the line ends; lines after the first are indented, so that none looks like a message of ours.
    """
    if text.isprintable():
        return text
    if lines:
        return _INDENT.join(printable(line.removesuffix("\r")) for line in text.rstrip("\r\n").split("\n"))
    return "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs" or character == "\t":
        return character
    return character.encode("unicode_escape").decode()


def say(text: str) -> None:
    """Write a message to stderr as it is.

    If stderr is closed or full, nothing is written; the exit code still reports the error.
    """
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


@contextmanager
def _writing() -> Iterator[None]:
    """Turn errors of stdout into `Failure`."""
    try:
        yield
    except BrokenPipeError as error:
        raise Failure("", Exit.BROKEN_PIPE) from error  # nobody reads any more, so say nothing
    except OSError as error:
        raise Failure(f"cannot write to stdout: {reason(error)}.") from error


def write(data: bytes) -> None:
    """Write to stdout at once.

    Raises:
        Failure: nobody reads it any more, or it is full.
    """
    if sys.stdout is None:
        return
    with _writing():
        sys.stdout.flush()
        descriptor = sys.stdout.fileno()
        rest = memoryview(data)
        while rest:  # not through sys.stdout: with PYTHONUNBUFFERED, it drops what a pipe does not accept at once
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # some program has made the terminal non-blocking
                select.select((), (descriptor,), ())


def write_line(text: str) -> None:
    """Write a line of text to stdout at once; raises as `write`."""
    if sys.stdout is not None:
        write(f"{text}\n".encode(sys.stdout.encoding, "backslashreplace"))


def flush_stdout() -> None:
    """Write what is still buffered for stdout; raises as `write`."""
    if sys.stdout is not None:
        with _writing():
            sys.stdout.flush()


def discard_stdout() -> None:
    """Discard what cannot be written to stdout, so that the interpreter does not fail on it when it exits."""
    try:
        flush_stdout()
    except Failure:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Stdout:
    """Stdout as a file for rich, with the errors of `write`; rich itself would exit with 1 for a broken pipe."""

    @property
    def encoding(self) -> str:
        """The encoding of stdout, for which rich chooses its characters."""
        return "utf-8" if sys.stdout is None else sys.stdout.encoding

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return sys.stdout is not None and sys.stdout.isatty()

    def fileno(self) -> int:
        """Return its descriptor, for which rich asks for the width."""
        if sys.stdout is None:
            raise OSError("stdout is closed")
        return sys.stdout.fileno()

    def write(self, text: str) -> int:
        """Write text at once."""
        write(text.encode(self.encoding, "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: everything has been written."""
