"""A heap of deadlines from which entries can be taken back.

An entry that is taken back stays in the heap until it comes to the top, or until the heap is swept: once half of it is
such entries, it becomes the old heap, and each further call moves a few of the others to a new one. So no call takes
long, however much there is.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, Generic, TypeVar

__all__ = ["Deadline", "Deadlines"]

T = TypeVar("T")

_SLACK: Final = 64  # as many cancelled entries are not worth a sweep
_AT_ONCE: Final = 8  # entries of the old heap that each call moves
_AT_TOP: Final = 64  # cancelled entries that each call takes from the top


class Deadline(Generic[T]):
    """One entry.

    Attributes:
        item: what is due; None once cancelled or due.
    """

    __slots__ = ("item",)

    def __init__(self, item: T) -> None:
        """Make an entry."""
        self.item: T | None = item


class Deadlines(Generic[T]):
    """Items and their times. Adding and cancelling cost O(log n), and few cancelled entries are kept.

    Attributes:
        heap: where most items are.
        old: where the others are. There is nothing if both are empty, which costs less to see than any call.
    """

    __slots__ = ("_cancelled", "_last", "heap", "old")

    def __init__(self) -> None:
        """Begin empty."""
        self.heap: list[tuple[float, int, Deadline[T]]] = []  # the number orders entries of the same time by age
        self.old: list[tuple[float, int, Deadline[T]]] = []
        self._cancelled = 0
        self._last = 0

    def __len__(self) -> int:
        """Count the items."""
        return len(self.heap) + len(self.old) - self._cancelled

    def add(self, when: float, item: T) -> Deadline[T]:
        """Add an item that is due at a time; return the entry, which `cancel` takes."""
        self._last += 1
        entry = Deadline(item)
        heappush(self.heap, (when, self._last, entry))
        return entry

    def cancel(self, entry: Deadline[T]) -> None:
        """Take an entry back. One that is cancelled or was due already stays so."""
        if entry.item is None:
            return
        entry.item = None
        self._cancelled += 1
        if self.old:
            self._move_some()
        elif self._cancelled > _SLACK + len(self.heap) // 2:
            self.old, self.heap = self.heap, []

    def _move_some(self) -> None:
        """Take some entries from the end of the old heap, which leaves a heap, and keep those that count."""
        for _ in range(min(_AT_ONCE, len(self.old))):
            entry = self.old.pop()
            if entry[2].item is None:
                self._cancelled -= 1
            else:
                heappush(self.heap, entry)

    def _top(self) -> list[tuple[float, int, Deadline[T]]]:
        """Return the heap with the earliest entry, from which some cancelled ones have been taken."""
        heap = self.heap
        for _ in range(_AT_TOP):
            heap, old = self.heap, self.old
            if old and (not heap or old[0] < heap[0]):
                heap = old
            if not heap or heap[0][2].item is not None:
                break
            heappop(heap)
            self._cancelled -= 1
        return heap

    def next(self) -> float | None:
        """Return the earliest time; or one before it, if very much has been cancelled. None if there is nothing."""
        heap = self._top()
        return heap[0][0] if heap else None

    def peek(self) -> T | None:
        """Return the earliest item, or None if there is nothing."""
        while heap := self._top():
            if (item := heap[0][2].item) is not None:
                return item
        return None

    def pop_due(self, now: float, offset: float = 0.0) -> T | None:
        """Take out the earliest item if it is due.

        Args:
            now: the time.
            offset: what the times of the items are ahead of it.

        Returns:
            None if there is nothing due; or so much has been cancelled that it is better to look later again.
        """
        heap = self.heap
        if self.old or not heap or heap[0][2].item is None:
            heap = self._top()
            if not heap or heap[0][2].item is None:
                return None
        if heap[0][0] - offset > now:
            return None
        entry = heappop(heap)[2]
        item, entry.item = entry.item, None
        return item
