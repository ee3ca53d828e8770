"""Which sockets are ready: with epoll where there is one, as it costs half of what `selectors` makes of it.

A poll tells of some sockets that are ready, not of all: what a turn costs must not depend on how many peers there are.
"""

from __future__ import annotations

import select
import selectors
import sys
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["READ", "WRITE", "Poller", "SelectorPoller"]

READ: Final = selectors.EVENT_READ
"""The socket can be read, or has failed."""

WRITE: Final = selectors.EVENT_WRITE
"""The socket can be written, or has failed."""

_Item = TypeVar("_Item")


class HasFileno(Protocol):
    """What can be watched: sockets, and what has one."""

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        ...


class SelectorPoller(Generic[_Item]):
    """Watches sockets, on any system."""

    def __init__(self) -> None:
        """Begin with no sockets."""
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        """Return a descriptor that is readable as long as a socket is ready. Not on every system."""
        return self._selector.fileno()

    def register(self, sock: HasFileno, events: int, item: _Item) -> None:
        """Watch a socket, which `poll` calls by an item."""
        self._selector.register(sock, events, item)

    def modify(self, sock: HasFileno, events: int, item: _Item) -> None:
        """Watch a socket for something else; 0 for nothing."""
        self._selector.modify(sock, events, item)

    def unregister(self, sock: HasFileno) -> None:
        """Watch a socket no longer."""
        self._selector.unregister(sock)

    def poll(self, timeout: float | None) -> list[tuple[_Item, int]]:
        """Wait until a socket is ready, or some seconds, and return items with what their sockets are ready for."""
        return [(key.data, events) for key, events in self._selector.select(timeout)]

    def close(self) -> None:
        """Watch nothing any more."""
        self._selector.close()


if sys.platform == "linux":
    _MOST: Final = 512  # sockets of which one poll tells; the others come first in the next
    _TO_EPOLL: Final = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)
    _FROM_EPOLL: Final = {bits: events for events, bits in enumerate(_TO_EPOLL)}
    _FAILED: Final = READ | WRITE

    class Poller(SelectorPoller[_Item]):
        """Watches sockets."""

        def __init__(self) -> None:
            """Begin with no sockets."""
            self._epoll = select.epoll()
            self._items: dict[int, _Item] = {}

        def fileno(self) -> int:
            """Return the descriptor of epoll."""
            return self._epoll.fileno()

        def register(self, sock: HasFileno, events: int, item: _Item) -> None:
            """Watch a socket, which `poll` calls by an item."""
            self._epoll.register(sock, _TO_EPOLL[events])
            self._items[sock.fileno()] = item

        def modify(self, sock: HasFileno, events: int, item: _Item) -> None:
            """Watch a socket for something else; 0 for nothing."""
            self._epoll.modify(sock, _TO_EPOLL[events])
            self._items[sock.fileno()] = item

        def unregister(self, sock: HasFileno) -> None:
            """Watch a socket no longer."""
            del self._items[sock.fileno()]
            self._epoll.unregister(sock)

        def poll(self, timeout: float | None) -> list[tuple[_Item, int]]:
            """Wait until a socket is ready, or some seconds; tell of some that are ready."""
            items = self._items
            found = self._epoll.poll(timeout, _MOST)
            if len(found) == 1:  # as if one job comes at a time; a comprehension would be 1 % of it
                ((descriptor, bits),) = found
                return [(items[descriptor], _FROM_EPOLL.get(bits, _FAILED))]
            return [(items[descriptor], _FROM_EPOLL.get(bits, _FAILED)) for descriptor, bits in found]

        def close(self) -> None:
            """Watch nothing any more."""
            self._epoll.close()

else:
    Poller = SelectorPoller  # pyright: ignore[reportAssignmentType]  (the same methods)
