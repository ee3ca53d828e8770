"""A heap of deadlines from which entries can be taken back."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

__all__ = ["Deadline", "Deadlines"]

T = TypeVar("T")

_SLACK: Final = 64
"""So many cancelled entries are not worth a sweep."""


class Deadline(Generic[T]):
    """One entry: an item and its time.

    Attributes:
        when: monotonic time in seconds.
        item: what is due then; None once cancelled or due.
    """

    __slots__ = ("_number", "item", "when")

    def __init__(self, when: float, number: int, item: T) -> None:
        """Make an entry; the number parts entries of the same time."""
        self.when = when
        self._number = number
        self.item: T | None = item

    def __lt__(self, other: Deadline[T]) -> bool:
        """Order by time, then by age."""
        return (self.when, self._number) < (other.when, other._number)


class Deadlines(Generic[T]):
    """Items and their times. Adding and cancelling cost O(log n), and cancelled entries never outnumber the others."""

    __slots__ = ("_cancelled", "_heap", "_last")

    def __init__(self) -> None:
        """Begin empty."""
        self._heap: list[Deadline[T]] = []
        self._cancelled = 0
        self._last = 0

    def __len__(self) -> int:
        """Count the items."""
        return len(self._heap) - self._cancelled

    def add(self, when: float, item: T) -> Deadline[T]:
        """Add an item that is due at a time; return the entry, which `cancel` takes."""
        self._last += 1
        entry = Deadline(when, self._last, item)
        heappush(self._heap, entry)
        return entry

    def cancel(self, entry: Deadline[T]) -> None:
        """Take an entry back. One that is cancelled or was due already stays so."""
        if entry.item is None:
            return
        entry.item = None
        self._cancelled += 1
        if self._cancelled > _SLACK + len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry.item is not None]
            heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float | None:
        """Return the earliest time, or None if there is nothing."""
        heap = self._heap
        while heap and heap[0].item is None:
            heappop(heap)
            self._cancelled -= 1
        return heap[0].when if heap else None

    def peek(self) -> T | None:
        """Return the earliest item, or None if there is nothing."""
        return None if self.next() is None else self._heap[0].item

    def pop(self) -> T:
        """Take out the earliest item, which `next` has found."""
        entry = heappop(self._heap)
        item, entry.item = entry.item, None
        assert item is not None
        return item

    def pop_due(self, now: float) -> T | None:
        """Take out the earliest item if it is due."""
        when = self.next()
        return None if when is None or when > now else self.pop()
