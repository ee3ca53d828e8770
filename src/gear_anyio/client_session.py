"""One server of a client: its connection while there is one, and what is open on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from gear_net.standing import LoggedStanding
from gear_net.tls import ClientTLS
from gearproto import ClientConnection
from gearproto.addresses import Address
from gearproto.client import Answer as AnswerRecord
from gearproto.client import OpenRequests
from gearproto.event import Event
from gearproto.events import Answered, ConnectionClosed
from gearproto.options import ConnectionOptions

from .connecting import Connect, dial, join
from .eventloop import clock
from .job import Job
from .link import Link

__all__ = ["Answer", "ClientSession"]


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


class ClientSession:
    """One server of a client.

    Attributes:
        address: the server.
        records: what is open on the connection; after each call to it, call `settle`.
        failure: why the server could not be reached, or was lost.
        standing: what is known of the server.
    """

    def __init__(
        self,
        address: Address,
        *,
        tls: ClientTLS | None,
        connect: Connect | None,
        connect_timeout: float,
        options: ConnectionOptions,
        standing: LoggedStanding,
        introduce: Callable[[ClientSession], None],
        on_retryable: Callable[[Job], None],
        on_paused: Callable[[], None],
    ) -> None:
        """Begin without a connection.

        Args:
            address: the server.
            tls: gives the context for TLS; None for plain TCP.
            connect: opens the stream; None for TCP.
            connect_timeout: seconds for that; and for the answer of a server that fell silent.
            options: options of the connections, as in `gearproto.connection.Connection`.
            standing: what is known of the server.
            introduce: called when the server has been reached, before anything else is sent.
            on_retryable: called with each job that may be submitted once more.
            on_paused: called when the connection is no longer read, as jobs that stream hold too much unread.
        """
        self.address = address
        self.failure: OSError | None = None
        self._tls = tls
        self._connect = connect
        self._connect_timeout = connect_timeout
        self._options = options
        self.standing = standing
        self._closing = False
        self._introduce = introduce
        self._on_retryable = on_retryable
        self._on_paused = on_paused
        self._link: Link | None = None
        self._now: Callable[[], float] = anyio.current_time  # while there is a connection, what callbacks may call
        self._dialed: anyio.Event | None = None  # while the server is being connected to
        self.records = self._new_records(0.0)

    def _new_records(self, now: float) -> OpenRequests[Job, Answer]:
        return OpenRequests(ClientConnection(now=now, **self._options), self.address)

    # What a ServerChooser has to know

    @property
    def connected(self) -> bool:
        """Whether the connection is open, and the server not on trial."""
        return self._link is not None and not self.records.conn.on_trial

    @property
    def dialing(self) -> bool:
        """Whether the server is being connected to."""
        return self._dialed is not None

    @property
    def retry_at(self) -> float:
        """Monotonic time in seconds before which the server should be left alone."""
        return self.standing.retry_at

    @property
    def suspect(self) -> bool:
        """Whether the server fell silent, and has not answered since."""
        return self.standing.suspect

    # The connection

    async def reach(self, start: Callable[[Callable[[], Awaitable[None]]], None]) -> bool:
        """Connect to the server, unless that is so already; return whether it went well.

        Args:
            start: runs the connection in a task; that nobody waits for it any more does not end it.
        """
        if not self.connected:
            await self.begin_to_reach(start).wait()
        return self.connected

    def begin_to_reach(self, start: Callable[[Callable[[], Awaitable[None]]], None]) -> anyio.Event:
        """Connect to the server in a task, unless that is being done; return what tells that it has ended."""
        if self._dialed is None:
            self._dialed = anyio.Event()
            start(self._run)
        return self._dialed

    async def _run(self) -> None:
        """Connect, and move bytes until the connection has ended."""
        dialed = self._dialed
        assert dialed is not None
        try:
            if (link := await self._dial()) is not None:
                await link.run()
        finally:
            self._end_dial(dialed)

    async def _dial(self) -> Link | None:
        """Connect; return None if that was not possible."""
        self._now = clock()
        began = self._now()
        try:
            order = self.standing.order
            transport, endpoint = await dial(self.address, self._connect_timeout, self._tls, self._connect, order)
        except OSError as error:
            self.failure = error
            now = self._now()
            self.standing.unreachable(error, now, now - began)
            return None
        except BaseException:
            self.failure = ConnectionAbortedError("closed by the client")
            raise
        now = self._now()
        self.standing.connected(now, endpoint)
        self.records = self._new_records(now)
        self._link = link = join(transport, self.records.conn, self._on_event)
        if self.standing.suspect:
            self.records.conn.require_answer(now, self._connect_timeout)
        self._introduce(self)
        if not self.records.conn.on_trial:
            self._end_dial(self._dialed)
        return link

    def _end_dial(self, dialed: anyio.Event | None) -> None:
        """Wake the tasks that wait for a connection."""
        if dialed is not None:
            dialed.set()
            if self._dialed is dialed:
                self._dialed = None

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

    async def wait_while_full(self) -> None:
        """Wait while much output waits to be sent."""
        if self._link is not None:
            await self._link.wait_while_full()

    def close(self, reason: str) -> None:
        """End the connection; what is open on it ends with it."""
        self._closing = True
        if self._link is not None:
            self._link.close(reason)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Answered):
            self.standing.answered()
            self._end_dial(self._dialed)
        elif isinstance(event, ConnectionClosed):
            link, self._link = self._link, None
            self.failure = ConnectionError(event.reason)
            if link is not None and not self._closing:
                self.standing.lost(event, link.error, self._now(), quiet=not self.records.cost)
            self._end_dial(self._dialed)
        record = self.records.on_event(event)
        if isinstance(record, Job) and record.retryable is not None:
            self._on_retryable(record)
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
