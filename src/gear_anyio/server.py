"""The job server on asyncio or trio."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Unpack

import anyio
import anyio.abc

from gear_net.reactor import Reactor
from gear_net.serving import ServerBase, ServerOptions
from gear_net.snapshot import Snapshot
from gearproto import DEFAULT_PORT, AlreadyClosed
from gearproto.timeouts import setting

from .eventloop import asyncio_loop

__all__ = ["Server"]

_CHUNK = 65536


class Server(ServerBase):
    """A Gearman job server in an event loop: `gear_sync.Server` with the same options, as a task.

    With ``listen=[]`` it serves the peers of `serve_stream` alone.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = DEFAULT_PORT, **options: Unpack[ServerOptions]) -> None:
        """Listen; see `ServerBase`."""
        super().__init__(host, port, **options)
        self._closed = False

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` is called, an administrator shuts the server down, or the task is cancelled.

        Every socket is closed then.

        Raises:
            AlreadyClosed: the server has served before, or was closed.
        """
        if self._closed:
            raise AlreadyClosed("this server is closed: make another one")
        task_status.started()
        try:
            loop = asyncio_loop()
            if loop is None:
                await _serve_by_waiting(self._reactor)
            else:
                await _AsyncioDriver(self._reactor, loop).run()
        finally:
            self.close()

    async def serve_stream(self, stream: anyio.abc.AnyByteStream, *, linger: float = 1.0) -> None:
        """Serve one peer over any byte stream, until it ends; then close the stream.

        `serve` has to run too: it keeps the time, and talks to the peers on sockets.

        Args:
            stream: the stream, such as an end of an in-memory pipe or a TLS stream.
            linger: seconds that the peer may take to read the rest of a connection that the server has closed.

        Raises:
            ValueError: that is not a number of seconds.
        """
        linger = setting("linger", linger)
        if self._closed:
            await stream.aclose()
            return
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            closed = anyio.Event()
            self._reactor.adopt(theirs, closed.set)
            self._reactor.wake()
            async with anyio.create_task_group() as group:
                group.start_soon(_to_socket, stream, ours)
                group.start_soon(_give_up, closed, linger, group.cancel_scope)
                await _from_socket(ours, stream)
                group.cancel_scope.cancel()
        finally:
            ours.close()
            with anyio.move_on_after(linger):
                await stream.aclose()

    def stop(self, *, graceful: bool = False) -> None:
        """Make the server return soon from serving.

        Args:
            graceful: whether running jobs may end first; nothing new is accepted meanwhile.
        """
        if graceful:
            self._reactor.drain()
        else:
            self._reactor.finished = True
        self._reactor.wake()

    def snapshot(self) -> Snapshot:
        """Count what the server holds now; a closed server tells its last state."""
        return self._reactor.snapshot()

    def close(self) -> None:
        """Close every socket of a server that does not run (any more). Can be called twice."""
        if not self._closed:
            self._closed = True
            self._reactor.close()


async def _to_socket(stream: anyio.abc.AnyByteStream, sock: socket.socket) -> None:
    """Pass on what a peer sends; its end, however it comes, ends the server's input."""
    try:
        while True:
            data = memoryview(await stream.receive())
            while data:
                try:
                    data = data[sock.send(data) :]
                except BlockingIOError:  # the rest is sent once the socket takes it
                    await anyio.wait_writable(sock)
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        # The server gets all that came before.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)


async def _from_socket(sock: socket.socket, stream: anyio.abc.AnyByteStream) -> None:
    """Pass on what the server sends, until it closes the connection or the peer is gone."""
    while True:
        try:
            data = sock.recv(_CHUNK)
        except BlockingIOError:  # nothing has come yet
            await anyio.wait_readable(sock)
            continue
        except OSError:  # the server has closed it, and logged why
            return
        if not data:
            return
        try:
            await stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):  # the server sees it as the end of its input
            return


async def _give_up(closed: anyio.Event, linger: float, scope: anyio.CancelScope) -> None:
    """Leave a peer that does not read the rest of a connection that the server has closed."""
    await closed.wait()
    await anyio.sleep(linger)
    scope.cancel()


async def _serve_by_waiting(reactor: Reactor) -> None:
    """Take a turn whenever the reactor's descriptor is readable or its deadline has come."""
    while not reactor.finished:
        deadline = reactor.next_deadline()
        if deadline is None:  # as under load, where a scope for nothing would cost most
            await anyio.wait_readable(reactor.fileno())
        else:
            with anyio.move_on_after(max(0.0, deadline - time.monotonic())):
                await anyio.wait_readable(reactor.fileno())
        reactor.turn_while_busy()


class _AsyncioDriver:
    """Takes turns from an asyncio loop, with one reader and one timer; waiting in a task would cost twice as much."""

    def __init__(self, reactor: Reactor, loop: asyncio.AbstractEventLoop) -> None:
        self._reactor = reactor
        self._loop = loop
        self._done = loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None

    async def run(self) -> None:
        self._loop.add_reader(self._reactor.fileno(), self._turn)
        try:
            self._set_timer()
            await self._done
        finally:
            self._loop.remove_reader(self._reactor.fileno())
            if self._timer is not None:
                self._timer.cancel()

    def _turn(self) -> None:
        try:
            self._reactor.turn_while_busy()
        except Exception as error:  # `serve` raises it
            if not self._done.done():
                self._done.set_exception(error)
            return
        if not self._reactor.finished:
            self._set_timer()
        elif not self._done.done():
            self._done.set_result(None)

    def _set_timer(self) -> None:
        deadline = self._reactor.next_deadline()
        if deadline == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = deadline
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = None
        self._turn()
