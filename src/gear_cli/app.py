"""The command line of ``gear``: its commands, and how words are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, cast

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

import gearproto

from .commands import COMMANDS
from .exits import Exit, UsageError
from .options import STDIN
from .stdio import Stdout

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["app", "parse"]

app = App(
    name="gear",
    help="""Gearman job queues from the shell: a job server, workers and clients.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no server could be reached, 4 timeout, 130 interrupted.""",
    version=f"gear {gearproto.__version__}",
    help_format="markdown",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
_ARGUMENTS = {"demo": "[FILE]", "serve": "", "submit": "FUNCTION [WORKLOAD]", "work": "FUNCTION [COMMAND...]"}
for _name in COMMANDS:
    _usage = f"Usage: gear {_name} [OPTIONS] {_ARGUMENTS[_name]}".rstrip()
    # By name: a command is only imported when it is called, so that a server stays small.
    app.command(f"gear_cli.{_name}:{_name}", name=_name, usage=_usage)


_NO_CONSOLE = cast("Console", object())  # never used, as `main` shows errors; a real one would load rich


def parse(words: Sequence[str]) -> Callable[[], int]:
    """Return a function that runs a command line.

    Args:
        words: the words after ``gear``.

    Raises:
        UsageError: the command line is not valid.
    """
    if not words or words[0] in app.help_flags:
        for name in COMMANDS:
            app[name]  # the list of commands shows what each one does, so all have to be imported
    elif words[0] == "submit":
        end = words.index("--") if "--" in words else len(words)
        words = [STDIN if word == "-" else word for word in words[:end]] + list(words[end:])
    try:
        command, bound, _ignored = app.parse_args(
            words, exit_on_error=False, print_error=False, error_console=_NO_CONSOLE
        )
    except CycloptsError as error:
        hint = ""
        if isinstance(error, UnknownOptionError) and words[0] == "work":
            hint = " Put -- before a command that has options."
        raise UsageError(f"{error}{hint}") from error
    if "console" in bound.arguments:  # a page of help, or the version
        from rich.console import Console

        bound.arguments["console"] = Console(file=cast("IO[str]", Stdout()))

    def run() -> int:
        code = command(*bound.args, **bound.kwargs)
        return Exit.DONE if code is None else int(code)

    return run
