"""One server of a worker: its connection while there is one."""

from __future__ import annotations

import logging
import selectors
import socket
import time
from typing import Final, Protocol

from gear_net.connecting import Connect, Dial, Endpoint, close_with, open_socket, resolve
from gear_net.link import Link
from gear_net.standing import LoggedStanding
from gear_net.tls import ClientTLS
from gear_net.tunnel import TLSSocket
from gearproto import WorkerConnection
from gearproto.addresses import Address
from gearproto.event import Event
from gearproto.events import Answered, ConnectionClosed, JobAssigned, ReportRefused

from .pump import Pump

__all__ = ["Owner", "WorkerSession"]

_log = logging.getLogger("gear_sync.worker")

_READ: Final = selectors.EVENT_READ
_NEVER: Final = float("inf")


class Owner(Protocol):
    """The worker whose server it is."""

    abort_at: float
    """Monotonic time in seconds at which the worker aborts; infinity for never."""

    def new_connection(self, answer_timeout: float | None) -> WorkerConnection:
        """Return a connection on which the worker has introduced itself; a timeout in seconds puts it on trial."""
        ...

    def on_assigned(self, event: JobAssigned, session: WorkerSession) -> None:
        """Take a job."""
        ...

    def on_moved(self) -> None:
        """Ask servers for jobs after the events of a connection."""
        ...

    def on_closed(self, session: WorkerSession, event: ConnectionClosed, error: Exception | None) -> None:
        """Handle a lost connection."""
        ...

    def advance(self) -> None:
        """Ask servers for jobs, as far as the worker can take more."""
        ...

    def abort_if_overdue(self, now: float) -> bool:
        """Abort if jobs have not ended in the time to stop; return whether that is so. Without the lock."""
        ...


class WorkerSession:
    """One job server of a worker, and what a `Pump` moves for it. Hold the pump's lock in every call."""

    def __init__(
        self, address: Address, owner: Owner, pump: Pump, standing: LoggedStanding, connect_timeout: float
    ) -> None:
        self.address = address
        self.conn = WorkerConnection()
        self.pump = pump
        self.standing = standing
        self._connect_timeout = connect_timeout
        self.link: Link | None = None
        self._dial: Dial | None = None
        self._blocked = 0.0  # seconds that all servers had to wait for the last attempt to connect to this one
        self._owner = owner

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self.link is not None

    @property
    def due_at(self) -> float:
        """When to begin to connect: never while that is being done, or is done."""
        return self.standing.retry_at if self.link is None and self._dial is None else _NEVER

    def connect(self, connect: Connect | None, tls: ClientTLS | None) -> None:
        """Begin to connect. Looking up the name blocks, so that this is done without the lock."""
        began = time.monotonic()
        try:
            with self.pump.gate, self.pump.lock:
                self.pump.open()
            try:
                sock = None if connect is None else open_socket(connect, self.address)
                endpoints = resolve(self.address) if sock is None else []
            finally:
                self._blocked = time.monotonic() - began
        except OSError as error:
            self._failed(error)
            return
        with self.pump.gate, self.pump.lock:
            if sock is not None:
                self._on_connected(sock)
            else:
                self._dial = Dial(self.address, self.standing.order(endpoints), self._connect_timeout, tls)
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
        self.standing.connected(time.monotonic(), endpoint)
        self.conn = self._owner.new_connection(self._connect_timeout if self.standing.suspect else None)
        self.link = link = Link(sock, self.conn, self._on_event)
        close_with(link, link.sock)
        self._owner.advance()
        link.start()
        self.pump.changed(watch=link.sending or link.closed)

    def settle(self) -> None:
        """Hand out all events, send as much as the socket takes, and let others know if that is not all."""
        if (link := self.link) is not None:
            link.settle()
            self.pump.changed(watch=link.sending or link.closed)

    def abort_if_overdue(self) -> None:
        """Abort if the time to stop is over: `run` cannot see to it while a function runs in its thread."""
        self._owner.abort_if_overdue(time.monotonic())

    def wait_until_sent(self, until: float = _NEVER) -> None:
        """Wait until the socket has taken the output that there is by now. Without the lock.

        A server that does not read is found by probes.

        Args:
            until: monotonic time in seconds at which to leave off.
        """
        link, owner = self.link, self._owner
        if link is None or not link.sending:
            return
        sent = link.when_sent()
        deadline = _NEVER

        def changed() -> bool:
            return sent() or owner.abort_at < deadline

        while not (sent() or time.monotonic() >= until):
            deadline = min(until, owner.abort_at)
            self.pump.wait(changed, None if deadline == _NEVER else max(0.0, deadline - time.monotonic()))
            self.abort_if_overdue()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, JobAssigned):
            self._owner.on_assigned(event, self)
        elif isinstance(event, ConnectionClosed):
            link, self.link = self.link, None
            assert link is not None
            self._owner.on_closed(self, event, link.error)
        elif isinstance(event, Answered):
            self.standing.answered()
        elif isinstance(event, ReportRefused):
            _log.warning("%s: a report was refused: %r", self.address, event.text)
        else:
            _log.warning("%s: %r", self.address, event)

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
            self._owner.on_moved()
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
