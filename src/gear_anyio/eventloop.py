"""What callbacks of an event loop need.

asyncio calls the readers of sockets, and what `call_soon` was given, outside of any task. anyio cannot tell there which
library runs, unless `anyio.run` has noted it: under plain `asyncio.run` it raises. So a callback, and all that it may
call, asks anyio for nothing: not for the time, and for no cancel scope, event or task. They are found here instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVarTuple, Unpack

import anyio
import anyio.abc
import anyio.lowlevel

__all__ = ["TaskStarter", "asyncio_loop", "clock", "this_loop"]

_A = TypeVarTuple("_A")


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """Return the asyncio loop that runs the current task; None if another library does. Not for callbacks."""
    # A loop of asyncio may run even so, as the host of trio's guest mode.
    return asyncio.get_running_loop() if anyio.get_cancelled_exc_class() is asyncio.CancelledError else None


_LOOP: Final[anyio.lowlevel.RunVar[object]] = anyio.lowlevel.RunVar("gear_anyio's event loop")


def this_loop() -> object:
    """Return what stands for the event loop that runs the current task, and for no other. Not for callbacks."""
    try:
        return _LOOP.get()
    except LookupError:
        _LOOP.set(loop := object())
        return loop


def clock() -> Callable[[], float]:
    """Return what tells the event loop's time, in callbacks too. Call this in a task."""
    loop = asyncio_loop()
    return anyio.current_time if loop is None else loop.time


class TaskStarter:
    """Starts tasks for callbacks."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        """Begin, in a task; the tasks run in a task group, until it is cancelled."""
        self._group = group
        self._calls: deque[tuple[Callable[..., Coroutine[Any, Any, None]], tuple[Any, ...]]] = deque()
        self._called = anyio.Event()
        self._stopped = False
        group.start_soon(self._run)

    def start_soon(self, call: Callable[[Unpack[_A]], Coroutine[Any, Any, None]], *arguments: *_A) -> None:
        """Run a coroutine function in a task, as `anyio.abc.TaskGroup.start_soon` does; in callbacks too."""
        self._calls.append((call, arguments))
        self._called.set()

    def stop(self) -> None:
        """Start what was asked for, and nothing more."""
        self._stopped = True
        self._called.set()

    async def _run(self) -> None:
        try:
            while not self._stopped:
                self._start()
                self._called = anyio.Event()
                await self._called.wait()
        finally:
            self._start()  # in a cancelled group too: each call sees the cancellation, and can pass it on

    def _start(self) -> None:
        while self._calls:
            call, arguments = self._calls.popleft()
            self._group.start_soon(call, *arguments)
