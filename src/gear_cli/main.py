"""The command ``gear``: finds the subcommand, runs it, and turns errors into messages and exit codes.

This module imports nothing that takes time or could be missing. So ``--version`` and wrong commands are answered at
once, and errors while a subcommand is imported are caught.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from .commands import COMMANDS
from .exits import Exit, Failure, UsageError, reason
from .stdio import discard_stdout, flush_stdout, printable, say, write_line

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["main"]

_GENERAL: Final = ("--help", "-h", "--version")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, in the main thread.

    Args:
        arguments: the words after ``gear``; None means those that the process was started with.

    Returns:
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # no text may stop a command, in any locale
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = _run(words)
        flush_stdout()
    except Failure as failure:
        if str(failure):
            name = " ".join(("gear", *(word for word in words[:1] if word in COMMANDS)))
            say(f"{name}: {printable(str(failure))}")
        code = failure.code
        discard_stdout()
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    return code


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        from gearproto import __version__

        write_line(f"gear {__version__}")
        return Exit.DONE
    if words and words[0] not in COMMANDS + _GENERAL:
        kind = "option" if words[0].startswith("-") else "command"
        raise UsageError(
            f'unknown {kind} "{words[0]}"; the commands are {", ".join(COMMANDS[:-1])} and {COMMANDS[-1]}.'
        )
    try:
        from .app import parse
    except ImportError as error:
        raise Failure(f"this command needs the extra cli: pip install 'gearproto[cli]' ({error}).") from error
    command = parse(words)
    try:
        with _interruptible():
            return command()
    except MemoryError as error:
        raise Failure("there is not enough memory.") from error
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise Failure(f"{place}{reason(error)}.") from error


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let signals raise exceptions while a command runs, so that it can clean up servers and the terminal."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminate}
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if before[number] is not signal.SIG_IGN:  # which the shell sets for commands in the background
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
