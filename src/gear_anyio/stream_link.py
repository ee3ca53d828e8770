"""Moves bytes between a byte stream and a connection of the core."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final

import anyio
import anyio.abc

from gear_net.tls import is_refusal
from gearproto.connection import Connection
from gearproto.event import Event

from .link import Backpressure, Pause, keep_time

__all__ = ["StreamLink"]

_CHUNK: Final = 256 * 1024
_SENT_AT_ONCE: Final = 65536  # bytes; a stream does not report progress within them


class StreamLink:
    """A byte stream, such as a pipe in memory."""

    def __init__(
        self,
        stream: anyio.abc.AnyByteStream,
        conn: Connection,
        on_event: Callable[[Event], object],
        on_read: Callable[[], object] | None = None,
    ) -> None:
        """Join the two; see `gear_anyio.connecting.join`."""
        self.conn = conn
        self.error: Exception | None = None
        self._stream = stream
        self._receive = partial(stream.receive, _CHUNK) if isinstance(stream, anyio.abc.ByteStream) else stream.receive
        self._on_event = on_event
        self._on_read = on_read
        self._taken = 0  # bytes taken from the connection that the stream has not sent
        self._scope: anyio.CancelScope | None = None
        self._work = anyio.Event()  # set when there is something to send, or the end
        self._backpressure = Backpressure(lambda: 0 if conn.closed else self._taken + conn.output_size)
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
        """Do nothing: a stream only shows what has arrived to a task that waits for it."""

    def close(self, reason: str) -> None:
        """End the connection; what is open on it ends now, and `run` soon."""
        self.conn.connection_lost(reason)
        self.settle()
        self._backpressure.changed()

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
        """Send; only this task does, so that a cancelled caller never truncates a packet."""
        conn = self.conn
        while not conn.closed:
            if not conn.output_size:
                self._backpressure.changed()
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
                self._backpressure.changed()


def _reason(error: Exception) -> str:
    """Say why a stream has broken, in the system's words if it has any."""
    cause = error.__cause__ if isinstance(error, anyio.BrokenResourceError | anyio.ClosedResourceError) else error
    return getattr(cause, "strerror", None) or str(cause or error) or "the connection is broken"
