"""How a server's loop shares its time: what one turn may cost, and who has to wait for the next.

A turn reads the input of peers that are ready, then resumes peers that had to wait, then sends what is queued. Each of
these has some milliseconds. Peers that are left over come first in the next turn, before the loop looks which others
are ready: so every peer has its turn, however many there are, and no turn lasts long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

__all__ = ["CLOSE_TIME", "FEW", "READ_TIME", "RESUME_TIME", "SEND_TIME", "Turns"]

READ_TIME: Final = 0.015
"""Seconds after which no further peer is read in a turn."""

RESUME_TIME: Final = 0.023
"""Seconds after which no further peer is resumed."""

CLOSE_TIME: Final = 0.027
"""Seconds after which no further peer is closed whose time is over."""

SEND_TIME: Final = 0.039
"""Seconds after which nothing more is sent."""

FEW: Final = 4
"""Peers that do not take long, and are not worth a look at the clock."""

_WORK: Final = 2048  # requests; about 10 ms
_LEAST_WORK: Final = 16  # requests of one peer
_CROWD: Final = 16  # from this many peers on, each is read in small pieces
_MAX_READ: Final = 256 * 1024  # bytes
_MIN_READ: Final = 64 * 1024

_Ready = TypeVar("_Ready")


class Turns(Generic[_Ready]):
    """One turn after the other.

    Attributes:
        waiting: who was ready in an earlier turn, and has not had its turn yet.
        unsent: whether a turn has left something unsent for the next.
        busy: how many peers share a turn.
        work_limit: requests of one peer in a turn.
        max_read: bytes to read from one peer in a turn.
    """

    __slots__ = ("busy", "max_read", "unsent", "waiting", "work_limit")

    def __init__(self) -> None:
        """Begin with nobody."""
        self.waiting: Sequence[_Ready] = ()
        self.unsent = False
        self.begin(0)

    def begin(self, busy: int) -> None:
        """Share the coming turns among this many peers."""
        self.busy = busy
        self.work_limit = max(_LEAST_WORK, _WORK // (busy or 1))
        self.max_read = _MAX_READ if busy < _CROWD else _MIN_READ
