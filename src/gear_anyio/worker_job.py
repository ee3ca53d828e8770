"""A job in hand, as its function sees it: in a task, or in a thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from gearproto import ConnectionLost, GearmanError, WorkerConnection
from gearproto.arguments import as_payload
from gearproto.events import JobAssigned
from gearproto.worker import Assignment

from .threadsafe import ClosedError, ThreadsafeCalls

if TYPE_CHECKING:
    from .worker_session import WorkerSession

__all__ = ["ThreadJob", "WorkerJob"]


class WorkerJob(Assignment):
    """A job in hand, for functions that are coroutines or asynchronous generators.

    Attributes:
        session: the server.
        calls: those of other threads into the event loop.
    """

    __slots__ = ("_process", "calls", "session")

    def __init__(self, assigned: JobAssigned, session: WorkerSession, calls: ThreadsafeCalls) -> None:
        """Make the job of an assignment."""
        super().__init__(assigned, session.conn)
        self.session = session
        self.calls = calls
        self._process = os.getpid()

    @property
    def connected(self) -> bool:
        """Whether the connection that assigned the job is still open."""
        return self.session.conn is self.conn and self.session.connected

    async def progress(self, numerator: int, denominator: int) -> None:
        """Report how far the job has come (``WORK_STATUS``).

        Args:
            numerator: units of work done.
            denominator: units of work in all.

        Raises:
            ConnectionLost: the server is gone, and has given the job to another worker or will.
        """
        await self._report(lambda conn: conn.work_status(self.handle, numerator, denominator))

    async def send(self, data: bytes | bytearray) -> None:
        """Send a piece of the result (``WORK_DATA``), and wait while much is still to be sent; raises as `progress`."""
        await self._report(lambda conn: conn.work_data(self.handle, as_payload("a piece", data)))

    async def warn(self, data: bytes | bytearray) -> None:
        """Send a warning (``WORK_WARNING``); raises as `progress`."""
        await self._report(lambda conn: conn.work_warning(self.handle, as_payload("a warning", data)))

    async def _report(self, call: Callable[[WorkerConnection], None]) -> None:
        self.check_process()
        await anyio.lowlevel.checkpoint_if_cancelled()
        self.check()
        call(self.conn)
        await self.session.send(self.conn)
        self.check()

    def check_process(self) -> None:
        """Make sure that this is the worker's process.

        Raises:
            GearmanError: it is a child that a function has forked.
        """
        if os.getpid() != self._process:
            raise GearmanError(f"job {self.handle!r} belongs to the parent process: a forked child cannot report on it")

    def check(self) -> None:
        """Make sure that the job can be reported on: it may have been assigned to this worker once more meanwhile.

        Raises:
            ConnectionLost: the server is gone.
            TimeoutError: the job has ended.
        """
        if not self.connected:
            raise ConnectionLost(f"{self.session.address}: the connection is gone, and job {self.handle!r} with it")
        if self.given_up or self.superseded:
            raise TimeoutError(f"job {self.handle!r} has ended, or has taken longer than its function may")


class ThreadJob:
    """A job in hand, for plain functions and generators, which run in a thread: `gear_sync.WorkerJob` in all but name.

    Attributes:
        handle: the server's name for it.
        function: name of the function.
        unique: the client's own name for it; may be empty.
        reducer: name of the reducer; empty if there is none.
        workload: what to work on.
    """

    __slots__ = ("_job", "function", "handle", "reducer", "unique", "workload")

    def __init__(self, job: WorkerJob) -> None:
        """Make the face of a job."""
        self.handle = job.handle
        self.function = job.function
        self.unique = job.unique
        self.reducer = job.reducer
        self.workload = job.workload
        self._job = job

    def progress(self, numerator: int, denominator: int) -> None:
        """Report how far the job has come (``WORK_STATUS``).

        Args:
            numerator: units of work done.
            denominator: units of work in all.

        Raises:
            ConnectionLost: the server is gone, and has given the job to another worker or will.
            TimeoutError: the timeout of the function has passed.
        """
        self._run(lambda: self._job.progress(numerator, denominator))

    def send(self, data: bytes | bytearray) -> None:
        """Send a piece of the result (``WORK_DATA``), and wait while much is still to be sent; raises as `progress`."""
        self._run(lambda: self._job.send(data))

    def warn(self, data: bytes | bytearray) -> None:
        """Send a warning (``WORK_WARNING``); raises as `progress`."""
        self._run(lambda: self._job.warn(data))

    def _run(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._job.check_process()
        self._job.check()
        try:
            self._job.calls.wait(call)
        except ClosedError:
            raise ConnectionLost(f"job {self.handle!r} has gone to another worker: this one has ended") from None
