"""The job server in a thread of its own, or in this one."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, Unpack

from gear_net.serving import ServerBase, ServerOptions
from gear_net.snapshot import Snapshot
from gearproto import DEFAULT_PORT, AlreadyClosed

__all__ = ["Server"]

_log = logging.getLogger(__name__)


class Server(ServerBase):
    """A Gearman job server: one thread, one loop.

    As a context manager it runs in a thread of its own; `serve_forever` runs it in the calling thread. `stop`,
    `snapshot` and `call_soon` may be called from any thread, `stop` and `call_soon` from signal handlers too.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = DEFAULT_PORT, **options: Unpack[ServerOptions]) -> None:
        """Listen; see `ServerBase`."""
        super().__init__(host, port, **options)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # guards the two below
        self._calls: deque[Callable[[], object]] = deque()
        self._closed = False
        self._stopping = False

    def serve_forever(self) -> None:
        """Serve until `stop` is called or an administrator shuts the server down; then close everything.

        Raises:
            AlreadyClosed: the server has served before, or was closed.
        """
        if self._closed:
            raise AlreadyClosed("this server is closed: make another one")
        reactor = self._reactor
        self._thread = threading.current_thread()
        _log.info("listening on %s", self.addresses)
        try:
            while not self._stopping and not reactor.finished:
                reactor.turn()
                self._run_calls()
        finally:
            self.close()
            _log.info("stopped")

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function where the server runs, before its next turn.

        May be called from any thread and from signal handlers. An exception of the function ends the server. A server
        that is closed calls nothing any more.
        """
        self._calls.append(function)
        self._reactor.wake()

    def stop(self, *, graceful: bool = False) -> None:
        """Make the server return soon from serving.

        Args:
            graceful: whether running jobs may end first; nothing new is accepted meanwhile.
        """
        if graceful:
            self.call_soon(self._reactor.drain)
        else:
            self._stopping = True
            self._reactor.wake()

    def snapshot(self) -> Snapshot:
        """Count what the server holds now; a closed server tells its last state."""
        if self._thread is None or self._thread is threading.current_thread():
            return self._reactor.snapshot()
        result: list[Snapshot] = []
        done = threading.Event()

        def count() -> None:
            result.append(self._reactor.snapshot())
            done.set()

        with self._lock:
            if self._closed:
                return self._reactor.snapshot()
            self._calls.append(count)
        self._reactor.wake()
        done.wait()
        return result[0]

    def close(self) -> None:
        """Close every socket of a server that does not run (any more). Can be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._run_calls()
        self._reactor.close()

    def _run_calls(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def __enter__(self) -> Self:
        """Run the server in a thread; raises as `serve_forever`."""
        if self._closed:
            raise AlreadyClosed("this server is closed: make another one")
        self._thread = threading.Thread(target=self.serve_forever, name=f"gear server {self.addresses}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server and wait for its thread."""
        self.stop()
        assert self._thread is not None
        self._thread.join()
