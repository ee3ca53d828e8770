"""A virtual clock, on which things happen at their time and no time passes in between."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf

__all__ = ["VirtualClock"]


class VirtualClock:
    """Virtual time, and what happens when.

    The clock is a function too: calling it returns the time, so it goes wherever ``time.monotonic`` goes.

    >>> clock = VirtualClock()
    >>> clock.after(60, lambda: print("a minute has passed"))
    >>> clock.advance(90)
    a minute has passed
    >>> clock()
    90.0

    Attributes:
        now: monotonic time in seconds.
    """

    __slots__ = ("_actions", "_numbers", "now")

    def __init__(self, now: float = 0.0) -> None:
        """Begin at a time, with nothing to come."""
        self.now = now
        self._numbers = count()
        self._actions: list[tuple[float, int, Callable[[], object]]] = []

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Let something happen at a time, or now if that has passed; what was asked for first comes first."""
        heappush(self._actions, (max(when, self.now), next(self._numbers), action))

    def after(self, delay: float, action: Callable[[], object]) -> None:
        """Let something happen some seconds from now."""
        self.at(self.now + delay, action)

    def next(self) -> float:
        """Return when something happens next; infinity for never."""
        return self._actions[0][0] if self._actions else inf

    def step(self) -> None:
        """Let the next thing happen, and be its time."""
        when, _number, action = heappop(self._actions)
        self.now = max(self.now, when)
        action()

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due meanwhile."""
        end = self.now + seconds
        while self.next() <= end:
            self.step()
        self.now = end
