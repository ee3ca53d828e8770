"""The text protocol for administrators, as methods."""

from __future__ import annotations

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
    def __call__(self, command: Command[_T], /) -> _T: ...


class Admin:
    """The commands for administrators of a job server.

    Every method raises `ServerError` if the server refuses, `ConnectionLost` if no server can be reached or the
    connection ends before the answer, and `TimeoutError` if there is no answer in time.
    """

    def __init__(self, ask: _Ask) -> None:
        """Use a function that sends a command and returns what its answer tells."""
        self._ask = ask

    def status(self) -> tuple[FunctionStatus, ...]:
        """Return every function with its jobs and workers (``status``)."""
        return self._ask(admin.Status())

    def priority_status(self) -> tuple[FunctionPriorities, ...]:
        """Return every function with its queued jobs by priority (``prioritystatus``)."""
        return self._ask(admin.PriorityStatus())

    def workers(self) -> tuple[WorkerListed, ...]:
        """Return every connection with its functions (``workers``)."""
        return self._ask(admin.Workers())

    def jobs(self) -> tuple[JobListed, ...]:
        """Return every job (``show jobs``)."""
        return self._ask(admin.ShowJobs())

    def unique_jobs(self) -> tuple[UniqueListed, ...]:
        """Return the unique of every job (``show unique jobs``)."""
        return self._ask(admin.ShowUniqueJobs())

    def version(self) -> str:
        """Return the server's version (``version``)."""
        return self._ask(admin.Version())

    def verbose(self) -> str:
        """Return the server's log level (``verbose``)."""
        return self._ask(admin.Verbose())

    def pid(self) -> int:
        """Return the server's process id (``getpid``)."""
        return self._ask(admin.GetPid())

    def cancel(self, handle: bytes | bytearray) -> None:
        """Cancel a job; its clients see it as failed (``cancel job``)."""
        self._ask(admin.CancelJob(as_bytes(handle)))

    def create_function(self, function: str | bytes) -> None:
        """Make a function known to the server (``create function``)."""
        self._ask(admin.CreateFunction(as_bytes(function)))

    def drop_function(self, function: str | bytes) -> None:
        """Make the server forget a function that has no workers and no jobs (``drop function``)."""
        self._ask(admin.DropFunction(as_bytes(function)))

    def max_queue(self, function: str | bytes, *sizes: int) -> None:
        """Limit the jobs of a function (``maxqueue``).

        Args:
            function: its name; the server has to know it.
            *sizes: none for no limit, one for all priorities, or one each for high, normal and low; 0 means no limit.
        """
        self._ask(admin.MaxQueue(as_bytes(function), sizes))

    def shutdown(self, *, graceful: bool = False) -> None:
        """Stop the server (``shutdown``); gearmand refuses.

        Args:
            graceful: whether the server lets running jobs end first.
        """
        self._ask(admin.Shutdown(graceful))
