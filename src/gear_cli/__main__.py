"""The process of the command ``gear``, also as ``python -m gear_cli``."""

import _signal  # type: ignore[import-not-found]  # what `signal` is made of, which takes a while to import itself
import os
import sys


def _leave(number: int, _frame: object) -> None:
    """Exit at once, without a message."""
    os._exit(128 + number)


if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    # Before anything else is imported: Python cannot be interrupted cleanly while it imports or exits. It prints a
    # traceback, or loses the signal.
    _signal.signal(_signal.SIGINT, _leave)

from .main import main  # noqa: E402


def run() -> None:
    """Run the command line that this process was started with, and exit."""
    _fill_standard_descriptors()
    sys.exit(main())


def _fill_standard_descriptors() -> None:
    """Open descriptors that the shell has closed (``>&-``): a socket could get the number, and its peer our output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


if __name__ == "__main__":
    run()
