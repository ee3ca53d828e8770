"""A job server on gevent: one greenlet reads each socket, one waits until it takes more; all share one endpoint."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent import event
from gevent.socket import wait_read, wait_write

from gearproto.server import TURNED_AWAY, Close, CloseWrite, Endpoint, Engine, PauseReading, PeerId, ResumeReading


class Peer:
    """One connection: its socket, its greenlets, and what they wait for."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.may_read: Any = event.Event()
        self.may_read.set()
        self.full: Any = event.Event()  # set while the socket takes no more
        self.greenlets: list[Any] = []


class Server:
    """An endpoint in the loop of gevent."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.peers: dict[PeerId, Peer] = {}
        self.deadline: float | None = None
        self.earlier: Any = event.Event()  # set when the deadline has moved

    def serve(self, listener: socket.socket) -> None:
        """Serve until the endpoint has stopped."""
        accepting = gevent.spawn(self.accept, listener)
        while not self.endpoint.stopped:
            self.earlier.clear()
            timeout = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
            if not self.earlier.wait(timeout):
                self.turn(lambda _now: None)
        accepting.kill()
        self.endpoint.close_all(time.monotonic())
        self.apply()

    def accept(self, listener: socket.socket) -> None:
        while True:
            wait_read(listener.fileno())
            try:
                sock, _address = listener.accept()
            except OSError:  # it has gone already, or there is no room for now
                gevent.sleep(0.01)
                continue
            sock.setblocking(False)
            if self.endpoint.refusal() is not None:
                with contextlib.suppress(OSError):
                    sock.send(TURNED_AWAY)
                sock.close()
                continue
            id_ = self.endpoint.accepted(time.monotonic())
            peer = self.peers[id_] = Peer(sock)
            peer.greenlets = [gevent.spawn(self.read, id_, peer), gevent.spawn(self.write, id_, peer)]

    def read(self, id_: PeerId, peer: Peer) -> None:
        """Read one connection until its end."""
        while id_ in self.peers:
            peer.may_read.wait()
            wait_read(peer.sock.fileno())
            try:
                data = peer.sock.recv(self.endpoint.max_read)
            except OSError as error:
                self.turn(partial(self.endpoint.lost, id_, reason=str(error)))
                return
            if not data:
                self.turn(partial(self.endpoint.ended, id_))
                return
            self.turn(partial(self.endpoint.received, id_, data))

    def write(self, id_: PeerId, peer: Peer) -> None:
        """Wait until a socket that was full takes more."""
        while id_ in self.peers:
            peer.full.wait()
            wait_write(peer.sock.fileno())
            peer.full.clear()
            self.turn(lambda _now: self.endpoint.writable(id_))

    def turn(self, what: Callable[[float], object]) -> None:
        """Tell the endpoint what has happened, and do what it says. No greenlet comes between: nothing here waits."""
        endpoint, now = self.endpoint, time.monotonic()
        endpoint.begin_turn(now, time.time())
        what(now)
        endpoint.settle(now)
        self.apply()
        for id_, data in endpoint.sends():
            self.send(id_, data, now)
        self.apply()
        self.deadline = endpoint.next_deadline()
        self.earlier.set()

    def send(self, id_: PeerId, data: bytes | memoryview, now: float) -> None:
        peer = self.peers[id_]
        try:
            count = peer.sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self.endpoint.sent(id_, 0, now)
            self.endpoint.lost(id_, now, str(error))
            return
        if count < len(data):
            peer.full.set()
            self.endpoint.sent(id_, count, now)

    def apply(self) -> None:
        changes = self.endpoint.changes
        while changes:
            match changes.popleft():
                case Close(peer=id_):
                    self.close(self.peers.pop(id_))
                case CloseWrite(peer=id_):
                    with contextlib.suppress(OSError):  # it is lost, as its reader will see
                        self.peers[id_].sock.shutdown(socket.SHUT_WR)
                case PauseReading(peer=id_):
                    self.peers[id_].may_read.clear()
                case ResumeReading(peer=id_):
                    self.peers[id_].may_read.set()
                case _:
                    pass  # what only a log would tell

    def close(self, peer: Peer) -> None:
        for greenlet in peer.greenlets:
            if greenlet is not gevent.getcurrent():  # which ends by itself
                greenlet.kill(block=False)
        gevent.spawn(self.close_socket, peer)

    def close_socket(self, peer: Peer) -> None:
        """Close a socket once nobody waits for it."""
        gevent.joinall(peer.greenlets)
        peer.sock.close()


def serve(endpoint: Endpoint, listener: socket.socket) -> None:
    """Serve until the endpoint has stopped."""
    listener.setblocking(False)
    Server(endpoint).serve(listener)
    gevent.wait()
    listener.close()
    gevent.get_hub().destroy(destroy_loop=True)


if __name__ == "__main__":
    prefix = b"H:example:" + secrets.token_hex(4).encode()  # differs from start to start
    serve(Endpoint(Engine(handle_prefix=prefix, epoch_offset=0.0)), socket.create_server(("127.0.0.1", 4730)))
