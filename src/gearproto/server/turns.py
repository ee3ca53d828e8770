"""How a server's loop shares its time: what one turn may cost, and who has to wait for the next.

A turn reads the input of peers that are ready, then resumes peers that had to wait, then sends what is queued. Reading
and sending have some milliseconds each; the other steps are counted. Peers that are left over come first in the next
turn, before the loop looks which others are ready: so every peer has its turn, however many there are, and no turn
lasts long.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CLOSES", "FEW", "READ_TIME", "SEND_TIME", "Turns"]

READ_TIME: Final = 0.015
"""Seconds after which no further peer is read in a turn."""

SEND_TIME: Final = 0.039
"""Seconds after which nothing more is sent."""

FEW: Final = 4
"""Peers that do not take long, and are not worth a look at the clock."""

CLOSES: Final = 64
"""Peers that are closed in a turn because their time is over."""

_WORK: Final = 2048  # requests; about 10 ms
_RESUMED: Final = _WORK // 3  # requests of peers that had to wait
_LEAST_WORK: Final = 16  # requests of one peer
_CROWD: Final = 16  # from this many peers on, each is read in small pieces
_MAX_READ: Final = 256 * 1024  # bytes
_MIN_READ: Final = 64 * 1024


class Turns:
    """What the peers may have of a turn.

    Attributes:
        busy: how many peers share a turn.
        work_limit: requests of one peer in a turn.
        resumes: peers that are resumed in a turn.
        max_read: bytes to read from one peer in a turn.
    """

    __slots__ = ("busy", "max_read", "resumes", "work_limit")

    def __init__(self) -> None:
        """Begin with nobody."""
        self.begin(0)

    def begin(self, busy: int) -> None:
        """Share the coming turns among this many peers."""
        self.busy = busy
        self.work_limit = max(_LEAST_WORK, _WORK // (busy or 1))
        self.resumes = max(FEW, _RESUMED // self.work_limit)
        self.max_read = _MAX_READ if busy < _CROWD else _MIN_READ
