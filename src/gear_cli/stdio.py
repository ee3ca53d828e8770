"""What the commands write: all of it or an error, and nothing that a terminal would obey."""

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
    r"""Write control characters and the like as escapes (``\x1b``), as they come from peers and could do anything.

    Args:
        text: what to show.
        lines: keep the text's lines; each but the first is indented, so that none passes for a message of ours.
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

    Nothing can be said of a stderr that is closed or full; the exit code tells all the same.
    """
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


@contextmanager
def _writing() -> Iterator[None]:
    """Turn errors of stdout into the end of the command."""
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
        while rest:  # not through sys.stdout: with PYTHONUNBUFFERED it leaves out what a pipe does not take at once
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # some program has set the terminal so
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
    """Send what cannot be written to stdout nowhere, so that the interpreter does not fail on it at its end."""
    try:
        flush_stdout()
    except Failure:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Stdout:
    """Stdout as a file for rich, with the errors of `write`; of a broken pipe rich itself makes exit code 1."""

    @property
    def encoding(self) -> str:
        """The encoding that characters are chosen for."""
        return "utf-8" if sys.stdout is None else sys.stdout.encoding

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return sys.stdout is not None and sys.stdout.isatty()

    def fileno(self) -> int:
        """Return its descriptor, of which rich asks the width."""
        if sys.stdout is None:
            raise OSError("stdout is closed")
        return sys.stdout.fileno()

    def write(self, text: str) -> int:
        """Write text at once."""
        write(text.encode(self.encoding, "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: all has been written."""
