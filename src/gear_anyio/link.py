"""Moves bytes between a socket, or a byte stream, and a connection of the core."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import anyio
import anyio.abc
import anyio.lowlevel

import gear_net.link
from gear_net.tls import is_refusal
from gear_net.tunnel import TLSSocket
from gearproto.connection import Connection
from gearproto.event import Event

from .eventloop import asyncio_loop, clock

__all__ = ["Link", "SocketLink", "StreamLink", "join"]

_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE
_CHUNK: Final = 256 * 1024
_SENT_AT_ONCE: Final = 65536  # bytes; a stream does not tell how far it has come with them
_FULL: Final = 65536  # bytes of output from which on whoever makes more has to wait, and lets others run


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

    async def wait_for_room(self) -> None:
        """Wait while much output waits to be sent, so that who makes it is no quicker than the network."""
        ...

    async def wait_until_sent(self, patience: float) -> None:
        """Wait until all output has left, the connection has ended, or nothing has left for so many seconds."""
        ...

    async def run(self) -> None:
        """Move bytes until the connection has ended; then close the transport."""
        ...


def join(
    transport: socket.socket | TLSSocket | anyio.abc.AnyByteStream,
    conn: Connection,
    on_event: Callable[[Event], object],
    on_read: Callable[[], object] | None = None,
) -> Link:
    """Join a transport and a connection.

    Args:
        transport: a connected, non-blocking socket, with TLS or without; or any byte stream. The link closes it.
        conn: the connection.
        on_event: called with each event.
        on_read: called when the events of something that came have been handed out.
    """
    if isinstance(transport, socket.socket | TLSSocket):
        return SocketLink(transport, conn, on_event, on_read)
    return StreamLink(transport, conn, on_event, on_read)


class Room:
    """Where tasks wait until there is less output."""

    def __init__(self, size: Callable[[], int]) -> None:
        """Begin with a function that tells how much output there is, in bytes; 0 when the connection has ended."""
        self._size = size
        self._made: anyio.Event | None = None

    @property
    def full(self) -> bool:
        """Whether there is so much output that those who make it wait."""
        return self._size() >= _FULL

    async def wait_for_less(self, size: int) -> None:
        """Wait until there is less output than so many bytes."""
        while self._size() >= size:
            if self._made is None:
                self._made = anyio.Event()
            await self._made.wait()

    async def wait_for_none(self, patience: float) -> None:
        """Wait until there is no output, or it has not become less for so many seconds."""
        while size := self._size():
            with anyio.move_on_after(patience):
                await self.wait_for_less(size)
            if self._size() >= size:
                return

    def changed(self) -> None:
        """Wake those who wait, to look again."""
        if self._made is not None:
            self._made.set()
            self._made = None


class Pause:
    """Whether something rests, and where tasks wait until it goes on.

    Attributes:
        on: whether it rests.
    """

    def __init__(self) -> None:
        """Begin without a rest."""
        self.on = False
        self._over: anyio.Event | None = None

    def end(self) -> None:
        """Go on."""
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


class SocketLink(gear_net.link.Link):
    """A socket, read and written directly: event loops only tell when it is ready.

    The first output after something was read is sent at once; what is made after it is sent all together in the next
    turn of the event loop: who makes little waits for nothing, and who makes much makes few system calls.
    """

    def __init__(
        self,
        sock: socket.socket | TLSSocket,
        conn: Connection,
        on_event: Callable[[Event], object],
        on_read: Callable[[], object] | None = None,
    ) -> None:
        """Join the two; see `join`."""
        self._pause = Pause()
        super().__init__(sock, conn, on_event, clock())
        self._on_read = on_read
        self._room = Room(lambda: 0 if self.closed else self.unsent_size)
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
        self._room.changed()

    def send_held(self) -> None:
        """Send what has been made in the last turn of the event loop."""
        self._held = False
        super().settle()
        self._room.changed()

    def release(self) -> None:
        """Let `run` close the socket, when nobody watches it any more."""
        self._room.changed()
        if self._driver is not None:
            self._driver.end()

    @property
    def full(self) -> bool:
        """Whether much output waits to be sent."""
        return self._room.full

    async def wait_for_room(self) -> None:
        """Wait while much output waits to be sent, so that who makes it is no quicker than the network."""
        await self._room.wait_for_less(_FULL)

    async def wait_until_sent(self, patience: float) -> None:
        """Wait until all output has left, the connection has ended, or nothing has left for so many seconds."""
        await self._room.wait_for_none(patience)

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
        except BaseException as error:
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


class StreamLink:
    """A byte stream, such as a pipe in memory."""

    def __init__(
        self,
        stream: anyio.abc.AnyByteStream,
        conn: Connection,
        on_event: Callable[[Event], object],
        on_read: Callable[[], object] | None = None,
    ) -> None:
        """Join the two; see `join`."""
        self.conn = conn
        self.error: Exception | None = None
        self._stream = stream
        self._receive = partial(stream.receive, _CHUNK) if isinstance(stream, anyio.abc.ByteStream) else stream.receive
        self._on_event = on_event
        self._on_read = on_read
        self._taken = 0  # bytes taken from the connection that the stream has not sent
        self._scope: anyio.CancelScope | None = None
        self._work = anyio.Event()  # set when there is something to send, or the end
        self._room = Room(lambda: 0 if conn.closed else self._taken + conn.output_size)
        self._pause = Pause()

    @property
    def paused(self) -> bool:
        """Whether nothing is to be read now."""
        return self._pause.on

    def pause(self) -> None:
        """Read nothing more, until `resume`."""
        self._pause.on = True

    def resume(self) -> None:
        """Read on."""
        self._pause.end()

    async def wait_until_resumed(self) -> None:
        """Wait while nothing is to be read."""
        await self._pause.wait_until_over()

    def settle(self) -> None:
        """Hand out all events, and let the output be sent."""
        conn = self.conn
        for event in conn.events():
            self._on_event(event)
        if conn.output_size or conn.closed:
            self._work.set()
        if conn.closed and self._scope is not None:
            self._scope.cancel()  # even if the writer is stuck

    def look(self) -> None:
        """Do nothing: streams tell what has come to those who wait only."""

    def close(self, reason: str) -> None:
        """End the connection; what is open on it ends now, and `run` soon."""
        self.conn.connection_lost(reason)
        self.settle()
        self._room.changed()

    @property
    def full(self) -> bool:
        """Whether much output waits to be sent."""
        return self._room.full

    async def wait_for_room(self) -> None:
        """Wait while much output waits to be sent, so that who makes it is no quicker than the network."""
        await self._room.wait_for_less(_FULL)

    async def wait_until_sent(self, patience: float) -> None:
        """Wait until all output has left, the connection has ended, or nothing has left for so many seconds."""
        await self._room.wait_for_none(patience)

    async def run(self) -> None:
        """Move bytes until the connection has ended; then close the stream."""
        try:
            async with anyio.create_task_group() as group:
                self._scope = group.cancel_scope
                group.start_soon(self._read)
                group.start_soon(keep_time, self)
                await self._write()
                group.cancel_scope.cancel()
        finally:
            self.close("closed")
            with anyio.CancelScope(shield=True), contextlib.suppress(Exception):
                await anyio.aclose_forcefully(self._stream)

    async def _read(self) -> None:
        conn = self.conn
        while not conn.closed:
            await self._pause.wait_until_over()
            try:
                data = await self._receive()
                conn.receive_data(data, anyio.current_time())
            except anyio.EndOfStream:
                conn.receive_eof()
            except Exception as error:  # streams that users bring may raise anything
                self.error = error
                if is_refusal(error):
                    conn.connection_refused(_reason(error))
                conn.connection_lost(_reason(error))
            self.settle()
            if self._on_read is not None:
                self._on_read()

    async def _write(self) -> None:
        """Send: the only task that does, so that who is cancelled cuts no packet short."""
        conn = self.conn
        while not conn.closed:
            if not conn.output_size:
                self._room.changed()
                await self._work.wait()
                self._work = anyio.Event()
            data = conn.data_to_send()
            self._taken = len(data)
            while self._taken and not conn.closed:
                start = len(data) - self._taken
                chunk = data[start : start + _SENT_AT_ONCE]
                conn.data_sent(len(chunk), anyio.current_time())  # before: if sending fails, some of it may have left
                try:
                    await self._stream.send(chunk)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                    self._work = anyio.Event()
                    await self._work.wait()  # the reader tells the end: there may be results before it
                    break
                except Exception as error:  # the reader may hear nothing of it
                    self.error = error
                    self.close(_reason(error))
                    break
                self._taken -= len(chunk)
                self._room.changed()


def _reason(error: Exception) -> str:
    """Say why a stream has broken, in the system's words if it has any."""
    cause = error.__cause__ if isinstance(error, anyio.BrokenResourceError | anyio.ClosedResourceError) else error
    return getattr(cause, "strerror", None) or str(cause or error) or "the connection is broken"
