"""One connection of a client, shared by its threads: requests, and who waits for their answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from gearproto import ClientConnection, ConnectionLost, JobNotSent, ServerError
from gearproto.addresses import Address
from gearproto.admin import Command, Refused, Reply
from gearproto.connection import Limits
from gearproto.events import (
    AdminReplied,
    ConnectionClosed,
    Event,
    JobEnded,
    JobQueued,
    RequestFailed,
    RequestId,
    RequestLost,
)

from .job import Job, outcome_error
from .link import Link
from .pump import Pump

__all__ = ["Session", "SessionEnded", "Submission"]

Submission = dict[str, Any]
"""The arguments of `ClientConnection.submit_job`."""


class SessionEnded(JobNotSent):
    """The connection had ended before this call came to use it: another one may do."""


class _Answer:
    """What a request that is no foreground submission comes to."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event: Event | None = None

    def on_event(self, event: Event) -> bool:
        self.event = event
        return True


class Session:
    """A connection to one server, and the records of what is open on it."""

    def __init__(self, address: Address, sock: socket.socket, limits: Limits) -> None:
        """Begin with a connected socket.

        Args:
            address: the server, for messages.
            sock: the socket; the session closes it.
            limits: limits for the connection, as in `gearproto.connection.Connection`.
        """
        self.address = address
        options: Limits = {"now": time.monotonic(), **limits}
        self._conn = ClientConnection(**options)
        self._link = Link(sock, self._conn, self._on_event)
        self._pump = Pump(self._link)
        self._records: dict[RequestId, Job | _Answer] = {}
        self._reason = ""

    def ended(self) -> bool:
        """Look whether the connection has ended."""
        self._pump.look()
        return self._link.closed

    def _check(self) -> None:
        if self._link.closed:
            raise SessionEnded(f"{self.address}: {self._reason}")

    def submit(self, submissions: Iterable[Submission]) -> list[Job]:
        """Submit foreground jobs, in one write.

        Raises:
            SessionEnded: the connection has ended; nothing was submitted.
            LocalProtocolError: an argument of one breaks a rule; the ones before it are submitted.
        """
        jobs: list[Job] = []
        with self._pump.lock:
            self._check()
            try:
                for submission in submissions:
                    request = self._conn.submit_job(**submission)
                    job = Job(submission["function"], submission["unique"], self._pump)
                    self._records[request] = job
                    jobs.append(job)
            finally:
                self._pump.settle()
        return jobs

    def submit_background(self, submission: Submission, timeout: float | None) -> bytes:
        """Submit a background job, and wait until the server has taken it; return its handle."""
        event = self.ask(lambda: self._conn.submit_job(**submission), timeout)
        if isinstance(event, JobQueued):
            return event.handle
        assert isinstance(event, JobEnded)
        error = outcome_error(event.outcome)
        assert error is not None
        raise error

    def admin(self, command: Command, timeout: float | None) -> Reply:
        """Send a text command, and wait for its answer."""
        event = self.ask(lambda: self._conn.admin(command), timeout)
        assert isinstance(event, AdminReplied)
        if isinstance(event.reply, Refused):
            raise ServerError(event.reply.code, event.reply.text.replace(b"+", b" "))
        return event.reply

    def ask(self, request: Callable[[], RequestId], timeout: float | None) -> Event:
        """Send a request, and wait for its answer.

        Args:
            request: queues it; called with the lock held.
            timeout: longest time to wait in seconds; None for no limit.

        Raises:
            SessionEnded: the connection had ended before the call.
            ServerError: the server answered with an error.
            ConnectionLost: the connection ended before the answer.
            TimeoutError: the time has passed.
        """
        answer = _Answer()
        with self._pump.lock:
            self._check()
            id_ = request()
            self._records[id_] = answer
            self._pump.settle()
        if not self._pump.wait(lambda: answer.event is not None, timeout):
            raise TimeoutError(f"{self.address}: no answer within {timeout} s")
        event = answer.event
        assert event is not None
        if isinstance(event, RequestFailed):
            raise ServerError(event.code, event.text)
        if isinstance(event, RequestLost):
            raise ConnectionLost(f"{self.address}: {self._reason}")
        return event

    @property
    def conn(self) -> ClientConnection:
        """The connection; only for the callable given to `ask`."""
        return self._conn

    def set_option(self, option: bytes) -> None:
        """Set an option, without waiting for the answer."""
        with self._pump.lock:
            self._records[self._conn.set_option(option)] = _Answer()
            self._pump.settle()

    def close(self) -> None:
        """End the connection; whoever waits is told."""
        self._pump.close("closed by the client")

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ConnectionClosed):
            self._reason = event.reason
            return
        id_ = getattr(event, "request", None)
        if id_ is None:
            return  # a report that belongs to nothing, or some worker's malformed progress
        record = self._records[id_]
        if record.on_event(event):
            del self._records[id_]
