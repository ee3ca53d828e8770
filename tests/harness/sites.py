"""Sites: one job server each and any number of raw connections to it, over TCP or in memory, for one suite of tests."""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Literal

from gearproto.packets import CanDo
from gearproto.server import Close, EndpointOptions, PeerId

from .endpoint import Driven, Wire
from .engine import check_books
from .raw import TURNED_AWAY, RawConnection, RawPeer
from .servers import Kind, RunningServer, poll_until, running

__all__ = ["MemorySite", "Site", "SiteKind", "TcpSite", "open_site"]

SiteKind = Literal["memory"] | Kind

_CAPACITY: Final = 1024 * 1024  # bytes that a connection in memory holds
_LONGEST_WAIT: Final = 15.0  # seconds of virtual time; more than any clause waits for


class Site(ABC):
    """One job server, and any number of connections to it.

    Attributes:
        kind: what the server is: the pure one in memory, ours behind a socket, or gearmand.
    """

    kind: SiteKind

    @abstractmethod
    def connect(self) -> RawPeer:
        """Open another connection."""

    @abstractmethod
    def leave(self, connection: RawPeer) -> None:
        """Close a connection, and wait until the server knows."""

    @abstractmethod
    def time(self) -> float:
        """Return the server's time, in seconds since 1970."""

    @abstractmethod
    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let time pass until a condition holds.

        Raises:
            AssertionError: it does not hold in time.
        """

    def worker(self, *functions: bytes) -> RawPeer:
        """Open a connection that can run functions."""
        worker = self.connect()
        worker.send(*map(CanDo, functions))
        worker.expect_nothing()
        return worker


class TcpSite(Site):
    """A server that listens.

    Attributes:
        server: the server.
    """

    def __init__(self, server: RunningServer, stack: contextlib.ExitStack) -> None:
        self.kind = server.kind
        self.server = server
        self._stack = stack
        self._connections: list[RawConnection] = []
        self._watcher = self.connect()

    def connect(self) -> RawConnection:
        connection = self._stack.enter_context(RawConnection(self.server))
        self._connections.append(connection)
        return connection

    def leave(self, connection: RawPeer) -> None:
        self._wait_until_known()  # or one that comes late would hide that one goes
        connection.close()
        self._wait_until_known()

    def _wait_until_known(self) -> None:
        count = sum(connection.sock.fileno() >= 0 for connection in self._connections)
        poll_until(lambda: len(self._watcher.ask_rows(b"workers")) == count, "the server knows who is there")

    def time(self) -> float:
        return time.time()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        poll_until(condition, what)


class MemorySite(Site):
    """The pure server, under a virtual clock that goes on while somebody waits. Its books are checked at each move.

    Attributes:
        driven: the server, its connections and its time.
    """

    kind = "memory"

    def __init__(self, **options: Any) -> None:
        """Begin; the options are those of our server that say nothing of sockets."""
        if "handle_prefix" in options:
            options["handle_prefix"] = options["handle_prefix"].encode()
        endpoint = {name: options.pop(name) for name in EndpointOptions.__annotations__ if name in options}
        self.driven = Driven(engine={"version": b"1.0", "pid": os.getpid(), **options}, **endpoint)
        self._connected = 0
        self.connect()  # as the watcher at other sites: the tests count connections

    def connect(self) -> MemoryConnection:
        if self.driven.endpoint.refusal() is not None:
            wire = Wire(PeerId(0), None)
            wire.held, wire.closed = TURNED_AWAY.encode(), Close(wire.id, "turned away", 0)
        else:
            self._connected += 1
            wire = self.driven.connect(_CAPACITY, address=b"127.0.0.1", descriptor=self._connected)
        return MemoryConnection(self, wire)

    def leave(self, connection: RawPeer) -> None:
        connection.close()

    def time(self) -> float:
        return self.driven.wall

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = self.driven.now + _LONGEST_WAIT
        for _ in range(1000):
            if condition():
                return
            self.wait(end)
        raise AssertionError(f"not so within {_LONGEST_WAIT} s: {what}")

    def wait(self, end: float) -> bool:
        """Let time pass until the server has something to do; return whether it had before the end."""
        deadline = self.driven.endpoint.next_deadline()
        if deadline is None or deadline > end:
            return False
        self.driven.now = max(self.driven.now, deadline)
        self.settle()
        return True

    def settle(self) -> None:
        """Let the server do all there is to do now."""
        stopped = self.driven.endpoint.stopped
        self.driven.settle()
        if self.driven.endpoint.stopped and not stopped:
            self.driven.endpoint.close_all(self.driven.now)
            self.driven.settle()
        check_books(self.driven.endpoint.engine)


class MemoryConnection(RawPeer):
    """A connection to the pure server."""

    def __init__(self, site: MemorySite, wire: Wire) -> None:
        super().__init__()
        self._site = site
        self._wire = wire

    def send_bytes(self, data: bytes) -> None:
        if self._wire.closed is None:
            self._wire.send(data)
            self._site.settle()

    def end_sending(self) -> None:
        self._wire.ended = True
        self._site.settle()

    def _receive_some(self) -> bytes:
        end = self._site.driven.now + _LONGEST_WAIT
        while not (data := self._wire.read()):
            if self._wire.closed is not None or self._wire.write_closed:
                return b""
            if not self._site.wait(end):
                raise TimeoutError
        self._site.settle()  # there is room for more
        return data

    def close(self) -> None:
        self._wire.broken = self._wire.ended = True
        self._site.settle()


def open_site(kind: SiteKind, stack: contextlib.ExitStack, *arguments: str, **options: Any) -> Site:
    """Start a server of a kind, which is stopped with the stack.

    Args:
        kind: which one.
        stack: what ends its connections, and then itself.
        *arguments: command line of gearmand; ours does without.
        **options: options of our server; gearmand does without.
    """
    if kind == "memory":
        return MemorySite(**options)
    return TcpSite(stack.enter_context(running(kind, *arguments, **options)), stack)
