"""The text protocol for administrators, as methods."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, TypeVar

from gearproto import admin
from gearproto.admin import (
    Command,
    FunctionPriorities,
    FunctionStatus,
    JobListed,
    UniqueListed,
    WorkerListed,
)
from gearproto.arguments import as_bytes

__all__ = ["Admin"]

_T = TypeVar("_T")


class _Ask(Protocol):
    def __call__(self, command: Command[_T], /) -> Awaitable[_T]: ...


class Admin:
    """The commands for administrators of a job server.

    Every method raises `ServerError` if the server refuses, `ConnectionLost` if no server can be reached or the
    connection ends before the answer, and `TimeoutError` if there is no answer in time.
    """

    def __init__(self, ask: _Ask) -> None:
        """Use a function that sends a command and returns what its answer tells."""
        self._ask = ask

    async def status(self) -> tuple[FunctionStatus, ...]:
        """Return every function with its jobs and workers (``status``)."""
        return await self._ask(admin.Status())

    async def priority_status(self) -> tuple[FunctionPriorities, ...]:
        """Return every function with its queued jobs by priority (``prioritystatus``)."""
        return await self._ask(admin.PriorityStatus())

    async def workers(self) -> tuple[WorkerListed, ...]:
        """Return every connection with its functions (``workers``)."""
        return await self._ask(admin.Workers())

    async def jobs(self) -> tuple[JobListed, ...]:
        """Return every job (``show jobs``)."""
        return await self._ask(admin.ShowJobs())

    async def unique_jobs(self) -> tuple[UniqueListed, ...]:
        """Return the unique of every job (``show unique jobs``)."""
        return await self._ask(admin.ShowUniqueJobs())

    async def version(self) -> str:
        """Return the server's version (``version``)."""
        return await self._ask(admin.Version())

    async def verbose(self) -> str:
        """Return the server's log level (``verbose``)."""
        return await self._ask(admin.Verbose())

    async def pid(self) -> int:
        """Return the server's process id (``getpid``)."""
        return await self._ask(admin.GetPid())

    async def cancel(self, handle: bytes | bytearray) -> None:
        """Cancel a job; its clients see it as failed (``cancel job``)."""
        await self._ask(admin.CancelJob(as_bytes(handle)))

    async def create_function(self, function: str | bytes) -> None:
        """Make a function known to the server (``create function``)."""
        await self._ask(admin.CreateFunction(as_bytes(function)))

    async def drop_function(self, function: str | bytes) -> None:
        """Make the server forget a function that has no workers and no jobs (``drop function``)."""
        await self._ask(admin.DropFunction(as_bytes(function)))

    async def max_queue(self, function: str | bytes, *sizes: int) -> None:
        """Limit the jobs of a function (``maxqueue``).

        Args:
            function: its name; the server has to know it.
            *sizes: none for no limit, one for all priorities, or one each for high, normal and low; 0 means no limit.
        """
        await self._ask(admin.MaxQueue(as_bytes(function), sizes))

    async def shutdown(self, *, graceful: bool = False) -> None:
        """Stop the server (``shutdown``); gearmand refuses.

        Args:
            graceful: whether the server lets running jobs end first.
        """
        await self._ask(admin.Shutdown(graceful))
