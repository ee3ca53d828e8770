"""A TLS connection without its socket."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

__all__ = ["PeerCertificate", "Tunnel"]

_CHUNK: Final = 65536  # bytes of ciphertext that OpenSSL holds at most; its buffers never shrink
_RECORD: Final = 16384  # bytes in the largest record of TLS
_ALERT: Final = b"\x15\x03\x01\0\x02\x02\x46"  # fatal: the version of the protocol


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The certificate that the other side has shown, and that has been found good.

    Attributes:
        common_name: the common name of its subject; None if there is none.
        names: the host names that it is for.
        not_after: when it ends, in seconds since the epoch.
        der: the whole of it, in DER form.
    """

    common_name: str | None
    names: tuple[str, ...]
    not_after: int
    der: bytes


class Tunnel:
    """A TLS connection without its socket: what arrives goes in, what was said comes out, and the other way round.

    It never waits, and keeps no more than one unfinished record. Errors are `ssl.SSLError`, see `reason`; send
    `data_to_send` to the other side even then, which tells it why.

    Attributes:
        established: whether the handshake is over; only then call `encrypt`.
        ended: whether the other side has said that it sends no more.
    """

    __slots__ = ("_answered", "_incoming", "_object", "_outgoing", "ended", "established")

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
        if not server_side:
            self._shake_hands()

    def receive(self, data: bytes) -> bytes:
        """Take what has arrived, and return what the other side has said with it; perhaps nothing.

        There may be `data_to_send` then.

        Raises:
            ssl.SSLError: this connection has failed.
        """
        said: list[bytes] = []
        for start in range(0, len(data), _CHUNK):
            self._incoming.write(data[start : start + _CHUNK])
            if self.established or self._shake_hands():
                self._read(said)
        return said[0] if len(said) == 1 else b"".join(said)

    def _shake_hands(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            # To what is not TLS at all OpenSSL says nothing. Clients of ours that meet an alert tell what it means.
            if not self._answered and not self._outgoing.pending:
                self._outgoing.write(_ALERT)
            raise
        self.established = True
        return True

    def _read(self, said: list[bytes]) -> None:
        while not self.ended and (self._incoming.pending or self._object.pending()):
            try:
                piece = self._object.read(_RECORD)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                piece = b""
            if piece:
                said.append(piece)
            else:
                self.ended = True

    def data_to_send(self) -> bytes:
        """Take what the handshake, or the other side's requests, want to be sent; perhaps nothing."""
        data = self._outgoing.read()
        self._answered = self._answered or bool(data)
        return data

    def encrypt(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Return what has to be sent to say this, in pieces of moderate size.

        Raises:
            ssl.SSLError: this connection has failed.
        """
        rest = memoryview(data)
        while rest:
            rest = rest[self._object.write(rest[:_RECORD]) :]
            if self._outgoing.pending >= _CHUNK - 2 * _RECORD or not rest:
                yield self._outgoing.read()

    def end(self) -> bytes:
        """Return what has to be sent to say that nothing more comes (``close_notify``)."""
        if self.established:
            with contextlib.suppress(ssl.SSLError):  # it waits for the other side to say so too, or has failed before
                self._object.unwrap()
        return self._outgoing.read()

    def peer_certificate(self) -> PeerCertificate | None:
        """Return the other side's certificate; None if it has shown none, or none was asked for."""
        der = self._object.getpeercert(binary_form=True)
        fields = cast("dict[str, Any] | None", self._object.getpeercert())
        if not der or not fields:
            return None
        subject = [pair for group in fields.get("subject", ()) for pair in group]
        names = [name for kind, name in fields.get("subjectAltName", ()) if kind == "DNS"]
        not_after = ssl.cert_time_to_seconds(fields["notAfter"])
        return PeerCertificate(dict(subject).get("commonName"), tuple(names), not_after, der)
