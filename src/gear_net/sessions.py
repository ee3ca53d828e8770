"""One server of a client or a worker: what the events of its connection mean in both idioms.

A session has a link while there is a connection. `gear_sync` and `gear_anyio` open it, move its bytes and wait. What is
known of the server outlasts the connection: see `gearproto.standing.Standing`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from gearproto import ClientConnection, WorkerConnection
from gearproto.addresses import Address
from gearproto.client import JobRecord, OpenRequests
from gearproto.event import Event
from gearproto.events import Answered, ConnectionClosed, JobAssigned, ReportRefused

from .settings import ClientSettings, WorkerSettings
from .standing import LoggedStanding

__all__ = ["ClientSessionBase", "SessionLink", "WorkerSessionBase"]


class SessionLink(Protocol):
    """What a session needs of its link."""

    error: Exception | None
    """What the transport has failed with; None if it has not."""

    @property
    def paused(self) -> bool:
        """Whether nothing is to be read now."""
        ...

    def pause(self) -> None:
        """Read nothing, until `resume`."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


_Link = TypeVar("_Link", bound=SessionLink)
_Record = TypeVar("_Record", bound=JobRecord)


class SessionBase(Generic[_Link]):
    """What the sessions of clients and workers have in common.

    Attributes:
        address: the server.
        standing: what is known of the server.
        link: moves the bytes of the connection; None while there is none.
    """

    def __init__(
        self, address: Address, standing: LoggedStanding, connect_timeout: float, clock: Callable[[], float]
    ) -> None:
        """Begin without a connection.

        Args:
            address: the server.
            standing: what is known of the server.
            connect_timeout: seconds for each attempt to connect; and for the answer of a server that fell silent.
            clock: returns the monotonic time in seconds.
        """
        self.address = address
        self.standing = standing
        self.link: _Link | None = None
        self._connect_timeout = connect_timeout
        self._now = clock

    @property
    def retry_at(self) -> float:
        """Monotonic time in seconds before which the server should be left alone."""
        return self.standing.retry_at

    @property
    def suspect(self) -> bool:
        """Whether the server fell silent, and has not answered since."""
        return self.standing.suspect


class ClientSessionBase(SessionBase[_Link], Generic[_Link, _Record]):
    """One server of a client.

    Attributes:
        records: what is open on the connection, or was on the last one; after each call to it, call `settle`.
        failure: why the server could not be reached, or was lost.
    """

    def __init__(
        self,
        address: Address,
        standing: LoggedStanding,
        settings: ClientSettings,
        clock: Callable[[], float],
        on_retryable: Callable[[_Record], None],
    ) -> None:
        """Begin without a connection.

        Args:
            address: the server.
            standing: what is known of the server.
            settings: the options of the client.
            clock: returns the monotonic time in seconds.
            on_retryable: called with each job that may be submitted again.
        """
        super().__init__(address, standing, settings.connect_timeout, clock)
        self.failure: OSError | None = None
        self._options = settings.options
        self._exceptions = settings.exceptions
        self._on_retryable = on_retryable
        self._closing = False  # a connection that is closed on purpose was not lost
        self.records: OpenRequests[_Record] = OpenRequests(ClientConnection(now=0.0), address)  # until there is one

    @property
    def connected(self) -> bool:
        """Whether the connection is open, and the server not on trial."""
        return self.link is not None and not self.records.conn.on_trial

    def _begin(self, endpoint: Hashable) -> ClientConnection:
        """Record that the server has been reached; return the connection, on which the client has introduced itself."""
        now = self._now()
        self.standing.connected(now, endpoint)
        conn = ClientConnection(now=now, **self._options)
        if self.standing.suspect:
            conn.require_answer(now, self._connect_timeout)
        self.records = OpenRequests(conn, self.address)
        self.records.introduce(exceptions=self._exceptions)
        return conn

    def fail(self, error: OSError, took: float) -> None:
        """Record that the server could not be reached.

        Args:
            error: why.
            took: seconds that the attempt has taken.
        """
        self.failure = error
        self.standing.unreachable(error, self._now(), took)

    def _on_event(self, event: Event) -> None:
        if type(event) is Answered:
            self.standing.answered()
            self._on_reached_or_not()
        elif type(event) is ConnectionClosed:
            self._on_closed(event)
        records = self.records
        record = records.on_event(event)
        if isinstance(record, JobRecord) and record.retryable is not None:
            self._on_retryable(record)
        if records.stopped and self.link is not None and not self.link.paused:
            self.link.pause()
            records.conn.rest()
            self._on_paused()

    def _on_closed(self, event: ConnectionClosed) -> None:
        link, self.link = self.link, None
        self.failure = ConnectionError(event.reason)
        if link is not None and not self._closing:
            self.standing.lost(event, link.error, self._now(), quiet=not self.records.cost)
        self._on_reached_or_not()

    def _on_reached_or_not(self) -> None:
        """Called when a server that is on trial has answered, and when the connection has ended."""

    def _on_paused(self) -> None:
        """Called when the connection is no longer read, as jobs that stream hold too much unread."""

    @property
    def paused(self) -> bool:
        """Whether the connection is not read, as jobs that stream hold too much unread."""
        return self.link is not None and self.link.paused

    def read_on(self) -> None:
        """Read on, if that was not possible and is again."""
        if self.link is not None and self.link.paused and not self.records.stopped:
            self.records.conn.resume(self._now())
            self.link.resume()


