"""What moves bytes between a transport and a connection of the core, and what both kinds of it share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import anyio
import anyio.lowlevel

from gearproto.connection import Connection

__all__ = ["Backpressure", "Link", "Pause", "keep_time"]

_FULL: Final = 65536  # bytes of output from which on tasks that make more have to wait, and let others run


class Link(Protocol):
    """A transport and the connection that speaks over it."""

    conn: Connection
    """The connection; after each call to it, call `settle`."""
    error: Exception | None
    """What the transport has failed with; None if it has not."""

    @property
    def paused(self) -> bool:
        """Whether nothing is to be read now."""
        ...

    def pause(self) -> None:
        """Read nothing, until `resume`; from callbacks of the event loop too."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...

    async def wait_until_resumed(self) -> None:
        """Wait while nothing is to be read."""
        ...

    def settle(self) -> None:
        """Hand out all events, and let the output be sent."""
        ...

    def look(self) -> None:
        """Read some of what has come since the event loop looked, if the transport can tell without waiting."""
        ...

    def close(self, reason: str) -> None:
        """End the connection; what is open on it ends now, and `run` soon."""
        ...

    @property
    def full(self) -> bool:
        """Whether much output waits to be sent."""
        ...

    async def wait_while_full(self) -> None:
        """Wait while much output waits to be sent, so that nothing is made faster than the network takes it."""
        ...

    async def wait_until_sent(self, timeout: float) -> None:
        """Wait until all output has left, the connection has ended, or nothing has left for ``timeout`` seconds."""
        ...

    async def run(self) -> None:
        """Move bytes until the connection has ended; then close the transport."""
        ...


class Backpressure:
    """Where tasks wait until there is less output."""

    def __init__(self, size: Callable[[], int]) -> None:
        """Begin with a function that tells how much output there is, in bytes; 0 when the connection has ended."""
        self._size = size
        self._changed: anyio.Event | None = None

    @property
    def full(self) -> bool:
        """Whether there is so much output that tasks that make more have to wait."""
        return self._size() >= _FULL

    async def wait_while_full(self) -> None:
        """Wait until there is little enough output for more."""
        await self.wait_until_below(_FULL)

    async def wait_until_below(self, size: int) -> None:
        """Wait until there is less output than ``size`` bytes."""
        while self._size() >= size:
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()

    async def wait_until_empty(self, timeout: float) -> None:
        """Wait until there is no output, or it has not become less for ``timeout`` seconds."""
        while size := self._size():
            with anyio.move_on_after(timeout):
                await self.wait_until_below(size)
            if self._size() >= size:
                return

    def changed(self) -> None:
        """Wake the tasks that wait, to look again."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None


class Pause:
    """Whether something is paused, and where tasks wait until it is resumed.

    Attributes:
        on: whether it is paused.
    """

    def __init__(self) -> None:
        """Begin without a rest."""
        self.on = False
        self._over: anyio.Event | None = None

    def end(self) -> None:
        """Resume."""
        self.on = False
        if self._over is not None:
            self._over.set()
            self._over = None

    async def wait_until_over(self) -> None:
        """Wait while it rests."""
        while self.on:
            if self._over is None:
                self._over = anyio.Event()
            await self._over.wait()


async def keep_time(link: Link) -> None:
    """Do what is due on a connection, until it has ended."""
    while True:
        await link.wait_until_resumed()
        deadline = link.conn.next_deadline()
        if deadline is None:
            return
        await anyio.sleep_until(deadline)
        await anyio.lowlevel.checkpoint()  # what has come by now is read before: the event loop may have been held up
        link.conn.handle_timeout(anyio.current_time())
        link.settle()
