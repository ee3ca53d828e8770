"""Ports of the loopback that are held: tests of another process that run at the same time are never given them.

A socket that is bound but does not listen holds a port. The system then refuses connections to it, and gives it neither
to a socket that asks for a free one nor to a connection that goes out. A server that names the port may still listen
there, any number of times in turn: both sockets allow it by ``SO_REUSEADDR``.
"""

from __future__ import annotations

import socket

__all__ = ["HOST", "HeldPort"]

HOST = "127.0.0.1"


class HeldPort:
    """A port that is held until `close`.

    Attributes:
        number: the port.
    """

    def __init__(self) -> None:
        """Take a free port."""
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind((HOST, 0))
        self.number: int = self._sock.getsockname()[1]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return HOST, self.number

    def close(self) -> None:
        """Let others have it."""
        self._sock.close()

    def __enter__(self) -> HeldPort:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
