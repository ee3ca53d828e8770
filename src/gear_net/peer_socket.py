"""One connection of a server: its socket, its TLS, and how bytes get to the socket.

Theory of operation. `gearproto.server.Endpoint` decides what is sent and when; a `PeerSocket` sends it. Without TLS
there is nothing to remember. With TLS, what has been encrypted has to leave as it is: `send` encrypts a part of what it
is given, and counts that part as sent once all of it is with the system. If the system takes less, `send` has to be
called with the same bytes again; an endpoint does that.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from typing import Final

from gearproto.server import TURNED_AWAY, PeerId

from .poller import READ, WRITE
from .tunnel import Tunnel

__all__ = ["MIN_READ", "NOBODY", "PeerSocket", "is_gone", "turn_away"]

NOBODY: Final = PeerId(0)
"""What a connection is to the endpoint that does not know it yet."""

MIN_READ: Final = 65536
"""Bytes that are read from a connection at once, as long as no more come."""

_MAX_SEND: Final = 1024 * 1024  # bytes that are encrypted in a turn, so that other peers have their turn
_MAX_RECORDS: Final = 65536  # bytes encrypted at once
_MAX_ANSWERS: Final = 65536  # bytes that TLS itself has to say, and above which nothing more is read


class PeerSocket:
    """A connection: its socket, its TLS, and what is watched.

    Attributes:
        sock: the socket.
        host: the peer's address.
        peer: what the endpoint knows it as; `NOBODY` until it does.
        on_close: called when the connection has been closed.
        tunnel: its TLS; None for plain TCP.
        watched: what the poller watches.
        reading: whether the endpoint wants to have what the peer sends.
        full: whether there is output for which the system has no room now.
        read_size: bytes to read at once.
        discards: whether what the peer sends is thrown away.
        half_closed: whether the peer sends no more, but is kept for its results.
    """

    __slots__ = (
        "_encrypted",
        "_plain",
        "discards",
        "full",
        "half_closed",
        "host",
        "on_close",
        "peer",
        "read_size",
        "reading",
        "sock",
        "tunnel",
        "watched",
    )

    def __init__(self, sock: socket.socket, host: str, on_close: Callable[[], object] | None) -> None:
        """Begin with an open socket."""
        self.sock = sock
        self.host = host
        self.peer = NOBODY
        self.on_close = on_close
        self.tunnel: Tunnel | None = None
        self.watched = READ
        self.reading = True
        self.full = False
        self.read_size = MIN_READ
        self.discards = False
        self.half_closed = False
        self._encrypted: bytes | memoryview = b""  # what the socket gets next
        self._plain = 0  # bytes given to `send` that are in it

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 once it is closed."""
        return self.sock.fileno()

    @property
    def wanted(self) -> int:
        """What has to be watched now."""
        encrypted = len(self._encrypted)
        wanted = READ if self.reading and encrypted <= _MAX_ANSWERS + _MAX_RECORDS else 0
        return wanted | WRITE if self.full or encrypted else wanted

    def send(self, tunnel: Tunnel, data: bytes | memoryview) -> int:
        """Send data through TLS, as far as the socket takes it; not too much at a time.

        Args:
            tunnel: the TLS.
            data: what to send; it begins with what an earlier call has not counted as sent.

        Returns:
            How many bytes of the data are with the system. If it is not all, `full` tells whether the system has no
            room.

        Raises:
            OSError: the connection, or TLS, has failed.
        """
        view = memoryview(data)
        total = 0
        while total < len(view) and total < _MAX_SEND:
            if not self._plain:
                piece = view[total : total + _MAX_RECORDS]
                self._encrypted = b"".join((self._encrypted, *tunnel.encrypt(piece)))
                self._plain = len(piece)
            if not self.flush():
                break
            total += self._plain
            self._plain = 0
        return total

    def send_raw(self, data: bytes) -> None:
        """Send bytes of TLS itself, as they are, behind what has been encrypted.

        Raises:
            OSError: the connection has failed.
        """
        if data:
            self._encrypted = b"".join((self._encrypted, data))
            self.flush()

    def flush(self) -> bool:
        """Send what has been encrypted; return whether the socket has taken all of it.

        Raises:
            OSError: the connection has failed.
        """
        while self._encrypted:
            try:
                sent = self.sock.send(self._encrypted)
            except BlockingIOError:  # the rest is kept, and tried again
                return False
            self._encrypted = memoryview(self._encrypted)[sent:]
        self._encrypted = b""
        return True

    @property
    def all_sent(self) -> bool:
        """Whether nothing that has been encrypted is left."""
        return not self._encrypted

    def end_output(self) -> None:
        """Send no more."""
        with contextlib.suppress(OSError):  # the peer is gone already, as the next turn will see
            self.say_end()
            self.sock.shutdown(socket.SHUT_WR)

    def say_end(self) -> None:
        """Say that nothing more comes, if TLS wants it said; a socket that cannot take it now stays without."""
        if self.tunnel is not None and self.all_sent and (data := self.tunnel.end()):
            self.sock.send(data)


def is_gone(sock: socket.socket) -> bool:
    """Tell whether the peer has reset a connection."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


def turn_away(sock: socket.socket, *, told: bool = True) -> None:
    """Close a connection that there is no room for, and tell the peer why if nothing is encrypted."""
    with contextlib.suppress(OSError):
        if told:
            sock.setblocking(False)
            sock.send(TURNED_AWAY)
    sock.close()
