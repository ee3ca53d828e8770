"""The server's end of connections."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

from gear_sync.gear.admin import AdminRequest, ServerAdminRequest
from gear_sync.gear.connection import Connection
from gear_sync.gear.errors import DisconnectError, RetryIOError
from gear_sync.gear.jobs import Job
from gear_sync.gear.packet import Packet
from gear_sync.gear.text import convert_to_bytes
from gear_sync.gear.transport import Transport
from gearproto.server import PeerId

from .abilities import FunctionSet

__all__ = ["NonBlockingConnection", "Peer", "PeerOwner", "ServerConnection", "common_name"]


class NonBlockingConnection(Connection):
    """A connection whose methods do what can be done at once: what cannot be sent is queued."""

    _blocks: ClassVar[bool] = False

    def __init__(
        self,
        host: str,
        port: int | str,
        ssl_key: str | None = None,
        ssl_cert: str | None = None,
        ssl_ca: str | None = None,
        client_id: str | bytes = "unknown",
    ) -> None:
        """Make a connection that is not open yet; the arguments are those of `Connection`."""
        super().__init__(host, port, ssl_key, ssl_cert, ssl_ca, client_id)

    @property
    def send_queue(self) -> list[bytes]:
        """What is queued, and not sent."""
        return [] if self.session is None else self.session.outbox()

    def sendPacket(self, packet: Packet) -> None:
        """Queue a packet, and send what can be sent at once.

        Raises:
            DisconnectError: the connection is down.
        """
        self.enqueue(packet)

    def sendRaw(self, data: bytes | bytearray) -> None:
        """Queue bytes, and send what can be sent at once.

        Raises:
            DisconnectError: the connection is down.
        """
        with self.send_lock:
            self._open_transport().enqueue(data)

    def sendQueuedData(self) -> None:
        """Send what can be sent at once.

        Raises:
            DisconnectError: the connection is down.
        """
        self._open_transport().flush()

    def _wait(self, transport: Transport) -> None:
        del transport
        raise RetryIOError("there is no whole message yet")


def common_name(certificate: object) -> str | None:
    """Return the common name of the subject of a certificate, as `ssl.SSLSocket.getpeercert` describes it."""
    if not isinstance(certificate, dict):
        return None
    for parts in certificate.get("subject", ()):
        for key, value in parts:
            if key == "commonName":
                return str(value)
    return None


class ServerConnection(NonBlockingConnection):
    """The server's end of a connection. Text commands come out of `readPacket` as `ServerAdminRequest`.

    Attributes:
        client_id: the name that the peer has given itself, as bytes; None if it has not.
        ssl_subject: the common name in its certificate; None if it has shown none.
    """

    _log_name: ClassVar[str] = "ServerConnection"

    def __init__(
        self, addr: Sequence[object], conn: socket.socket | None, use_ssl: bool, client_id: str | bytes | None
    ) -> None:
        """Use the socket of an accepted connection.

        Args:
            addr: the peer's host and port, and perhaps more.
            conn: the socket; None if somebody else takes care of it.
            use_ssl: whether it is a TLS socket.
            client_id: what loggers are named after.
        """
        super().__init__(str(addr[0]), int(str(addr[1])), client_id=client_id or b"")
        self.use_ssl = use_ssl
        self.client_id: bytes | None = None
        self._functions = FunctionSet(self._on_functions_changed)
        self.ssl_subject: str | None = None
        if conn is not None:
            if isinstance(conn, ssl.SSLSocket):
                self.ssl_subject = common_name(conn.getpeercert())
            self._use(Transport(conn))

    def __repr__(self) -> str:
        return f"<gear.ServerConnection 0x{id(self):x} name: {self.client_id!r} host: {self.host} port: {self.port}>"

    @property
    def functions(self) -> FunctionSet:
        """The names of the functions that it can run. What you add or remove counts as registered, or not, by it."""
        return self._functions

    @functions.setter
    def functions(self, names: Iterable[str | bytes]) -> None:
        self._functions.replace(names)

    def _on_functions_changed(self, added: set[bytes], removed: set[bytes]) -> None:
        """Do nothing; called when a program has changed the functions."""

    def _line_received(self, line: bytes) -> AdminRequest | None:
        request = ServerAdminRequest(self)
        request.receive(line)
        return request


class PeerSocket:
    """Stands for the socket of one of a server's connections, whose bytes the server moves."""

    def __init__(self, peer: Peer, sock: socket.socket) -> None:
        """Stand for a socket.

        Args:
            peer: the connection.
            sock: its socket, which only the server reads and writes.
        """
        self._peer = peer
        self._sock = sock

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 once it is closed."""
        return self._sock.fileno()

    def getpeername(self) -> Any:
        """Return the peer's address."""
        return self._sock.getpeername()

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Send bytes, all of them, behind what the server has sent.

        Returns:
            How many bytes there are.

        Raises:
            DisconnectError: the peer is gone.
        """
        self.sendall(data, flags)
        return memoryview(data).nbytes

    def sendall(self, data: bytes | bytearray | memoryview, flags: int = 0) -> None:
        """Send bytes, all of them, behind what the server has sent.

        Raises:
            DisconnectError: the peer is gone.
        """
        del flags
        self._peer.sendRaw(bytes(data))

    def close(self) -> None:
        """Close the connection, once the server has dealt with what it is at."""
        self._peer.disconnect()


class PeerOwner(Protocol):
    """What a peer needs of its server."""

    use_ssl: bool
    client_id: bytes | None

    def change_abilities(self, connection: Peer, added: set[bytes], removed: set[bytes]) -> None:
        """Let a worker be able to run other functions."""
        ...

    def let_sleep(self, connection: Peer) -> None:
        """Let a worker sleep."""
        ...

    def transmit(self, connection: Peer, data: bytes) -> None:
        """Send something to a peer."""
        ...

    def close_peer(self, connection: Peer) -> None:
        """Close a connection."""
        ...


class Peer(ServerConnection):
    """One of a server's connections. What is sent on it goes through the server's own queue of output.

    Attributes:
        peer: the connection's name in the engine.
    """

    def __init__(
        self, server: PeerOwner, peer: PeerId, host: str, port: int, ssl_subject: str | None, sock: socket.socket
    ) -> None:
        """Begin with a peer that has just connected.

        Args:
            server: the server.
            peer: the connection's name in the engine.
            host: the peer's address.
            port: its port; 0 for a Unix socket.
            ssl_subject: the common name in its certificate; None if it has shown none.
            sock: its socket.
        """
        super().__init__((host, port), None, server.use_ssl, convert_to_bytes(server.client_id))
        self.ssl_subject = ssl_subject
        self.peer = peer
        self._server = server
        self._socket = PeerSocket(self, sock)
        self.connected = True

    @property
    def conn(self) -> PeerSocket | None:  # type: ignore[override]  # what programs use of a socket
        """What stands for its socket: it sends through the server; None once the peer is gone."""
        return self._socket if self.connected else None

    def sendPacket(self, packet: Packet) -> None:
        """Send a packet; it leaves when the server has dealt with what it is at.

        Raises:
            DisconnectError: the peer is gone.
        """
        self.log.info("Sending packet to %s: %s", self, packet)
        self.sendRaw(packet.toBinary())

    def sendRaw(self, data: bytes | bytearray) -> None:
        """Send bytes; they leave when the server has dealt with what it is at.

        Raises:
            DisconnectError: the peer is gone.
        """
        if not self.connected:
            raise DisconnectError(f"{self.host}:{self.port}: the peer is gone")
        self._server.transmit(self, bytes(data))

    def enqueue(self, packet: Packet) -> None:
        """Send a packet, as `sendPacket` does.

        Raises:
            DisconnectError: the peer is gone.
        """
        self.sendPacket(packet)

    def drop(self, reason: str) -> list[Job]:
        """Close the connection, once the server has dealt with what it is at."""
        del reason
        if self.connected:
            self._server.close_peer(self)
        return []

    def changeState(self, state: str) -> None:
        """Show a state; a worker whose state is ``SLEEP`` is woken when there is a job for it."""
        if state == "SLEEP" and self.state != "SLEEP":
            self._server.let_sleep(self)
        else:
            self.show_state(state)

    def show_state(self, state: str) -> None:
        """Show a state that the server knows of."""
        super().changeState(state)

    def _on_functions_changed(self, added: set[bytes], removed: set[bytes]) -> None:
        """Let the server know."""
        self._server.change_abilities(self, added, removed)

    def gone(self) -> None:
        """Handle the end of the connection."""
        self.connected = False
        self.related_jobs.clear()
