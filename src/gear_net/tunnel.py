"""A running TLS connection: without its socket, as servers need it, and on a socket of a client or worker."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

__all__ = ["PeerCertificate", "TLSSocket", "Tunnel"]

_CHUNK: Final = 65536  # bytes of ciphertext that OpenSSL holds at most; its buffers never shrink
_RECORD: Final = 16384  # bytes in the largest record of TLS
_ALERT: Final = b"\x15\x03\x01\0\x02\x02\x46"  # fatal: the version of the protocol


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The verified certificate of the other side.

    Attributes:
        common_name: the common name of its subject; None if there is none.
        names: the host names that it is for.
        addresses: the IP addresses that it is for.
        not_after: when it expires, in seconds since the epoch.
        der: the whole certificate, in DER form.
    """

    common_name: str | None
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    not_after: int
    der: bytes


class Tunnel:
    """A TLS connection without its socket: it turns encrypted bytes into plain ones, and the other way round.

    It never waits, and keeps at most one incomplete record. Errors are `ssl.SSLError`, see `reason`. After an error,
    still send `data_to_send`: it tells the other side why.

    Attributes:
        established: whether the handshake is complete; only then call `encrypt`.
        ended: whether the other side has said that it sends nothing more.
        error: the error that came after the last plain bytes; the next `receive` raises it.
    """

    __slots__ = ("_answered", "_incoming", "_object", "_outgoing", "ended", "error", "established")

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool = False, server_hostname: str | None = None
    ) -> None:
        """Begin a handshake.

        Args:
            context: from `server_context` or `client_context`.
            server_side: whether this is the server.
            server_hostname: the server's name or address, for a client.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._answered = False  # whether there was anything to send
        self.established = False
        self.ended = False
        self.error: ssl.SSLError | None = None
        if not server_side:
            self._shake_hands()

    def receive(self, data: bytes) -> bytes:
        """Take encrypted bytes that arrived, and return the plain bytes in them, which may be none.

        Check `data_to_send` afterwards.

        Raises:
            ssl.SSLError: this connection has failed.
        """
        if self.error is not None:
            raise self.error
        said: list[bytes] = []
        for start in range(0, len(data), _CHUNK):
            self._incoming.write(data[start : start + _CHUNK])
            if self.established or self._shake_hands():
                self._read(said)
        return said[0] if len(said) == 1 else b"".join(said)

    def _shake_hands(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:  # the peer has its turn
            return False
        except ssl.SSLError:
            # OpenSSL does not answer what is not TLS. Our clients recognise the alert, and say what it means.
            if not self._answered and not self._outgoing.pending:
                self._outgoing.write(_ALERT)
            raise
        self.established = True
        return True

    def _read(self, said: list[bytes]) -> None:
        while not self.ended and (self._incoming.pending or self._object.pending()):
            try:
                piece = self._object.read(_RECORD)
            except ssl.SSLWantReadError:  # the rest of the record has not come
                return
            except ssl.SSLZeroReturnError:  # the peer says that it sends no more
                piece = b""
            except ssl.SSLError as error:
                if not said:
                    raise
                self.error = error  # a result may have come before it
                return
            if piece:
                said.append(piece)
            else:
                self.ended = True

    def data_to_send(self) -> bytes:
        """Take the bytes that TLS itself has to send, for the handshake or at the other side's request; may be none."""
        data = self._outgoing.read()
        self._answered = self._answered or bool(data)
        return data

    def encrypt(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Encrypt plain bytes; yield what has to be sent, in pieces of moderate size.

        Raises:
            ssl.SSLError: this connection has failed.
        """
        rest = memoryview(data)
        while rest:
            rest = rest[self._object.write(rest[:_RECORD]) :]
            if self._outgoing.pending >= _CHUNK - 2 * _RECORD or not rest:
                yield self._outgoing.read()

    def end(self) -> bytes:
        """Return the bytes that tell the other side that nothing more comes (``close_notify``)."""
        if self.established:
            with contextlib.suppress(ssl.SSLError):  # it waits for the other side to say so too, or has failed before
                self._object.unwrap()
        return self._outgoing.read()

    def peer_certificate(self) -> PeerCertificate | None:
        """Return the other side's certificate; None if it has presented none, or was not asked for one."""
        der = self._object.getpeercert(binary_form=True)
        fields = cast("dict[str, Any] | None", self._object.getpeercert())
        if not der or not fields:
            return None
        subject = [pair for group in fields.get("subject", ()) for pair in group]
        alternatives = fields.get("subjectAltName", ())
        names, addresses = (
            tuple(name for kind, name in alternatives if kind == wanted) for wanted in ("DNS", "IP Address")
        )
        not_after = ssl.cert_time_to_seconds(fields["notAfter"])
        return PeerCertificate(dict(subject).get("commonName"), names, addresses, not_after, der)


class TLSSocket:
    """A non-blocking socket with a `Tunnel`: `recv` and `send` as those of a plain socket.

    Attributes:
        sock: the socket; watch it for reading, and for writing while there is something `unsent`.
        tunnel: the TLS connection.
    """

    def __init__(self, sock: socket.socket, tunnel: Tunnel) -> None:
        """Begin with a connected socket; call `shake_hands` next."""
        self.sock = sock
        self.tunnel = tunnel
        self._unsent: bytes | memoryview = b""  # encrypted
        self._plain = 0  # bytes that were given to `send`, and of which not all is with the system
        self._said = b""
        self._end_read = False

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 once it is closed."""
        return self.sock.fileno()

    @property
    def unsent(self) -> bool:
        """Whether the socket has to take something before anything else can be sent."""
        return bool(self._unsent)

    def shake_hands(self) -> bool:
        """Do as much of the handshake as possible without waiting; return whether it is complete.

        Raises:
            ConnectionAbortedError: the other side has closed the connection.
            OSError: the connection has failed.
        """
        self._take_output()
        self.flush()
        while not self.tunnel.established:
            try:
                data = self.sock.recv(_CHUNK)
            except BlockingIOError:
                return False
            if not data:
                raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
            self._said += self._decrypt(data)
        return not self._unsent

    def pending(self) -> bool:
        """Whether `recv` has something to return or to raise that no selector sees."""
        return bool(self._said) or self.tunnel.error is not None or (self.tunnel.ended and not self._end_read)

    def recv(self, size: int) -> bytes:
        """Return plain text from the other side; no bytes at the end.

        Args:
            size: maximum number of encrypted bytes to read.

        Raises:
            BlockingIOError: nothing has arrived.
            OSError: the connection has failed.
        """
        said, self._said = self._said, b""
        if said:
            return said
        data = b"" if self.tunnel.ended or self.tunnel.error is not None else self.sock.recv(size)
        if data or self.tunnel.error is not None:
            said = self._decrypt(data)
            if not said and not self.tunnel.ended:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._end_read = not said
        return said

    def _decrypt(self, data: bytes) -> bytes:
        try:
            return self.tunnel.receive(data)
        finally:
            self._take_output()
            with contextlib.suppress(OSError):  # the next call finds it
                self.flush()

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send what makes one record; return how many bytes of the data that were.

        They count as sent when all of the record is with the system: the other side can read no part of a record.

        Args:
            data: what to say; after a call that has sent nothing, the same.

        Raises:
            BlockingIOError: the socket has no room for all of it.
            OSError: the connection has failed.
        """
        if not self._plain:
            record = memoryview(data)[:_RECORD]
            self._unsent = b"".join((self._unsent, *self.tunnel.encrypt(record)))
            self._plain = len(record)
        self.flush()
        if self._unsent:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        sent, self._plain = self._plain, 0
        return sent

    def _take_output(self) -> None:
        if data := self.tunnel.data_to_send():
            self._unsent = b"".join((self._unsent, data))

    def flush(self) -> None:
        """Send what is unsent, as far as the socket takes it.

        Raises:
            OSError: the connection has failed.
        """
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._unsent = memoryview(self._unsent)[self.sock.send(self._unsent) :]

    def end(self) -> None:
        """Say that nothing more comes, if the socket takes that now."""
        with contextlib.suppress(OSError):
            if self.sock.fileno() >= 0 and not self._unsent and (data := self.tunnel.end()):
                self.sock.send(data)

    def close(self) -> None:
        """Say that nothing more comes, if the socket takes that now, and close it."""
        self.end()
        self.sock.close()
