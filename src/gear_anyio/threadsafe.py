"""Calls from other threads, and from signal handlers, into the event loop of a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import anyio
import anyio.abc

from gear_net.waker import Waker

__all__ = ["ClosedError", "ThreadsafeCalls"]


class ClosedError(Exception):
    """The event loop makes no calls any more."""


class ThreadsafeCalls:
    """Calls that are to be made in the event loop.

    Every call is made, or refused: `close` refuses those that wait, and a caller that comes later refuses its own. So
    no thread waits for a loop that has ended. There is no lock, which a signal handler could find held by its thread.
    """

    def __init__(self) -> None:
        """Begin; call `close` in the end.

        Raises:
            OSError: the process has no descriptor left.
        """
        self._calls: deque[tuple[Callable[[], Any], Future[Any] | None]] = deque()
        self._closed = False
        self._waker = Waker()

    def soon(self, call: Callable[[], None]) -> None:
        """Make a call in the event loop, unless that has ended. From any thread, and from signal handlers."""
        self._add(call, None)

    def wait(self, call: Callable[[], Coroutine[Any, Any, None] | None]) -> None:
        """Make a call in the event loop, and wait for it. From other threads.

        Args:
            call: a function, or a coroutine function.

        Raises:
            ClosedError: the event loop has ended.
            BaseException: the call has raised it.
        """
        future: Future[None] = Future()
        self._add(call, future)
        future.result()

    def _add(self, call: Callable[[], Any], future: Future[Any] | None) -> None:
        self._calls.append((call, future))
        if self._closed:
            self._refuse()
            return
        self._waker.wake()

    def _refuse(self) -> None:
        with suppress(IndexError):
            while True:
                _call, future = self._calls.popleft()
                if future is not None:
                    future.set_exception(ClosedError("the worker has ended"))

    async def run(self, group: anyio.abc.TaskGroup) -> None:
        """Make calls until cancelled.

        Args:
            group: where coroutine functions run.
        """
        while True:
            await anyio.wait_readable(self._waker)
            self._waker.clear()
            while self._calls:
                self._make(*self._calls.popleft(), group)

    def _make(self, call: Callable[[], Any], future: Future[Any] | None, group: anyio.abc.TaskGroup) -> None:
        if future is None:
            call()
            return
        try:
            pending = call()
        except Exception as error:  # the thread that waits raises it
            future.set_exception(error)
            return
        if pending is None:
            future.set_result(None)
        else:
            group.start_soon(_finish, pending, future)

    def close(self) -> None:
        """Refuse all calls."""
        self._closed = True
        self._refuse()
        self._waker.close()


async def _finish(pending: Coroutine[Any, Any, None], future: Future[None]) -> None:
    try:
        await pending
    except Exception as error:  # the thread that waits raises it
        future.set_exception(error)
    except BaseException:
        future.set_exception(ClosedError("the worker has ended"))
        raise
    else:
        future.set_result(None)
