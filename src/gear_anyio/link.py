"""Moves bytes between a byte stream and a connection of the core."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import anyio
import anyio.abc

from gearproto import RemoteProtocolError
from gearproto.connection import Connection
from gearproto.events import Event

__all__ = ["Link"]

_CHUNK: Final = 256 * 1024
_FULL: Final = 1024 * 1024  # bytes of output from which on whoever makes more has to wait


class Link:
    """A byte stream and the connection that speaks over it.

    Attributes:
        conn: the connection; after each call to it, call `settle`.
    """

    def __init__(
        self,
        stream: anyio.abc.AnyByteStream,
        conn: Connection,
        on_event: Callable[[Event], object],
        on_read: Callable[[], object] | None = None,
    ) -> None:
        """Join the two.

        Args:
            stream: the stream; `run` closes it.
            conn: the connection.
            on_event: called with each event.
            on_read: called when the events of something that came have been handed out.
        """
        self.conn = conn
        self._stream = stream
        self._receive = partial(stream.receive, _CHUNK) if isinstance(stream, anyio.abc.ByteStream) else stream.receive
        self._on_event = on_event
        self._on_read = on_read
        self._unsent = 0  # bytes taken from the connection that were not given to the stream
        self._work = anyio.Event()  # set when there is something to send, or the end
        self._room: anyio.Event | None = None

    def settle(self) -> None:
        """Hand out all events, and let the output be sent."""
        conn = self.conn
        while True:
            try:
                event = conn.next_event()
            except RemoteProtocolError:
                continue  # the events that follow tell what it means, and ConnectionClosed tells why
            if event is None:
                break
            self._on_event(event)
        if conn.output_size or conn.closed:
            self._work.set()

    def close(self, reason: str) -> None:
        """End the connection; what is open on it ends now, and `run` soon."""
        self.conn.connection_lost(reason, unsent=self._unsent)
        self.settle()

    async def wait_for_room(self) -> None:
        """Wait while much output waits to be sent, so that who makes it is no quicker than the network."""
        await self._wait_for_less(_FULL)

    async def wait_until_sent(self) -> None:
        """Wait until all output is with the system, or the connection has ended."""
        await self._wait_for_less(1)

    async def _wait_for_less(self, size: int) -> None:
        while self.conn.output_size + self._unsent >= size and not self.conn.closed:
            if self._room is None:
                self._room = anyio.Event()
            await self._room.wait()

    async def run(self) -> None:
        """Move bytes until the connection has ended; then close the stream."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._read, group.cancel_scope)
                group.start_soon(self._keep_time)
                await self._write()
                group.cancel_scope.cancel()
        finally:
            self.close("closed")
            self._make_room()
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self._stream)

    async def _read(self, scope: anyio.CancelScope) -> None:
        conn = self.conn
        while not conn.closed:
            try:
                conn.receive_data(await self._receive())
            except anyio.EndOfStream:
                conn.receive_eof(unsent=self._unsent)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
                conn.connection_lost(_reason(error), unsent=self._unsent)
            self.settle()
            if self._on_read is not None:
                self._on_read()
        scope.cancel()  # even if the other task is stuck in sending

    async def _write(self) -> None:
        """Send: the only task that does, so that who is cancelled cuts no packet short."""
        conn = self.conn
        while not conn.closed:
            if not conn.output_size:
                self._make_room()
                await self._work.wait()
                self._work = anyio.Event()
            data = conn.data_to_send()
            for start in range(0, len(data), _CHUNK):
                self._unsent = max(0, len(data) - start - _CHUNK)
                try:
                    await self._stream.send(data[start : start + _CHUNK])
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                    self._work = anyio.Event()
                    await self._work.wait()  # the reader tells the end: there may be results before it
                    break
                if conn.closed:
                    break
                if self._unsent + conn.output_size < _FULL:
                    self._make_room()

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    async def _keep_time(self) -> None:
        while (deadline := self.conn.next_deadline()) is not None:
            await anyio.sleep_until(deadline)
            self.conn.handle_timeout(anyio.current_time())
            self.settle()


def _reason(error: Exception) -> str:
    """Say why a stream has broken, in the system's words if it has any."""
    cause = error.__cause__ if isinstance(error, anyio.BrokenResourceError | anyio.ClosedResourceError) else error
    return getattr(cause, "strerror", None) or str(cause or error) or "the connection is broken"
