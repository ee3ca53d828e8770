"""What the server has to send, peer by peer."""

from __future__ import annotations

from collections import deque
from typing import Final

from gearproto.packets import Error

from .jobs import PeerId
from .peers import Peer

__all__ = ["BIG", "Output"]

BIG: Final = 65536
"""Payloads from this size on leave as pieces of their own, not copied together."""


class Output:
    """The output of all peers. Which of them has some is known without looking at the others.

    Attributes:
        dirty: the peers that have output queued, in the order in which that began.
        work: what the requests of the peer that is being served have cost beyond their number.
        work_limit: how many requests of a peer are served until others have their turn.
        under_way: bytes that peers have sent and that wait, and of answers that are not whole yet.
    """

    __slots__ = ("dirty", "under_way", "work", "work_limit")

    def __init__(self, work_limit: int) -> None:
        """Begin with nothing to send."""
        self.dirty: deque[Peer] = deque()
        self.work = 0
        self.work_limit = work_limit
        self.under_way = 0

    def send(self, peer: Peer, data: bytes) -> None:
        """Queue bytes for a peer."""
        output = peer.output
        if not output:
            self.dirty.append(peer)
        output.append(data)
        peer.output_size += len(data)

    def send_error(self, peer: Peer, code: bytes, text: bytes) -> None:
        """Queue an ``ERROR`` for a peer."""
        self.send(peer, Error(code, text).encode())

    def drop(self, peer: Peer) -> None:
        """Forget what is queued for a peer that has gone."""
        peer.output.clear()
        peer.output_size = 0

    def next(self) -> tuple[PeerId, bytes] | None:
        """Take a peer and bytes to send to it, in their order; None if there is nothing to send."""
        while self.dirty:
            peer = self.dirty[0]
            output = peer.output
            if peer.gone:
                self.drop(peer)
            if len(output) > 1 and peer.output_size > BIG:
                return self._next_piece(peer)
            self.dirty.popleft()
            if output:
                data = output[0] if len(output) == 1 else b"".join(output)
                output.clear()
                peer.output_size = 0
                return peer.id, data
        return None

    def _next_piece(self, peer: Peer) -> tuple[PeerId, bytes]:
        """Take one big piece, or all small ones before the next big one."""
        output = peer.output
        count = next((index for index, piece in enumerate(output) if len(piece) >= BIG), len(output)) or 1
        data = output[0] if count == 1 else b"".join(output[:count])
        del output[:count]
        peer.output_size -= len(data)
        if not output:
            self.dirty.popleft()
        return peer.id, data
