"""How a connection is opened: without blocking, where a client or worker reads it, or as any program would."""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from gear_net.connecting import Dial, resolve
from gear_net.tls import ClientTLS
from gear_net.tunnel import PeerCertificate, TLSSocket
from gearproto.addresses import Address

from .errors import ConnectionError
from .transport import BlockingTransport, Transport, wait_for

__all__ = ["BlockingOpening", "Dialling", "Opening"]

_ABORTED: Final = "connecting was stopped"
_SHORTEST: Final = 0.001  # seconds for an address after others have taken all the time: 0 would mean not to wait at all


class Opening(ABC):
    """One attempt to open a connection, which any thread may abort.

    Attributes:
        aborted: whether it has been aborted; then there is nothing to use, even if it was opened.
    """

    def __init__(self, address: Address, timeout: float, tune: Callable[[socket.socket], None]) -> None:
        """Prepare.

        Args:
            address: the server.
            timeout: seconds that it may take.
            tune: sets options of the socket.
        """
        self.aborted = False
        self._address = address
        self._timeout = timeout
        self._tune = tune

    @abstractmethod
    def open(self) -> Transport:
        """Connect to the first address that can be connected to.

        Raises:
            ConnectionError: there is none, or this was aborted.
            OSError: the host has no address.
        """

    def abort(self) -> None:
        """Let `open` end soon."""
        self.aborted = True

    def check(self) -> None:
        """Raise an error if this was aborted."""
        if self.aborted:
            raise self.failure(_ABORTED)

    def failure(self, problem: object) -> ConnectionError:
        """Return the error for a problem."""
        return ConnectionError(f"{self._address.host}:{self._address.port}: {problem}")


class Dialling(Opening):
    """Opens a connection on a socket that does not block, with or without TLS.

    Attributes:
        certificate: what the server has shown over TLS.
    """

    def __init__(
        self,
        address: Address,
        timeout: float,
        tune: Callable[[socket.socket], None],
        context: ssl.SSLContext | None,
    ) -> None:
        """Prepare.

        Args:
            address: the server.
            timeout: seconds that it may take, a TLS handshake included.
            tune: sets options of the socket.
            context: for TLS; None for plain TCP.
        """
        super().__init__(address, timeout, tune)
        self.certificate: PeerCertificate | None = None
        self._tls = None if context is None else ClientTLS(context)
        self._stop, self._stopper = socket.socketpair()

    def abort(self) -> None:
        """Let `open` end at once."""
        super().abort()
        self._stopper.close()

    def open(self) -> Transport:
        """Connect to the first address that can be connected to, and shake hands there.

        Raises:
            ConnectionError: there is none, or this was aborted.
            OSError: the host has no address.
        """
        with self._stop, self._stopper:
            dial = Dial(self._address, resolve(self._address), self._timeout, self._tls, self._tune)
            try:
                while dial.trying is not None:
                    events = select.POLLIN if dial.wants == selectors.EVENT_READ else select.POLLOUT
                    ready = wait_for(dial.trying, events, dial.deadline - time.monotonic(), self._stop)
                    self.check()
                    dial.advance(time.monotonic(), dial.wants if ready else 0)
                if dial.sock is None:
                    raise self.failure(dial.error) from dial.error
            except BaseException:
                dial.close()
                raise
        if isinstance(dial.sock, TLSSocket):
            self.certificate = dial.sock.tunnel.peer_certificate()
        return Transport(dial.sock)


class BlockingOpening(Opening):
    """Opens a connection on a socket that blocks, or on what a program has put in place of `socket.socket`.

    That has to take a family, a kind and a protocol, and to have `connect`, `send` and `recv`.
    """

    def __init__(self, address: Address, timeout: float, tune: Callable[[socket.socket], None]) -> None:
        """Prepare; the arguments are those of `Opening`."""
        super().__init__(address, timeout, tune)
        self._sock: socket.socket | None = None

    def abort(self) -> None:
        """Let `open` end at once."""
        super().abort()
        if self._sock is not None:
            with contextlib.suppress(OSError, AttributeError):
                self._sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that connects

    def open(self) -> Transport:
        """Connect to the first address that can be connected to.

        Raises:
            ConnectionError: there is none, or this was aborted.
            OSError: the host has no address.
        """
        host, port = self._address.host, self._address.port
        problem: OSError | None = None
        until = time.monotonic() + self._timeout
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for left, (family, kind, protocol, _name, where) in zip(range(len(found), 0, -1), found, strict=True):
            self.check()
            try:
                sock = self._sock = socket.socket(family, kind, protocol)
                transport = BlockingTransport(sock)
                try:
                    self._connect(sock, where, max(_SHORTEST, (until - time.monotonic()) / left))
                except BaseException:
                    transport.close()
                    raise
            except OSError as error:
                timed_out = isinstance(error, TimeoutError) and error.errno is None  # as settimeout() does
                problem = TimeoutError(f"no answer within {self._timeout:g} s") if timed_out else error
                continue
            return transport
        self.check()
        raise self.failure(problem) from problem

    def _connect(self, sock: socket.socket, where: object, timeout: float) -> None:
        with contextlib.suppress(AttributeError):
            sock.settimeout(timeout)
        with contextlib.suppress(AttributeError, OSError):
            self._tune(sock)
        sock.connect(where)  # type: ignore[arg-type]  # what getaddrinfo returns
        with contextlib.suppress(AttributeError):
            sock.settimeout(None)
