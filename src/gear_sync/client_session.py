"""One server of a client: its connection while there is one, and what is open on it."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

from gear_net.connecting import Dial, Endpoint, close_with
from gear_net.link import Link
from gear_net.sessions import ClientSessionBase
from gear_net.settings import ClientSettings
from gear_net.standing import LoggedStanding
from gear_net.tunnel import TLSSocket
from gearproto.addresses import Address
from gearproto.client import JobRecord

__all__ = ["ClientSession"]

_READ: Final = selectors.EVENT_READ


class ClientSession(ClientSessionBase[Link, JobRecord]):
    """One server of a client, and what a `Pump` moves for it. Hold the pump's lock in every call."""

    def __init__(
        self,
        address: Address,
        standing: LoggedStanding,
        settings: ClientSettings,
        on_retryable: Callable[[JobRecord], None],
    ) -> None:
        """Begin without a connection.

        Args:
            address: the server.
            standing: what is known of the server.
            settings: the options of the client.
            on_retryable: called with each job that may be submitted again.
        """
        super().__init__(address, standing, settings, time.monotonic, on_retryable)
        self._tls = settings.tls
        self._dial: Dial | None = None
        self._dialed_at = 0.0

    # The connection

    def dial(self, endpoints: list[Endpoint], began: float) -> None:
        """Begin to connect, unless that is so already.

        Args:
            endpoints: the server's addresses.
            began: monotonic time in seconds at which they began to be looked up.
        """
        if self.link is None and self._dial is None:
            self._dialed_at = began
            self._dial = Dial(self.address, self.standing.order(endpoints), self._connect_timeout, self._tls)
            self._on_dialed()

    def use(self, sock: socket.socket) -> None:
        """Use a connected, non-blocking socket, unless there is a connection already."""
        if self.link is None and self._dial is None:
            self._on_connected(sock)
        else:
            sock.close()

    def fail(self, error: OSError, took: float) -> None:
        """Record that the server cannot be reached, unless another attempt is being made or has succeeded.

        Args:
            error: why.
            took: seconds that the attempt has taken.
        """
        if self.link is None and self._dial is None:
            super().fail(error, took)

    @property
    def dialing(self) -> bool:
        """Whether the server is being connected to, or is on trial."""
        return self._dial is not None or (self.link is not None and self.records.conn.on_trial)

    def _on_dialed(self) -> None:
        dial = self._dial
        assert dial is not None
        if dial.error is not None:
            self._dial = None
            self.fail(dial.error, time.monotonic() - self._dialed_at)
        elif dial.sock is not None:
            self._on_connected(dial.sock, dial.endpoint)

    def _on_connected(self, sock: socket.socket | TLSSocket, endpoint: Endpoint | None = None) -> None:
        self.link = link = Link(sock, self._begin(endpoint), self._on_event)
        close_with(link, link.sock)
        self._dial = None  # only now: KeyboardInterrupt may come in between, and one of the two closes the socket
        link.start()

    def settle(self) -> bool:
        """Hand out all events, and send as much as the socket takes.

        Returns:
            Whether the socket is to be watched differently than before: it has not taken all, or is closed.
        """
        if (link := self.link) is None:
            return False
        link.settle()
        return link.sending or link.closed

    @property
    def sending(self) -> bool:
        """Whether there is output that the socket has not taken."""
        return self.link is not None and self.link.sending

    def when_sent(self) -> Callable[[], bool]:
        """Return what tells whether the output that there is now has left, or never will."""
        return _sent if self.link is None else self.link.when_sent()

    @property
    def readable(self) -> bool:
        """Whether they hold little enough for the connection to be read."""
        return not self.records.stopped

    # What a Pump moves

    @property
    def sock(self) -> socket.socket | None:
        """The socket, if there is one that is to be watched."""
        if self.link is not None:
            return self.link.sock if self.link.wants else None
        return None if self._dial is None else self._dial.trying

    @property
    def wants(self) -> int:
        """What to watch the socket for."""
        if self.link is not None:
            return self.link.wants
        return _READ if self._dial is None else self._dial.wants

    def on_ready(self, events: int) -> None:
        """Read or write what the socket is ready for."""
        if self.link is not None:
            self.link.on_ready(events)
        elif self._dial is not None:
            self._dial.advance(time.monotonic(), events)
            self._on_dialed()

    def next_deadline(self) -> float | None:
        """Return when something has to be done even if nothing comes."""
        if self.link is not None:
            return self.link.conn.next_deadline()
        return None if self._dial is None else self._dial.deadline

    def on_deadline(self, now: float) -> None:
        """Do what is due."""
        if self.link is not None:
            self.link.conn.handle_timeout(now)
            self.link.settle()
        elif self._dial is not None:
            self._dial.advance(now, 0)
            self._on_dialed()

    def look(self) -> None:
        """Read some of what has come."""
        if self.link is not None:
            self.link.look()

    def close(self, reason: str) -> None:
        """End the connection; what is open on it ends with it."""
        self._closing = True
        if self._dial is not None:
            self._dial.close()
            self._dial = None
            self.failure = ConnectionAbortedError(reason)
        if self.link is not None:
            self.link.close(reason)
            self.link = None  # after KeyboardInterrupt not all of the events may have come
        self._closing = False
        for record in self.records.abandon(reason):
            if isinstance(record, JobRecord) and record.retryable is not None:
                self._on_retryable(record)


def _sent() -> bool:
    return True
