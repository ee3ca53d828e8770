"""What clients and workers have in common: servers, the threads that connect to them and read, requests to them."""

from __future__ import annotations

import contextlib
import random
import select
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from gear_net.standing import failure_of
from gear_net.waker import Waker
from gearproto import RemoteProtocolError
from gearproto.standing import Failure, Standing

from .admin import AdminRequest
from .connection import Connection
from .errors import ConfigurationError, DisconnectError, GearmanError, NoConnectedServersError, TimeoutError
from .hooks import BaseClientServer
from .packet import Packet
from .tasks import Task

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ["BaseClient"]

_T = TypeVar("_T")

_LAST_WAIT: Final = 5.0  # seconds; how long shutdown waits for an attempt to connect that hangs in name resolution


class BaseClient(BaseClientServer):
    """Base of `Client` and `Worker`.

    Attributes:
        active_connections: the connections that are open and can be used.
        inactive_connections: the others.
        connection_index: where `getConnection` is in its round.
        broadcast_lock: held while something is sent to all servers.
        poll_thread: the thread that reads, and calls the hooks.
        connect_thread: the thread that sees to it that all servers are connected.
    """

    _log_name: ClassVar[str] = "BaseClient"

    def __init__(self, client_id: str | bytes = "unknown") -> None:
        """Begin without servers. A subclass calls `_start` when its own part is done."""
        super().__init__(client_id)
        self.active_connections: list[Connection] = []
        self.inactive_connections: list[Connection] = []
        self.connection_index = -1
        self.broadcast_lock = threading.RLock()
        self._standings: dict[Connection, Standing] = {}
        self._retry_at: dict[Connection, float] = {}  # inactive connections that nobody tries to open now
        self._attempts: dict[Connection, threading.Thread] = {}
        self._problems: dict[Connection, str] = {}
        self._reasons: dict[Connection, str] = {}  # why connections are about to be taken for lost
        self._waker = Waker()
        self._wanted: list[tuple[Connection, Transport, int, int]] | None = None  # what the two below were made for
        self._poller = select.poll()
        self._polled: dict[int, tuple[Connection, Transport]] = {}
        self.poll_thread = threading.Thread(target=self._poll_loop, name="Gearman client poll", daemon=True)
        self.connect_thread = threading.Thread(target=self._connect_loop, name="Gearman client connect", daemon=True)

    def _start(self) -> None:
        self.poll_thread.start()
        self.connect_thread.start()

    def _check_running(self) -> None:
        if not self.running:
            raise GearmanError(f"{self!r} has been shut down")

    # Servers

    def addServer(
        self,
        host: str,
        port: int | str = 4730,
        ssl_key: str | None = None,
        ssl_cert: str | None = None,
        ssl_ca: str | None = None,
        keepalive: bool = False,
        tcp_keepidle: int = 7200,
        tcp_keepintvl: int = 75,
        tcp_keepcnt: int = 9,
    ) -> None:
        """Add a server, and return at once: it is connected to in the background, and again whenever it is lost.

        Args:
            host: its name or address.
            port: its port.
            ssl_key: file with the private key; TLS is used if this and the two below are given.
            ssl_cert: file with the certificate.
            ssl_ca: file with the certificates of the authorities.
            keepalive: whether TCP looks for a server that has gone without a word.
            tcp_keepidle: seconds without traffic after which it looks.
            tcp_keepintvl: seconds between two looks.
            tcp_keepcnt: looks without an answer after which the connection is given up.

        Raises:
            ConfigurationError: the server has been added already, or only some of the TLS files are given.
            OSError: a TLS file cannot be read, or is not what it should be.
            GearmanError: the client has been shut down.
        """
        client_id = self.client_id or b""
        connection = Connection(
            host, port, ssl_key, ssl_cert, ssl_ca, client_id, keepalive, tcp_keepidle, tcp_keepintvl, tcp_keepcnt
        )
        connection.tls_context()  # files that cannot be used are an error here, not in a thread that nobody watches
        connection.reader = self.poll_thread
        with self.connections_condition:
            self._check_running()
            for other in (*self.active_connections, *self.inactive_connections):
                if (other.host, other.port) == (host, port):
                    raise ConfigurationError(f"server {host}:{port} has been added already")
            self.inactive_connections.append(connection)
            self._standings[connection] = Standing(random.random)
            self._start_attempt(connection)

    def waitForServer(self, timeout: float | None = None) -> None:
        """Wait until a server is connected; also return if the client is shut down meanwhile.

        Args:
            timeout: longest time in seconds; None for no limit.

        Raises:
            TimeoutError: none was connected in time; the message says what keeps each from it.
            GearmanError: the client had been shut down before.
        """
        with self.connections_condition:
            self._check_running()
            if not self.connections_condition.wait_for(lambda: self.active_connections or not self.running, timeout):
                problems = "".join(f"; {problem}" for problem in self._problems.values())
                raise TimeoutError(f"no server connected within {timeout:g} s{problems}")

    def getConnection(self) -> Connection:
        """Return an open connection; those of all servers take turns.

        Raises:
            NoConnectedServersError: there is none.
        """
        with self.connections_condition:
            if not self.active_connections:
                raise NoConnectedServersError("no server is connected")
            self.connection_index = (self.connection_index + 1) % len(self.active_connections)
            return self.active_connections[self.connection_index]

    def broadcast(self, packet: Packet) -> None:
        """Send a packet to all servers that are connected; those where it fails are taken for lost."""
        with self.broadcast_lock:
            for connection in self._active():
                with contextlib.suppress(OSError):
                    self.sendPacket(packet, connection)

    def sendPacket(self, packet: Packet, connection: Connection) -> None:
        """Send a packet on a connection.

        Raises:
            DisconnectError: the connection is down; it is being opened again.
        """
        try:
            connection.sendPacket(packet)
        except DisconnectError as error:
            self._give_up(connection, str(error))
            raise

    def _active(self) -> list[Connection]:
        with self.connections_condition:
            return self.active_connections[:]

    # The thread that connects

    def _connect_loop(self) -> None:
        while True:
            with self.connections_condition:
                if not self.running:
                    return
                now = time.monotonic()
                due = [connection for connection, when in self._retry_at.items() if when <= now]
                if not due:
                    earliest = min(self._retry_at.values(), default=None)
                    self.connections_condition.wait(None if earliest is None else earliest - now)
                    continue
                for connection in due:
                    del self._retry_at[connection]
                    self._start_attempt(connection)

    def _start_attempt(self, connection: Connection) -> None:
        """Try to open a connection in a thread of its own: one that hangs keeps no other from connecting."""
        thread = threading.Thread(target=self._attempt, args=(connection,), name="Gearman client connect", daemon=True)
        self._attempts[connection] = thread
        thread.start()

    def _attempt(self, connection: Connection) -> None:
        """Try once to open a connection."""
        problem: Exception | None = None
        try:
            connection.connect()
            if connection.use_ssl:
                connection.confirm()
            self._activate(connection)
        except Exception as error:
            connection.disconnect()
            problem = error
        with self.connections_condition:
            del self._attempts[connection]
        if problem is None:
            self._call_hook(self._onActiveConnection, connection)
        else:
            self._note_failure(connection, f"{connection.host}:{connection.port}: {problem}", problem)

    def _activate(self, connection: Connection) -> None:
        with self.broadcast_lock:  # what is broadcast from now on reaches it
            self._onConnect(connection)
            with self.connections_condition:
                if not self.running or connection not in self.inactive_connections:
                    raise DisconnectError("the client has been shut down")
                self.inactive_connections.remove(connection)
                self.active_connections.append(connection)
                self._standings[connection].connected(time.monotonic())
                self._problems.pop(connection, None)
                self.connections_condition.notify_all()
        self.log.info("Connected to %s", connection)
        self._waker.wake()

    def _note_failure(self, connection: Connection, problem: str, error: Exception | None = None) -> None:
        """Record that a connection is not open, and when to try again; log a new problem at once, an old one rarely."""
        causes = (error, None if error is None else error.__cause__)
        refused = any(failure_of(cause) is Failure.REFUSED for cause in causes)
        with self.connections_condition:
            known = self._problems.get(connection)
            self._problems[connection] = problem
            standing = self._standings[connection]
            kind = Failure.REFUSED if refused else Failure.GONE
            warning = standing.failed(time.monotonic(), problem, kind)
            self._retry_at[connection] = standing.retry_at
            self.connections_condition.notify_all()
        if problem != known:
            warning = warning or problem
        if warning is not None and self.running:
            self.log.warning("No connection to %s", warning)
            self.log.debug("Why there is no connection", exc_info=error)

    def _onConnect(self, conn: Connection) -> None:
        """Do nothing; called when a connection is open, and not used by others yet."""

    def _onActiveConnection(self, conn: Connection) -> None:
        """Do nothing; called when a connection can be used."""

    def _give_up(self, conn: Connection, reason: str) -> None:
        """Take a connection for lost, by way of the program's `_lostConnection`, whatever that does."""
        with self.connections_condition:
            if conn not in self.active_connections:
                return
            self._reasons[conn] = reason
        self._call_hook(self._lostConnection, conn)
        BaseClient._lostConnection(self, conn)  # nothing if it has been done

    def _lostConnection(self, conn: Connection) -> None:
        """Close a connection, so that it is opened again; `handleDisconnect` learns of the jobs that were there."""
        with self.connections_condition:
            reason = self._reasons.pop(conn, "the connection is taken for lost")
            if conn not in self.active_connections:
                return
            self.active_connections.remove(conn)
            self.inactive_connections.append(conn)
            self.connections_condition.notify_all()
        self.log.info("Lost %s: %s", conn, reason)
        jobs = conn.drop(reason)
        self._note_failure(conn, f"{conn.host}:{conn.port}: {reason}")
        self._waker.wake()
        self._on_lost(conn)
        for job in jobs:
            self._call_hook(self.handleDisconnect, job)

    def _on_lost(self, connection: Connection) -> None:
        """Do nothing; called when a connection has been lost."""

    # The thread that reads

    def _poll_loop(self) -> None:
        while self.running:
            try:
                self._poll_once()
            except Exception:
                self.log.exception("Error in the thread that reads")
        self._waker.close()

    def _poll_once(self) -> None:
        poll, polled = self._poll_all()
        deadline = self._next_deadline()
        ready = poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000)
        for descriptor, events in ready:
            if descriptor not in polled:
                self._waker.clear()
                continue
            connection, transport = polled[descriptor]
            if connection.session is not transport:
                continue  # closed meanwhile; the descriptor may be somebody else's
            try:
                if events & select.POLLOUT:
                    transport.flush()
                if events & ~select.POLLOUT:
                    self._read(connection, transport)
            except (OSError, RemoteProtocolError) as error:  # `handleDisconnect` gets its jobs
                if connection.session is transport:
                    self._give_up(connection, str(error))
        if deadline is not None and deadline <= time.monotonic():
            self._on_deadline()

    def _poll_all(self) -> tuple[select.poll, dict[int, tuple[Connection, Transport]]]:
        """Return what to wait with, and whose the descriptors are."""
        sessions = [(connection, connection.session) for connection in tuple(self.active_connections)]
        wanted = [
            (connection, transport, transport.fileno(), select.POLLOUT if transport.unsent else 0)
            for connection, transport in sessions
            if transport is not None
        ]
        if wanted != self._wanted:
            self._wanted = wanted
            self._poller = select.poll()
            self._poller.register(self._waker, select.POLLIN)
            self._polled = {}
            for connection, transport, descriptor, output in wanted:
                if descriptor >= 0:
                    self._poller.register(descriptor, select.POLLIN | output)
                    self._polled[descriptor] = connection, transport
        return self._poller, self._polled

    def _next_deadline(self) -> float | None:
        """Return the monotonic time at which `_on_deadline` has to be called, or None."""
        return None

    def _on_deadline(self) -> None:
        """Do nothing; called when the deadline has come."""

    def _read(self, connection: Connection, transport: Transport) -> None:
        """Read what has arrived, and do what follows from it."""
        while (data := transport.receive()) is not None:
            if not data:
                self._give_up(connection, "the server closed the connection")
                return
            connection.feed(data)
            while connection.session is transport and (message := connection.next_message()) is not None:
                if isinstance(message, AdminRequest):
                    self._call_hook(self.handleAdminRequest, message)
                    continue
                for packet in self._deliveries(message, connection):
                    self._call_hook(self.handlePacket, packet)
            if connection.session is not transport or not connection.use_ssl:
                return  # poll() tells if there is more, but not of what TLS holds already

    def _deliveries(self, packet: Packet, connection: Connection) -> list[Packet]:
        """Return a packet as often as hooks are to be called with it."""
        del connection
        return [packet]

    def _call_hook(self, hook: Callable[[_T], object], argument: _T) -> None:
        """Call a hook of the program; what it raises is logged, and harms nothing else."""
        try:
            hook(argument)
        except Exception:
            self.log.exception("Error in a hook")

    # Hooks

    def handleEchoRes(self, packet: Packet) -> None:
        """Wake the thread that waits for an ``ECHO_RES``."""
        assert packet.connection is not None
        packet.connection.handleEchoRes(bytes(packet.getArgument(0, True)))

    def handleError(self, packet: Packet) -> None:
        """End the oldest request, which an ``ERROR`` answers."""
        code, text = (bytes(packet.getArgument(index)).decode("utf-8", "backslashreplace") for index in (0, 1))
        assert packet.connection is not None
        task = packet.connection.takeTask(Task)
        if task is None:
            self.log.error("Error from %s that answers no request: %s: %s", packet.connection, code, text)
        else:
            self.log.error("Error from %s: %s: %s", packet.connection, code, text)
            task.fail(f"{code}: {text}", answered=True)

    # The end

    def shutdown(self) -> None:
        """Close all connections and end the threads. The object is of no further use; a second call does nothing."""
        with self.connections_condition:
            if not self.running:
                self.log.warning("Shut down already")
                return
            self.running = False
            self.connections_condition.notify_all()
            attempts = dict(self._attempts)
            connections = [*self.active_connections, *self.inactive_connections]
        self._shutdown()
        self._waker.wake()
        for connection in connections:
            connection.finish("the client was shut down")
        for thread in (self.poll_thread, self.connect_thread):
            if thread is not threading.current_thread():
                thread.join()
        for thread in attempts.values():
            if thread is not threading.current_thread():
                thread.join(_LAST_WAIT)
        with self.connections_condition:
            self.inactive_connections += self.active_connections
            self.active_connections.clear()
            self.connections_condition.notify_all()

    def _shutdown(self) -> None:
        """Do nothing; called at the beginning of `shutdown`."""
