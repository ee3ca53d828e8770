"""How long to leave a server alone before the next attempt to connect to it."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["Backoff"]

FIRST_PAUSE: Final = 0.1
"""Seconds to wait when a server has been lost soon after it was found, or cannot be found for the first time."""

LONGEST_PAUSE: Final = 2.0
"""Seconds that no pause is longer than; also how long a connection has to last to count as a good one."""


class Backoff:
    """The pauses between attempts to connect to one server: each up to twice as long as the one before."""

    def __init__(self) -> None:
        """Begin with a server that has not been tried."""
        self._failures = 0
        self._connected_at: float | None = None

    def connected(self, now: float) -> None:
        """Take note that a connection has been opened, at a monotonic time in seconds."""
        self._connected_at = now

    def failed(self, now: float) -> float:
        """Take note that a connection was lost, or could not be opened.

        Args:
            now: monotonic time in seconds.

        Returns:
            How many seconds to wait before the next attempt: none where a good connection was lost.
        """
        since, self._connected_at = self._connected_at, None
        if since is not None and now - since >= LONGEST_PAUSE:
            self._failures = 0
            return 0.0
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return pause * random.uniform(0.5, 1.0)
