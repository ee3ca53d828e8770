"""``gear.NonBlockingConnection``: a connection that never waits once it is open."""

from __future__ import annotations

from .connection import Connection
from .errors import RetryIOError
from .packet import Packet
from .transport import Transport

__all__ = ["NonBlockingConnection"]


class NonBlockingConnection(Connection):
    """A connection whose methods do what can be done at once: what cannot be sent is queued."""

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
        self.post(packet)

    def sendRaw(self, data: bytes | bytearray) -> None:
        """Queue bytes, and send what can be sent at once.

        Raises:
            DisconnectError: the connection is down.
        """
        with self.send_lock:
            self._open_transport().post(data)

    def sendQueuedData(self) -> None:
        """Send what can be sent at once.

        Raises:
            DisconnectError: the connection is down.
        """
        self._open_transport().flush()

    def _wait(self, transport: Transport) -> None:
        del transport
        raise RetryIOError("there is no whole message yet")
