"""The job server in a thread of its own, or in this one."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import gearproto
from gearproto.server import Counters, Engine

from .reactor import Reactor

__all__ = ["Server"]

_log = logging.getLogger(__name__)

_MIN_BACKLOG: Final = 4096
_STOP_WAIT: Final = 10.0


class Server:
    """A Gearman job server: one thread, one loop.

    As a context manager it runs in a thread of its own; `serve_forever` runs it in the calling thread.

    Attributes:
        port: the TCP port it listens on, the one chosen by the system if 0 was asked for.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = gearproto.DEFAULT_PORT,
        *,
        sockets: list[socket.socket] | None = None,
        backlog: int = _MIN_BACKLOG,
        handle_prefix: str | None = None,
        max_connections: int = 100_000,
        max_unsent: int = 64 * 1024 * 1024,
        **options: Any,
    ) -> None:
        """Open the listening socket; connections are accepted from now on, and served once the server runs.

        Args:
            host: address or name to listen on. Every address it resolves to is listened on.
            port: TCP port; 0 lets the system choose.
            sockets: listening sockets to use instead of host and port; the server closes them.
            backlog: how many connections may wait to be accepted.
            handle_prefix: what job handles begin with; ``H:`` and the host's name unless told otherwise. A random
                part that differs from start to start follows, so that old handles never name new jobs.
            max_connections: how many connections are served; more are closed at once.
            max_unsent: bytes of output that a peer has not read at which it is closed.
            **options: the options of `gearproto.server.Engine`.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._listeners = _listen(host, port, backlog) if sockets is None else sockets
        self.port = _port(self._listeners)
        prefix = f"H:{socket.gethostname()[:24]}" if handle_prefix is None else handle_prefix
        self._engine = Engine(
            handle_prefix=f"{prefix}:{secrets.token_hex(4)}".encode(),
            epoch_offset=time.time() - time.monotonic(),
            version=gearproto.__version__.encode(),
            pid=os.getpid(),
            **options,
        )
        self._reactor = Reactor(self._engine, self._listeners, max_connections=max_connections, max_unsent=max_unsent)
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._closed = False
        self._calls: list[Callable[[], None]] = []

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first listening socket, for clients and workers."""
        name = self._listeners[0].getsockname()
        return name[0], name[1]

    def serve_forever(self) -> None:
        """Serve until `stop` is called or an administrator shuts the server down; then close everything."""
        _log.info("listening on port %d", self.port)
        try:
            while not self._stopping:
                self._reactor.turn()
                self._run_calls()
                if self._reactor.shutdown_requested is not None and self._may_stop():
                    break
        finally:
            self._closed = True
            self._reactor.close()
            self._run_calls()
            _log.info("stopped")

    def stop(self, *, graceful: bool = False) -> None:
        """Make `serve_forever` return soon. May be called from any thread and from signal handlers.

        Args:
            graceful: whether running jobs may end first; nothing new is taken meanwhile.
        """
        if graceful:
            self._calls.append(self._begin_shutdown)
        else:
            self._stopping = True
        self._reactor.wake()

    def counters(self) -> Counters:
        """Count what the server holds now."""
        if self._thread is None or self._thread is threading.current_thread():
            return self._engine.counters()
        result: list[Counters] = []
        done = threading.Event()

        def count() -> None:
            result.append(self._engine.counters())
            done.set()

        self._calls.append(count)
        self._reactor.wake()
        done.wait(_STOP_WAIT)
        return result[0]

    def _begin_shutdown(self) -> None:
        self._engine.stop_accepting()
        self._reactor.shutdown_requested = True

    def _may_stop(self) -> bool:
        """Tell whether a requested shutdown has nothing left to wait for."""
        if not self._reactor.shutdown_requested:
            return True
        self._reactor.stop_listening()
        return self._engine.running_jobs == 0

    def _run_calls(self) -> None:
        while self._calls:
            self._calls.pop(0)()

    def __enter__(self) -> Self:
        """Run the server in a thread."""
        self._thread = threading.Thread(target=self.serve_forever, name=f"gear-server-{self.port}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server and wait for its thread."""
        self.stop()
        if self._thread is not None:
            self._thread.join(_STOP_WAIT)

    def close(self) -> None:
        """Close the sockets of a server that was never run."""
        if not self._closed and self._thread is None:
            self._closed = True
            self._reactor.close()


def _listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listen on every address of a host, on one port."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, _type, _protocol, _name, address in dict.fromkeys(found):
            chosen = (address[0], listeners[0].getsockname()[1] if listeners else port, *address[2:])
            listeners.append(socket.create_server(chosen[:2], family=family, backlog=backlog))
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _port(listeners: list[socket.socket]) -> int:
    name = listeners[0].getsockname()
    return int(name[1]) if isinstance(name, tuple) else 0
