"""A job server, a client and a worker as `asyncio.Protocol`: no task, no stream, and a write buffer of their own.

An asyncio transport takes whatever it is given, and does not tell how much of it has left. So each side here gives it
little at a time, and keeps the rest itself. What the transport was not given has certainly not left: the client knows
which submissions were not sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable
from typing import Final, cast

from gearproto import ClientConnection, Connection, Outcome, WorkerConnection
from gearproto.events import Event, JobAssigned, JobEnded, RequestId
from gearproto.server import TURNED_AWAY, Close, CloseWrite, Endpoint, Engine, PauseReading, PeerId, ResumeReading

PIECE: Final = 65536  # bytes that a transport is given at once
LAST_WORDS: Final = 5.0  # seconds for what a transport holds when it is closed; it would wait for ever


class Transport(asyncio.Protocol):
    """A connection whose transport holds at most one piece."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=0)  # full with the first byte that has to wait

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False

    def write(self, data: bytes | memoryview) -> int:
        """Give the transport as much as it should take; return how much that is."""
        if self.full or self.transport is None:
            return 0
        piece = data[:PIECE]
        self.transport.write(piece)  # which may call pause_writing
        return len(piece)


# The server


class ServerPeer(Transport):
    """One connection of a server."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.peer = PeerId(0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        if self.server.endpoint.refusal() is not None:
            self.transport.write(TURNED_AWAY)
            self.transport.close()
            return
        self.peer = self.server.endpoint.accepted(time.monotonic())
        self.server.peers[self.peer] = self

    def data_received(self, data: bytes) -> None:
        self.server.turn(lambda now: self.server.endpoint.received(self.peer, data, now))

    def eof_received(self) -> bool:
        self.server.turn(lambda now: self.server.endpoint.ended(self.peer, now))
        return True  # the endpoint closes the connection once everything is answered

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.peer in self.server.peers:
            self.server.turn(lambda now: self.server.endpoint.lost(self.peer, now, str(exc)))

    def resume_writing(self) -> None:
        super().resume_writing()
        self.server.turn(lambda _now: self.server.endpoint.writable(self.peer))


class Server:
    """An endpoint in an asyncio loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.peers: dict[PeerId, ServerPeer] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.stopped = asyncio.Event()
        self.in_turn = False

    async def serve(self, listener: socket.socket) -> None:
        """Serve until the endpoint has stopped."""
        server = await asyncio.get_running_loop().create_server(lambda: ServerPeer(self), sock=listener)
        async with server:
            await self.stopped.wait()
            server.close()
            self.turn(self.endpoint.close_all)
        if self.timer is not None:
            self.timer.cancel()

    def turn(self, what: Callable[[float], object]) -> None:
        """Tell the endpoint what has happened, and do what it says."""
        if self.in_turn:  # transports call back while they are written to
            asyncio.get_running_loop().call_soon(self.turn, what)
            return
        self.in_turn = True
        endpoint, now = self.endpoint, time.monotonic()
        try:
            endpoint.begin_turn(now, time.time())
            what(now)
            endpoint.settle(now)
            self.apply()
            for peer, data in endpoint.sends():
                protocol = self.peers[peer]
                count = protocol.write(data)
                endpoint.sent(peer, count, now, full=protocol.full)
            self.apply()
        finally:  # a hook may have raised; asyncio logs it
            self.in_turn = False
            self.set_timer(endpoint.next_deadline())
        if endpoint.stopped:
            self.stopped.set()

    def apply(self) -> None:
        changes = self.endpoint.changes
        while changes:
            change = changes.popleft()
            if isinstance(change, Close):
                transport = self.peers.pop(change.peer).transport
                if transport is not None:
                    transport.close()
                    asyncio.get_running_loop().call_later(LAST_WORDS, transport.abort)  # if it is not read
                continue
            if isinstance(change, CloseWrite | PauseReading | ResumeReading):
                transport = self.peers[change.peer].transport
                if transport is None:
                    continue
                if isinstance(change, CloseWrite):
                    with contextlib.suppress(OSError):  # it is lost, as the transport will say
                        transport.write_eof()
                elif isinstance(change, PauseReading):
                    transport.pause_reading()
                else:
                    transport.resume_reading()

    def set_timer(self, deadline: float | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if deadline is not None:
            loop = asyncio.get_running_loop()
            self.timer = loop.call_later(max(0.0, deadline - time.monotonic()), self.turn, lambda _now: None)


# Clients and workers


class Peer(Transport):
    """One connection of a client or a worker. `settle` is to be called after each request."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.unsent = bytearray()
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.settle()

    def data_received(self, data: bytes) -> None:
        self.connection.receive_data(data, time.monotonic())
        self.settle()

    def eof_received(self) -> None:
        self.connection.receive_eof()
        self.settle()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.connection.connection_lost(str(exc or "closed"))
        self.settle()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.settle()

    def settle(self) -> None:
        """Take all events, then all output, then the deadline."""
        connection = self.connection
        for event in connection.events():
            self.on_event(event)
        self.unsent += connection.data_to_send()
        while self.unsent and (count := self.write(bytes(self.unsent[:PIECE]))):
            del self.unsent[:count]
            connection.data_sent(count, time.monotonic())
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if connection.closed:
            if self.transport is not None:
                self.transport.close()
        elif (deadline := connection.next_deadline()) is not None:
            self.timer = asyncio.get_running_loop().call_later(max(0.0, deadline - time.monotonic()), self.on_time)

    def on_time(self) -> None:
        self.connection.handle_timeout(time.monotonic())
        self.settle()

    def on_event(self, event: Event) -> None:
        """Handle an event; it may make requests, which leave when all events are handled."""
        raise NotImplementedError


class Client(Peer):
    """A client whose jobs are futures."""

    connection: ClientConnection

    def __init__(self) -> None:
        super().__init__(ClientConnection(probe_interval=30.0, now=time.monotonic()))
        self.results: dict[RequestId, asyncio.Future[Outcome]] = {}

    def submit(self, function: bytes, workload: bytes) -> asyncio.Future[Outcome]:
        """Submit a job; the future has its outcome."""
        request = self.connection.submit_job(function, workload)
        result = self.results[request] = asyncio.get_running_loop().create_future()
        self.settle()
        return result

    def on_event(self, event: Event) -> None:
        if isinstance(event, JobEnded):
            result = self.results.pop(event.request)
            if not result.cancelled():
                result.set_result(event.outcome)


class Worker(Peer):
    """A worker of one function."""

    connection: WorkerConnection

    def __init__(self, name: bytes, function: Callable[[bytes], bytes]) -> None:
        super().__init__(WorkerConnection(probe_interval=30.0, now=time.monotonic()))
        self.function = function
        self.connection.can_do(name)
        self.connection.grab_job()

    def on_event(self, event: Event) -> None:
        if isinstance(event, JobAssigned):
            try:
                result = self.function(event.workload)
            except Exception as error:
                self.connection.work_exception(event.handle, repr(error).encode())
            else:
                self.connection.work_complete(event.handle, result)
            self.connection.grab_job()


def serve(endpoint: Endpoint, listener: socket.socket) -> None:
    """Serve until the endpoint has stopped."""

    async def main() -> None:
        await Server(endpoint).serve(listener)

    asyncio.run(main())


async def demo(address: tuple[str, int]) -> Outcome:
    """Run one job, with a client and a worker of a server."""
    loop = asyncio.get_running_loop()
    _transport, worker = await loop.create_connection(lambda: Worker(b"reverse", lambda data: data[::-1]), *address)
    _transport, client = await loop.create_connection(Client, *address)
    try:
        return await client.submit(b"reverse", b"abc")
    finally:
        for peer in (client, worker):
            peer.connection.connection_lost("done")
            peer.settle()


if __name__ == "__main__":
    prefix = b"H:example:" + secrets.token_hex(4).encode()  # differs from start to start
    serve(Endpoint(Engine(handle_prefix=prefix, epoch_offset=0.0)), socket.create_server(("127.0.0.1", 4730)))
