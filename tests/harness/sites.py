"""Sites: one job server each and any number of raw connections to it, over TCP or in memory, for one suite of tests."""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Literal

from gearproto.packets import CanDo
from gearproto.server import PeerFailed

from .engine import Bench, Peer
from .raw import RawConnection, RawPeer
from .servers import Kind, RunningServer, poll_until, running

__all__ = ["MemorySite", "Site", "SiteKind", "TcpSite", "open_site"]

SiteKind = Literal["memory"] | Kind

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
        self._watcher = self.connect()

    def connect(self) -> RawConnection:
        return self._stack.enter_context(RawConnection(self.server))

    def leave(self, connection: RawPeer) -> None:
        count = len(self._watcher.ask_rows(b"workers"))
        connection.close()
        poll_until(lambda: len(self._watcher.ask_rows(b"workers")) < count, "the server knows that a peer has gone")

    def time(self) -> float:
        return time.time()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        poll_until(condition, what)


class MemorySite(Site):
    """The pure server under a virtual clock, which passes while somebody waits, and checks of its books at each move.

    Attributes:
        bench: the server, its peers and its time.
    """

    kind = "memory"

    def __init__(self, **options: Any) -> None:
        """Begin; the options are those of the engine, with the prefix of handles as text."""
        if "handle_prefix" in options:
            options["handle_prefix"] = options["handle_prefix"].encode()
        self.bench = Bench(**{"epoch_offset": 1_700_000_000.0, "version": b"1.0", "pid": os.getpid(), **options})
        self._connected = 0
        self.connect()  # as the watcher at other sites: the tests count connections

    def connect(self) -> MemoryConnection:
        self._connected += 1
        return MemoryConnection(self, self.bench.connect(address=b"127.0.0.1", descriptor=self._connected))

    def leave(self, connection: RawPeer) -> None:
        connection.close()

    def time(self) -> float:
        return self.bench.now + self.bench.engine.epoch_offset

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = self.bench.now + _LONGEST_WAIT
        while not condition():
            if not self.wait(end):
                raise AssertionError(f"not so within {_LONGEST_WAIT} s: {what}")

    def wait(self, end: float) -> bool:
        """Let time pass until the server has something to do; return whether it had before the end."""
        deadline = self.bench.engine.next_deadline()
        if deadline is None or deadline > end:
            return False
        self.bench.advance(max(0.0, deadline - self.bench.now))
        self.go_on()
        return True

    def go_on(self) -> None:
        """Do what else a driver does: serve peers that were paused, and close those that failed."""
        while paused := list(self.bench.engine.paused_peers()):
            for peer in paused:
                self.bench.engine.resume(peer, self.bench.now)
                self.bench.settle()
        for event in self.bench.events():
            if isinstance(event, PeerFailed) and event.peer in self.bench.peers:
                self.bench.peers[event.peer].leave()


class MemoryConnection(RawPeer):
    """A connection to the pure server."""

    def __init__(self, site: MemorySite, peer: Peer) -> None:
        super().__init__()
        self._site = site
        self._peer = peer

    @property
    def _closed(self) -> bool:
        return self._peer.id not in self._site.bench.peers

    def send_bytes(self, data: bytes) -> None:
        if not self._closed:
            self._peer.send(data)
            self._site.go_on()

    def _receive_some(self) -> bytes:
        end = self._site.bench.now + _LONGEST_WAIT
        while not (data := self._peer.raw()):
            if self._closed:
                return b""
            if not self._site.wait(end):
                raise TimeoutError
        return data

    def close(self) -> None:
        if not self._closed:
            self._peer.leave()


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
