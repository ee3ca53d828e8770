"""One server of a client: its connection while there is one, and what is open on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from gear_net.sessions import ClientSessionBase
from gear_net.settings import ClientSettings
from gear_net.standing import LoggedStanding
from gearproto.addresses import Address

from .connecting import Connect, dial, join
from .eventloop import clock
from .link import Link
from .waiting import WaitingAnswer, WaitingRecord

__all__ = ["ClientSession"]


class ClientSession(ClientSessionBase[Link, WaitingRecord]):
    """One server of a client."""

    def __init__(
        self,
        address: Address,
        standing: LoggedStanding,
        settings: ClientSettings,
        connect: Connect | None,
        on_retryable: Callable[[WaitingRecord], None],
        on_paused: Callable[[], None],
    ) -> None:
        """Begin without a connection.

        Args:
            address: the server.
            standing: what is known of the server.
            settings: the options of the client.
            connect: opens the stream; None for TCP.
            on_retryable: called with each job that may be submitted again.
            on_paused: called when the connection is no longer read, as jobs that stream hold too much unread.
        """
        super().__init__(address, standing, settings, anyio.current_time, on_retryable)
        self._tls = settings.tls
        self._connect = connect
        self._on_paused_too = on_paused
        self._dialed: anyio.Event | None = None  # while the server is being connected to

    @property
    def dialing(self) -> bool:
        """Whether the server is being connected to."""
        return self._dialed is not None

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
        self._now = clock()  # which callbacks may call
        began = self._now()
        try:
            order = self.standing.order
            transport, endpoint = await dial(self.address, self._connect_timeout, self._tls, self._connect, order)
        except OSError as error:  # no job is on its way to it yet
            self.fail(error, self._now() - began)
            return None
        except BaseException:
            self.failure = ConnectionAbortedError("closed by the client")
            raise
        self.link = link = join(transport, self._begin(endpoint), self._on_event)
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
        if self.link is not None and self.records.idle:
            self.link.look()

    def settle(self) -> None:
        """Hand out all events, and let the output be sent."""
        if self.link is not None:
            self.link.settle()

    @property
    def full(self) -> bool:
        """Whether much output waits to be sent."""
        return self.link is not None and self.link.full

    async def wait_while_full(self) -> None:
        """Wait while much output waits to be sent."""
        if self.link is not None:
            await self.link.wait_while_full()

    def close(self, reason: str) -> None:
        """End the connection; what is open on it ends with it."""
        self._closing = True
        if self.link is not None:
            self.link.close(reason)

    def _on_reached_or_not(self) -> None:
        self._end_dial(self._dialed)

    def _on_paused(self) -> None:
        for waiting in self.records.open:
            if isinstance(waiting, WaitingRecord | WaitingAnswer):
                waiting.look_again()
        self._on_paused_too()
