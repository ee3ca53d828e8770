"""A job in hand, as its function sees it, in a task or in a thread, and as its worker does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio.lowlevel

import gear_net.worker_jobs
from gear_net.forks import FORKS
from gear_net.worker_jobs import BlockingJob, JobView
from gearproto import ConnectionLost, GearmanError, WorkerConnection
from gearproto.arguments import as_payload
from gearproto.events import JobAssigned

from .threadsafe import ClosedError, ThreadsafeCalls
from .worker_session import WorkerSession

__all__ = ["HeldJob", "ThreadJob", "WorkerJob"]


class HeldJob(gear_net.worker_jobs.HeldJob[WorkerSession]):
    """A job in hand, as its worker sees it."""

    __slots__ = ("_calls", "_forks")

    def __init__(self, assigned: JobAssigned, session: WorkerSession, calls: ThreadsafeCalls) -> None:
        """Take a job that a server has assigned.

        Args:
            assigned: what the server has sent.
            session: where it comes from.
            calls: those of other threads into the event loop.
        """
        super().__init__(assigned, session)
        self._calls = calls
        self._forks = FORKS.count

    async def report(self, call: Callable[[WorkerConnection], None]) -> None:
        """Make a call to the connection, and wait while much is still to be sent.

        Raises:
            ConnectionLost: the server is gone.
            TimeoutError: the job has ended, or the timeout of the function has passed.
            GearmanError: this is a child that the function has forked.
        """
        self.check_process()
        await anyio.lowlevel.checkpoint_if_cancelled()
        self.check()
        call(self.conn)
        await self.session.send(self.conn)
        self.check()

    def report_from_thread(self, call: Callable[[WorkerConnection], None]) -> None:
        """Make a call to the connection, as `report`, from the thread of the job's function."""
        self.check_process()
        self.check()

        def report() -> Coroutine[Any, Any, None]:
            return self.report(call)

        try:
            self._calls.wait(report)
        except ClosedError:
            raise ConnectionLost(f"job {self.handle!r} has gone to another worker: this one has ended") from None

    def check_process(self) -> None:
        """Make sure that this is the worker's process.

        Raises:
            GearmanError: it is a child that a function has forked.
        """
        if FORKS.count != self._forks:
            raise GearmanError(f"job {self.handle!r} belongs to the parent process: a forked child cannot report on it")


class WorkerJob(JobView[HeldJob]):
    """A job in hand, as its function sees it."""

    __slots__ = ()

    async def progress(self, numerator: int, denominator: int) -> None:
        """Report how far the job has come (``WORK_STATUS``).

        Args:
            numerator: units of work done.
            denominator: units of work in all.

        Raises:
            ConnectionLost: the server is gone, and has given the job to another worker or will.
            TimeoutError: the timeout of the function has passed.
        """
        await self._held.report(lambda conn: conn.work_status(self.handle, numerator, denominator))

    async def send(self, data: bytes | bytearray) -> None:
        """Send a piece of the result (``WORK_DATA``), and wait while much is still to be sent; raises as `progress`."""
        await self._held.report(lambda conn: conn.work_data(self.handle, as_payload("a piece", data)))

    async def warn(self, data: bytes | bytearray) -> None:
        """Send a warning (``WORK_WARNING``); raises as `progress`."""
        await self._held.report(lambda conn: conn.work_warning(self.handle, as_payload("a warning", data)))


class ThreadJob(BlockingJob[HeldJob]):
    """A job in hand, for plain functions and generators in threads: `gear_sync.WorkerJob` in all but name."""

    __slots__ = ()

    def _report(self, call: Callable[[WorkerConnection], None]) -> None:
        self._held.report_from_thread(call)
