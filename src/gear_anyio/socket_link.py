"""Moves bytes between a socket and a connection of the core.

Theory of operation. `gear_net.link.Link` reads and writes; `SocketLink` decides when. A link is in one of three states:

- joined: nothing watches its socket yet. `SocketLink.settle` hands out events, and output waits for `SocketLink.run`.
- running: a driver in `SocketLink.run` watches the socket, with the event loop's own calls on asyncio and with anyio's
  elsewhere.
- closed: `SocketLink.close` ends the driver. `run` then closes the socket, once nothing watches it any more: event
  loops must not watch a closed descriptor, whose number another socket may have by then.

Output leaves in one of three ways. The first output after something was read is sent at once. Further output is held,
and all sent together in the next turn of the event loop. What the socket does not take is sent when it is ready again.

What never happens:

- Output stays behind with nothing that will send it: `settle` either sends it or asks for another turn of the event
  loop, in which the driver also begins to watch for what the socket has not taken.
- A cancelled caller truncates a packet: nothing is awaited while a packet is sent.
- What a callback of the event loop raises is lost: `run` raises it.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable
from typing import Final

import anyio
import anyio.abc

import gear_net.link
from gear_net.tunnel import TLSSocket
from gearproto.connection import Connection
from gearproto.event import Event

from .eventloop import asyncio_loop, clock
from .link import Backpressure, Pause, keep_time

__all__ = ["SocketLink"]

_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE


class SocketLink(gear_net.link.Link):
    """A socket, read and written directly: event loops only tell when it is ready.

    The first output after something was read is sent at once; what is made after it is sent all together in the next
    turn of the event loop: a little output does not have to wait, and much output takes few system calls.
    """

    def __init__(
        self,
        sock: socket.socket | TLSSocket,
        conn: Connection,
        on_event: Callable[[Event], object],
        on_read: Callable[[], object] | None = None,
    ) -> None:
        """Join the two; see `gear_anyio.connecting.join`."""
        self._pause = Pause()
        super().__init__(sock, conn, on_event, clock())
        self._on_read = on_read
        self._backpressure = Backpressure(lambda: 0 if self.closed else self.unsent_size)
        self._sent = False  # since something was read
        self._held = False  # output waits for the next turn of the event loop
        self._driver: _AsyncioDriver | _WaitingDriver | None = None

    @property
    def paused(self) -> bool:
        """Whether nothing is to be read now."""
        return self._pause.on

    def pause(self) -> None:
        """Read nothing, until `resume`; from callbacks of the event loop too."""
        self._pause.on = True

    def resume(self) -> None:
        """Read on."""
        self._pause.end()
        if self._driver is not None:
            self._driver.call_next_turn()  # to watch the socket again

    async def wait_until_resumed(self) -> None:
        """Wait while nothing is to be read."""
        await self._pause.wait_until_over()

    def settle(self) -> None:
        """Hand out all events, and let the output be sent."""
        if self.closed:
            return
        if self._driver is not None and not self._sent:
            self._sent = bool(self.conn.output_size)
            super().settle()
        else:
            self.drain()
            if self.conn.closed:
                self.close("closed")
        # What the socket has not taken needs somebody who watches it, as what is held needs somebody who sends it.
        if self._driver is not None and not self._held and (self.sending or self.conn.output_size):
            self._held = True
            self._driver.call_next_turn()  # also to watch the socket, where it has not taken all

    def on_ready(self, events: int) -> None:
        """Read and write as far as the socket is ready."""
        self._sent = False
        super().on_ready(events)
        self._sent = False
        if events & _READ and self._on_read is not None:
            self._on_read()
        self._backpressure.changed()

    def send_held(self) -> None:
        """Send what has been made in the last turn of the event loop."""
        self._held = False
        super().settle()
        self._backpressure.changed()

    def release(self) -> None:
        """Let `run` close the socket, when nobody watches it any more."""
        self._backpressure.changed()
        if self._driver is not None:
            self._driver.end()

    @property
    def full(self) -> bool:
        """Whether much output waits to be sent."""
        return self._backpressure.full

    async def wait_while_full(self) -> None:
        """Wait while much output waits to be sent, so that nothing is made faster than the network takes it."""
        await self._backpressure.wait_while_full()

    async def wait_until_sent(self, timeout: float) -> None:
        """Wait until all output has left, the connection has ended, or nothing has left for ``timeout`` seconds."""
        await self._backpressure.wait_until_empty(timeout)

    async def run(self) -> None:
        """Move bytes until the connection has ended; then close the socket."""
        loop = asyncio_loop()
        if loop is not None and hasattr(loop, "_add_reader"):
            self._driver = _AsyncioDriver(self, loop)
        else:
            self._driver = _WaitingDriver(self)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(keep_time, self)
                self.start()
                await self._driver.run()
                group.cancel_scope.cancel()
        finally:
            self.close("closed")
            super().release()


class _AsyncioDriver:
    """Watches a socket with asyncio: with one reader for all its life, as adding one costs as much as a read."""

    def __init__(self, link: SocketLink, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self._reading = False
        self._writing = False
        self._done = loop.create_future()

    def call_next_turn(self) -> None:
        self._loop.call_soon(self._guarded, self._link.send_held)

    def end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    async def run(self) -> None:
        descriptor = self._link.sock.fileno()
        if self._link.closed:
            return
        self._watch()
        try:
            await self._done
        finally:
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)
            self._reading = self._writing = False
            if not self._done.done():
                self._done.cancel()

    def _guarded(self, call: Callable[..., None], *arguments: object) -> None:
        """Make a call from the event loop; `run` raises what it raises."""
        if self._done.done():
            return
        try:
            call(*arguments)
        except BaseException as error:  # `run` raises it, and closes the socket
            if not self._done.done():
                self._done.set_exception(error)
            return
        self._watch()

    def _watch(self) -> None:
        link, loop = self._link, self._loop
        if link.closed:
            return
        if link.paused is self._reading:
            self._reading = not link.paused
            if self._reading:
                loop.add_reader(link.sock.fileno(), self._guarded, link.on_ready, _READ)
            else:
                loop.remove_reader(link.sock.fileno())
        if link.sending is not self._writing:
            self._writing = link.sending
            if self._writing:
                loop.add_writer(link.sock.fileno(), self._guarded, link.on_ready, _WRITE)
            else:
                loop.remove_writer(link.sock.fileno())


class _WaitingDriver:
    """Watches a socket with two tasks, in any event loop."""

    def __init__(self, link: SocketLink) -> None:
        self._link = link
        self._work = anyio.Event()
        self._scope = anyio.CancelScope()

    def call_next_turn(self) -> None:
        self._work.set()

    def end(self) -> None:
        self._scope.cancel()

    async def run(self) -> None:
        link = self._link
        with self._scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self._write)
                while not link.closed:
                    await link.wait_until_resumed()
                    await anyio.wait_readable(link.sock)
                    link.on_ready(_READ)
                group.cancel_scope.cancel()

    async def _write(self) -> None:
        link = self._link
        while not link.closed:
            while link.sending:
                await anyio.wait_writable(link.sock)
                link.on_ready(_WRITE)
            await self._work.wait()
            self._work = anyio.Event()
            link.send_held()
