"""Lists that are gone through in steps while things come and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar, cast

__all__ = ["Linked", "LinkedList"]

_STEP: Final = 32


class Linked:
    """What a `LinkedList` may hold: it knows its neighbours there. Their types are left open, as they may be marks."""

    __slots__ = ("after", "before")

    before: Any
    after: Any


class _Mark(Linked):
    """The end of a list, which is its beginning too, or the place of a walk."""

    __slots__ = ()


T = TypeVar("T", bound=Linked)


class LinkedList(Generic[T]):
    """Things in the order in which they came. Adding and removing cost next to nothing.

    A walk through the list may rest for as long as it likes, and keeps no more than a few things meanwhile: its place
    is a mark in the list.

    Attributes:
        end: the mark behind the last thing, and before the first.
    """

    __slots__ = ("end",)

    def __init__(self) -> None:
        """Begin empty."""
        self.end = end = _Mark()
        end.before = end.after = end

    def add(self, item: T) -> None:
        """Add something that is in no such list."""
        _insert(item, self.end)

    def remove(self, item: T) -> None:
        """Remove something that is in the list."""
        _take_out(item)

    def walk(self, count: int) -> Iterator[T]:
        """Go through the list from its beginning. Things may be added and removed between two steps.

        Args:
            count: how many things there are. So the walk ends although more of them may come.
        """
        place = _Mark()
        _insert(place, self.end.after)
        try:
            while count > 0 and (some := self._behind(place, min(count, _STEP))):
                count -= len(some)
                for item in some:
                    if item.after is not None:
                        yield item
        finally:
            _take_out(place)

    def _behind(self, place: _Mark, count: int) -> list[T]:
        """Return the next things behind a place, and move it behind them."""
        some: list[T] = []
        item, end = place.after, self.end
        while item is not end and len(some) < count:
            if not isinstance(item, _Mark):
                some.append(cast("T", item))
            item = item.after
        _take_out(place)
        _insert(place, item)
        return some


def _insert(item: Linked, after: Linked) -> None:
    before = after.before
    item.before, item.after = before, after
    before.after = after.before = item


def _take_out(item: Linked) -> None:
    before, after = item.before, item.after
    before.after, after.before = after, before
    item.before = item.after = None  # otherwise things that have gone would keep each other
