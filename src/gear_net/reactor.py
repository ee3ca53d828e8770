"""The job server's sockets: one selector, and one turn at a time.

A turn polls, reads what is ready, lets the engine work, and sends to each peer once. `gear_sync.Server` loops over
turns in a thread; `gear_anyio.Server`, or an event loop of your own, watches `Reactor.fileno` and calls `Reactor.turn`
when it is readable or the deadline has come. `open_reactor` makes a reactor with all that belongs to it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypedDict, Unpack, cast

import gearproto
from gearproto import DEFAULT_PORT
from gearproto.codec import RESPONSE
from gearproto.connection import TOO_MANY_CONNECTIONS
from gearproto.packets import Error
from gearproto.server import (
    Counters,
    Engine,
    EngineOptions,
    JobChanged,
    JobGivenUp,
    PeerFailed,
    PeerId,
    ShutdownRequested,
)
from gearproto.server.backlog import Backlogs
from gearproto.server.memory import MemoryLimit
from gearproto.server.trimming import Trimming
from gearproto.server.turns import CLOSE_TIME, FEW, READ_TIME, RESUME_TIME, SEND_TIME, Turns

from .expiry import warn_of_expiry
from .handshakes import Handshakes
from .limited_log import LimitedLog
from .listening import DEFAULT_BACKLOG, Keepalive, listen
from .machine import give_memory_back, machine_memory
from .peer_socket import MIN_READ, NOBODY, PeerSocket
from .poller import READ, WRITE, Poller
from .tls import TLS, reason, server_context
from .tunnel import PeerCertificate, Tunnel

__all__ = ["Keepalive", "Reactor", "ServerBase", "ServerOptions", "Snapshot", "open_reactor"]

_log = logging.getLogger("gear_sync.server")

_MAX_READ: Final = 256 * 1024
_TRIM_STEP: Final = 64 * 1024 * 1024  # bytes by which a queue has to shrink before memory is given back
_ACCEPTS_PER_TURN: Final = 64
_ACCEPT_PAUSE: Final = 0.5  # seconds; how long to leave new connections alone when there is no room for them
_TURNS_AT_ONCE: Final = 16
_TIME_AT_ONCE: Final = (
    0.02  # seconds; how long other tasks of an event loop may have to wait for the next turn to begin
)
_MAX_WAIT: Final = 3600.0  # seconds; a delayed job may be due in more of them than poll() can count
_LINGER: Final = 1.0  # seconds; how long a peer that broke the protocol may take to read why
_LAST_WORDS: Final = 5.0  # seconds; how long peers may take to read what is for them when a server that drains ends
_CROWD_PAUSE: Final = 0.05  # seconds; how long to leave new connections alone when too many TLS handshakes run
_NO_ROOM: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_TURNED_AWAY: Final = Error(TOO_MANY_CONNECTIONS, b"too many connections").encode(RESPONSE)


_Ready: TypeAlias = "Sequence[tuple[PeerSocket | socket.socket, int]]"


class _Limits(TypedDict, total=False):
    """The limits of a reactor, whose meaning stands there."""

    max_connections: int
    pause_at: int
    max_unsent: int
    max_behind: int
    max_memory: int | None
    trim_memory: bool
    handshake_timeout: float


class ServerOptions(EngineOptions, _Limits, total=False):
    """The options of a server; see `open_reactor`."""

    listen: Iterable[str | tuple[str, int]]
    sockets: Iterable[socket.socket]
    backlog: int
    keepalive: Keepalive | None
    tls: TLS | ssl.SSLContext | None
    handle_prefix: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a server holds and has done.

    Attributes:
        jobs: its jobs and functions.
        received: bytes received since the start.
        sent: bytes sent since the start.
        unsent: bytes that peers have not read yet.
    """

    jobs: Counters
    received: int
    sent: int
    unsent: int


