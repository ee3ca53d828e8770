"""A job in hand, as its function sees it, and as its worker does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import gear_net.worker_jobs
from gear_net.worker_jobs import BlockingJob
from gearproto import GearmanError, WorkerConnection

from .worker_session import WorkerSession

__all__ = ["HeldJob", "WorkerJob"]


class HeldJob(gear_net.worker_jobs.HeldJob[WorkerSession]):
    """A job in hand, as its worker sees it."""

    __slots__ = ()

    def report(self, call: Callable[[WorkerConnection], None]) -> None:
        """Make a call to the connection, and wait until the socket has taken what it has queued.

        Raises:
            ConnectionLost: the server is gone.
            TimeoutError: the timeout of the function has passed.
            GearmanError: this is a child that the function has forked.
        """
        session = self.session
        if session.pump.inherited:
            raise GearmanError(f"job {self.handle!r} belongs to the parent process: a forked child cannot report on it")
        session.abort_if_overdue()
        with session.pump.gate, session.pump.lock:
            self.check()
            call(self.conn)
            session.settle()
        session.wait_until_sent(math.inf if self.until is None else self.until)
        with session.pump.gate, session.pump.lock:
            self.check()

    def check(self) -> None:
        """Make sure that the job can be reported on; see `gear_net.worker_jobs.HeldJob.check`."""
        super().check()
        if self.until is not None and time.monotonic() >= self.until:
            raise TimeoutError(f"job {self.handle!r} has exceeded its timeout")


class WorkerJob(BlockingJob[HeldJob]):
    """A job in hand, as its function sees it."""

    __slots__ = ()

    def _report(self, call: Callable[[WorkerConnection], None]) -> None:
        self._held.report(call)
