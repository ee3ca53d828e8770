"""Jobs whose events are consumed as they come, and what they may hold unread.

The events of such a job are in a `StreamLog`. It drops what every open cursor has passed; before the first cursor is
opened it keeps all, and when the last one is left it drops all and keeps nothing more. All logs of a client share one
`Unread`, which counts what they hold. While that is over its limit, a connection that has such jobs open is not read,
see `gearproto.client.OpenRequests`.

Cursors may be left at any time, in any thread, even by the garbage collector. So leaving one only leaves word; the
account is balanced when somebody asks for it.
"""

from __future__ import annotations

from collections import deque
from typing import Final
from weakref import ref

from gearproto.events import Data, Warned
from gearproto.options import whole_number

from .job_events import Cursor, EventLog, JobEvent, Step

__all__ = ["DEFAULT_MAX_UNREAD", "StreamLog", "Unread"]

DEFAULT_MAX_UNREAD: Final = 16 * 1024 * 1024
"""Most bytes that the jobs of a client that stream hold unread by default."""

_EVENT_SIZE: Final = 128  # bytes that an event takes in addition to its data, about: empty pieces take memory too


class Unread:
    """What the jobs of one client that stream hold unread.

    Attributes:
        limit: bytes from which on no more is read.
    """

    __slots__ = ("_dropped", "_left", "_size", "limit")

    def __init__(self, limit: int) -> None:
        """Begin with nothing.

        Raises:
            ValueError: the limit is not a whole number of 0 or more.
        """
        self.limit = whole_number("max_unread", limit, 0)
        self._size = 0
        self._left: deque[ref[StreamLog]] = deque()  # logs of which a cursor has been left
        self._dropped: deque[int] = deque()  # sizes of logs that nobody has any more

    def charge(self, size: int) -> None:
        """Add this many bytes to the count; a negative number takes them off."""
        self._size += size

    def left(self, log: StreamLog) -> None:
        """Record that a cursor of a log has been left."""
        self._left.append(ref(log))

    def dropped(self, size: int) -> None:
        """Record that a log that held this many bytes is gone."""
        self._dropped.append(size)

    @property
    def size(self) -> int:
        """How many bytes are held."""
        while self._left:
            if (log := self._left.popleft()()) is not None:
                log.trim()
        while self._dropped:
            self._size -= self._dropped.popleft()
        return self._size

    @property
    def full(self) -> bool:
        """Whether more than the limit is held."""
        return self.size > self.limit


class StreamLog(EventLog):
    """The events of a job that are still to be consumed.

    Attributes:
        unread: counts what it holds.
    """

    __slots__ = ("__weakref__", "_cursors", "_over", "_size", "_told", "unread")

    def __init__(self, unread: Unread) -> None:
        """Begin without events, and without cursors."""
        super().__init__()
        self.unread = unread
        self._events = deque()  # it shrinks at its beginning
        self._size = 0
        self._cursors: dict[Cursor, None] = {}
        self._over = False  # whether the last cursor has been left
        self._told = False  # whether word has been left that a cursor has been left

    def __del__(self) -> None:
        if self._size:
            self.unread.dropped(self._size)

    @property
    def consumed(self) -> bool:
        """Whether it holds something that an open cursor has yet to pass."""
        self.trim()
        return bool(self._events and self._cursors)

    def open(self, cursor: Cursor) -> None:
        """Keep what a cursor has not passed."""
        self._cursors[cursor] = None

    def cursor_left(self) -> None:
        """Leave word that a cursor has been left."""
        if not self._told:
            self._told = True
            self.unread.left(self)

    def passed(self) -> None:
        """Drop what every open cursor has passed."""
        self.trim()

    def trim(self) -> None:
        """Forget the cursors that have been left, and drop what no other needs."""
        self._told = False
        left = [cursor for cursor in list(self._cursors) if cursor.closed]
        for cursor in left:
            del self._cursors[cursor]
        if self._cursors:
            first = min(cursor.at for cursor in list(self._cursors))
            while self._first < first:
                self._charge(-_size(self._events[0]))
                del self._events[0]
                self._first += 1
        elif any(cursor.discards for cursor in left):
            self._over = True
            self._clear()

    def add(self, event: JobEvent) -> None:
        """Add the newest event; once the last cursor has been left, pieces and warnings are dropped."""
        if not self._over or not isinstance(event, Data | Warned):
            super().add(event)

    def _append(self, event: JobEvent | Step) -> None:
        super()._append(event)
        self._charge(_size(event))

    def _clear(self) -> None:
        super()._clear()
        self._charge(-self._size)

    def _charge(self, size: int) -> None:
        self._size += size
        self.unread.charge(size)


def _size(event: JobEvent | Step) -> int:
    return _EVENT_SIZE + (len(event.data) if isinstance(event, Data | Warned) else 0)
