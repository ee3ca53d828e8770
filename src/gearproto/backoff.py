"""When to try a server again that could not be reached, or was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["DEFAULT_PAUSES", "Backoff"]

DEFAULT_PAUSES: Final = (0.1, 0.8)
"""Seconds of the first pause and of the longest: short enough that peers are back within a second of the server."""

_FACTOR: Final = 2.0
_JITTER: Final = 0.25  # the part of a pause that chance may take away
_PATIENCE: Final = 4.0  # a server that failed slowly is left alone for so many times as long


class Backoff:
    """The pauses between attempts to connect to one server: each twice as long as the one before, up to a limit.

    Attributes:
        retry_at: monotonic time in seconds before which the server should be left alone; 0 while it is in order.
    """

    __slots__ = ("_chance", "_connected_at", "_first", "_longest", "_pause", "retry_at")

    def __init__(self, chance: Callable[[], float], pauses: tuple[float, float] = DEFAULT_PAUSES) -> None:
        """Begin without a pause.

        Args:
            chance: returns a random number from 0 to 1, so that many peers of a server do not all come back at once.
            pauses: seconds of the first pause, and of the longest. Chance makes a pause up to a quarter shorter.

        Raises:
            ValueError: a pause is not above 0, or the longest is shorter than the first.
        """
        first, longest = pauses
        if not 0 < first <= longest:
            raise ValueError(f"the first pause of {first:g} s and the longest of {longest:g} s make no sense")
        self._chance = chance
        self._first = self._pause = first
        self._longest = longest
        self._connected_at: float | None = None
        self.retry_at = 0.0

    def connected(self, now: float) -> None:
        """Take note that the server was reached."""
        self._connected_at = now

    def failed(self, now: float, took: float = 0.0) -> None:
        """Take note that the server could not be reached, or that its connection was lost.

        A connection that has held for longer than any pause may be opened again at once, and the pauses begin anew;
        one that is closed soon counts as a failure like any other.

        Args:
            now: monotonic time in seconds.
            took: seconds that somebody had to wait for the failure.
        """
        held = None if self._connected_at is None else now - self._connected_at
        self._connected_at = None
        if held is not None and held > self._longest:
            self._pause = self._first
            self.retry_at = now
            return
        pause = self._pause * (1 - _JITTER * self._chance())
        self.retry_at = now + max(pause, _PATIENCE * took)
        self._pause = min(_FACTOR * self._pause, self._longest)
