"""One server of a worker: its connection while there is one, opened again when it is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import anyio

from gear_net.standing import LoggedStanding
from gear_net.tls import ClientTLS
from gearproto import WorkerConnection
from gearproto.addresses import Address
from gearproto.event import Event
from gearproto.events import Answered, ConnectionClosed, JobAssigned, ReportRefused

from .connecting import Connect, dial, join
from .eventloop import clock
from .link import Link

__all__ = ["Owner", "WorkerSession"]

_log = logging.getLogger("gear_anyio.worker")


class Owner(Protocol):
    """The worker whose server it is."""

    def new_connection(self, session: WorkerSession, answer_timeout: float | None) -> WorkerConnection:
        """Return a connection on which the worker has introduced itself; a timeout in seconds puts it on trial."""
        ...

    def on_assigned(self, event: JobAssigned, session: WorkerSession) -> None:
        """Take a job."""
        ...

    def on_closed(self, session: WorkerSession) -> None:
        """Handle a lost connection."""
        ...

    def advance(self) -> None:
        """Ask servers for jobs, up to as many as can run."""
        ...


class WorkerSession:
    """One server of a worker.

    Attributes:
        address: the server.
        conn: the connection, or the last one; after each call to it, call `settle`.
        leaving: whether the connection is to end, which does not deserve a warning then.
    """

    def __init__(
        self,
        address: Address,
        owner: Owner,
        *,
        tls: ClientTLS | None,
        connect: Connect | None,
        connect_timeout: float,
        standing: LoggedStanding,
    ) -> None:
        """Begin without a connection.

        Args:
            address: the server.
            owner: the worker.
            tls: gives the context for TLS; None for plain TCP.
            connect: opens the stream; None for TCP.
            connect_timeout: seconds for that; and for the answer of a server that fell silent.
            standing: what is known of the server.
        """
        self.address = address
        self.conn = WorkerConnection()
        self.leaving = False
        self._owner = owner
        self._tls = tls
        self._connect = connect
        self._connect_timeout = connect_timeout
        self._standing = standing
        self._link: Link | None = None
        self._now: Callable[[], float] = anyio.current_time  # from `run` on, what callbacks may call
        self._end = ConnectionClosed("")  # of the last connection

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._link is not None

    async def run(self) -> None:
        """Connect, and connect again, until cancelled or told to leave."""
        self._now = clock()
        while not self.leaving:
            await anyio.sleep_until(self._standing.retry_at)
            try:
                order = self._standing.order
                transport, endpoint = await dial(self.address, self._connect_timeout, self._tls, self._connect, order)
            except OSError as error:
                self._standing.unreachable(error, self._now())
                continue
            self._standing.connected(self._now(), endpoint)
            self.conn = self._owner.new_connection(self, self._connect_timeout if self._standing.suspect else None)
            self._link = link = join(transport, self.conn, self._on_event, self._owner.advance)
            self._owner.advance()
            link.settle()
            await link.run()
            self._tell_end(link.error)  # a worker that is cancelled does not come here, and has no need to

    def _tell_end(self, error: Exception | None) -> None:
        if self.leaving:
            _log.info("%s: %s", self.address, self._end.reason)
        else:
            self._standing.lost(self._end, error, self._now())

    def settle(self) -> None:
        """Hand out all events, and let the output be sent."""
        if self._link is not None:
            self._link.settle()

    async def send(self, conn: WorkerConnection) -> None:
        """Let the output of a connection be sent, and wait while there is much of it."""
        if self._link is not None and conn is self.conn:
            self._link.settle()
        if self._link is not None and conn is self.conn:
            await self._link.wait_while_full()

    async def leave(self, timeout: float) -> None:
        """Send what is still to be sent, and end the connection.

        Args:
            timeout: seconds in which some of it has to leave each time.
        """
        self.leaving = True
        if self._link is not None:
            await self._link.wait_until_sent(timeout)
        self.close("closed by the worker")

    def close(self, reason: str) -> None:
        """End the connection."""
        self.leaving = True
        if self._link is not None:
            self._link.close(reason)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, JobAssigned):
            self._owner.on_assigned(event, self)
        elif isinstance(event, ConnectionClosed):
            self._end = event
            self._link = None
            self._owner.on_closed(self)
        elif isinstance(event, Answered):
            self._standing.answered()
        elif isinstance(event, ReportRefused):
            _log.warning("%s: a report was refused: %r", self.address, event.text)
        else:
            _log.warning("%s: %r", self.address, event)