class Reactor:
    """Connects an engine with sockets. Belongs to one thread at a time, but for `wake`.

    Attributes:
        engine: the job server's logic.
        finished: whether an administrator, or `drain`, has brought the server to its end; then call `close`.
        tls: what connections from the listeners begin with from now on; None for plain TCP.
        received: bytes received since the start.
        sent: bytes sent since the start.
    """

    def __init__(
        self,
        engine: Engine,
        listeners: Iterable[socket.socket],
        *,
        max_connections: int = 100_000,
        pause_at: int = 1024 * 1024,
        max_unsent: int = 64 * 1024 * 1024,
        max_behind: int = 1024 * 1024 * 1024,
        max_memory: int | None = None,
        trim_memory: bool = False,
        keepalive: Keepalive | None = None,
        tls: ssl.SSLContext | None = None,
        handshake_timeout: float = 10.0,
        on_connected: Callable[[PeerId, socket.socket], object] | None = None,
        on_disconnected: Callable[[PeerId], object] | None = None,
        on_half_close: Callable[[PeerId, socket.socket], bool] | None = None,
    ) -> None:
        """Begin to serve.

        Args:
            engine: the job server's logic.
            listeners: listening sockets; the reactor closes them.
            max_connections: how many connections are served; more are turned away (``ERROR TOO_MANY_CONNECTIONS``).
            pause_at: bytes of output that a peer has not read from which on its requests are left unread.
            max_unsent: bytes of output past which a peer is closed that reads nothing.
            max_behind: bytes of output past which a peer is closed that reads too slowly.
            max_memory: bytes that peers may make the server keep, estimated; None for half of the machine's memory.
            trim_memory: whether the C library gives memory back to the system (``malloc_trim``) when there is nothing
                to do, and jobs and unread output take 64 MiB less than they did.
            keepalive: how TCP looks for peers that have gone without a word; None for not at all.
            tls: what connections from the listeners begin with; None for plain TCP.
            handshake_timeout: seconds within which a TLS handshake has to be over.
            on_connected: called when a peer has connected, before anything is read from it.
            on_disconnected: called when a peer's connection has been closed.
            on_half_close: called when a peer sends no more, has read all that was for it, but waits for the results of
                jobs; not with TLS. Returns whether to keep the connection until it waits for nothing any more, or is
                gone. None closes it.
        """
        self.engine = engine
        self.finished = False
        self.received = 0
        self.sent = 0
        self._max_connections = max_connections
        self._backlogs: Backlogs[PeerSocket] = Backlogs(pause_at=pause_at, max_unsent=max_unsent, max_behind=max_behind)
        self._memory = MemoryLimit(machine_memory() // 2 if max_memory is None else max_memory)
        self._trimming = Trimming(step=_TRIM_STEP if trim_memory else sys.maxsize)
        self._keepalive = keepalive
        self.tls = tls
        self._handshakes: Handshakes[PeerSocket] = Handshakes(handshake_timeout)
        self._turns: Turns[tuple[PeerSocket | socket.socket, int]] = Turns()
        self._waste = bytearray(MIN_READ)  # for what comes from those that are to be closed; see `_read`
        engine.work_limit = self._turns.work_limit
        self._warnings = LimitedLog(_log)
        self._draining = False
        self._finish_at: float | None = None  # set once a server that drains has no running jobs any more
        self._poller: Poller[PeerSocket | socket.socket] = Poller()
        self._links: dict[PeerId, PeerSocket] = {}
        self._leaving: dict[PeerSocket, None] = {}  # in the order of their leave_at
        self._half_closed: dict[PeerSocket, None] = {}  # peers that send no more, but wait for results
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._on_half_close = on_half_close
        self._listeners = list(listeners)
        self._accept_at: float | None = None
        for listener in self._listeners:
            listener.setblocking(False)
            self._poller.register(listener, READ, listener)
        self._waker, self._wakes = socket.socketpair()
        self._waker.setblocking(False)
        self._wakes.setblocking(False)
        self._poller.register(self._wakes, READ, self._wakes)

    def fileno(self) -> int:
        """Return the selector's own descriptor, readable when a turn has something to do. Not on every platform."""
        return self._poller.fileno()

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
        return 0.0 if self._resumable() else self._next_deadline()

    def _next_deadline(self) -> float | None:
        turns = self._turns
        if turns.waiting or turns.unsent:
            return 0.0
        deadline = self.engine.next_deadline()
        if self._accept_at is self._finish_at is self._trimming.due is None and not (
            self._leaving or self._handshakes.begun or self._backlogs.open
        ):
            return deadline
        times = [deadline, self._accept_at, self._finish_at, self._handshakes.next_deadline(), self._trimming.due]
        times.append(self._backlogs.next_deadline())
        if self._leaving:
            times.append(next(iter(self._leaving)).leave_at)
        return min((when for when in times if when is not None), default=None)

    def turn(self, timeout: float | None = None) -> bool:
        """Wait until something happens, and do all that there is to do.

        Args:
            timeout: longest time to wait in seconds; None for as long as there is no deadline.

        Returns:
            Whether there was anything to do.
        """
        engine = self.engine
        resumable = self._resumable()
        deadline = 0.0 if resumable else self._next_deadline()
        if deadline is not None:
            until = min(max(0.0, deadline - time.monotonic()), _MAX_WAIT)
            timeout = until if timeout is None else min(until, timeout)
        turns = self._turns
        late, unsent = turns.waiting, turns.unsent
        ready = late or self._poller.poll(timeout)
        now = time.monotonic()
        engine.epoch_offset = time.time() - now  # later than `now`, so that no job is early
        self._handshakes.new_turn()
        if (busy := len(ready) + len(resumable)) != turns.busy:
            turns.begin(busy)
            engine.work_limit = turns.work_limit
        turns.waiting = self._serve_ready(ready, bool(late), now)
        if deadline is not None and deadline <= now:
            engine.handle_timeout(now)
        for peer in resumable:
            engine.resume(peer, now)
            if time.monotonic() > now + RESUME_TIME:
                break
        if self._leaving or self._handshakes.begun or self._accept_at is not None or self._backlogs.open:
            self._tidy(now)
        self._settle(now)
        if self._half_closed:
            self._end_half_closed(now)
        memory = self._memory
        if self.received >= memory.look_at or self._backlogs.size + engine.under_way > memory.mark:
            self._look_at_memory(now)
        trimming, held = self._trimming, engine.queue_size + self._backlogs.size
        if trimming.due is not None or not trimming.low < held < trimming.high:
            self._trim(held, now)
        if self._draining and not engine.running_jobs:
            self._finish(now)
        return bool(busy) or unsent

    def _serve_ready(self, ready: _Ready, late: bool, now: float) -> _Ready:
        """Deal with those that are ready, as many as the turn has time for, and return the others."""
        paused = self.engine.paused_peers()
        looks_at_clock = len(ready) > FEW
        for number, (link, events) in enumerate(ready, 1):
            if isinstance(link, socket.socket):
                self._on_other(link, now)
            else:
                if late:
                    events &= link.watched  # noqa: PLW2901  (it may be watched for less since)
                if events & WRITE:
                    self._flush(link, now)
                if events & READ and link.peer not in paused and link.sock.fileno() >= 0:
                    self._read(link, now)
            if looks_at_clock and time.monotonic() > now + READ_TIME:
                return ready[number:]
        return ()

    def turn_while_busy(self) -> None:
        """Take turns without waiting, as long as each finds something to do; not too many, for the sake of others.

        For event loops that watch `fileno`: under load it spares them a look at it before every turn.
        """
        until = time.monotonic() + _TIME_AT_ONCE
        for _ in range(_TURNS_AT_ONCE):
            if not self.turn(0) or self.finished or time.monotonic() > until:
                return

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Where the server listens, as pairs of host and port, or paths of Unix sockets."""
        names = [listener.getsockname() for listener in self._listeners]
        return [name[:2] if isinstance(name, tuple) else name for name in names]

    def snapshot(self) -> Snapshot:
        """Count what the server holds now."""
        return Snapshot(self.engine.counters(), self.received, self.sent, self._backlogs.size)

    def peer_certificate(self, peer: PeerId) -> PeerCertificate | None:
        """Return the certificate that a connected peer has shown; None without TLS, or if none was asked for."""
        tunnel = self._links[peer].tunnel
        return None if tunnel is None else tunnel.peer_certificate()

    def drain(self) -> None:
        """Take no new connections and jobs; `finished` is set once no job runs any more and all output is sent.

        Peers that do not read what is for them are waited for a few seconds.
        """
        self.engine.stop_accepting()
        self.stop_listening()
        self._draining = True
        self.wake()  # the end may have come already, and a turn has to see it

    def adopt(self, sock: socket.socket, on_close: Callable[[], object] | None = None) -> None:
        """Serve a connected stream socket as if it had been accepted, but without TLS; the reactor closes it.

        Past ``max_connections`` it is closed at once.

        Args:
            sock: the socket.
            on_close: called when the reactor has closed it.
        """
        now = time.monotonic()
        if self._is_full(now):
            _turn_away(sock)
            if on_close is not None:
                on_close()
            return
        sock.setblocking(False)
        link = PeerSocket(sock, "-", on_close)
        self._poller.register(sock, READ, link)
        self._welcome(link, now)

    def stop_listening(self) -> None:
        """Close the listening sockets; connections stay open."""
        for listener in self._listeners:
            if self._accept_at is None:
                self._poller.unregister(listener)
            listener.close()
        self._listeners.clear()
        self._accept_at = None

    def close(self) -> None:
        """Close every socket."""
        self.stop_listening()
        now = time.monotonic()
        for link in [*self._links.values(), *self._handshakes.begun, *self._leaving]:
            self._close(link, now, "the server stops")
        self._poller.unregister(self._wakes)
        self._wakes.close()
        self._waker.close()
        self._poller.close()

    # Input

    def _on_other(self, sock: socket.socket, now: float) -> None:
        if sock is self._wakes:
            sock.recv(4096)
        elif sock.fileno() >= 0:
            self._accept(sock, now)

    def _accept(self, listener: socket.socket, now: float) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if self._handshakes.crowded:
                self._pause_accepting(now + _CROWD_PAUSE)
                return
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._warnings.warning(now, "room", "no room for another connection: %s", error.strerror)
                    self._pause_accepting(now + _ACCEPT_PAUSE)
                    return
                continue  # that one peer has gone again
            if self._is_full(now):
                _turn_away(sock, told=self.tls is None)
                continue
            try:
                self._prepare(sock, address, now)
            except OSError as error:  # the peer has gone already
                _log.debug("lost a connection while accepting it: %s", error.strerror)
                sock.close()

    def _is_full(self, now: float) -> bool:
        if len(self._links) + len(self._handshakes.begun) >= self._max_connections:
            self._warnings.warning(now, "full", "refused a connection: limit %d", self._max_connections)
        elif self._memory.full:
            self._warnings.warning(now, "memory", "refused a connection: memory limit %d", self._memory.limit)
        else:
            return False
        return True

    def _prepare(self, sock: socket.socket, address: object, now: float) -> None:
        """Set an accepted socket's options, and begin with its peer, or with the TLS handshake."""
        sock.setblocking(False)
        host = "-"
        if isinstance(address, tuple):
            host = address[0]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._keepalive is not None:
                self._keepalive.apply(sock)
        link = PeerSocket(sock, host, None)
        self._poller.register(sock, READ, link)
        if self.tls is None:
            self._welcome(link, now)
        else:
            link.tunnel = Tunnel(self.tls, server_side=True)
            link.direct = False
            self._handshakes.begin(link, now)

    def _welcome(self, link: PeerSocket, now: float) -> None:
        """Let the engine know a peer."""
        peer = self.engine.connect(now, address=link.host.encode(), descriptor=link.sock.fileno())
        link.peer = peer
        self._links[peer] = link
        _log.debug("peer %d: connected from %s", peer, link.host)
        if self._on_connected is not None:
            self._on_connected(peer, link.sock)

    def _pause_accepting(self, until: float) -> None:
        """Leave new connections alone for a while: a listener stays readable, and would make every turn spin."""
        if self._accept_at is None:
            for listener in self._listeners:
                self._poller.unregister(listener)
        self._accept_at = until

    def _read(self, link: PeerSocket, now: float) -> None:
        tunnel = link.tunnel
        shakes_hands = tunnel is not None and not tunnel.established and link.leave_at is None
        if shakes_hands and not self._handshakes.may_step():
            return  # it stays readable, and has its turn later
        try:
            if link.leave_at is not None:  # no new memory for it: the pieces scatter, some MB for a peer that floods
                if not link.sock.recv_into(self._waste):
                    self._on_end(link, now)
                return
            data = link.sock.recv(min(link.read_size, self._turns.max_read))
        except BlockingIOError:
            return
        except OSError as error:
            self._close(link, now, error.strerror)
            return
        if not data:
            self._on_end(link, now)
            return
        size = len(data)
        self.received += size
        if tunnel is not None:
            data = self._decrypt(link, tunnel, data, now)
        if data:
            self.engine.receive_data(link.peer, data, now)
        if size == link.read_size:
            link.read_size = min(2 * link.read_size, _MAX_READ)
        elif size < link.read_size // 4:
            link.read_size = MIN_READ

    def _decrypt(self, link: PeerSocket, tunnel: Tunnel, data: bytes, now: float) -> bytes:
        """Return the plain text of what has arrived from a peer; nothing during the TLS handshake."""
        if tunnel.ended:
            return b""
        try:
            said = tunnel.receive(data)
        except ssl.SSLError as error:
            self._send_raw(link, tunnel.data_to_send(), now)
            self._refuse(link, reason(error), now)
            return b""
        self._send_raw(link, tunnel.data_to_send(), now)
        if tunnel.established and self._handshakes.end(link):
            self._welcome(link, now)
        if tunnel.ended and link.sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                link.sock.shutdown(socket.SHUT_RD)  # reads as an end from now on, in the next turn
        return said if link.sock.fileno() >= 0 else b""

    def _refuse(self, link: PeerSocket, why: str, now: float) -> None:
        """Let a peer with which TLS has failed read why, and listen to it no longer."""
        self._warnings.warning(now, "tls", "TLS with %s failed: %s", link.host, why)
        self._leave(link, now)

    def _on_end(self, link: PeerSocket, now: float) -> None:
        """Close a connection whose peer sends no more, once it has read the answers to all that it has sent."""
        if link.backlog is not None:
            link.ended = True
            self._watch(link)  # the end is read again when all is sent
        elif link not in self._half_closed and self._may_stay(link):
            self._half_closed[link] = None
            self._watch(link)
        elif link.peer not in self.engine.paused_peers():
            self._close(link, now, "by the peer")

    def _may_stay(self, link: PeerSocket) -> bool:
        """Ask whether to keep a peer that sends no more, but waits for results."""
        if self._on_half_close is None or link.tunnel is not None or link.leave_at is not None:
            return False
        return self.engine.waits(link.peer) and self._on_half_close(link.peer, link.sock)

    def _end_half_closed(self, now: float) -> None:
        """Close half-closed connections whose peers have read their results, or are gone."""
        for link in list(self._half_closed):
            if link.backlog is None and not self.engine.waits(link.peer):
                self._close(link, now, "by the peer")
            elif _is_gone(link.sock):
                self._close(link, now, "reset by the peer")

    # Output

    def _settle(self, now: float) -> None:
        """Take all events and all output of the engine."""
        engine = self.engine
        failed = []
        while (event := engine.next_event()) is not None:
            if isinstance(event, PeerFailed):
                failed.append(event)
            elif isinstance(event, ShutdownRequested):
                self._on_shutdown(event)
            elif isinstance(event, JobGivenUp):
                text = "job %r of %r failed: its worker was lost, or its timeout passed, %d times"
                _log.warning(text, event.handle, event.function, event.losses)
            elif isinstance(event, JobChanged):
                _log.debug("job %r of %r: %s", event.handle, event.function, event.state.name)
        links, next_output, unsent = self._links, engine.next_output, True
        while unsent and (self.finished or time.monotonic() <= now + SEND_TIME):
            for _ in range(FEW):
                if (output := next_output()) is None:
                    unsent = False
                    break
                peer, data = output
                link = links[peer]
                if link.direct and isinstance(data, bytes):
                    self._send(link, data, now)
                else:
                    self._queue(link, [data] if isinstance(data, bytes) else data, now)
        self._turns.unsent = unsent
        for event in failed:
            self._fail(event, now)

    def _send(self, link: PeerSocket, data: bytes, now: float) -> None:
        """Send to a peer that has taken all so far: most output never waits."""
        try:
            sent = link.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._close(link, now, error.strerror)
            return
        self.sent += sent
        if sent < len(data):
            link.keep(data, sent, self._backlogs, now)
            self._watch(link)

    def _queue(self, link: PeerSocket, pieces: list[bytes], now: float) -> None:
        """Send as much as the socket takes, and keep the rest."""
        size = sum(map(len, pieces))
        if link.backlog is not None and self._backlogs.may_be_stuck(link.backlog):
            self._flush(link, now)
            if link.sock.fileno() < 0:
                return
        if link.backlog is None:
            link.begin(pieces, size, self._backlogs)
            self._flush(link, now)
        elif (why := self._backlogs.add(link, link.backlog, pieces, size, now)) is None:
            self._watch(link)
        else:
            self._give_up(link, why, now)

    def _send_raw(self, link: PeerSocket, data: bytes, now: float) -> None:
        """Send what TLS itself has to say."""
        if data and link.sock.fileno() >= 0:
            link.send_raw(data, self._backlogs)
            self._flush(link, now)

    def _flush(self, link: PeerSocket, now: float) -> None:
        """Send what a socket has not taken yet."""
        if link.backlog is None or link.sock.fileno() < 0:
            return
        try:
            sent, why = link.flush(self._backlogs, now)
        except OSError as error:  # of the socket, or of TLS
            self._close(link, now, reason(error))
            return
        self.sent += sent
        if why is not None:
            self._give_up(link, why, now)
            return
        if link.backlog is None and link.leave_at is not None:
            link.end_output()
        self._watch(link)

    def _trim(self, held: int, now: float) -> None:
        """Give memory back to the system if it is time for that."""
        if self._trimming.note(held, self.received, now):
            _log.info("giving memory back to the system")
            self.engine.compact()
            give_memory_back()

    def _look_at_memory(self, now: float) -> None:
        """Close peers that keep too much under way, if there is too much of everything."""
        memory, was_full = self._memory, self._memory.full
        tunnels = 0 if self.tls is None else len(self._links) + len(self._handshakes.begun)
        for link, why in memory.look(self.engine, self._backlogs, self._links, self.received, tunnels):
            self._give_up(link, why, now)
        if memory.full != was_full:
            text = "memory limit %d reached: nothing new is taken" if memory.full else "below the memory limit %d again"
            self._warnings.warning(now, "limit", text, memory.limit)

    def _give_up(self, link: PeerSocket, why: str, now: float) -> None:
        """Close a peer that does not read."""
        self._warnings.warning(now, "unread", "peer %d (%s): closed with %s", link.peer, link.host, why)
        self._close(link, now, "it does not read")

    def _watch(self, link: PeerSocket) -> None:
        """Watch a socket for what the link needs now."""
        unsent = 0 if link.backlog is None else link.backlog.size
        wanted = READ if unsent <= (0 if link.ended else self._backlogs.pause_at) else 0
        if link in self._half_closed:
            wanted = 0
        if unsent:
            wanted |= WRITE
        if wanted != link.watched:
            link.watched = wanted
            self._poller.modify(link.sock, wanted, link)

    def _resumable(self) -> list[PeerId]:
        """Return the peers that the engine has left waiting, and that have read most of their output."""
        paused = self.engine.paused_peers()
        if not paused:
            return []
        links, backlogs = self._links, self._backlogs
        return [peer for peer in paused if not backlogs.keeps_waiting(links[peer])]

    # The end of a connection, and of the server

    def _on_shutdown(self, event: ShutdownRequested) -> None:
        _log.info("shutdown requested%s", ", running jobs may end" if event.graceful else "")
        if event.graceful:
            self.drain()
        else:
            self.finished = True

    def _fail(self, event: PeerFailed, now: float) -> None:
        """Let a peer that broke the protocol read what is queued for it, but listen to it no longer."""
        if (link := self._links.get(event.peer)) is not None:
            self._warnings.warning(now, "protocol", "peer %d (%s): closed: %s", event.peer, link.host, event.reason)
            self._leave(link, now)

    def _leave(self, link: PeerSocket, now: float) -> None:
        """Close a connection once the peer has read the rest, or after a while; what it sends is thrown away."""
        if link.leave_at is None and link.sock.fileno() >= 0:
            link.leave_at = now + _LINGER
            self._leaving[link] = None
            if link.backlog is None:
                link.end_output()

    def _tidy(self, now: float) -> None:
        """Close what has to go, and accept again."""
        while self._leaving:
            link = next(iter(self._leaving))
            assert link.leave_at is not None
            if now < link.leave_at:
                break
            self._close(link, now, "it broke the protocol")
            if time.monotonic() > now + CLOSE_TIME:
                return
        for link, timeout in self._handshakes.pop_overdue(now):
            if link.leave_at is None:
                self._warnings.warning(now, "tls", "TLS with %s failed: no handshake within %g s", link.host, timeout)
            self._close(link, now, "no handshake")
            if time.monotonic() > now + CLOSE_TIME:
                return
        for link, why in self._backlogs.overdue(now):
            self._give_up(link, why, now)
        if self._accept_at is not None and now >= self._accept_at:
            self._accept_at = None
            for listener in self._listeners:
                self._poller.register(listener, READ, listener)

    def _finish(self, now: float) -> None:
        """End a server that drains and has no running jobs, once its peers have read the last results."""
        if self._finish_at is None:
            self._finish_at = now + _LAST_WORDS
        if now >= self._finish_at or not (self._backlogs.open or self._turns.unsent):
            self.finished = True

    def _close(self, link: PeerSocket, now: float, why: str | None) -> None:
        if link.sock.fileno() < 0:
            return
        _log.debug("peer %d: closed: %s", link.peer, why)
        self._links.pop(link.peer, None)
        self._handshakes.end(link)
        self._leaving.pop(link, None)
        self._half_closed.pop(link, None)
        self._backlogs.end(link)
        self._poller.unregister(link.sock)
        if link.backlog is None and link.leave_at is None:
            with contextlib.suppress(OSError):
                link.say_end()
        link.sock.close()
        if link.peer != NOBODY:
            self.engine.disconnect(link.peer, now)
            if self._on_disconnected is not None:
                self._on_disconnected(link.peer)
        if link.on_close is not None:
            link.on_close()


def open_reactor(host: str, port: int, **options: Unpack[ServerOptions]) -> Reactor:
    """Listen, and make a reactor with an engine of its own.

    Args:
        host: address or name to listen on.
        port: TCP port; 0 lets the system choose.
        **options: the options of `gearproto.server.Engine`, and

            - ``listen``: addresses to listen on instead of host and port: see `gear_net.listening.listen`;
            - ``sockets``: listening sockets to use as they are; the reactor closes them;
            - ``backlog``: how many connections may wait to be accepted;
            - ``keepalive``: how TCP looks for peers that have gone without a word; None for not at all;
            - ``tls``: a `gear_net.tls.TLS` with certificate and key, or a context for servers, with which connections
              begin on all addresses; None for plain TCP;
            - ``handle_prefix``: what job handles begin with, ``H:`` and the host's name unless told otherwise; a random
              part that differs from start to start follows, so that old handles never name new jobs;
            - ``max_connections``, ``pause_at``, ``max_unsent``, ``max_behind``, ``max_memory``, ``handshake_timeout``,
              ``trim_memory``: see `Reactor`.

    Raises:
        OSError: an address cannot be listened on.
        TypeError: there is no such option.
        ValueError: an option makes no sense, or a file of TLS cannot be used.
    """
    if unknown := options.keys() - ServerOptions.__annotations__.keys():
        raise TypeError(f"a server has no option {', '.join(sorted(unknown))}")
    tls = options.get("tls")
    context = None if tls is None else _own_context(tls)
    prefix = options.get("handle_prefix", f"H:{socket.gethostname()[:24]}")
    engine = Engine(
        handle_prefix=f"{prefix}:{secrets.token_hex(4)}".encode(),
        epoch_offset=time.time() - time.monotonic(),
        version=gearproto.__version__.encode(),
        pid=os.getpid(),
        trace=_log.isEnabledFor(logging.DEBUG),
        **cast("EngineOptions", _chosen(options, EngineOptions)),
    )
    sockets = options.get("sockets")
    if sockets is None:
        sockets = listen(options.get("listen", [(host, port)]), options.get("backlog", DEFAULT_BACKLOG))
    keepalive = options.get("keepalive", Keepalive())
    limits = cast("_Limits", _chosen(options, _Limits))
    return Reactor(engine, sockets, keepalive=keepalive, tls=context, **limits)


def _is_gone(sock: socket.socket) -> bool:
    """Tell whether the peer has reset a connection."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


def _turn_away(sock: socket.socket, *, told: bool = True) -> None:
    """Close a connection that there is no room for, and tell the peer why if nothing is encrypted."""
    with contextlib.suppress(OSError):
        if told:
            sock.setblocking(False)
            sock.send(_TURNED_AWAY)
    sock.close()


def _own_context(tls: TLS | ssl.SSLContext) -> ssl.SSLContext:
    """Make the context of a server that begins, or that is given a new certificate."""
    context = server_context(tls)
    if isinstance(tls, TLS):
        warn_of_expiry(tls.certificate, tls.key, server_side=True)
    return context


def _chosen(options: ServerOptions, names: type) -> dict[str, object]:
    """Return the options that one part of the server takes."""
    return {name: value for name, value in options.items() if name in names.__annotations__}


class ServerBase:
    """What the servers of both packages are: a reactor, and where it listens.

    Attributes:
        addresses: where it listens, as pairs of host and port, or paths of Unix sockets.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = DEFAULT_PORT, **options: Unpack[ServerOptions]) -> None:
        """Listen. Connections may be opened from now on, and are served once the server runs.

        Args:
            host: address or name to listen on.
            port: TCP port; 0 lets the system choose.
            **options: see `open_reactor`.

        Raises:
            OSError: an address cannot be listened on.
            TypeError: there is no such option.
            ValueError: an option makes no sense, or a file of TLS cannot be used.
        """
        self._reactor = open_reactor(host, port, **options)
        self._tls = options.get("tls")
        self.addresses = self._reactor.addresses

    def reload_tls(self) -> None:
        """Read the files of TLS again, for connections that begin from now on; open ones stay as they are.

        May be called from any thread.

        Raises:
            ValueError: a file cannot be used, and the server keeps what it has; or it was not given files.
        """
        if not isinstance(self._tls, TLS):
            raise ValueError("the server has no TLS files that it could read again")
        self._reactor.tls = _own_context(self._tls)
        _log.info("TLS: the files have been read again, for new connections")

    @property
    def address(self) -> tuple[str, int]:
        """The first host and port that the server listens on, for clients and workers."""
        return next(address for address in self.addresses if isinstance(address, tuple))

    @property
    def port(self) -> int:
        """The TCP port that the server listens on, the one chosen by the system if 0 was asked for."""
        return self.address[1]
