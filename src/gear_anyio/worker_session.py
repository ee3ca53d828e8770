"""One server of a worker: its connection while there is one, opened again when it is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

import anyio

from gear_net.sessions import WorkerSessionBase
from gear_net.settings import WorkerSettings
from gearproto import WorkerConnection
from gearproto.addresses import Address
from gearproto.events import ConnectionClosed, JobAssigned

from .connecting import Connect, dial, join
from .eventloop import clock
from .link import Link

__all__ = ["WorkerSession"]

_log: Final = logging.getLogger("gear_anyio.worker")


class Owner(Protocol):
    """What a session needs of its worker."""

    def _on_connected(self, session: WorkerSession) -> None:
        """Ask a server for jobs that has just been reached."""

    def _on_assigned(self, event: JobAssigned, session: WorkerSession) -> None:
        """Take a job."""

    def _on_closed(self, conn: WorkerConnection) -> None:
        """Handle a lost connection."""

    def _advance(self) -> None:
        """Ask servers for jobs, up to as many as the worker can run."""


class WorkerSession(WorkerSessionBase[Link]):
    """One server of a worker.

    Attributes:
        leaving: whether the connection is to end, which does not deserve a warning then.
    """

    def __init__(
        self,
        address: Address,
        settings: WorkerSettings,
        connect: Connect | None,
        worker: Owner,
        lost: Callable[[WorkerConnection], None],
    ) -> None:
        """Begin without a connection.

        Args:
            address: the server.
            settings: the options of the worker.
            connect: opens the byte stream to the server, in place of TCP and TLS.
            worker: the worker.
            lost: called with each connection that has ended.
        """
        super().__init__(address, settings, _log, anyio.current_time, lost)
        self.leaving = False
        self._worker = worker
        self._tls = settings.tls
        self._connect = connect
        self._end = ConnectionClosed("")  # of the last connection

    async def run(self) -> None:
        """Connect, and connect again, until cancelled or told to leave."""
        self._now = clock()
        while not self.leaving:
            await anyio.sleep_until(self.standing.retry_at)
            try:
                order = self.standing.order
                transport, endpoint = await dial(self.address, self._connect_timeout, self._tls, self._connect, order)
            except OSError as error:  # it is tried again; its standing says when
                self.standing.unreachable(error, self._now())
                continue
            self.link = link = join(transport, self._begin(endpoint), self._on_event, self._worker._advance)
            self._worker._on_connected(self)
            link.settle()
            await link.run()
            self._log_end(
                self._end, link.error, expected=self.leaving
            )  # a worker that is cancelled does not come here, and has no need to

    def settle(self) -> None:
        """Hand out all events, and let the output be sent."""
        if self.link is not None:
            self.link.settle()

    async def send(self, conn: WorkerConnection) -> None:
        """Let the output of a connection be sent, and wait while there is much of it."""
        if self.link is not None and conn is self.conn:
            self.link.settle()
        if self.link is not None and conn is self.conn:
            await self.link.wait_while_full()

    async def leave(self, timeout: float) -> None:
        """Send what is still to be sent, and end the connection.

        Args:
            timeout: seconds in which some of it has to leave each time.
        """
        self.leaving = True
        if self.link is not None:
            await self.link.wait_until_sent(timeout)
        self.close("closed by the worker")

    def close(self, reason: str) -> None:
        """End the connection."""
        self.leaving = True
        if self.link is not None:
            self.link.close(reason)

    def _on_assigned(self, event: JobAssigned) -> None:
        self._worker._on_assigned(event, self)

    def _on_closed(self, event: ConnectionClosed, error: Exception | None) -> None:  # noqa: ARG002
        self._end = event
        self._worker._on_closed(self.conn)
