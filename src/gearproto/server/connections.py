"""A connection as an endpoint keeps it."""

from __future__ import annotations

from .backlog import Backlog
from .jobs import PeerId

__all__ = ["Connection"]


class Connection:
    """The state of one connection, apart from the requests that the engine serves.

    Attributes:
        id: what the peer is called.
        backlog: the output that the transport has not taken yet; None if there is none.
        rest: the part of it that comes first: what the transport has left of a piece.
        pending: output that is judged once the transport has been tried again; None if there is none.
        queued: whether the transport is tried again without waiting until it can take more.
        taken: bytes of the backlog that the transport has taken in this turn.
        reading: whether the driver reads from the peer, as far as it has been told.
        ended: whether the peer sends no more.
        leave_at: when it is closed at the latest because it has broken the protocol; None if it has not.
    """

    __slots__ = (
        "backlog",
        "ended",
        "id",
        "leave_at",
        "pending",
        "queued",
        "reading",
        "rest",
        "taken",
    )

    def __init__(self, id_: PeerId) -> None:
        """Begin with a peer that has just connected."""
        self.id = id_
        self.backlog: Backlog | None = None
        self.rest: bytes | memoryview = b""
        self.pending: list[bytes] | None = None
        self.queued = False
        self.taken = 0
        self.reading = True
        self.ended = False
        self.leave_at: float | None = None
