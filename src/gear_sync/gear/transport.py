"""One open socket of a connection, plain or TLS: bytes in, bytes out, neither waiting for the other."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import threading
import time
from collections import deque
from typing import Final

from gear_net.tls import reason
from gear_net.tunnel import TLSSocket

from .errors import DisconnectError

__all__ = ["BlockingTransport", "Transport", "wait_for"]

FRESH: Final = 0.05
"""For how many seconds a peer that has sent something counts as one that is there."""

_CHUNK: Final = 65536
_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def wait_for(sock: socket.socket, events: int, timeout: float | None, *others: socket.socket) -> bool:
    """Wait until a socket is ready.

    Args:
        sock: the socket.
        events: what for, as `select.poll` takes it.
        timeout: longest time in seconds; None for no limit.
        *others: sockets that end the waiting when they become readable.

    Returns:
        Whether the socket is ready, or at its end.
    """
    poll = select.poll()
    try:
        descriptor = sock.fileno()
        poll.register(descriptor, events)
        for other in others:
            poll.register(other, select.POLLIN)
    except (OSError, ValueError):
        return True  # closed meanwhile, as the next use will show
    ready = poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
    return any(found == descriptor for found, _events in ready)


class Transport:
    """A connected socket. Any thread may send; one at a time may receive.

    Output is queued whole and leaves in the order of queueing. If the socket does not take all of it at once, the
    thread that queued it may wait until it has left, or leave the rest to the next thread that uses the transport.
    """

    def __init__(self, sock: socket.socket | TLSSocket) -> None:
        """Use a connected socket, which is made non-blocking, or one with TLS."""
        self._tls = sock if isinstance(sock, TLSSocket) else None
        self.sock = sock.sock if isinstance(sock, TLSSocket) else sock
        self.sock.setblocking(False)
        self._io = sock
        self._lock = threading.Lock()  # guards all below, and TLS
        self._outbox: deque[bytes | bytearray | memoryview] = deque()
        self._queued = 0  # bytes ever queued
        self._sent = 0  # of these, bytes that the system has taken
        self._closed = False
        self._heard = 0.0  # when something came last

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 once it is closed."""
        return self.sock.fileno()

    @property
    def unsent(self) -> bool:
        """Whether output waits for the socket to take it."""
        return bool(self._outbox) or (self._tls is not None and self._tls.unsent)

    def outbox(self) -> list[bytes]:
        """Return the output that waits for the socket to take it."""
        with self._lock:
            return [bytes(piece) for piece in self._outbox]

    def enqueue(self, data: bytes | bytearray) -> int:
        """Queue output, and send as much of it as the socket takes at once.

        Returns:
            A mark for `drain`: how many bytes were ever queued.

        Raises:
            DisconnectError: the connection is down; nothing was queued, or not all of it has left.
        """
        with self._lock:
            if self._closed:
                raise DisconnectError("the connection is down")
            if data:
                self._queued += len(data)
                self._outbox.append(data)
            self._flush()
            return self._queued

    def drain(self, mark: int) -> None:
        """Wait until the system has taken all output up to a mark.

        Raises:
            DisconnectError: the connection has gone down before that.
        """
        while self._sent < mark:
            if self._closed:
                raise DisconnectError("the connection went down while data was sent")
            wait_for(self.sock, select.POLLOUT, None)
            self.flush()

    def flush(self) -> None:
        """Send as much of the queued output as the socket takes at once.

        Raises:
            DisconnectError: the connection is down.
        """
        with self._lock:
            if not self._closed:
                self._flush()

    def _flush(self) -> None:
        outbox = self._outbox
        try:
            if self._tls is not None:
                self._tls.flush()
            while outbox:
                sent = self._io.send(outbox[0])
                self._sent += sent
                if sent == len(outbox[0]):
                    outbox.popleft()
                else:
                    outbox[0] = memoryview(outbox[0])[sent:]
        except _NOT_NOW:
            return
        except OSError as error:
            raise DisconnectError(error.errno, f"sending failed: {reason(error)}") from error

    def receive(self) -> bytes | None:
        """Return what has arrived; None if that is nothing, and no bytes at the end.

        Raises:
            OSError: the connection has broken.
        """
        self._heard = time.monotonic()
        try:
            if self._tls is None:
                return self.sock.recv(_CHUNK)
            with self._lock:
                return b"" if self._closed else self._tls.recv(_CHUNK)
        except _NOT_NOW:
            return None
        except ssl.SSLError as error:
            raise DisconnectError(f"TLS failed: {reason(error)}") from error
        except OSError as error:
            if self._closed or error.errno == errno.EBADF:
                return b""
            if error.errno == errno.EAGAIN:  # from what only looks like a socket
                return None
            raise

    def wait_readable(self, timeout: float | None = None) -> bool:
        """Wait until something arrives, or the end; return whether it has."""
        return wait_for(self.sock, _READABLE, timeout)

    def at_end(self) -> bool:
        """Tell whether the peer has closed a connection that nobody has read the end of.

        Where it was heard a moment ago, it is not looked for: that would cost more than it is worth.
        """
        if time.monotonic() - self._heard < FRESH:
            return False
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except _NOT_NOW:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close the socket; a thread that waits for it sees its end."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._tls is not None and not self._outbox:
                self._tls.end()
            self._outbox.clear()
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            self.sock.close()


class BlockingTransport(Transport):
    """A connected socket that blocks, or what a program has put in its place: `recv` and `send` are enough."""

    def __init__(self, sock: socket.socket) -> None:
        """Use a socket."""
        self._tls = None
        self.sock = sock
        self._io = sock
        self._lock = threading.Lock()  # held while something is sent
        self._outbox = deque()
        self._queued = self._sent = 0
        self._closed = False
        self._heard = 0.0

    def enqueue(self, data: bytes | bytearray) -> int:
        """Queue output, which `drain` or `flush` sends; return a mark for `drain`.

        Raises:
            DisconnectError: the connection is down.
        """
        if self._closed:
            raise DisconnectError("the connection is down")
        if data:
            self._queued += len(data)
            self._outbox.append(data)
        return self._queued

    def drain(self, mark: int) -> None:
        """Send all output up to a mark.

        Raises:
            DisconnectError: the connection is down.
        """
        with self._lock:
            while self._sent < mark:
                if self._closed:
                    raise DisconnectError("the connection went down while data was sent")
                piece = self._outbox[0]
                try:
                    sent = self.sock.send(piece)
                except OSError as error:
                    raise DisconnectError(error.errno, f"sending failed: {reason(error)}") from error
                self._sent += sent
                if sent < len(piece):
                    self._outbox[0] = memoryview(piece)[sent:]
                else:
                    self._outbox.popleft()

    def flush(self) -> None:
        """Send all output.

        Raises:
            DisconnectError: the connection is down.
        """
        self.drain(self._queued)

    def receive(self) -> bytes | None:
        """Wait for data, and return it; no bytes at the end.

        Raises:
            OSError: the connection has broken.
        """
        try:
            return self.sock.recv(_CHUNK)
        except OSError:
            if self._closed:
                return b""
            raise

    def at_end(self) -> bool:
        """Return False: only reading finds the end."""
        return False

    def close(self) -> None:
        """Close the socket; threads that wait for it see its end."""
        self._closed = True
        with contextlib.suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, AttributeError):
            self.sock.close()
