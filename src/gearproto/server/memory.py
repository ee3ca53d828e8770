"""A limit for all that peers make a server keep.

There are two kinds of memory. What is *kept* stays until somebody works it off: jobs, functions, connections. It
grows by requests that can be refused. What is *under way* passes through: unread output, halves of packets, answers in
the making. Past the limit nothing is taken that would be kept. Peers are closed only if more than an eighth of the
limit is under way, those with most of it first. Otherwise a full queue could never be worked off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import nlargest
from typing import Final, TypeVar

from .backlog import Backlogs
from .costs import TLS
from .engine import Engine
from .jobs import PeerId

__all__ = ["MemoryLimit"]

_STEP: Final = 64 * 1024  # bytes received before memory is looked at again
_AT_ONCE: Final = 16  # peers that are closed in a turn

_Peer = TypeVar("_Peer")


class MemoryLimit:
    """Decides what happens when peers make a server keep too much.

    Attributes:
        limit: bytes of memory.
        full: whether nothing more may be kept.
        look_at: bytes that all peers have sent since the start, past which to look at memory again.
        mark: bytes under way past which to look at it too.
    """

    __slots__ = ("full", "limit", "look_at", "mark")

    def __init__(self, limit: int) -> None:
        """Begin with nothing kept."""
        self.limit = limit
        self.full = False
        self.look_at = _STEP
        self.mark = limit >> 3

    def look(
        self, engine: Engine, backlogs: Backlogs[_Peer], peers: Mapping[PeerId, _Peer], received: int, tunnels: int = 0
    ) -> Iterator[tuple[_Peer, str]]:
        """Look at all there is, and let the engine take more or not.

        Args:
            engine: the server.
            backlogs: the output that peers have not read.
            peers: who is connected.
            received: bytes that all peers have sent since the start.
            tunnels: how many connections have TLS.

        Yields:
            Peers that have to go, and why. Close each before you take the next.
        """
        kept = engine.kept_size + tunnels * TLS
        if self._is_too_much(kept, engine, backlogs):
            sizes = {peer: engine.under_way_of(id_) for id_, peer in peers.items()}
            for peer, backlog in backlogs.open.items():
                sizes[peer] = sizes.get(peer, 0) + backlog.size
            for peer in nlargest(_AT_ONCE, sizes, key=sizes.__getitem__):
                yield peer, f"{sizes[peer]} bytes under way, memory limit {self.limit} of the server"
                if not self._is_too_much(kept, engine, backlogs):
                    break
        engine.refuse(self.full)
        self.look_at = received if self.full else received + _STEP

    def _is_too_much(self, kept: int, engine: Engine, backlogs: Backlogs[_Peer]) -> bool:
        under_way = backlogs.size + engine.under_way
        self.full = kept + under_way > self.limit
        return self.full and under_way > self.mark
