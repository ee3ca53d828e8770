"""One server of a client: its connection while there is one, and what is open on it."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

from gear_net.connecting import Dial, Endpoint, close_with
from gear_net.link import Link
from gear_net.standing import LoggedStanding
from gear_net.tls import ClientTLS
from gear_net.tunnel import TLSSocket
from gearproto import ClientConnection
from gearproto.addresses import Address
from gearproto.client import Answer, OpenRequests
from gearproto.event import Event
from gearproto.events import Answered, ConnectionClosed
from gearproto.options import ConnectionOptions

from .job import Job

__all__ = ["ClientSession"]

_READ: Final = selectors.EVENT_READ


class ClientSession:
    """One server of a client, and what a `Pump` moves for it. Hold the pump's lock in every call.

    Attributes:
        address: the server.
        records: what is open on the connection; after each call to it, call `settle`.
        standing: what is known of the server.
    """

    def __init__(
        self,
        address: Address,
        tls: ClientTLS | None,
        options: ConnectionOptions,
        connect_timeout: float,
        standing: LoggedStanding,
        introduce: Callable[[ClientSession], None],
        on_retryable: Callable[[Job], None],
    ) -> None:
        """Begin without a connection.

        Args:
            address: the server.
            tls: gives the context for TLS; None for plain TCP.
            options: options of the connections, as in `gearproto.connection.Connection`.
            connect_timeout: seconds for each attempt to connect; and for the answer of a server that fell silent.
            standing: what is known of the server.
            introduce: called when the server has been reached, before anything else is sent.
            on_retryable: called with each job that may be submitted once more.
        """
        self.address = address
        self._tls = tls
        self._options = options
        self._introduce = introduce
        self._on_retryable = on_retryable
        self._connect_timeout = connect_timeout
        self.standing = standing
        self._closing = False
        self._dial: Dial | None = None
        self._dialed_at = 0.0
        self._link: Link | None = None
        self.records = self._new_records()
        self.failure: OSError | None = None

    def _new_records(self) -> OpenRequests[Job, Answer]:
        return OpenRequests(ClientConnection(now=time.monotonic(), **self._options), self.address)

    # What a ServerChooser has to know

    @property
    def connected(self) -> bool:
        """Whether the connection is open, and the server not on trial."""
        return self._link is not None and not self.records.conn.on_trial

    @property
    def retry_at(self) -> float:
        """Monotonic time in seconds before which the server should be left alone."""
        return self.standing.retry_at

    @property
    def suspect(self) -> bool:
        """Whether the server fell silent, and has not answered since."""
        return self.standing.suspect

    # The connection

    def dial(self, endpoints: list[Endpoint], began: float) -> None:
        """Begin to connect, unless that is so already.

        Args:
            endpoints: the server's addresses.
            began: monotonic time in seconds at which they began to be looked up.
        """
        if self._link is None and self._dial is None:
            self._dialed_at = began
            self._dial = Dial(self.address, self.standing.order(endpoints), self._connect_timeout, self._tls)
            self._on_dialed()

    def use(self, sock: socket.socket) -> None:
        """Use a connected, non-blocking socket, unless there is a connection already."""
        if self._link is None and self._dial is None:
            self._on_connected(sock)
        else:
            sock.close()

    def fail(self, error: OSError, began: float) -> None:
        """Record that the server cannot be reached, unless another attempt is under way or has succeeded.

        Args:
            error: why.
            began: monotonic time in seconds at which the attempt began.
        """
        if self._link is None and self._dial is None:
            now = time.monotonic()
            self.failure = error
            self.standing.unreachable(error, now, now - began)

    @property
    def dialing(self) -> bool:
        """Whether the server is being connected to, or is on trial."""
        return self._dial is not None or (self._link is not None and self.records.conn.on_trial)

    def _on_dialed(self) -> None:
        dial = self._dial
        assert dial is not None
        if dial.error is not None:
            self._dial = None
            self.fail(dial.error, self._dialed_at)
        elif dial.sock is not None:
            self._on_connected(dial.sock, dial.endpoint)

    def _on_connected(self, sock: socket.socket | TLSSocket, endpoint: Endpoint | None = None) -> None:
        now = time.monotonic()
        self.standing.connected(now, endpoint)
        self.records = self._new_records()
        if self.standing.suspect:
            self.records.conn.require_answer(now, self._connect_timeout)
        self._link = link = Link(sock, self.records.conn, self._on_event)
        close_with(link, link.sock)
        self._dial = None  # only now: KeyboardInterrupt may come in between, and one of the two closes the socket
        self._introduce(self)
        link.start()

    def settle(self) -> bool:
        """Hand out all events, and send as much as the socket takes.

        Returns:
            Whether the socket is to be watched differently than before: it has not taken all, or is closed.
        """
        if (link := self._link) is None:
            return False
        link.settle()
        return link.sending or link.closed

    @property
    def sending(self) -> bool:
        """Whether there is output that the socket has not taken."""
        return self._link is not None and self._link.sending

    def when_sent(self) -> Callable[[], bool]:
        """Return what tells whether the output that there is now has left, or never will."""
        return _sent if self._link is None else self._link.when_sent()

    @property
    def paused(self) -> bool:
        """Whether the connection is not read, as jobs that stream hold too much unread."""
        return self._link is not None and self._link.paused

    @property
    def readable(self) -> bool:
        """Whether they hold little enough for the connection to be read."""
        return not self.records.stopped

    def read_on(self) -> None:
        """Read on, if that was not possible and is again."""
        if self._link is not None and self._link.paused and self.readable:
            self._link.resume()
            self.records.conn.resume(time.monotonic())

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Answered):
            self.standing.answered()
        elif isinstance(event, ConnectionClosed):
            link, self._link = self._link, None
            self.failure = ConnectionError(event.reason)
            if link is not None and not self._closing:
                self.standing.lost(event, link.error, time.monotonic(), quiet=not self.records.cost)
        record = self.records.on_event(event)
        if isinstance(record, Job) and record.retryable is not None:
            self._on_retryable(record)
        if self.records.stopped and self._link is not None and not self._link.paused:
            self._link.pause()
            self.records.conn.rest()

    # What a Pump moves

    @property
    def sock(self) -> socket.socket | None:
        """The socket, if there is one that is to be watched."""
        if self._link is not None:
            return self._link.sock if self._link.wants else None
        return None if self._dial is None else self._dial.trying

    @property
    def wants(self) -> int:
        """What to watch the socket for."""
        if self._link is not None:
            return self._link.wants
        return _READ if self._dial is None else self._dial.wants

    def on_ready(self, events: int) -> None:
        """Read or write what the socket is ready for."""
        if self._link is not None:
            self._link.on_ready(events)
        elif self._dial is not None:
            self._dial.advance(time.monotonic(), events)
            self._on_dialed()

    def next_deadline(self) -> float | None:
        """Return when something has to be done even if nothing comes."""
        if self._link is not None:
            return self._link.conn.next_deadline()
        return None if self._dial is None else self._dial.deadline

    def on_deadline(self, now: float) -> None:
        """Do what is due."""
        if self._link is not None:
            self._link.conn.handle_timeout(now)
            self._link.settle()
        elif self._dial is not None:
            self._dial.advance(now, 0)
            self._on_dialed()

    def look(self) -> None:
        """Read some of what has come."""
        if self._link is not None:
            self._link.look()

    def close(self, reason: str) -> None:
        """End the connection; what is open on it ends with it."""
        self._closing = True
        if self._dial is not None:
            self._dial.close()
            self._dial = None
            self.failure = ConnectionAbortedError(reason)
        if self._link is not None:
            self._link.close(reason)
            self._link = None  # after KeyboardInterrupt not all of the events may have come
        self._closing = False
        for record in self.records.abandon(reason):
            if isinstance(record, Job) and record.retryable is not None:
                self._on_retryable(record)


def _sent() -> bool:
    return True
