"""The job server's sockets: one poller, and one turn at a time.

Theory of operation. `gearproto.server.Endpoint` decides; the reactor does it. A turn polls, reads what is ready, lets
the endpoint settle, sends its output, and does what its changes say. The reactor itself decides only about sockets:
when to accept, and how TLS gets to the bytes. `_peer_sockets` holds the connections that the endpoint knows; those
whose TLS handshake is not over are in `_handshakes` alone.

A socket is closed in one place (`_close`), where the endpoint says so, or because its handshake has failed. It stays
open to the end of the turn in which it has failed, so that no other gets its descriptor meanwhile.

`gear_sync.Server` loops over turns in a thread; `gear_anyio.Server`, or an event loop of your own, watches
`Reactor.fileno` and calls `Reactor.turn_while_busy` when it is readable or the deadline has come.
`gear_net.serving.open_reactor` makes a reactor with all that belongs to it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

from gearproto.event import Event
from gearproto.server import (
    Close,
    CloseWrite,
    Endpoint,
    JobChanged,
    JobGivenUp,
    MemoryLimitReached,
    PauseReading,
    PeerFailed,
    PeerGivenUp,
    PeerId,
    ResumeReading,
    ShutdownRequested,
    Stopped,
    TrimMemory,
)
from gearproto.server.turns import FEW

from .handshakes import Handshakes
from .listeners import Listeners
from .listening import Keepalive
from .machine import give_memory_back
from .peer_socket import MIN_READ, NOBODY, PeerSocket, is_gone, turn_away
from .poller import READ, WRITE, Poller
from .server_log import ServerLog
from .snapshot import Snapshot
from .tls import reason
from .tunnel import PeerCertificate, Tunnel
from .waker import Waker

__all__ = ["Reactor"]

_log = logging.getLogger("gear_sync.server")

_MAX_READ: Final = 256 * 1024
_ACCEPTS_PER_TURN: Final = 64
_TURNS_AT_ONCE: Final = 16
_MAX_WAIT: Final = 3600.0  # seconds; a delayed job may be due in more of them than poll() can count
_CLOSES: Final = 64  # handshakes that have taken too long, and are closed in a turn
_NO_ROOM: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

_Item: TypeAlias = PeerSocket | socket.socket | Waker
_Ready: TypeAlias = Sequence[tuple[_Item, int]]


class Reactor:
    """Connects an endpoint with sockets. It belongs to one thread at a time; only `wake` may be called from others.

    Attributes:
        endpoint: the job server without its sockets.
        finished: whether the server has stopped, because of an administrator or `drain`; then call `close`.
        closed: whether `close` has been called.
        tls: the context for new connections from the listeners; None for plain TCP.
        on_connected: as given.
        on_disconnected: as given.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        listeners: Iterable[socket.socket],
        *,
        keepalive: Keepalive | None = None,
        tls: ssl.SSLContext | None = None,
        handshake_timeout: float = 10.0,
        accept_pause: float = 0.5,
        on_connected: Callable[[PeerId, socket.socket], object] | None = None,
        on_disconnected: Callable[[PeerId], object] | None = None,
        on_half_close: Callable[[PeerId, socket.socket], bool] | None = None,
    ) -> None:
        """Begin to serve.

        Args:
            endpoint: the job server without its sockets.
            listeners: listening sockets; the reactor closes them.
            keepalive: TCP keepalive; None turns it off.
            tls: the context for connections from the listeners; None for plain TCP.
            handshake_timeout: seconds within which a TLS handshake has to complete.
            accept_pause: seconds for which new connections are left alone when there is no room for them.
            on_connected: called when a peer has connected, before anything is read from it.
            on_disconnected: called when a peer's connection has been closed.
            on_half_close: called when a peer sends no more, has been sent all that was for it, but waits for the
                results of jobs; not with TLS. Returns whether to keep the connection until it waits for nothing any
                more, or is gone. None closes it.
        """
        self.endpoint = endpoint
        self.finished = False
        self.closed = False
        self.tls = tls
        self._keepalive = keepalive
        self._handshakes: Handshakes[PeerSocket] = Handshakes(handshake_timeout)
        self._accept_pause = accept_pause
        self.on_connected = on_connected
        self.on_disconnected = on_disconnected
        self._on_half_close = on_half_close
        if on_half_close is not None:
            endpoint.on_half_close = self._keep_half_closed
        self._server_log = ServerLog(_log)
        self._waste = bytearray(MIN_READ)  # for what comes from those that are to be closed; see `_read`
        self._late: _Ready = ()  # those that were ready in an earlier turn, and for which it had no time
        self._written: list[PeerSocket] = []  # those that could be written in this turn
        self._peer_sockets: dict[PeerId, PeerSocket] = {}
        self._now = 0.0
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            Close: self._on_close,
            CloseWrite: self._on_close_write,
            PauseReading: self._on_pause_reading,
            ResumeReading: self._on_resume_reading,
            PeerFailed: self._on_peer_failed,
            PeerGivenUp: self._on_peer_given_up,
            MemoryLimitReached: self._on_memory_limit_reached,
            TrimMemory: self._on_trim_memory,
            ShutdownRequested: self._on_shutdown_requested,
            JobGivenUp: self._server_log.job_given_up,
            JobChanged: self._server_log.job_changed,
            Stopped: self._on_stopped,
        }
        self._poller: Poller[_Item] = Poller()
        self._listeners = Listeners(listeners, self._poller)
        self._waker = Waker()
        self._poller.register(self._waker, READ, self._waker)

    def fileno(self) -> int:
        """Return the poller's own descriptor, readable when a turn has something to do. Not on every platform."""
        return self._poller.fileno()

    @property
    def connections(self) -> int:
        """Number of connected peers."""
        return len(self._peer_sockets)

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Where the server listens, as pairs of host and port, or paths of Unix sockets."""
        return self._listeners.addresses

    def snapshot(self) -> Snapshot:
        """Count what the server holds now."""
        endpoint = self.endpoint
        counters = endpoint.engine.counters()
        return Snapshot(counters, endpoint.bytes_received, endpoint.bytes_sent, endpoint.unread)

    def sockets(self) -> dict[PeerId, socket.socket]:
        """Return the sockets of the connected peers, to inspect them: only the reactor may send, receive and close."""
        return {peer: peer_sock.sock for peer, peer_sock in self._peer_sockets.items()}

    def peer_certificate(self, peer: PeerId) -> PeerCertificate | None:
        """Return the certificate of a connected peer; None without TLS, or if it was not asked for one."""
        tunnel = self._peer_sockets[peer].tunnel
        return None if tunnel is None else tunnel.peer_certificate()

    def wake(self) -> None:
        """Make a turn that waits in another thread return soon."""
        self._waker.wake()

    # Turns

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which a turn has something to do even if nothing arrives; None if never."""
        return self._with_own_deadline(self.endpoint.next_deadline())

    def _with_own_deadline(self, deadline: float | None) -> float | None:
        """Return the earlier of the endpoint's deadline and that of new connections."""
        if self._late:
            return 0.0
        times = (deadline, self._listeners.resume_at, self._handshakes.next_deadline())
        return min((when for when in times if when is not None), default=None)

    def turn(self, timeout: float | None = None) -> bool:
        """Wait until something happens, and handle it.

        Args:
            timeout: longest time to wait in seconds; None waits until the next deadline.

        Returns:
            Whether there was anything to do.
        """
        endpoint = self.endpoint
        deadline = endpoint.next_deadline()
        if self.tls is not None or self._listeners.resume_at is not None or self._late:
            deadline = self._with_own_deadline(deadline)
        if deadline is not None:
            until = min(max(0.0, deadline - time.monotonic()), _MAX_WAIT)
            timeout = until if timeout is None else min(until, timeout)
        late, self._late = self._late, ()
        if late:
            late = [(item, events) for item, events in late if item.fileno() >= 0]
        ready = late or self._poller.poll(timeout)
        self._now = now = time.monotonic()
        endpoint.begin_turn(now, time.time(), len(ready))
        if self.tls is not None:
            self._handshakes.new_turn()
        looks_at_clock = len(ready) > FEW
        for peer_sock, events in ready:
            if type(peer_sock) is not PeerSocket:
                self._on_other(peer_sock, now)
            elif not events & WRITE and peer_sock.watched & READ:  # as under load
                self._read(peer_sock, now)
            else:
                self._on_ready(peer_sock, events, now)
            if looks_at_clock and not endpoint.may_read(time.monotonic()):
                self._late = ready[ready.index((peer_sock, events)) + 1 :]
                break
        endpoint.settle(now)
        if endpoint.changes:  # their log messages, and the refusal of connections, come before peers can read about it
            self._apply_changes()
        self._send(now)
        if self.tls is not None or self._listeners.resume_at is not None:
            self._tidy(now)
        if endpoint.changes:
            self._apply_changes()
        if self._written:
            self._watch_written()
        return bool(ready) or (deadline is not None and deadline <= now)

    def turn_while_busy(self, limit: float = 0.02) -> None:
        """Take turns without waiting, as long as there is something to do, up to a limit.

        This is for event loops that watch `fileno`: under load, they do not have to poll it before every turn.

        Args:
            limit: seconds after which no further turn begins, as other tasks of the event loop have to wait.
        """
        until = time.monotonic() + limit
        for _ in range(_TURNS_AT_ONCE):
            if not self.turn(0) or self.finished or time.monotonic() > until:
                return

    def _on_other(self, item: _Item, now: float) -> None:
        if isinstance(item, Waker):
            item.clear()
        elif isinstance(item, socket.socket) and item.fileno() >= 0:
            self._accept(item, now)

    def _on_ready(self, peer_sock: PeerSocket, events: int, now: float) -> None:
        """Deal with a connection that can be written, or that is watched for less than it was."""
        if events & WRITE:
            try:
                peer_sock.flush()
            except OSError as error:  # the endpoint ends what the peer had
                self._lose(peer_sock, error.strerror or "lost", now)
                return
            peer_sock.full = False
            self._written.append(peer_sock)
            self.endpoint.writable(peer_sock.peer)
        if events & READ:
            if peer_sock.watched & READ:
                self._read(peer_sock, now)
            elif peer_sock.half_closed and is_gone(peer_sock.sock):
                self._lose(peer_sock, "reset by the peer", now)

    def _lose(self, peer_sock: PeerSocket, why: str, now: float) -> None:
        """Give up a connection that has failed."""
        if peer_sock.peer == NOBODY:
            self._close(peer_sock, why, clean=False)
        else:
            self.endpoint.lost(peer_sock.peer, now, why)

    # The end

    def drain(self) -> None:
        """Accept no new connections and jobs. `finished` is set when no job is running and all output is sent.

        The server waits a few seconds for peers that do not read their output.
        """
        self.endpoint.drain()
        self.stop_listening()
        self.wake()  # the end may have come already, and a turn has to see it

    def stop_listening(self) -> None:
        """Close the listening sockets; connections stay open."""
        self._listeners.close()

    def close(self) -> None:
        """Close every socket."""
        self.closed = True
        self.stop_listening()
        self.endpoint.close_all(time.monotonic())
        self._apply_changes()
        for peer_sock in [*self._handshakes.begun, *self._handshakes.failed]:
            self._close(peer_sock, "the server stops", clean=False)
        self._poller.unregister(self._waker)
        self._waker.close()
        self._poller.close()

    # Accepting

    def adopt(self, sock: socket.socket, on_close: Callable[[], object] | None = None) -> None:
        """Serve a connected stream socket as if it had been accepted, but without TLS; the reactor closes it.

        If no further connection may be accepted, it is closed at once.

        Args:
            sock: the socket.
            on_close: called when the reactor has closed it.
        """
        now = time.monotonic()
        if self._is_full(now):
            turn_away(sock)
            if on_close is not None:
                on_close()
            return
        sock.setblocking(False)
        peer_sock = PeerSocket(sock, "-", on_close)
        self._poller.register(sock, READ, peer_sock)
        self._welcome(peer_sock, now)

    def _accept(self, listener: socket.socket, now: float) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if self._handshakes.crowded:
                self._listeners.pause(now + self._handshakes.pause)
                return
            try:
                sock, address = listener.accept()
            except BlockingIOError:  # all are accepted
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._server_log.no_room(now, error.strerror)
                    self._listeners.pause(now + self._accept_pause)
                    return
                continue  # this peer has already gone
            if self._is_full(now):
                turn_away(sock, told=self.tls is None)
                continue
            try:
                self._prepare(sock, address, now)
            except OSError as error:  # the peer has gone already
                _log.debug("lost a connection while accepting it: %s", error.strerror)
                sock.close()

    def _is_full(self, now: float) -> bool:
        why = self.endpoint.refusal(len(self._handshakes.begun))
        if why is not None:
            self._server_log.refused(now, why)
        return why is not None

    def _prepare(self, sock: socket.socket, address: object, now: float) -> None:
        """Set an accepted socket's options, and begin with its peer, or with the TLS handshake."""
        sock.setblocking(False)
        host = "-"
        if isinstance(address, tuple):
            host = address[0]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._keepalive is not None:
                self._keepalive.apply(sock)
        peer_sock = PeerSocket(sock, host, None)
        self._poller.register(sock, READ, peer_sock)
        if self.tls is None:
            self._welcome(peer_sock, now)
        else:
            peer_sock.tunnel = Tunnel(self.tls, server_side=True)
            self._handshakes.begin(peer_sock, now)
            self.endpoint.tunnels += 1

    def _welcome(self, peer_sock: PeerSocket, now: float) -> None:
        """Let the endpoint know a peer."""
        peer = self.endpoint.accepted(now, address=peer_sock.host.encode(), descriptor=peer_sock.sock.fileno())
        peer_sock.peer = peer
        self._peer_sockets[peer] = peer_sock
        _log.debug("peer %d: connected from %s", peer, peer_sock.host)
        if self.on_connected is not None:
            self.on_connected(peer, peer_sock.sock)

    def _tidy(self, now: float) -> None:
        """Close connections whose handshake has taken too long, and accept again."""
        for peer_sock, timeout in islice(self._handshakes.pop_overdue(now), _CLOSES):
            if timeout is not None:
                self._server_log.tls_failed(now, peer_sock.host, f"no handshake within {timeout:g} s")
            self._close(peer_sock, "no handshake", clean=False)
        self._listeners.resume(now)

    # Input

    def _read(self, peer_sock: PeerSocket, now: float) -> None:
        tunnel = peer_sock.tunnel
        if tunnel is not None and not (tunnel.established or peer_sock.discards or self._handshakes.may_step()):
            return  # it stays readable, and has its turn later
        endpoint, size = self.endpoint, peer_sock.read_size
        size = min(size, endpoint.max_read)
        try:
            if peer_sock.discards:  # without new memory: the pieces would scatter, some MB for a peer that floods
                if not peer_sock.sock.recv_into(self._waste):
                    self._on_end(peer_sock, now)
                return
            data = peer_sock.sock.recv(size)
        except BlockingIOError:  # nothing has come
            return
        except OSError as error:  # the endpoint ends what the peer had
            self._lose(peer_sock, error.strerror or "lost", now)
            return
        if not data:
            self._on_end(peer_sock, now)
            return
        got = len(data)
        if got == size:
            peer_sock.read_size = min(2 * peer_sock.read_size, _MAX_READ)
        elif got < peer_sock.read_size >> 2:
            peer_sock.read_size = MIN_READ
        if tunnel is not None:
            data = self._decrypt(peer_sock, tunnel, data, now)
        if data:
            endpoint.received(peer_sock.peer, data, now)

    def _decrypt(self, peer_sock: PeerSocket, tunnel: Tunnel, data: bytes, now: float) -> bytes:
        """Return the plain text of what has arrived from a peer; nothing during the TLS handshake."""
        if tunnel.ended:
            return b""
        said, failed = b"", None
        try:
            said = tunnel.receive(data)
        except ssl.SSLError as error:  # the peer is told why, once this is sent
            failed = reason(error)
        try:
            peer_sock.send_raw(tunnel.data_to_send())
        except OSError as error:  # the endpoint ends what the peer had
            self._lose(peer_sock, reason(error), now)
            return b""
        self._watch(peer_sock)
        if failed is not None:
            self._refuse(peer_sock, failed, now)
            return b""
        if tunnel.established and self._handshakes.end(peer_sock):
            self._welcome(peer_sock, now)
        if tunnel.ended:
            with contextlib.suppress(OSError):
                peer_sock.sock.shutdown(socket.SHUT_RD)  # reads as an end from now on, in the next turn
        return said

    def _refuse(self, peer_sock: PeerSocket, why: str, now: float) -> None:
        """Let a peer with which TLS has failed read why, and listen to it no longer."""
        self._server_log.tls_failed(now, peer_sock.host, why)
        peer_sock.discards = True
        if peer_sock.peer == NOBODY:
            self._handshakes.fail(peer_sock, now)
            if peer_sock.all_sent:
                peer_sock.end_output()
        else:
            self.endpoint.engine.fail(peer_sock.peer, why)

    def _on_end(self, peer_sock: PeerSocket, now: float) -> None:
        """Handle the end of what a peer sends."""
        if peer_sock.peer == NOBODY:
            self._close(peer_sock, "by the peer", clean=False)
        else:
            self.endpoint.ended(peer_sock.peer, now)

    def _keep_half_closed(self, peer: PeerId) -> bool:
        """Ask whether to keep a peer that sends no more, but waits for results."""
        peer_sock = self._peer_sockets[peer]
        assert self._on_half_close is not None
        peer_sock.half_closed = peer_sock.tunnel is None and self._on_half_close(peer, peer_sock.sock)
        return peer_sock.half_closed

    # Output

    def _send(self, now: float) -> None:
        """Send the output of the endpoint, as far as there is time and the sockets take it."""
        endpoint, peer_sockets, few = self.endpoint, self._peer_sockets, FEW
        for peer, data in endpoint.sends():
            peer_sock = peer_sockets[peer]
            try:
                sent = peer_sock.sock.send(data) if peer_sock.tunnel is None else peer_sock.send(peer_sock.tunnel, data)
            except BlockingIOError:  # the endpoint keeps all of it
                sent = 0
            except OSError as error:  # none of it counts as sent
                endpoint.sent(peer, 0, now)
                endpoint.lost(peer, now, reason(error))
                continue
            if sent < len(data):
                self._on_rest(peer_sock, sent, now)
            few -= 1
            if not few:
                if not endpoint.may_send(time.monotonic()):
                    return
                few = FEW

    def _on_rest(self, peer_sock: PeerSocket, sent: int, now: float) -> None:
        """Leave what a socket has not taken with the endpoint."""
        peer_sock.full = peer_sock.tunnel is None or not peer_sock.all_sent
        buffer_size = peer_sock.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self.endpoint.sent(peer_sock.peer, sent, now, full=peer_sock.full, buffer_size=buffer_size)
        self._watch(peer_sock)

    def _watch_written(self) -> None:
        """Watch sockets that could be written no longer for that, if all has been sent."""
        written, self._written = self._written, []
        for peer_sock in written:
            if peer_sock.sock.fileno() >= 0:
                self._watch(peer_sock)

    def _watch(self, peer_sock: PeerSocket) -> None:
        """Watch a socket for what it needs now."""
        wanted = peer_sock.wanted
        if wanted != peer_sock.watched:
            peer_sock.watched = wanted
            self._poller.modify(peer_sock.sock, wanted, peer_sock)

    # What the endpoint decides

    def _apply_changes(self) -> None:
        changes, handlers = self.endpoint.changes, self._handlers
        while changes:
            change = changes.popleft()
            handlers[type(change)](change)

    def _on_close(self, change: Close) -> None:
        self._close(self._peer_sockets[change.peer], change.reason, clean=not change.unread)

    def _close(self, peer_sock: PeerSocket, why: str, *, clean: bool) -> None:
        """Close a connection.

        Args:
            peer_sock: the connection.
            why: for people.
            clean: whether the peer has been sent everything; TLS says so then.
        """
        _log.debug("peer %d: closed: %s", peer_sock.peer, why)
        if peer_sock.tunnel is not None:
            self._handshakes.end(peer_sock)
            self.endpoint.tunnels -= 1
            if clean and not peer_sock.discards:
                with contextlib.suppress(OSError):
                    peer_sock.say_end()
        self._poller.unregister(peer_sock.sock)
        peer_sock.sock.close()
        if self._peer_sockets.pop(peer_sock.peer, None) is not None and self.on_disconnected is not None:
            self.on_disconnected(peer_sock.peer)
        if peer_sock.on_close is not None:
            peer_sock.on_close()

    def _on_close_write(self, change: CloseWrite) -> None:
        self._peer_sockets[change.peer].end_output()

    def _on_pause_reading(self, change: PauseReading) -> None:
        peer_sock = self._peer_sockets[change.peer]
        peer_sock.reading = False
        self._watch(peer_sock)

    def _on_resume_reading(self, change: ResumeReading) -> None:
        peer_sock = self._peer_sockets[change.peer]
        peer_sock.reading = True
        self._watch(peer_sock)

    def _on_peer_failed(self, change: PeerFailed) -> None:
        peer_sock = self._peer_sockets[change.peer]
        if not peer_sock.discards:  # TLS has failed otherwise, which has been logged
            peer_sock.discards = True
            self._server_log.peer_failed(self._now, peer_sock.host, change)

    def _on_peer_given_up(self, change: PeerGivenUp) -> None:
        self._server_log.peer_given_up(self._now, self._peer_sockets[change.peer].host, change)

    def _on_memory_limit_reached(self, change: MemoryLimitReached) -> None:
        self._server_log.memory_limit_reached(self._now, change)

    def _on_trim_memory(self, _change: TrimMemory) -> None:
        _log.info("giving memory back to the system")
        give_memory_back()

    def _on_shutdown_requested(self, change: ShutdownRequested) -> None:
        self._server_log.shutdown_requested(change)
        self.stop_listening()

    def _on_stopped(self, _change: Stopped) -> None:
        self.finished = True
