"""``gear.ServerConnection``: a connection as its server sees it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

from .admin import AdminRequest, ServerAdminRequest
from .nonblocking import NonBlockingConnection
from .transport import Transport

__all__ = ["ServerConnection", "common_name"]


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
        functions: the names of the functions that it can run.
        ssl_subject: the common name in its certificate; None if it has shown none.
    """

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
        self.functions: set[bytes] = set()
        self.ssl_subject: str | None = None
        if conn is not None:
            if isinstance(conn, ssl.SSLSocket):
                self.ssl_subject = common_name(conn.getpeercert())
            self._use(Transport(conn))

    def __repr__(self) -> str:
        return f"<gear.ServerConnection 0x{id(self):x} name: {self.client_id!r} host: {self.host} port: {self.port}>"

    def _line_received(self, line: bytes) -> AdminRequest | None:
        request = ServerAdminRequest(self)
        request.receive(line)
        return request
