"""One connection of a server: its socket, its TLS, and how its output gets there."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable
from typing import Final

from gearproto.server import PeerId
from gearproto.server.backlog import Backlog, Backlogs

from .poller import READ
from .tunnel import Tunnel

__all__ = ["MIN_READ", "NOBODY", "PeerSocket"]

NOBODY: Final = PeerId(0)
"""What a connection is to the engine that does not know it yet."""

MIN_READ: Final = 65536
"""Bytes that are read from a connection at once, as long as no more come."""

_MAX_SEND: Final = 1024 * 1024  # bytes after which other peers have their turn; a fast reader could take all the time
_MAX_RECORDS: Final = 65536  # bytes encrypted at once


class PeerSocket:
    """A connection: its socket, what the socket has not taken yet, and what is watched.

    Attributes:
        sock: the socket.
        host: the peer's address.
        peer: what the engine knows it as; `NOBODY` until it does.
        on_close: called when the connection has been closed.
        tunnel: its TLS; None for plain TCP.
        backlog: the output that the socket has not taken yet; None if there is none.
        direct: whether output may go to the socket as it is: there is no backlog, and no TLS.
        watched: what the selector watches.
        read_size: bytes to read at once.
        ended: whether the peer sends no more, but still reads.
        leave_at: set once the peer is only to read the rest, and go.
    """

    __slots__ = (
        "_under_way",
        "backlog",
        "direct",
        "ended",
        "host",
        "leave_at",
        "on_close",
        "peer",
        "read_size",
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
        self.backlog: Backlog | None = None
        self.direct = True
        self.watched = READ
        self.read_size = MIN_READ
        self.ended = False
        self.leave_at: float | None = None
        self._under_way: bytes | memoryview = b""  # what the socket gets next; encrypted if there is TLS

    def send_raw(self, data: bytes, backlogs: Backlogs[PeerSocket]) -> None:
        """Queue bytes of TLS itself, as they are, behind what has been encrypted."""
        self._under_way = b"".join((self._under_way, data))
        if self.backlog is None:
            self.begin((), len(data), backlogs)
        else:
            backlogs.grow(self.backlog, len(data))

    def flush(self, backlogs: Backlogs[PeerSocket], now: float) -> tuple[int, str | None]:
        """Send the backlog, as far as the socket takes it; not too much at a time, for the sake of others.

        Returns:
            How many bytes the socket has taken, and why the peer has to go, if it has to.

        Raises:
            OSError: the connection has failed.
        """
        backlog = self.backlog
        assert backlog is not None
        total = 0
        while total < _MAX_SEND:
            data = self._under_way or self._next(backlog, backlogs)
            if not data:
                backlogs.end(self)
                self.backlog = None
                self.direct = self.tunnel is None
                break
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            if sent:
                total += sent
                backlogs.sent(self, backlog, sent, now)
            if sent < len(data):
                self._under_way = memoryview(data)[sent:]
                return total, self._rest(backlog, backlogs, now, full=True)
            self._under_way = b""
        else:  # the system may call the socket full before it is, and tell nothing until the peer reads
            return total, self._rest(backlog, backlogs, now, full=False)
        return total, None

    def begin(self, pieces: Iterable[bytes | memoryview], size: int, backlogs: Backlogs[PeerSocket]) -> Backlog:
        """Begin a backlog."""
        self.backlog = backlogs.begin(self, pieces, size)
        self.direct = False
        return self.backlog

    def keep(self, data: bytes, sent: int, backlogs: Backlogs[PeerSocket], now: float) -> None:
        """Begin a backlog with what the socket has not taken."""
        rest = memoryview(data)[sent:]
        self._rest(self.begin((rest,), len(rest), backlogs), backlogs, now, full=True)

    def _rest(self, backlog: Backlog, backlogs: Backlogs[PeerSocket], now: float, *, full: bool) -> str | None:
        buffer_size = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        return backlogs.rest(self, backlog, buffer_size, now, full=full)

    def _next(self, backlog: Backlog, backlogs: Backlogs[PeerSocket]) -> bytes | memoryview:
        """Take the next bytes for the socket from the backlog."""
        if self.tunnel is None:
            return backlog.take()
        plain = backlog.take(_MAX_RECORDS)
        encrypted = b"".join(self.tunnel.encrypt(plain))
        backlogs.grow(backlog, len(encrypted) - len(plain))
        return encrypted

    def end_output(self) -> None:
        """Send no more."""
        with contextlib.suppress(OSError):  # the peer is gone already, as the next turn will see
            self.say_end()
            self.sock.shutdown(socket.SHUT_WR)

    def say_end(self) -> None:
        """Say that nothing more comes, if TLS wants it said; a socket that cannot take it now stays without."""
        if self.tunnel is not None and (data := self.tunnel.end()):
            self.sock.send(data)
