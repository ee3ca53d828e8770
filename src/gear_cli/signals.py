"""When signals may interrupt a command, and when they have to wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["undisturbed"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delay signals until the block is left.

    The handlers of SIGINT and SIGTERM raise exceptions, which may come between any two lines. Little code is written
    for this: rich leaves the terminal in disorder or raises errors of its own, `subprocess` loses track of a process.
    Use this only for code that does not wait long.
    """
    if threading.current_thread() is not threading.main_thread():  # no handler is called there
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for each in came:
            handler = before[signal.Signals(each)]
            if callable(handler):
                handler(each, None)
            else:
                signal.raise_signal(each)
