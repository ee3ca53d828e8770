"""Moves bytes between a socket and a connection of `gearproto`."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

from gearproto import RemoteProtocolError
from gearproto.connection import Connection
from gearproto.event import Event

from .tls import is_refusal, reason
from .tunnel import TLSSocket

__all__ = ["Link"]

_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE
_CHUNK: Final = 64 * 1024  # malloc maps a buffer of 128 KiB or more for each read, which takes as long as the read
_TLS_ALERT: Final = b"\x15\x03"  # the beginning of a TLS alert
_TLS_HERE: Final = "the server seems to speak TLS, which this connection does not"
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Link:
    """A socket and the connection that speaks over it. Belongs to one thread at a time.

    Attributes:
        sock: the socket, to be watched for `wants`; without TLS.
        conn: the connection; after each call to it, call `settle`.
        sent: bytes of output that the socket has taken.
        closed: whether the socket is closed.
        error: the error of the socket; None if there was none.
    """

    def __init__(
        self,
        sock: socket.socket | TLSSocket,
        conn: Connection,
        on_event: Callable[[Event], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the two; call `start` next.

        Args:
            sock: a connected, non-blocking socket, with TLS or without; the link closes it.
            conn: the connection.
            on_event: called with each event.
            clock: returns the connection's monotonic time in seconds.
        """
        self.conn = conn
        self.sock = sock.sock if isinstance(sock, TLSSocket) else sock
        self._io = sock
        self._tls = sock if isinstance(sock, TLSSocket) else None
        self._ready = sock if isinstance(sock, TLSSocket | ssl.SSLSocket) else None  # may hold what no selector sees
        self._heard = self._ready is not None  # anything from the server, even a handshake
        self._on_event = on_event
        self._clock = clock
        self._unsent: memoryview | None = None
        self.sent = 0
        self._uncounted = False  # the socket may have taken output that was not reported to the connection
        self.closed = False
        self.error: Exception | None = None
        self._paused = False

    @property
    def paused(self) -> bool:
        """Whether reading is paused."""
        return self._paused

    @property
    def wants(self) -> int:
        """What to watch the socket for; 0 for nothing."""
        return (0 if self.paused else _READ) | (_WRITE if self.sending else 0)

    @property
    def sending(self) -> bool:
        """Whether there is output that the socket has not taken."""
        return self._unsent is not None or (self._tls is not None and self._tls.unsent)

    @property
    def unsent_size(self) -> int:
        """How many bytes of output the socket has not taken, those that the connection still holds included."""
        return self.conn.output_size + (0 if self._unsent is None else len(self._unsent))

    def when_sent(self) -> Callable[[], bool]:
        """Return a function that tells whether the output of this moment has been sent, or never will be."""
        end = self.sent + self.unsent_size
        return lambda: self.closed or self.sent >= end

    def start(self) -> None:
        """Settle for the first time: also read what has come with the TLS handshake, and which no selector sees."""
        self.settle()
        if self._ready is not None and self._ready.pending():
            self.on_ready(_READ)

    def settle(self) -> None:
        """Hand out all events, and send as much of the output as the socket takes."""
        self.drain()
        self._flush()
        if self.conn.closed:
            self.close("closed")

    def on_ready(self, events: int) -> None:
        """Read and write as far as the socket is ready, then settle."""
        if self.closed:
            return
        if events & _WRITE:
            self._flush()
        if events & _READ and not self.paused and not self.closed:
            self._read()
        if not self.closed:
            self.settle()

    def look(self) -> None:
        """Read once, and again if anything arrived: the end may follow it."""
        for _ in range(2):
            if self.closed or self.paused or not self._read():
                return
            self.settle()

    def pause(self) -> None:
        """Stop reading until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Continue reading."""
        self._paused = False

    def cut(self) -> None:
        """Shut the socket down, so that both ends notice. This is the only method that any thread may call."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self, reason: str) -> None:
        """Close the socket; what was open on the connection ends, and its events are handed out."""
        if self.closed:
            self._io.close()  # KeyboardInterrupt may have come in between
            return
        self.closed = True
        self.conn.connection_lost(reason, 0 if self._uncounted else None)
        self._unsent = None
        self.release()
        self.drain()

    def release(self) -> None:
        """Close the socket itself; some event loops have to stop watching it first."""
        self._io.close()

    def _read(self) -> bool:
        """Read once, with TLS everything that is decrypted; return whether anything arrived, even if it is the end."""
        try:
            data = self._io.recv(_CHUNK)
        except _NOT_NOW:  # nothing has come
            return False
        except OSError as error:  # what is open ends as lost
            self._fail(error)
            return True
        if not self._heard:
            self._heard = True
            if data.startswith(_TLS_ALERT):
                self.error = ssl.SSLError(_TLS_HERE)
                self.conn.connection_refused(_TLS_HERE)
                self.close(_TLS_HERE)
                return True
        if not data:
            self.conn.receive_eof()
            return True
        self.conn.receive_data(data, self._clock())
        if self._ready is not None and self._ready.pending():
            self._read()
        return True

    def _read_rest(self) -> OSError | None:
        """Read what came before the end: a server that is gone may have sent results first.

        Returns:
            The error that tells why the server has gone, if it has said so.
        """
        why = None
        try:
            while data := self._io.recv(_CHUNK):
                self._heard = True
                self.conn.receive_data(data)
        except OSError as error:  # all that came before it has been read
            why = error if is_refusal(error) else None
        self.drain()
        return why

    def _fail(self, error: OSError) -> None:
        """Close the socket after an error."""
        self.error = error
        reason = _told(error)
        if is_refusal(error):
            self.conn.connection_refused(reason)
        self.close(reason)

    def drain(self) -> None:
        """Hand out all events."""
        conn, on_event = self.conn, self._on_event
        while True:  # as `Connection.events`, but for the generator, which takes 1 us a job
            try:
                event = conn.next_event()
            except RemoteProtocolError:  # the events that follow say what it means
                continue
            if event is None:
                return
            on_event(event)

    def _flush_tls(self, tls: TLSSocket) -> OSError | None:
        """Send what TLS itself has to say, as far as the socket takes it; return why that has failed."""
        try:
            tls.flush()
        except OSError as error:  # `_flush` closes the connection for it
            return error
        return None

    def _flush(self) -> None:
        """Send as much as the socket takes, and report it all at once: none of it has waited for the server."""
        if self._uncounted:
            self.close("interrupted")  # nobody knows how much of the output has left
        if self.closed:
            return
        conn, unsent = self.conn, self._unsent
        if unsent is None and self._tls is None and not conn.output_size:
            return  # as after most reads
        sent = 0
        failure = None if self._tls is None else self._flush_tls(self._tls)
        self._uncounted = True  # KeyboardInterrupt may come at any time, and sent jobs must not count as unsent
        data: bytes | memoryview = conn.data_to_send() if unsent is None else unsent
        while data:
            try:
                size = self._io.send(data)
            except _NOT_NOW:  # the rest is sent when the socket takes it
                break
            except OSError as error:  # what the socket took before counts as sent
                failure = error
                break
            sent += size
            data = memoryview(data)[size:] if size < len(data) else conn.data_to_send()
        self._unsent = memoryview(data) if data else None
        if sent or self._unsent is not None:  # also report that nothing could be sent
            conn.data_sent(sent, self._clock())
        self.sent += sent
        self._uncounted = False
        if failure is not None:
            self._fail(self._read_rest() or failure)


def _told(error: OSError) -> str:
    """Say why a connection has failed."""
    return f"TLS: {reason(error)}" if isinstance(error, ssl.SSLError) else error.strerror or str(error)
