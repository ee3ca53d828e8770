"""Opens a connection to a server without blocking: its addresses in turn, then TLS."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import ssl
import time
import traceback
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

from gearproto.addresses import Address

from .tls import ClientTLS, handshake_reason
from .tunnel import TLSSocket, Tunnel

__all__ = [
    "Connect",
    "Dial",
    "Endpoint",
    "close_with",
    "failure_of_connect",
    "open_socket",
    "resolve",
    "tune_tcp",
    "unix_endpoint",
]

_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE
_HELD_BY_SYSTEM: Final = 128 * 1024  # bytes of output that the system takes before it can send them
_IN_PROGRESS: Final = frozenset((errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0)))

Endpoint = tuple[int, Any]
"""Family and socket address."""


Connect = Callable[[Address], socket.socket]
"""Opens a connected stream socket to a server, in place of TCP and TLS."""


def unix_endpoint(path: str) -> Endpoint:
    """Return the endpoint of a Unix socket.

    Raises:
        OSError: this system has no Unix sockets.
    """
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise OSError("this system has no Unix sockets")
    return family, path


def resolve(address: Address) -> list[Endpoint]:
    """Look up the addresses of a server. Blocks as long as the system's resolver does.

    Raises:
        OSError: the name is unknown, or cannot be looked up now.
    """
    if address.path is not None:
        return [unix_endpoint(address.path)]
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, where) for family, _type, _protocol, _name, where in found))


def open_socket(connect: Connect, address: Address) -> socket.socket:
    """Return the non-blocking socket that the user's function opens.

    Raises:
        OSError: the function raised an error, or returned something else.
    """
    try:
        sock = connect(address)
        if not isinstance(sock, socket.socket):
            raise TypeError(f"{sock!r} is not a socket")
        sock.setblocking(False)
    except OSError:
        raise
    except Exception as error:
        raise failure_of_connect(error) from error
    return sock


class _Closable(Protocol):
    def close(self) -> object: ...


def close_with(owner: object, sock: _Closable) -> Callable[[], object]:
    """Close a socket when its owner is dropped, without the warning that the socket would give.

    For the parts of something that warns once of all its sockets: a garbage collection closes these before it finalizes
    any object, and it finalizes objects in any order.

    Returns:
        A function that makes the socket another owner's.
    """
    closer = weakref.finalize(owner, sock.close)
    closer.atexit = False
    return closer.detach


def failure_of_connect(error: Exception) -> OSError:
    """Turn an error of the user's ``connect=`` function into one that says that the server cannot be reached."""
    return ConnectionError(f"connect= failed: {traceback.format_exception_only(error)[0].strip()}")


def tune_tcp(sock: socket.socket) -> None:
    """Set the options of a client's TCP socket: send small packets at once, and limit what waits in the system."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Otherwise the system takes megabytes at once, and then shows no progress for as long as a slow link needs
        # to send a third of them: at 30 kB/s almost a minute, in which the server would be taken for dead.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _HELD_BY_SYSTEM)


class Dial:
    """One attempt to reach a server.

    Watch `trying` for `wants`, and call `advance` when it is ready or `deadline` has come, until there is a `sock` or
    an `error`.

    Attributes:
        trying: the socket that is being connected; None if there is none.
        sock: the connected, non-blocking socket, with TLS if it was requested; None until then. You have to close it.
        endpoint: the endpoint of the socket, or the one that is being tried.
        error: why the server cannot be reached; None until then.
        wants: what to watch the socket for.
        deadline: latest monotonic time in seconds at which to call `advance`.
    """

    def __init__(
        self,
        address: Address,
        endpoints: list[Endpoint],
        timeout: float,
        tls: ClientTLS | None,
        tune: Callable[[socket.socket], None] = tune_tcp,
    ) -> None:
        """Begin with the first of a server's addresses.

        Args:
            address: the server.
            endpoints: what `resolve` has found.
            timeout: seconds for all addresses together, TLS included; each gets its share of what is left.
            tls: gives the context for TLS; None for plain TCP.
            tune: sets the options of each TCP socket that has been connected.
        """
        self.sock: socket.socket | TLSSocket | None = None
        self.endpoint: Endpoint | None = None
        self.error: OSError | None = None
        self.wants = _WRITE
        self.deadline = 0.0
        self._address = address
        self._endpoints = endpoints
        self._timeout = timeout
        self._until = time.monotonic() + timeout
        self._tls = tls
        self._tune = tune
        self.trying: socket.socket | None = None
        self._shaking: TLSSocket | None = None
        self._disown: Callable[[], object]
        self._next(TimeoutError(f"no answer within {timeout:g} s"))

    @property
    def done(self) -> bool:
        """Whether there is a socket or an error."""
        return self.sock is not None or self.error is not None

    def advance(self, now: float, ready: int) -> None:
        """Take the next step.

        Args:
            now: monotonic time in seconds.
            ready: what the socket is ready for.
        """
        trying = self.trying
        if trying is None:
            return
        try:
            if ready and self._shaking is None:
                code = trying.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                self._on_connected(trying)
            elif ready:
                self._shake()
        except OSError as error:  # nothing was sent; the next address may work
            self._next(error)
            return
        if self.trying is not None and now >= self.deadline:
            silence = f"no answer within {self._timeout:g} s"
            self._next(TimeoutError(f"TLS: {silence}: it may not speak TLS" if self._shaking is not None else silence))

    def close(self) -> None:
        """Stop, and close the socket if nobody has taken it."""
        for sock in (self.trying, self.sock):
            if sock is not None:
                sock.close()
        self.trying = None

    def _next(self, error: OSError) -> None:
        """Try the next address; keep the error if there is none."""
        while self._endpoints:
            self._drop()
            now = time.monotonic()
            if now >= self._until:
                break
            family, where = self.endpoint = self._endpoints.pop(0)
            self.deadline = now + (self._until - now) / (len(self._endpoints) + 1)
            try:
                sock = self.trying = socket.socket(family, socket.SOCK_STREAM)
                self._disown = close_with(self, sock)
                sock.setblocking(False)
                code = sock.connect_ex(where)
                if code == 0:
                    self._on_connected(sock)
                elif code not in _IN_PROGRESS or isinstance(where, str):  # a Unix socket connects at once or not at all
                    raise OSError(code, os.strerror(code))
            except OSError as reason:  # kept, and raised if no other address works
                error = reason
                continue
            return
        self._drop()
        self.error = error

    def _drop(self) -> None:
        if self.trying is not None:
            self.trying.close()
        self.trying = self._shaking = None
        self.wants = _WRITE

    def _on_connected(self, sock: socket.socket) -> None:
        if self._address.path is None:
            self._tune(sock)
        if self._tls is None:
            self._end_with(sock)
            return
        context = self._tls.context()
        host = self._address.host if self._address.path is None else None
        if host is None and context.check_hostname:
            raise ConnectionError("TLS: a Unix socket has no host name to check: use TLS(check_host=False)")
        self._shaking = TLSSocket(sock, Tunnel(context, server_hostname=host))
        self._shake()

    def _shake(self) -> None:
        assert self._shaking is not None
        try:
            done = self._shaking.shake_hands()
        except (ssl.SSLError, ConnectionError) as error:
            raise ConnectionError(f"TLS: {handshake_reason(error)}") from error
        self.wants = _WRITE if self._shaking.unsent else _READ
        if done:
            self._end_with(self._shaking)

    def _end_with(self, sock: socket.socket | TLSSocket) -> None:
        self.sock, self.trying = sock, None
        self._disown()
