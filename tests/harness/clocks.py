"""A clock that tests put forward: real time, and on top of it what a test skips."""

from __future__ import annotations

import time

import pytest
import trio.abc

__all__ = ["SkippingClock"]


class SkippingClock(trio.abc.Clock):
    """Time that goes on by itself, so that what waits goes on waiting, and in leaps.

    A test that would have to take longer than a time limit skips so much time instead, and gives what must not take
    longer a limit that no slow machine reaches.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it in the place of `time.monotonic`, which asyncio asks, too; trio has to be given it (``clock``)."""
        self._skipped = 0.0
        self._real = time.monotonic
        monkeypatch.setattr(time, "monotonic", self.current_time)

    def skip(self, seconds: float) -> None:
        """Put the clock forward. Called in any thread; who sleeps meanwhile sees it when it wakes up."""
        self._skipped += seconds

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self._real() + self._skipped

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.current_time()
