"""A Gearman connection that hides nothing: packets, bytes and lines of text, over a blocking socket or in memory."""

from __future__ import annotations

import itertools
import socket
import ssl
from abc import ABC, abstractmethod
from struct import Struct
from types import TracebackType
from typing import Final, Self, TypeVar

from gearproto.codec import HEADER, RESPONSE, Packet, Route, decoders
from gearproto.packets import (
    EchoReq,
    EchoRes,
    Error,
    GrabJob,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    NoJob,
    PreSleep,
)

from .servers import RunningServer

__all__ = ["TURNED_AWAY", "RawConnection", "RawPeer", "packet_bytes"]

_TIMEOUT: Final = 15.0  # seconds; only a hang reaches it
_SPECS: Final = decoders(Route.FROM_SERVER)
_RAW_HEADER: Final = Struct("!4sII")

TURNED_AWAY: Final = Error(b"TOO_MANY_CONNECTIONS", b"too many connections")
"""What our server tells a connection that it has no room for."""

_P = TypeVar("_P", bound=Packet)

Assigned = JobAssign | JobAssignUniq | JobAssignAll


def packet_bytes(magic: bytes, number: int, body: bytes = b"") -> bytes:
    """Build a packet of any kind, also one that makes no sense."""
    return _RAW_HEADER.pack(magic, number, len(body)) + body


class RawPeer(ABC):
    """One connection to a job server, as a client, worker or administrator."""

    _tokens: Final = itertools.count(1)

    def __init__(self) -> None:
        """Begin with nothing unread."""
        self._input = b""

    @abstractmethod
    def send_bytes(self, data: bytes) -> None:
        """Send any bytes."""

    @abstractmethod
    def _receive_some(self) -> bytes:
        """Wait for bytes from the server, and return them; none mean that it has closed the connection.

        Raises:
            TimeoutError: none come.
        """

    @abstractmethod
    def end_sending(self) -> None:
        """Send no more; the server may still."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Output

    def send(self, *packets: Packet) -> None:
        """Send packets in one piece."""
        self.send_bytes(b"".join(packet.encode() for packet in packets))

    # Input

    def receive_bytes(self, count: int) -> bytes:
        """Return the next bytes from the server, as many as asked for."""
        have = self._input
        if len(have) < count:
            gathered = bytearray(have)
            while len(gathered) < count:
                gathered += self._receive_more(gathered)
            have = bytes(gathered)
        self._input = have[count:]
        return have[:count]

    def _receive_more(self, have: bytes | bytearray) -> bytes:
        try:
            data = self._receive_some()
        except TimeoutError:
            raise AssertionError(f"the server sends no more; unread: {bytes(have[:200])!r}") from None
        if not data:
            raise AssertionError(f"the server has closed the connection; unread: {bytes(have[:200])!r}")
        return data

    def receive_raw(self) -> bytes:
        """Return the next packet as the bytes that came."""
        head = self.receive_bytes(HEADER.size)
        assert head.startswith(RESPONSE), head
        return head + self.receive_bytes(int.from_bytes(head[8:], "big"))

    def receive_any(self) -> Packet:
        """Return the next packet."""
        data = self.receive_raw()
        key, _size = HEADER.unpack_from(data)
        packet = _SPECS[key].decode(data[HEADER.size :])
        assert isinstance(packet, Packet), packet
        return packet

    def receive(self, kind: type[_P]) -> _P:
        """Return the next packet, which has to be of a kind."""
        packet = self.receive_any()
        assert isinstance(packet, kind), packet
        return packet

    def receive_line(self) -> bytes:
        """Return the next line with its ending."""
        have = self._input
        while b"\n" not in have:
            have += self._receive_more(have)
        end = have.index(b"\n") + 1
        self._input = have[end:]
        return have[:end]

    # What has to come, or not

    def expect(self, *packets: Packet) -> None:
        """Receive these packets, in this order."""
        for packet in packets:
            assert self.receive_any() == packet

    def expect_bytes(self, data: bytes) -> None:
        """Receive exactly these bytes next."""
        assert self.receive_bytes(len(data)) == data

    def expect_nothing(self) -> None:
        """Prove that nothing has been sent, and that all sent so far has been dealt with.

        The server answers an ``ECHO_REQ`` in order: what it had to say before would come before.
        """
        token = b"barrier %d" % next(self._tokens)
        self.send(EchoReq(token))
        self.expect(EchoRes(token))

    def expect_closed(self) -> None:
        """Prove that the server closes the connection without another byte."""
        try:
            data = self._input or self._receive_some()
        except ConnectionResetError:
            return
        except TimeoutError:
            raise AssertionError("the server does not close the connection") from None
        assert data == b""

    def expect_turned_away(self) -> None:
        """Prove that the server has no room for the connection, and says so."""
        self.expect(TURNED_AWAY)
        self.expect_closed()

    # Requests of several steps

    def submit(self, packet: Packet) -> bytes:
        """Submit a job; return its handle."""
        self.send(packet)
        return self.receive(JobCreated).handle

    def grab(self, request: Packet | None = None) -> Assigned:
        """Ask for a job, and get one."""
        self.send(request or GrabJob())
        job = self.receive_any()
        assert isinstance(job, Assigned), job
        return job

    def expect_no_job(self) -> None:
        """Ask for a job, and get none."""
        self.send(GrabJob())
        self.expect(NoJob())

    def sleep(self) -> None:
        """Go to sleep as a worker; there must be no job."""
        self.send(PreSleep())
        self.expect_nothing()

    def ask(self, line: bytes) -> bytes:
        """Send a text command; return the one line that answers it, with its ending."""
        self.send_bytes(line + b"\n")
        return self.receive_line()

    def ask_rows(self, line: bytes) -> list[bytes]:
        """Send a text command; return the rows that answer it, with their endings."""
        self.send_bytes(line + b"\n")
        return list(iter(self.receive_line, b".\n"))


class RawConnection(RawPeer):
    """A connection over a socket.

    Attributes:
        sock: the socket.
    """

    def __init__(self, server: RunningServer, tls: ssl.SSLContext | None = None) -> None:
        """Connect; with TLS, shake hands with a server of the name ``localhost``."""
        super().__init__()
        self.sock = socket.create_connection((server.host, server.port), _TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            try:
                self.sock = tls.wrap_socket(self.sock, server_hostname="localhost", suppress_ragged_eofs=False)
            except BaseException:
                self.sock.close()
                raise

    def send_bytes(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _receive_some(self) -> bytes:
        return self.sock.recv(1 << 20)

    def end_sending(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()
