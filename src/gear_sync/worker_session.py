"""One server of a worker: its connection while there is one."""

from __future__ import annotations

import logging
import math
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

from gear_net.connecting import Connect, Dial, Endpoint, close_with, open_socket, resolve
from gear_net.link import Link
from gear_net.sessions import WorkerSessionBase
from gear_net.settings import WorkerSettings
from gear_net.tunnel import TLSSocket
from gearproto import WorkerConnection
from gearproto.addresses import Address
from gearproto.events import ConnectionClosed, JobAssigned

from .pump import Pump

__all__ = ["WorkerSession"]

_log: Final = logging.getLogger("gear_sync.worker")

_READ: Final = selectors.EVENT_READ


class Owner(Protocol):
    """What a session needs of its worker."""

    _pump: Pump
    _stopping: bool
    _abort_at: float  # monotonic time in seconds; infinity for never

    def _on_assigned(self, event: JobAssigned, session: WorkerSession) -> None:
        """Take a job."""

    def _on_moved(self) -> None:
        """Ask servers for jobs after the events of a connection."""

    def _advance(self) -> None:
        """Ask servers for jobs, up to as many as the worker can run."""

    def _abort_if_overdue(self, now: float) -> bool:
        """Abort if jobs have not ended in the time to stop; return whether that is so. Without the lock."""
        ...


class WorkerSession(WorkerSessionBase[Link]):
    """One job server of a worker, and what a `Pump` moves for it. Hold the pump's lock in every call."""

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
            connect: opens a connected stream socket to the server, in place of TCP and TLS.
            worker: the worker.
            lost: called with each connection that has ended.
        """
        super().__init__(address, settings, _log, time.monotonic, lost)
        self.pump: Pump = worker._pump
        self._connect = connect
        self._tls = settings.tls
        self._dial: Dial | None = None
        self._blocked = 0.0  # seconds that all servers had to wait for the last attempt to connect to this one
        self._worker = worker

    @property
    def due_at(self) -> float:
        """When to begin to connect: never while that is being done, or is done."""
        return self.standing.retry_at if self.link is None and self._dial is None else math.inf

    def connect(self) -> None:
        """Begin to connect. Looking up the name blocks, so that this is done without the lock."""
        began = time.monotonic()
        try:
            with self.pump.gate, self.pump.lock:
                self.pump.open()
            try:
                sock = None if self._connect is None else open_socket(self._connect, self.address)
                endpoints = resolve(self.address) if sock is None else []
            finally:
                self._blocked = time.monotonic() - began
        except OSError as error:  # it is tried again; its standing says when
            self._failed(error)
            return
        with self.pump.gate, self.pump.lock:
            if sock is not None:
                self._on_connected(sock)
            else:
                self._dial = Dial(self.address, self.standing.order(endpoints), self._connect_timeout, self._tls)
                self._on_dialed()
            self.pump.changed(watch=True)  # a thread that sends a report may be pumping

    def _failed(self, error: OSError) -> None:
        self._dial = None
        self.standing.unreachable(error, time.monotonic(), self._blocked)

    def _on_dialed(self) -> None:
        dial = self._dial
        assert dial is not None
        if dial.error is not None:
            self._failed(dial.error)
        elif dial.sock is not None:
            self._dial = None
            self._on_connected(dial.sock, dial.endpoint)

    def _on_connected(self, sock: socket.socket | TLSSocket, endpoint: Endpoint | None = None) -> None:
        self.link = link = Link(sock, self._begin(endpoint), self._on_event)
        close_with(link, link.sock)
        self._worker._advance()
        link.start()
        self.pump.changed(watch=link.sending or link.closed)

    def settle(self) -> None:
        """Hand out all events, send as much as the socket takes, and let others know if that is not all."""
        if (link := self.link) is not None:
            link.settle()
            self.pump.changed(watch=link.sending or link.closed)

    def abort_if_overdue(self) -> None:
        """Abort if the time to stop is over: `run` cannot see to it while a function runs in its thread."""
        self._worker._abort_if_overdue(time.monotonic())

    def wait_until_sent(self, until: float = math.inf) -> None:
        """Wait until the socket has taken the output that there is by now. Without the lock.

        A server that does not read is found by probes.

        Args:
            until: monotonic time in seconds at which to leave off.
        """
        link, worker = self.link, self._worker
        if link is None or not link.sending:
            return
        sent = link.when_sent()
        deadline = math.inf

        def changed() -> bool:
            return sent() or worker._abort_at < deadline

        while not (sent() or time.monotonic() >= until):
            deadline = min(until, worker._abort_at)
            self.pump.wait(changed, None if deadline == math.inf else max(0.0, deadline - time.monotonic()))
            self.abort_if_overdue()

    def _on_assigned(self, event: JobAssigned) -> None:
        self._worker._on_assigned(event, self)

    def _on_closed(self, event: ConnectionClosed, error: Exception | None) -> None:
        self._log_end(event, error, expected=self._worker._stopping)

    # What a Pump moves

    @property
    def sock(self) -> socket.socket | None:
        """The socket, if there is one that is to be watched."""
        if self.link is not None:
            return self.link.sock
        return None if self._dial is None else self._dial.trying

    @property
    def wants(self) -> int:
        """What to watch the socket for."""
        if self.link is not None:
            return self.link.wants
        return _READ if self._dial is None else self._dial.wants

    def on_ready(self, events: int) -> None:
        """Read and write as far as the socket is ready."""
        if self.link is not None:
            self.link.on_ready(events)
            self._worker._on_moved()
        elif self._dial is not None:
            self._dial.advance(time.monotonic(), events)
            self._on_dialed()

    def next_deadline(self) -> float | None:
        """Return when something has to be done even if nothing comes."""
        if self.link is not None:
            return self.conn.next_deadline()
        return None if self._dial is None else self._dial.deadline

    def on_deadline(self, now: float) -> None:
        """Do what is due."""
        if self.link is not None:
            self.conn.handle_timeout(now)
            self.settle()
        elif self._dial is not None:
            self._dial.advance(now, 0)
            self._on_dialed()

    def look(self) -> None:
        """Read some of what has come."""
        if self.link is not None:
            self.link.look()

    def close(self, reason: str) -> None:
        """End the connection."""
        if self._dial is not None:
            self._dial.close()
            self._dial = None
        if self.link is not None:
            self.link.close(reason)
