"""One server of a client: its connection while there is one, and what is open on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from gear_sync.tls import ClientTLS
from gearproto import ClientConnection
from gearproto.addresses import Address
from gearproto.backoff import Backoff
from gearproto.connection import Limits
from gearproto.events import ConnectionClosed, Event
from gearproto.records import Answer as AnswerRecord
from gearproto.records import Records

from .dial import Connect, dial
from .eventloop import clock
from .job import Job
from .link import Link, join

__all__ = ["Answer", "Session"]


class Answer(AnswerRecord):
    """An answer that can be waited for."""

    __slots__ = ("_came",)

    def __init__(self) -> None:
        """Begin without an answer."""
        super().__init__()
        self._came = anyio.Event()

    def on_event(self, event: Event) -> bool:
        """Take the answer: the first event is the last."""
        self._came.set()
        return super().on_event(event)

    def look_again(self) -> None:
        """Wake the task that waits, as its answer may not come."""
        self._came.set()

    async def wait(self, check: Callable[[], None]) -> Event:
        """Wait for the answer.

        Args:
            check: called before each wait; what it raises ends the wait.
        """
        while self.event is None:
            check()
            self._came = anyio.Event()
            await self._came.wait()
        return self.event


class Session:
    """One server of a client.

    Attributes:
        address: the server.
        records: what is open on the connection; after each call to it, call `settle`.
        failure: why the server could not be reached, or was lost.
    """

    def __init__(
        self,
        address: Address,
        *,
        tls: ClientTLS | None,
        connect: Connect | None,
        connect_timeout: float,
        limits: Limits,
        backoff: Backoff,
        introduce: Callable[[Session], None],
        on_stranded: Callable[[Job], None],
        on_paused: Callable[[], None],
    ) -> None:
        """Begin without a connection.

        Args:
            address: the server.
            tls: gives the context for TLS; None for plain TCP.
            connect: opens the stream; None for TCP.
            connect_timeout: seconds for that.
            limits: limits for the connections, as in `gearproto.connection.Connection`.
            backoff: tells when the server may be tried again.
            introduce: called when the server has been reached, before anything else is sent.
            on_stranded: called with each job that may be submitted once more.
            on_paused: called when the connection is no longer read, as jobs that stream hold too much unread.
        """
        self.address = address
        self.failure: OSError | None = None
        self._tls = tls
        self._connect = connect
        self._connect_timeout = connect_timeout
        self._limits = limits
        self._backoff = backoff
        self._introduce = introduce
        self._on_stranded = on_stranded
        self._on_paused = on_paused
        self._link: Link | None = None
        self._now: Callable[[], float] = anyio.current_time  # while there is a connection, what callbacks may call
        self._dialed: anyio.Event | None = None  # while the server is being connected to
        self.records = self._new_records(0.0)

    def _new_records(self, now: float) -> Records[Job, Answer]:
        options: Limits = {"now": now, **self._limits}
        return Records(ClientConnection(**options), self.address)

    # What a ServerChooser has to know

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._link is not None

    @property
    def dialing(self) -> bool:
        """Whether the server is being connected to."""
        return self._dialed is not None

    @property
    def retry_at(self) -> float:
        """Monotonic time in seconds before which the server should be left alone."""
        return self._backoff.retry_at

    # The connection

    async def reach(self, start: Callable[[Callable[[], Awaitable[None]]], None]) -> bool:
        """Connect to the server, unless that is so already; return whether it went well.

        Args:
            start: runs the connection in a task; that nobody waits for it any more does not end it.
        """
        if self._link is None:
            if self._dialed is None:
                self._dialed = anyio.Event()
                start(self._run)
            await self._dialed.wait()
        return self._link is not None

    async def _run(self) -> None:
        """Connect, and move bytes until the connection has ended."""
        self._now = clock()
        began = self._now()
        dialed = self._dialed
        assert dialed is not None
        try:
            transport = await dial(self.address, self._connect_timeout, self._tls, self._connect)
        except OSError as error:
            self.failure = error
            now = self._now()
            self._backoff.failed(now, now - began)
            return
        except BaseException:
            self.failure = ConnectionAbortedError("closed by the client")
            raise
        else:
            now = self._now()
            self._backoff.connected(now)
            self.records = self._new_records(now)
            self._link = link = join(transport, self.records.conn, self._on_event)
            self._introduce(self)
        finally:
            self._dialed = None
            dialed.set()
        await link.run()

    def look(self) -> None:
        """Read what has come to an idle connection since the event loop looked, so that its end shows."""
        if self._link is not None and self.records.idle:
            self._link.look()

    def settle(self) -> None:
        """Hand out all events, and let the output be sent."""
        if self._link is not None:
            self._link.settle()

    @property
    def full(self) -> bool:
        """Whether much output waits to be sent."""
        return self._link is not None and self._link.full

    async def wait_for_room(self) -> None:
        """Wait while much output waits to be sent."""
        if self._link is not None:
            await self._link.wait_for_room()

    def close(self, reason: str) -> None:
        """End the connection; what is open on it ends with it."""
        if self._link is not None:
            self._link.close(reason)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ConnectionClosed):
            self._link = None
            self.failure = ConnectionError(event.reason)
            self._backoff.failed(self._now())
        record = self.records.on_event(event)
        if isinstance(record, Job) and record.stranded is not None:
            self._on_stranded(record)
        if self.records.stopped and self._link is not None and not self._link.paused:
            self._link.pause()
            self.records.conn.rest()
            for waiting in self.records.open:
                waiting.look_again()
            self._on_paused()

    @property
    def paused(self) -> bool:
        """Whether the connection is not read, as jobs that stream hold too much unread."""
        return self._link is not None and self._link.paused

    def read_on(self) -> None:
        """Read on, if that was not possible and is again."""
        if self._link is not None and self._link.paused and not self.records.stopped:
            self.records.conn.resume(self._now())
            self._link.resume()