class WorkerSessionBase(SessionBase[_Link]):
    """One server of a worker.

    Attributes:
        conn: the connection, or the last one; after each call to it, call `settle`.
    """

    def __init__(
        self,
        address: Address,
        settings: WorkerSettings,
        log: logging.Logger,
        clock: Callable[[], float],
        lost: Callable[[WorkerConnection], None],
    ) -> None:
        """Begin without a connection.

        Args:
            address: the server.
            settings: the options of the worker.
            log: where to log.
            clock: returns the monotonic time in seconds.
            lost: called with each connection that has ended; see `gearproto.worker.WorkerJobs.lost`.
        """
        standing = LoggedStanding(address, log, settings.retry_pauses)
        super().__init__(address, standing, settings.connect_timeout, clock)
        self.conn = WorkerConnection()
        self._log = log
        self._options = settings.options
        self._grabber = settings.grabber
        self._lost = lost

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self.link is not None

    def _begin(self, endpoint: Hashable) -> WorkerConnection:
        """Record that the server has been reached; return the connection, on which the worker has introduced itself."""
        now = self._now()
        self.standing.connected(now, endpoint)
        self.conn = conn = WorkerConnection(asks_when_woken=False, now=now, **self._options)
        if self.standing.suspect:
            conn.require_answer(now, self._connect_timeout)
        self._grabber.attach(conn)
        return conn

    def _on_event(self, event: Event) -> None:
        if isinstance(event, JobAssigned):
            self._on_assigned(event)
        elif isinstance(event, ConnectionClosed):
            link, self.link = self.link, None
            self._lost(self.conn)
            self._on_closed(event, None if link is None else link.error)
        elif isinstance(event, Answered):
            self.standing.answered()
        elif isinstance(event, ReportRefused):
            self._log.warning("%s: a report was refused: %r", self.address, event.text)
        else:
            self._log.warning("%s: %r", self.address, event)

    def _on_assigned(self, event: JobAssigned) -> None:
        """Take a job."""
        raise NotImplementedError

    def _on_closed(self, event: ConnectionClosed, error: Exception | None) -> None:
        """Handle a lost connection, whose jobs that have not begun are gone."""
        raise NotImplementedError

    def _log_end(self, event: ConnectionClosed, error: Exception | None, *, expected: bool) -> None:
        """Log the end of the connection, and record that the server was lost unless the end was expected."""
        if expected:
            self._log.info("%s: %s", self.address, event.reason)
        else:
            self.standing.lost(event, error, self._now())
