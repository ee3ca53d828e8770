"""A job in hand, as its function sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from gearproto import ConnectionLost, GearmanError, WorkerConnection
from gearproto.arguments import as_payload
from gearproto.events import JobAssigned
from gearproto.worker import Assignment

from .worker_session import WorkerSession

__all__ = ["WorkerJob"]

_NEVER: Final = float("inf")


class WorkerJob(Assignment):
    """A job in hand, as its function sees it.

    Attributes:
        timeout: seconds that it may take; None for no limit.
    """

    __slots__ = ("_session", "timeout")

    def __init__(self, assigned: JobAssigned, session: WorkerSession) -> None:
        """Make the job of an assignment."""
        super().__init__(assigned, session.conn)
        self.timeout: float | None = None
        self._session = session

    @property
    def connected(self) -> bool:
        """Whether the connection that assigned the job is still open."""
        return self._session.conn is self.conn and self._session.connected

    def progress(self, numerator: int, denominator: int) -> None:
        """Report how far the job has come (``WORK_STATUS``).

        Args:
            numerator: units of work done.
            denominator: units of work in all.

        Raises:
            ConnectionLost: the server is gone, and has given the job to another worker or will.
            TimeoutError: the timeout of the function has passed.
        """
        self._report(lambda conn: conn.work_status(self.handle, numerator, denominator))

    def send(self, data: bytes | bytearray) -> None:
        """Send a piece of the result (``WORK_DATA``), and wait until the socket takes it; raises as `progress`."""
        self._report(lambda conn: conn.work_data(self.handle, as_payload("a piece", data)))

    def warn(self, data: bytes | bytearray) -> None:
        """Send a warning (``WORK_WARNING``); raises as `progress`."""
        self._report(lambda conn: conn.work_warning(self.handle, as_payload("a warning", data)))

    def _report(self, call: Callable[[WorkerConnection], None]) -> None:
        session = self._session
        if session.pump.inherited:
            raise GearmanError(f"job {self.handle!r} belongs to the parent process: a forked child cannot report on it")
        session.abort_if_overdue()
        with session.pump.gate, session.pump.lock:
            self._check()
            call(self.conn)
            session.settle()
        session.wait_until_sent(_NEVER if self.until is None else self.until)
        with session.pump.gate, session.pump.lock:
            self._check()

    def _check(self) -> None:
        if not self.connected:
            raise ConnectionLost(f"{self._session.address}: the connection is gone, and job {self.handle!r} with it")
        if self.given_up or self.superseded or (self.until is not None and time.monotonic() >= self.until):
            raise TimeoutError(f"job {self.handle!r} has taken longer than its function may")
