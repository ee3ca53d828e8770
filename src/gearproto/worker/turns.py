"""Which of several servers a worker asks for a job next, and how long it waits for their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Generic, TypeVar

from .cycle import Grab

__all__ = ["GrabTurns"]

_C = TypeVar("_C")


class GrabTurns(Generic[_C]):
    """The connections of a worker, in the order in which they are asked for jobs.

    A connection that has been asked may bring a job, so no other one is asked in its place. If it takes longer than the
    timeout to answer, it no longer counts, because it may hang.
    """

    def __init__(self, state: Callable[[_C], Grab], timeout: float) -> None:
        """Begin without connections.

        Args:
            state: tells where a connection is in its cycle.
            timeout: seconds that a server may take to answer before others are asked in its place.
        """
        self._state = state
        self._timeout = timeout
        self._order: dict[_C, None] = {}  # those that were asked longest ago come first
        self._awaited: dict[_C, float] = {}  # those that were asked, and the time until which their answers count

    def __iter__(self) -> Iterator[_C]:
        """Return the connections, in their order."""
        return iter(self._order)

    def add(self, conn: _C) -> None:
        """Let a connection take part, as the last."""
        self._order[conn] = None

    def remove(self, conn: _C) -> None:
        """Forget a connection that has ended, if it takes part."""
        self._order.pop(conn, None)
        self._awaited.pop(conn, None)

    @property
    def awaiting(self) -> bool:
        """Whether an answer was awaited when `take` was called last."""
        return bool(self._awaited)

    def take(self, wanted: int, now: float, may_ask: Callable[[_C], bool]) -> list[_C]:
        """Return the connections to ask now; they count as asked.

        Args:
            wanted: how many jobs the worker can still run. Those that may be on their way are taken off.
            now: monotonic time in seconds.
            may_ask: tells whether an idle connection may be asked.
        """
        awaited, state = self._awaited, self._state
        if awaited:
            for conn, until in list(awaited.items()):
                if until <= now or state(conn) is not Grab.ASKED:
                    del awaited[conn]
        free = wanted - len(awaited)
        if free <= 0:
            return []
        idle = (conn for conn in self._order if state(conn) is Grab.IDLE and may_ask(conn))
        asked = list(islice(idle, free))
        for conn in asked:
            del self._order[conn]
            self._order[conn] = None
            awaited[conn] = now + self._timeout
        return asked

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which `take` has to be called next; None if never."""
        return min(self._awaited.values()) if self._awaited else None
