"""The sockets of `gear.Server`."""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING, Any

from gear_net.reactor import Reactor

if TYPE_CHECKING:
    from gear_net.peer_socket import PeerSocket

    from .engine import HookedEngine

__all__ = ["HookedReactor"]


class HookedReactor(Reactor):
    """A reactor that knows more of its peers: their ports, what their certificates say, and whether they still read."""

    engine: HookedEngine

    def __init__(self, engine: HookedEngine, *arguments: Any, **options: Any) -> None:
        """Begin to serve; the arguments are those of `Reactor`."""
        super().__init__(engine, *arguments, **options)
        self._listening: dict[PeerSocket, None] = {}  # peers that send no more, but wait for the results of jobs

    def _welcome(self, link: PeerSocket, now: float) -> None:
        super()._welcome(link, now)
        connection = self.engine.peers[link.peer]
        name = link.sock.getpeername()
        connection.port = name[1] if isinstance(name, tuple) else 0
        certificate = self.peer_certificate(link.peer)
        connection.ssl_subject = None if certificate is None else certificate.common_name

    def turn(self, timeout: float | None = None) -> bool:
        """Wait until something happens, and do all that there is to do."""
        busy = super().turn(timeout)
        for link in list(self._listening):
            if link.sock.fileno() < 0:
                del self._listening[link]
            elif _is_gone(link.sock) or not self.engine.waits(link.peer):
                del self._listening[link]
                super()._on_end(link, time.monotonic())
        return busy

    def _on_end(self, link: PeerSocket, now: float) -> None:
        """Keep a connection whose peer sends no more as long as it waits for results, and reads them."""
        if link in self._listening or (link.backlog is None and self._may_listen(link)):
            self._listening[link] = None
            link.watched = 0
            self._poller.modify(link.sock, 0, link)
        else:
            super()._on_end(link, now)

    def _may_listen(self, link: PeerSocket) -> bool:
        """Tell whether a peer that sends no more may have closed one direction only.

        TCP does not say. But a system whose program is gone answers data with a reset, and one whose program still
        reads takes urgent data without a word: it is no part of the stream.
        """
        if link.tunnel is not None or link.leave_at is not None or not self.engine.waits(link.peer):
            return False
        try:
            return link.sock.send(b"\0", socket.MSG_OOB) == 1
        except OSError:
            return False


def _is_gone(sock: socket.socket) -> bool:
    """Tell whether the peer has reset a connection."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))
