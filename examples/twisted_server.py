"""A job server on Twisted, half closes included.

A Twisted transport takes whatever it is written. As its producer, a protocol hears when the transport has enough, and
when it wants more; in between, the endpoint keeps the rest.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure
from zope.interface import implementer

from gearproto.server import TURNED_AWAY, Close, CloseWrite, Endpoint, Engine, PauseReading, PeerId, ResumeReading

PIECE: Final = 65536  # bytes that a transport is given at once
LAST_WORDS: Final = 5.0  # seconds for what a transport holds when it is closed; it would wait for ever


@implementer(IHalfCloseableProtocol, IPushProducer)
class ServerPeer(Protocol):
    """One connection of a server."""

    transport: Any

    def __init__(self, server: Server) -> None:
        self.server = server
        self.peer = PeerId(0)
        self.full = False

    def connectionMade(self) -> None:
        endpoint = self.server.endpoint
        if endpoint.refusal() is not None:
            self.transport.write(TURNED_AWAY)
            self.transport.loseConnection()
            return
        self.peer = endpoint.accepted(time.monotonic())
        self.server.peers[self.peer] = self
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self.server.turn(lambda now: self.server.endpoint.received(self.peer, data, now))

    def readConnectionLost(self) -> None:
        self.server.turn(lambda now: self.server.endpoint.ended(self.peer, now))

    def writeConnectionLost(self) -> None:
        pass  # the endpoint has asked for it, or the connection is lost next

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.peer in self.server.peers:
            self.server.turn(lambda now: self.server.endpoint.lost(self.peer, now, str(reason)))

    # What the transport tells its producer

    def pauseProducing(self) -> None:
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False
        self.server.turn(lambda _now: self.server.endpoint.writable(self.peer))

    def stopProducing(self) -> None:
        self.full = True

    # What the server does

    def write(self, data: bytes | memoryview) -> int:
        """Give the transport as much as it should take; return how much that is."""
        if self.full:
            return 0
        piece = bytes(data[:PIECE])
        self.transport.write(piece)  # which may call pauseProducing
        return len(piece)

    def close(self) -> None:
        self.transport.unregisterProducer()  # else the transport waits for the rest
        self.transport.loseConnection()
        self.server.reactor.callLater(LAST_WORDS, self.transport.abortConnection)  # if it is not read


class Server(Factory):
    """An endpoint in a Twisted reactor."""

    def __init__(self, endpoint: Endpoint, reactor: Any) -> None:
        self.endpoint = endpoint
        self.reactor = reactor
        self.peers: dict[PeerId, ServerPeer] = {}
        self.timer: Any = None
        self.in_turn = False

    def buildProtocol(self, _addr: object) -> ServerPeer:
        return ServerPeer(self)

    def turn(self, what: Callable[[float], object]) -> None:
        """Tell the endpoint what has happened, and do what it says."""
        if self.in_turn:  # transports call back while they are written to
            self.reactor.callLater(0, self.turn, what)
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
        finally:  # a hook may have raised; Twisted logs it
            self.in_turn = False
            self.set_timer(endpoint.next_deadline())
        if endpoint.stopped:
            endpoint.close_all(now)
            self.apply()
            self.reactor.callLater(0, self.reactor.stop)

    def apply(self) -> None:
        changes = self.endpoint.changes
        while changes:
            match changes.popleft():
                case Close(peer=peer):
                    self.peers.pop(peer).close()
                case CloseWrite(peer=peer):
                    self.peers[peer].transport.loseWriteConnection()
                case PauseReading(peer=peer):
                    self.peers[peer].transport.pauseProducing()
                case ResumeReading(peer=peer):
                    self.peers[peer].transport.resumeProducing()
                case _:
                    pass  # what only a log would tell

    def set_timer(self, deadline: float | None) -> None:
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.timer = None
        if deadline is not None:
            seconds = max(0.0, deadline - time.monotonic())
            self.timer = self.reactor.callLater(seconds, self.turn, lambda _now: None)


def serve(endpoint: Endpoint, listener: socket.socket) -> None:
    """Serve until the endpoint has stopped."""
    reactor: Any = SelectReactor()  # a program has the reactor of `twisted.internet`, which runs once
    listener.setblocking(False)
    port = reactor.adoptStreamPort(listener.fileno(), socket.AF_INET, Server(endpoint, reactor))
    listener.close()  # the port has a copy
    reactor.addSystemEventTrigger("before", "shutdown", port.stopListening)
    reactor.run(installSignalHandlers=False)


if __name__ == "__main__":
    prefix = b"H:example:" + secrets.token_hex(4).encode()  # differs from start to start
    serve(Endpoint(Engine(handle_prefix=prefix, epoch_offset=0.0)), socket.create_server(("127.0.0.1", 4730)))
