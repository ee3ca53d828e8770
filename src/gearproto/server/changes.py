"""What an endpoint tells its driver to do, apart from sending."""

from __future__ import annotations

from typing import TypeAlias

from gearproto.event import Event, event

from .events import JobChanged, JobGivenUp, PeerFailed, ShutdownRequested
from .jobs import PeerId

__all__ = [
    "Change",
    "Close",
    "CloseWrite",
    "MemoryLimitReached",
    "PauseReading",
    "PeerGivenUp",
    "ResumeReading",
    "Stopped",
    "TrimMemory",
]


@event
class Close(Event):
    """Close a connection. The endpoint does not know the peer any more.

    Attributes:
        peer: the peer.
        reason: why, as text.
        unread: bytes of output that the transport has not taken. With TLS, say ``close_notify`` only if there are none.
    """

    peer: PeerId
    reason: str
    unread: int


@event
class CloseWrite(Event):
    """Shut down the sending side of a connection: the peer has been sent everything. `Close` follows.

    Attributes:
        peer: the peer.
    """

    peer: PeerId


@event
class PauseReading(Event):
    """Stop reading from a peer until `ResumeReading`.

    Attributes:
        peer: the peer.
    """

    peer: PeerId


@event
class ResumeReading(Event):
    """Read from a peer again.

    Attributes:
        peer: the peer.
    """

    peer: PeerId


@event
class PeerGivenUp(Event):
    """A peer reads too little, or makes the server store too much. `Close` follows.

    Attributes:
        peer: the peer.
        reason: what it has exceeded, as text.
    """

    peer: PeerId
    reason: str


@event
class MemoryLimitReached(Event):
    """Nothing new is accepted because of the limit on memory; or it is accepted again.

    Attributes:
        full: whether the limit is reached.
        limit: the limit in bytes.
    """

    full: bool
    limit: int


@event
class TrimMemory(Event):
    """The server is idle, and stores much less than before. Return memory to the system, if you can."""


@event
class Stopped(Event):
    """The server has stopped: close every connection."""


Change: TypeAlias = (
    Close
    | CloseWrite
    | PauseReading
    | ResumeReading
    | PeerFailed
    | PeerGivenUp
    | MemoryLimitReached
    | TrimMemory
    | ShutdownRequested
    | JobGivenUp
    | JobChanged
    | Stopped
)
"""What `Endpoint.changes` holds."""
