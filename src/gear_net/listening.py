"""Opens listening sockets, and sets the options of accepted ones."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from gearproto.addresses import DEFAULT_PORT, Address, check_host

__all__ = ["DEFAULT_BACKLOG", "Keepalive", "inherited_sockets", "listen"]

DEFAULT_BACKLOG: Final = 4096
"""How many connections may wait to be accepted by default; the system may allow fewer."""

_UNIX: Final = "unix:"
_BRACKETED: Final = re.compile(r"\[(.*)\](?::(.*))?")  # an IPv6 address
_PORT: Final = re.compile(r"[0-9]{1,5}")
_FIRST_INHERITED: Final = 3  # the descriptor at which a service manager's sockets begin


@dataclass(frozen=True, slots=True)
class Keepalive:
    """TCP keepalive: how the system notices a peer that has gone without closing its connection.

    Attributes:
        idle: seconds without traffic after which the peer is probed.
        interval: seconds between probes.
        count: probes without an answer after which the connection is given up.
    """

    idle: int = 60
    interval: int = 10
    count: int = 6

    def apply(self, sock: socket.socket) -> None:
        """Set these options of a TCP socket, as far as the system supports them."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None)), self.idle),
            (getattr(socket, "TCP_KEEPINTVL", None), self.interval),
            (getattr(socket, "TCP_KEEPCNT", None), self.count),
        ):
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def listen(where: Iterable[str | tuple[str, int]], backlog: int = DEFAULT_BACKLOG) -> list[socket.socket]:
    """Listen on addresses.

    Args:
        where: each a pair of host and port, or text: ``host``, ``host:port``, ``[IPv6]:port``, ``unix:PATH``. A name is
            listened on at every address it resolves to. Port 0 lets the system choose, one port for all of a name.
        backlog: how many connections may wait to be accepted.

    Raises:
        OSError: the system cannot listen on one of them; then none is left open.
        ValueError: one of them is not a valid address.
    """
    listeners: list[socket.socket] = []
    try:
        for place in where:
            _listen(place, backlog, listeners)
    except (OSError, ValueError):
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listen(place: str | tuple[str, int], backlog: int, listeners: list[socket.socket]) -> None:
    """Listen on one address; errors of the system name it as their file."""
    try:
        if isinstance(place, str) and place.startswith(_UNIX):
            listeners.append(_listen_unix(place.removeprefix(_UNIX), backlog))
        else:
            host, port = _parse(place) if isinstance(place, str) else place
            _listen_tcp(host, port, backlog, listeners)
    except OSError as error:
        error.filename = place if isinstance(place, str) else str(Address(*place))
        raise


def _parse(place: str) -> tuple[str, int]:
    port: str | None
    if (bracketed := _BRACKETED.fullmatch(place)) is not None:
        host, port = bracketed.groups()
    elif place.count(":") > 1:  # an IPv6 address without a port
        host, port = place, None
    else:
        host, colon, port = place.partition(":")
        port = port if colon else None
    if "://" in place:
        raise ValueError(f"{place!r} is not an address to listen on: leave out {place.partition('://')[0]}://")
    if not host:
        raise ValueError(
            f"{place!r} is not an address to listen on: it has no host; use 0.0.0.0 or [::] for all addresses"
        )
    if port is None:
        return host, DEFAULT_PORT
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"{place!r} is not an address to listen on: the port has to be a number from 0 to 65535")
    return host, int(port)


def _listen_tcp(host: str, port: int, backlog: int, listeners: list[socket.socket]) -> None:
    check_host(host)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    chosen = port
    for family, address in dict.fromkeys((family, address[0]) for family, _t, _p, _n, address in found):
        listener = socket.create_server((str(address), chosen), family=family, backlog=backlog)
        listeners.append(listener)
        chosen = listener.getsockname()[1]


class _UnixListener(socket.socket):
    """A Unix socket that removes its file when it is closed.

    A file that another server has put in its place stays, as does that of a socket which was handed over.
    """

    path = ""
    file: tuple[int, int] | None = None  # device and inode, once it is bound

    def own(self, path: str) -> None:
        """Remember the file that the socket has been bound to."""
        self.path = path
        self.file = _identity(path)

    def close(self) -> None:
        file, self.file = self.file, None
        with suppress(OSError):
            if file is not None and file == _identity(self.path):
                os.unlink(self.path)
        super().close()


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _listen_unix(path: str, backlog: int) -> socket.socket:
    """Listen on a path, in place of a socket file that nobody listens on any more."""
    if not path:
        raise ValueError("'unix:' is not an address to listen on: it has no path")
    listener = _UnixListener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_stale(path):
            os.unlink(path)
        listener.bind(path)
        listener.own(path)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def _is_stale(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except FileNotFoundError:  # there is nothing to replace
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:  # no process listens there any more
            return True
        except BlockingIOError:  # its backlog is full
            return False
    return False


def inherited_sockets() -> list[socket.socket]:
    """Return the listening sockets that a service manager has opened for this process (``LISTEN_FDS``).

    Returns:
        The sockets; an empty list if the process was not started with sockets.

    Raises:
        ValueError: the number of sockets is not valid, or one of them is not a listening socket.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    text = os.environ.get("LISTEN_FDS", "0")
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"LISTEN_FDS is {text!r}, not a number of sockets")
    sockets: list[socket.socket] = []
    for descriptor in range(_FIRST_INHERITED, _FIRST_INHERITED + int(text)):
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError as error:
            raise _not_listening(sockets, descriptor, error.strerror) from error
        sockets.append(sock)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise _not_listening(sockets, descriptor, "It does not listen")
        sock.set_inheritable(False)
    return sockets


def _not_listening(sockets: list[socket.socket], descriptor: int, why: str | None) -> ValueError:
    for sock in sockets:
        sock.detach()  # they are not ours to close
    return ValueError(f"LISTEN_FDS names descriptor {descriptor}, which is not a listening socket: {why}")
