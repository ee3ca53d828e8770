"""Sockets for both implementations of the API."""

from __future__ import annotations

import _socket
import socket
from typing import Any

__all__ = ["send_at_once"]


def send_at_once() -> None:
    """Let all sockets send small packets at once; `gear` waits 40 ms for every second one otherwise."""

    def connect(self: socket.socket, address: Any) -> None:
        _socket.socket.connect(self, address)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def accept(self: socket.socket) -> Any:
        sock, address = plain_accept(self)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock, address

    plain_accept = socket.socket.accept
    socket.socket.connect = connect  # type: ignore[assignment,method-assign]
    socket.socket.accept = accept  # type: ignore[method-assign]
