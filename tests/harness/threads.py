"""Threads of tests: each wait has a limit, and none outlives a test that fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from gear_sync import Worker

from .servers import poll_until

__all__ = ["LIMIT", "Call", "nothing_left_open", "working"]

LIMIT = 20.0  # seconds; only a hang reaches it

_T = TypeVar("_T")


class Call(Generic[_T]):
    """A call in a thread of its own."""

    def __init__(self, function: Callable[[], _T]) -> None:
        self._function = function
        self._results: list[_T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._function())
        except BaseException as error:
            self._error = error

    @property
    def running(self) -> bool:
        """Whether it has not returned."""
        return self._thread.is_alive()

    def result(self) -> _T:
        """Wait for it, and return what it returns or raise what it raises."""
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), f"{self._function} does not return"
        if self._error is not None:
            raise self._error
        return self._results[0]


@contextmanager
def working(worker: Worker) -> Iterator[Call[None]]:
    """Run a worker in a thread for the time of a block."""
    call = Call(worker.run)
    try:
        yield call
    finally:
        worker.stop()
        call.result()
        worker.close()


@contextmanager
def nothing_left_open(*, server_goes_on: bool = False) -> Iterator[None]:
    """Check that a block leaves as many descriptors as it finds, and no thread of its own.

    Args:
        server_goes_on: whether a server in a thread of this process outlives the block. It closes its ends of the
            block's connections a little later, or has yet to accept them; so they are waited for, once no thread is
            left that could close anything else.
    """
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    assert set(threading.enumerate()) <= threads
    if server_goes_on:
        poll_until(lambda: _descriptors() == descriptors, f"{descriptors} descriptors are open, as before")
    else:
        assert _descriptors() == descriptors


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
