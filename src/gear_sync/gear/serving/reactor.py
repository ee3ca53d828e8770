"""The sockets of ``gear.Server``."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable

from gear_net.listening import Keepalive
from gear_net.machine import machine_memory
from gear_net.reactor import Reactor
from gearproto.server import Endpoint, PeerId

from .engine import ServerEngine
from .peer import Peer, PeerOwner

__all__ = ["make_reactor"]


def make_reactor(
    server: PeerOwner,
    engine: ServerEngine,
    listeners: Iterable[socket.socket],
    *,
    keepalive: Keepalive | None,
    tls: ssl.SSLContext | None,
) -> Reactor:
    """Connect the engine of a server with sockets.

    A peer that has closed one direction only keeps its connection as long as it waits for results.
    """

    def on_connected(id_: PeerId, sock: socket.socket) -> None:
        name = sock.getpeername()
        host, port = name[:2] if isinstance(name, tuple) else ("-", 0)
        certificate = reactor.peer_certificate(id_)
        subject = None if certificate is None else certificate.common_name
        engine.connected(Peer(server, id_, host, port, subject, sock))

    reactor = Reactor(
        Endpoint(engine.engine, max_memory=machine_memory() // 2),
        listeners,
        keepalive=keepalive,
        tls=tls,
        on_connected=on_connected,
        on_disconnected=engine.disconnected,
        on_half_close=_still_reads,
    )
    return reactor


def _still_reads(_peer: PeerId, sock: socket.socket) -> bool:
    """Tell whether a peer that sends no more may have closed one direction only.

    TCP does not say. But a system whose program is gone answers data with a reset, and one whose program still reads
    takes urgent data without a word: it is not part of the stream.
    """
    try:
        return sock.send(b"\0", socket.MSG_OOB) == 1
    except OSError:
        return False
