"""A connection of `gear.Server`: its socket belongs to the server's reactor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearproto.server import PeerId

from .errors import DisconnectError
from .packet import Packet
from .serverconnection import ServerConnection
from .text import convert_to_bytes

if TYPE_CHECKING:
    from .jobs import Job
    from .server import Server

__all__ = ["Peer"]


class Peer(ServerConnection):
    """One of a server's connections. What is sent on it goes through the server's own queue of output.

    Attributes:
        peer: the connection's name in the engine.
    """

    def __init__(self, server: Server, peer: PeerId, host: str) -> None:
        """Begin with a peer that has just connected."""
        super().__init__((host, 0), None, server.use_ssl, convert_to_bytes(server.client_id))
        self.peer = peer
        self._server = server
        self.connected = True

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

    def post(self, packet: Packet) -> None:
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

    def gone(self) -> None:
        """Take note that the connection has been closed."""
        self.connected = False
        self.related_jobs.clear()
