"""The job server's sockets: one selector, and one turn at a time.

A turn polls, reads what is ready, lets the engine work, and sends to each peer once. `gear_sync.Server` loops over
turns in a thread; other event loops watch `Reactor.fileno` and call `Reactor.turn` when it is readable or the deadline
has come.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from gearproto.server import Engine, JobChanged, PeerFailed, PeerId, ShutdownRequested

__all__ = ["Reactor"]

_log = logging.getLogger("gear_sync.server")

_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE
_MIN_READ: Final = 65536
_MAX_READ: Final = 256 * 1024
_ACCEPTS_PER_TURN: Final = 256
_ACCEPT_PAUSE: Final = 0.5  # seconds; how long to leave new connections alone when there is no room for them
_MAX_WAIT: Final = 3600.0  # seconds; a delayed job may be due in more of them than poll() can count
_LINGER: Final = 1.0  # seconds; how long a peer that broke the protocol may take to read why
_NO_ROOM: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class _Link:
    """One connection: its socket, what could not be sent yet, and what is watched."""

    __slots__ = ("leave_at", "peer", "read_size", "sock", "unsent", "unsent_size", "watched")

    def __init__(self, sock: socket.socket, peer: PeerId) -> None:
        self.sock = sock
        self.peer = peer
        self.unsent: deque[bytes | memoryview] | None = None
        self.unsent_size = 0
        self.watched = _READ
        self.read_size = _MIN_READ
        self.leave_at: float | None = None  # set once the peer is only to read the rest, and go


class Reactor:
    """Connects an engine with sockets. Belongs to one thread at a time, but for `wake`."""

    def __init__(
        self,
        engine: Engine,
        listeners: Iterable[socket.socket],
        *,
        max_connections: int = 100_000,
        pause_at: int = 1024 * 1024,
        max_unsent: int = 64 * 1024 * 1024,
        keepalive: Callable[[socket.socket], None] | None = None,
    ) -> None:
        """Begin to serve.

        Args:
            engine: the job server's logic.
            listeners: listening sockets; the reactor closes them.
            max_connections: how many connections are served; more are closed at once.
            pause_at: bytes of output that a peer has not read from which on its requests are left unread.
            max_unsent: bytes of output that a peer has not read at which it is closed.
            keepalive: called with each new socket, to set its keepalive options.
        """
        self.engine = engine
        self.shutdown_requested: bool | None = None
        self._max_connections = max_connections
        self._pause_at = pause_at
        self._max_unsent = max_unsent
        self._keepalive = keepalive
        self._selector = selectors.DefaultSelector()
        self._links: dict[PeerId, _Link] = {}
        self._leaving: dict[_Link, None] = {}
        self._listeners = list(listeners)
        self._accept_at: float | None = None
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, _READ, None)
        self._waker, self._wakes = socket.socketpair()
        self._waker.setblocking(False)
        self._wakes.setblocking(False)
        self._selector.register(self._wakes, _READ, None)

    def fileno(self) -> int:
        """Return the selector's own descriptor, readable when a turn has something to do. Not on every platform."""
        return self._selector.fileno()

    @property
    def connections(self) -> int:
        """How many peers are connected."""
        return len(self._links)

    def wake(self) -> None:
        """Make a turn that waits in another thread return soon."""
        with contextlib.suppress(OSError):  # it is woken already, or closed
            self._waker.send(b"w")

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which a turn has something to do even if nothing arrives; None if never."""
        deadline = self.engine.next_deadline()
        if not self._leaving and self._accept_at is None:
            return deadline
        times = [deadline, self._accept_at]
        if self._leaving:
            times.append(min(link.leave_at or 0.0 for link in self._leaving))
        return min((when for when in times if when is not None), default=None)

    def turn(self, timeout: float | None = None) -> None:
        """Wait until something happens, and do all that there is to do.

        Args:
            timeout: longest time to wait in seconds; None for as long as there is no deadline.
        """
        engine = self.engine
        deadline = self.next_deadline()
        if deadline is not None:
            until = min(max(0.0, deadline - time.monotonic()), _MAX_WAIT)
            timeout = until if timeout is None else min(until, timeout)
        if engine.paused_peers() and self._unpaused():
            timeout = 0.0
        ready = self._selector.select(timeout)
        now = time.monotonic()
        for key, events in ready:
            link = key.data
            if link is None:
                self._on_other(key.fileobj, now)  # type: ignore[arg-type]
                continue
            if events & _WRITE:
                self._send_rest(link, now)
            if events & _READ and link.sock.fileno() >= 0:
                self._read(link, now)
        if deadline is not None and deadline <= now:
            engine.handle_timeout(now)
        if engine.paused_peers():
            for peer in self._unpaused():
                engine.resume(peer, now)
        self._settle(now)
        if self._leaving or self._accept_at is not None:
            self._tidy(now)

    def stop_listening(self) -> None:
        """Close the listening sockets; connections go on."""
        for listener in self._listeners:
            if self._accept_at is None:
                self._selector.unregister(listener)
            listener.close()
        self._listeners.clear()
        self._accept_at = None

    def close(self) -> None:
        """Close every socket."""
        self.stop_listening()
        now = time.monotonic()
        for link in list(self._links.values()):
            self._close(link, now)
        self._selector.unregister(self._wakes)
        self._wakes.close()
        self._waker.close()
        self._selector.close()

    # Input

    def _on_other(self, sock: socket.socket, now: float) -> None:
        if sock is self._wakes:
            sock.recv(4096)
        elif sock.fileno() >= 0:
            self._accept(sock, now)

    def _accept(self, listener: socket.socket, now: float) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    _log.warning("no room for another connection: %s", error.strerror)
                    self._pause_accepting(now)
                    return
                continue  # that one peer has gone again
            if len(self._links) >= self._max_connections:
                _log.warning("refused a connection: limit %d", self._max_connections)
                sock.close()
                continue
            self._welcome(sock, address, now)

    def _welcome(self, sock: socket.socket, address: object, now: float) -> None:
        sock.setblocking(False)
        host = "-"
        if isinstance(address, tuple):
            host = address[0]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._keepalive is not None:
                self._keepalive(sock)
        peer = self.engine.connect(now, address=host.encode(), descriptor=sock.fileno())
        link = self._links[peer] = _Link(sock, peer)
        self._selector.register(sock, _READ, link)
        _log.debug("peer %d: connected from %s", peer, host)

    def _pause_accepting(self, now: float) -> None:
        """Leave new connections alone for a while: a listener stays readable, and would make every turn spin."""
        if self._accept_at is None:
            for listener in self._listeners:
                self._selector.unregister(listener)
        self._accept_at = now + _ACCEPT_PAUSE

    def _read(self, link: _Link, now: float) -> None:
        try:
            data = link.sock.recv(link.read_size)
        except BlockingIOError:
            return
        except OSError as error:
            _log.debug("peer %d: %s", link.peer, error.strerror)
            self._close(link, now)
            return
        if not data:
            _log.debug("peer %d: closed by the peer", link.peer)
            self._close(link, now)
        elif link.leave_at is None:
            self.engine.receive_data(link.peer, data, now)
            if len(data) == link.read_size:
                link.read_size = min(2 * link.read_size, _MAX_READ)
            elif len(data) < link.read_size // 4:
                link.read_size = _MIN_READ

    # Output

    def _settle(self, now: float) -> None:
        """Take all events and all output of the engine."""
        engine = self.engine
        while (event := engine.next_event()) is not None:
            if isinstance(event, PeerFailed):
                self._fail(event, now)
            elif isinstance(event, ShutdownRequested):
                self.shutdown_requested = event.graceful
            elif isinstance(event, JobChanged):
                _log.debug("job %r of %r: %s", event.handle, event.function, event.state.name)
        links = self._links
        while (transmit := engine.next_transmit()) is not None:
            peer, data = transmit
            self._send(links[peer], data, now)

    def _send(self, link: _Link, data: bytes, now: float) -> None:
        if link.unsent is None:
            try:
                sent = link.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                _log.debug("peer %d: %s", link.peer, error.strerror)
                self._close(link, now)
                return
            if sent == len(data):
                return
            link.unsent = deque([memoryview(data)[sent:]])
            link.unsent_size = len(data) - sent
        else:
            link.unsent.append(data)
            link.unsent_size += len(data)
        if link.unsent_size > self._max_unsent:
            _log.warning(
                "peer %d: closed with %d bytes unread, limit %d", link.peer, link.unsent_size, self._max_unsent
            )
            self._close(link, now)
        else:
            self._watch(link)

    def _send_rest(self, link: _Link, now: float) -> None:
        unsent = link.unsent
        while unsent:
            try:
                sent = link.sock.send(unsent[0])
            except BlockingIOError:
                break
            except OSError as error:
                _log.debug("peer %d: %s", link.peer, error.strerror)
                self._close(link, now)
                return
            link.unsent_size -= sent
            if sent < len(unsent[0]):
                unsent[0] = memoryview(unsent[0])[sent:]
                break
            unsent.popleft()
        if not unsent:
            link.unsent = None
        self._watch(link)

    def _watch(self, link: _Link) -> None:
        """Watch a socket for what the link needs now."""
        wanted = _READ if link.unsent_size <= self._pause_at else 0
        if link.unsent is not None:
            wanted |= _WRITE
        if wanted != link.watched:
            link.watched = wanted
            self._selector.modify(link.sock, wanted, link)

    def _unpaused(self) -> list[PeerId]:
        """Return the peers that the engine has left waiting for the output that they have read by now."""
        return [peer for peer in self.engine.paused_peers() if self._links[peer].unsent_size <= self._pause_at]

    # The end of a connection

    def _fail(self, event: PeerFailed, now: float) -> None:
        """Let a peer that broke the protocol read what is queued for it, but listen to it no longer."""
        if (link := self._links.get(event.peer)) is not None:
            _log.info("peer %d: %s", event.peer, event.reason)
            link.leave_at = now + _LINGER
            self._leaving[link] = None

    def _tidy(self, now: float) -> None:
        """Close what has to go, and accept again."""
        for link in list(self._leaving):
            assert link.leave_at is not None
            if now >= link.leave_at:
                self._close(link, now)
            elif link.unsent is None:
                try:
                    link.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    self._close(link, now)
        if self._accept_at is not None and now >= self._accept_at:
            self._accept_at = None
            for listener in self._listeners:
                self._selector.register(listener, _READ, None)

    def _close(self, link: _Link, now: float) -> None:
        if self._links.pop(link.peer, None) is None:
            return
        self._leaving.pop(link, None)
        self._selector.unregister(link.sock)
        link.sock.close()
        self.engine.disconnect(link.peer, now)
