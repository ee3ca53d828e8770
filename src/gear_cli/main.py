"""The command ``gear``: its subcommands, and how it ends."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

import gearproto

from .options import STDIN, Exit, Failure

__all__ = ["app", "main"]


app = App(
    name="gear",
    help="""Gearman job queues from the shell: a job server, workers and clients.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server could be reached, 4 no result in time.""",
    version=f"gear {gearproto.__version__}",
    help_format="markdown",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
_COMMANDS: Final = ("demo", "serve", "submit", "work")
for _name in _COMMANDS:
    # By name: a command imports what it needs only when it is called for, so that a server stays small.
    app.command(f"gear_cli.{_name}:{_name}", name=_name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: the words after ``gear``; None means those that the process was started with.

    Returns:
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # no text may stop a command, whatever the locale is
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return Exit.BROKEN_PIPE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in app.help_flags:
        for name in _COMMANDS:
            app[name]  # the list of commands shows what each is for, so all have to be there
    if words and words[0] == "submit":
        end = words.index("--") if "--" in words else len(words)
        words = [STDIN if word == "-" else word for word in words[:end]] + list(words[end:])
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        hint = ""
        if isinstance(error, UnknownOptionError) and words[0] == "work":
            hint = " Put -- before a command that has options of its own."
        _complain(error.command_chain or (), f"{error}{hint}")
        return Exit.USAGE
    except Failure as failure:
        _complain(words[:1], str(failure))
        return failure.code
    return Exit.DONE if code is None else int(code)


def _complain(chain: Sequence[str], text: str) -> None:
    print(" ".join(("gear", *chain)) + f": {text}", file=sys.stderr)


def _discard_output() -> None:
    """Send what is still buffered for stdout nowhere, so that the interpreter does not fail on it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
