"""A job server on trio: one task waits for each socket, and all of them share one endpoint."""

from __future__ import annotations

import contextlib
import math
import secrets
import socket
import time
from collections.abc import Callable
from functools import partial

import trio

from gearproto.server import TURNED_AWAY, Close, CloseWrite, Endpoint, Engine, PauseReading, PeerId, ResumeReading


class Peer:
    """One connection: its socket, and what its two tasks wait for."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.may_read = trio.Event()
        self.may_read.set()
        self.full = trio.Event()  # set while the socket takes no more
        self.tasks = trio.CancelScope()


class Server:
    """An endpoint in a trio nursery."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.peers: dict[PeerId, Peer] = {}
        self.deadline = math.inf
        self.earlier = trio.Event()  # set when the deadline has moved

    async def serve(self, listener: socket.socket) -> None:
        """Serve until the endpoint has stopped."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keep_time, nursery.cancel_scope)
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    sock, _address = listener.accept()
                except OSError:  # it has gone already, or there is no room for now
                    await trio.sleep(0.01)
                    continue
                sock.setblocking(False)
                if self.endpoint.refusal() is not None:
                    with contextlib.suppress(OSError):
                        sock.send(TURNED_AWAY)
                    sock.close()
                    continue
                peer = self.endpoint.accepted(time.monotonic())
                self.peers[peer] = Peer(sock)
                nursery.start_soon(self.talk, peer, self.peers[peer])
        self.endpoint.close_all(time.monotonic())
        self.apply()

    async def keep_time(self, server: trio.CancelScope) -> None:
        """Take a turn when the endpoint wants one though nothing happens, and end the server when it stops."""
        while not self.endpoint.stopped:
            self.earlier = trio.Event()
            with trio.move_on_after(max(0.0, self.deadline - time.monotonic())) as scope:
                await self.earlier.wait()
            if scope.cancelled_caught:
                self.turn(lambda _now: None)
        server.cancel()

    async def talk(self, peer: PeerId, connection: Peer) -> None:
        """Read and write one connection until the endpoint closes it."""
        with connection.sock, connection.tasks:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.write, peer, connection)
                await self.read(peer, connection)

    async def read(self, peer: PeerId, connection: Peer) -> None:
        while True:
            await connection.may_read.wait()
            await trio.lowlevel.wait_readable(connection.sock)
            try:
                data = connection.sock.recv(self.endpoint.max_read)
            except OSError as error:
                why = str(error)
                self.turn(lambda now: self.endpoint.lost(peer, now, why))  # noqa: B023  (called at once)
                return
            if not data:
                self.turn(partial(self.endpoint.ended, peer))
                return
            self.turn(lambda now: self.endpoint.received(peer, data, now))  # noqa: B023  (called at once)

    async def write(self, peer: PeerId, connection: Peer) -> None:
        """Wait until a socket that was full takes more."""
        while True:
            await connection.full.wait()
            await trio.lowlevel.wait_writable(connection.sock)
            connection.full = trio.Event()
            self.turn(lambda _now: self.endpoint.writable(peer))

    def turn(self, what: Callable[[float], object]) -> None:
        """Tell the endpoint what has happened, and do what it says. Nothing is awaited: no task comes between."""
        endpoint, now = self.endpoint, time.monotonic()
        endpoint.begin_turn(now, time.time())
        what(now)
        endpoint.settle(now)
        self.apply()
        for peer, data in endpoint.sends():
            self.send(peer, data, now)
        self.apply()
        deadline = endpoint.next_deadline()
        self.deadline = math.inf if deadline is None else deadline
        self.earlier.set()

    def send(self, peer: PeerId, data: bytes | memoryview, now: float) -> None:
        connection = self.peers[peer]
        try:
            count = connection.sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self.endpoint.sent(peer, 0, now)
            self.endpoint.lost(peer, now, str(error))
            return
        if count < len(data):
            connection.full.set()
            self.endpoint.sent(peer, count, now)

    def apply(self) -> None:
        changes = self.endpoint.changes
        while changes:
            match changes.popleft():
                case Close(peer=peer):
                    self.peers.pop(peer).tasks.cancel()
                case CloseWrite(peer=peer):
                    with contextlib.suppress(OSError):  # it is lost, as its reader will see
                        self.peers[peer].sock.shutdown(socket.SHUT_WR)
                case PauseReading(peer=peer):
                    self.peers[peer].may_read = trio.Event()
                case ResumeReading(peer=peer):
                    self.peers[peer].may_read.set()
                case _:
                    pass  # what only a log would tell


def serve(endpoint: Endpoint, listener: socket.socket) -> None:
    """Serve until the endpoint has stopped."""

    async def main() -> None:
        listener.setblocking(False)
        await Server(endpoint).serve(listener)
        listener.close()

    trio.run(main)


if __name__ == "__main__":
    prefix = b"H:example:" + secrets.token_hex(4).encode()  # differs from start to start
    serve(Endpoint(Engine(handle_prefix=prefix, epoch_offset=0.0)), socket.create_server(("127.0.0.1", 4730)))
