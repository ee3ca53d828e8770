"""The text protocol for administrators, as methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from gearproto import ServerError, admin
from gearproto.admin import (
    Command,
    FunctionPriorities,
    FunctionStatus,
    JobListed,
    Ok,
    Reply,
    Rows,
    UniqueListed,
    WorkerListed,
)

from .names import as_bytes

__all__ = ["Admin"]


class Admin:
    """What administrators ask of a job server.

    Every method raises `ServerError` if the server refuses, `ConnectionLost` if the connection goes before the answer,
    and `TimeoutError` if there is none in time.
    """

    def __init__(self, ask: Callable[[Command], Reply]) -> None:
        """Use a function that sends a command and returns its answer."""
        self._ask = ask

    def _rows(self, command: Command) -> tuple[Any, ...]:
        return tuple(cast("Rows", self._ask(command)).rows)

    def _value(self, command: Command) -> bytes:
        return cast("Ok", self._ask(command)).value

    def status(self) -> tuple[FunctionStatus, ...]:
        """Return every function with its jobs and workers (``status``)."""
        return self._rows(admin.Status())

    def priority_status(self) -> tuple[FunctionPriorities, ...]:
        """Return every function with its queued jobs by priority (``prioritystatus``)."""
        return self._rows(admin.PriorityStatus())

    def workers(self) -> tuple[WorkerListed, ...]:
        """Return every connection with its functions (``workers``)."""
        return self._rows(admin.Workers())

    def jobs(self) -> tuple[JobListed, ...]:
        """Return every job (``show jobs``)."""
        return self._rows(admin.ShowJobs())

    def unique_jobs(self) -> tuple[UniqueListed, ...]:
        """Return the unique of every job (``show unique jobs``)."""
        return self._rows(admin.ShowUniqueJobs())

    def version(self) -> str:
        """Return the server's version (``version``)."""
        return self._value(admin.Version()).decode("utf-8", "backslashreplace")

    def verbose(self) -> str:
        """Return the server's log level (``verbose``)."""
        return self._value(admin.Verbose()).decode("utf-8", "backslashreplace")

    def pid(self) -> int:
        """Return the server's process id (``getpid``)."""
        value = self._value(admin.GetPid())
        if not value.isdigit():
            raise ServerError(b"MALFORMED_REPLY", value)
        return int(value)

    def cancel(self, handle: bytes) -> None:
        """Cancel a job; those who wait for it are told that it failed (``cancel job``)."""
        self._ask(admin.CancelJob(handle))

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
            *sizes: none for no limit, one for all priorities, or one each for high, normal and low; 0 is no limit.
        """
        self._ask(admin.MaxQueue(as_bytes(function), sizes))

    def shutdown(self, *, graceful: bool = False) -> None:
        """Stop the server (``shutdown``); gearmand refuses.

        Args:
            graceful: whether it lets running jobs end first.
        """
        self._ask(admin.Shutdown(graceful))
