"""Jobs as they end."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterator
from typing import TypeVar

import anyio

from gearproto.client import JobRecord, record_of

from .client_servers import ClientServers
from .job import Job

__all__ = ["AsCompleted"]

_R = TypeVar("_R")


class AsCompleted(AsyncIterator[Job[_R]]):
    """Jobs as they end. Not a generator, because event loops want those to be closed after a `break`."""

    def __init__(self, servers: ClientServers, jobs: dict[Job[_R], int], until: float, timeout: float | None) -> None:
        """Begin.

        Args:
            servers: those of the jobs' client.
            jobs: the jobs, and how often to yield each.
            until: monotonic time in seconds at which the time is up.
            timeout: the same as the caller said it, for the message.
        """
        self._servers = servers
        self._left = {record_of(job): [job] * count for job, count in jobs.items()}
        self._timeout = timeout
        self._until = until
        self._came = anyio.Event()
        self._ended: deque[Job[_R]] = deque()
        # Jobs may run for long after the loop has been left: they must not keep this object alive.
        on_resolved = weakref.WeakMethod(self._on_resolved)

        def watcher(record: JobRecord) -> None:
            if (call := on_resolved()) is not None:
                call(record)

        self._watcher = watcher
        servers.iterations.add(self)
        for record in list(self._left):
            record.watch(watcher)

    def __del__(self) -> None:
        for record in self._left:
            record.unwatch(self._watcher)

    def _on_resolved(self, record: JobRecord) -> None:
        self._ended.extend(self._left.pop(record, ()))
        self._came.set()

    def look_again(self) -> None:
        """Wake the task that waits."""
        self._came.set()

    async def __anext__(self) -> Job[_R]:
        """Return the next job that has ended, and wait for it if need be.

        Raises:
            TimeoutError: the time has passed.
        """
        while not self._ended:
            if not self._left:
                raise StopAsyncIteration
            self._servers.before_wait()
            self._servers.check_progress(self._left)
            self._came = anyio.Event()
            with anyio.CancelScope(deadline=self._until) as scope:
                await self._came.wait()
            if scope.cancelled_caught and not self._ended:
                left = sum(map(len, self._left.values()))
                raise TimeoutError(
                    f"{left} jobs have not ended within {self._timeout:g} s; they have not been cancelled"
                )
        return self._ended.popleft()
