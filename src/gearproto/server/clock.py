"""The time, as all parts of an engine know it."""

from __future__ import annotations

__all__ = ["Clock"]


class Clock:
    """The time of the call that an engine is dealing with. Its driver tells it; nothing here reads a clock.

    Attributes:
        now: monotonic time in seconds.
        epoch_offset: what to add to it to get seconds since 1970.
    """

    __slots__ = ("epoch_offset", "now")

    def __init__(self, epoch_offset: float) -> None:
        """Begin at no time."""
        self.now = 0.0
        self.epoch_offset = epoch_offset
