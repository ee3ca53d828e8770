"""SIGTERM and SIGINT, for the workers of this process while they run, and processes that their functions fork.

The first worker that runs installs one handler for both signals, and the last one puts back what was there before: so
workers may run and end in any order. A signal is given to each worker, and to the handler that the application had, if
it had one. What event loops install for themselves (asyncio's runner and trio, to raise KeyboardInterrupt) is not
called. asyncio's own handlers (`loop.add_signal_handler`) are called by the loop, which learns of signals from the
wake-up descriptor (`signal.set_wakeup_fd`), whatever the handler is.

A forked child inherits handlers and descriptor. A signal for the child would be taken for one of the worker's, which
the child does not have, and by the descriptor it would even reach the parent. So in the child all is as it was before
the worker, and the descriptor is off. Signals that come to the child before that are held back.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final, NoReturn

__all__ = ["SIGNALS", "end_child", "receiving_signals"]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""The signals that stop a worker."""

_OF_LOOPS: Final = ("_signal", "asyncio.runners", "trio._core._ki")  # modules of handlers that are not an application's
_WITHOUT_LOOP: Final = ("asyncio.unix_events", "uvloop.loop")  # of handlers that do nothing without a running loop

Receiver = Callable[[int, FrameType | None], None]

_receivers: list[Receiver] = []  # of the workers that run
_before: dict[int, Any] = {}  # by number: the handler before the first of them
_raised: list[BaseException] = []  # by handlers of the application
_held = threading.local()  # in a thread that forks: its signal mask before


@contextmanager
def receiving_signals(receive: Receiver) -> Iterator[None]:
    """Receive SIGTERM and SIGINT for the time of a block; does nothing outside of the main thread.

    What a handler of the application raises, such as SystemExit, is raised when the block ends, after the jobs in hand.

    Args:
        receive: called with the number of each signal and the frame that it interrupts, in a signal handler: the main
            thread raises what it raises.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _receivers:
        _install()
    _receivers.append(receive)
    try:
        yield
    finally:
        try:
            if _receivers == [receive]:
                _put_back()  # while there is a receiver still: a signal that comes meanwhile is for it
        except BaseException:
            _put_back()  # the receiver has raised something in between
            raise
        finally:
            with suppress(ValueError):  # in a forked child there are none
                _receivers.remove(receive)
    if _raised:
        raise _raised.pop()


def _install() -> None:
    _raised.clear()
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if handler is None:  # it is not Python's, and could not be put back
            _before.pop(number, None)
        elif handler is not _on_signal:
            _before[number] = handler
            signal.signal(number, _on_signal)


def _put_back() -> None:
    for number, handler in _before.items():
        if signal.getsignal(number) is _on_signal:  # otherwise the application has installed another one meanwhile
            signal.signal(number, handler)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if not _receivers:  # this handler was restored after the last worker had ended
        signal.signal(number, _before.get(number, signal.SIG_DFL))
        signal.raise_signal(number)
        return
    try:
        for receive in _receivers:
            receive(number, frame)
    finally:
        handler = _before.get(number)
        if callable(handler) and _module_of(handler) not in _OF_LOOPS:
            try:
                handler(number, frame)
            except BaseException as error:  # raised when the block ends
                _raised.append(error)


def _module_of(handler: Any) -> str | None:
    function = handler.func if isinstance(handler, functools.partial) else handler
    module: str | None = getattr(function, "__module__", None)
    return module


# Forks


def _hold_signals() -> None:
    if _receivers:
        _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _release_signals() -> None:
    mask = _held.__dict__.pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _leave_parent() -> None:
    if _receivers:
        _receivers.clear()
        signal.set_wakeup_fd(-1)
        for number, handler in _before.items():
            if _module_of(handler) in _WITHOUT_LOOP:
                _before[number] = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        _put_back()
    _release_signals()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_leave_parent)


def end_child(error: BaseException | None) -> NoReturn:
    """End a forked child in which a function has come to its end: the worker and its connections are the parent's.

    Args:
        error: what the function has raised; SystemExit gives the child's exit code.
    """
    code: object = 1
    with suppress(BaseException):
        if isinstance(error, SystemExit):
            code = error.code or 0
            if not isinstance(code, int):
                print(code, file=sys.stderr)  # noqa: T201  (as Python does)
        elif error is not None:
            traceback.print_exception(error)
        else:
            print("a function has returned in a process that it has forked", file=sys.stderr)  # noqa: T201
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF if isinstance(code, int) else 1)
