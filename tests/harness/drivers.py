"""Our job server under each of its drivers, in a thread, behind one interface for tests that block."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Literal, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

import gear_anyio
import gear_sync
from gear_net.reactor import Reactor
from gear_net.snapshot import Snapshot

from .ports import HOST
from .servers import RunningServer
from .threads import LIMIT, Call

__all__ = ["DRIVERS", "Driver", "ThreadedServer"]

Driver = Literal["gear_sync", "asyncio", "trio"]
DRIVERS: Final[tuple[Driver, ...]] = ("gear_sync", "asyncio", "trio")


class ThreadedServer(RunningServer):
    """`gear_sync.Server`, or `gear_anyio.Server` on asyncio or trio.

    Attributes:
        driver: which one.
        server: the server itself.
    """

    kind = "ours"

    def __init__(self, driver: Driver, *, serve: bool = True, **options: Any) -> None:
        """Make it.

        Args:
            driver: which one.
            serve: whether it serves at once; `serve` makes it do so later.
            **options: those of the server; the port is free unless told otherwise.
        """
        self.driver = driver
        self._stack = contextlib.ExitStack()
        self._portal: BlockingPortal | None = None
        self._end: Future[None] | Call[None] | None = None
        kind = gear_sync.Server if driver == "gear_sync" else gear_anyio.Server
        self.server = kind(HOST, options.pop("port", 0), **options)
        self.port = next((address[1] for address in self.server.addresses if isinstance(address, tuple)), 0)
        if serve:
            self.serve()

    def serve(self) -> None:
        """Let it serve in a thread."""
        if isinstance(self.server, gear_sync.Server):
            self._end = Call(self.server.serve_forever)
        else:
            self._portal = self._stack.enter_context(start_blocking_portal(self.driver))
            self._end, _value = self._portal.start_task(self.server.serve)

    @property
    def reactor(self) -> Reactor:
        """The reactor within, for faults; not to be touched while the server runs."""
        return self.server._reactor

    def _call(self, function: Callable[[], Any]) -> Any:
        """Call a method of the server where it may be called."""
        return function() if self._portal is None else self._portal.call(function)

    def stop(self, *, graceful: bool = False) -> None:
        """Stop the server."""
        self._call(lambda: self.server.stop(graceful=graceful))

    def reload_tls(self) -> None:
        """Let the server read its files of TLS again."""
        self._call(self.server.reload_tls)

    def snapshot(self) -> Snapshot:
        """Count what the server holds now."""
        snapshot: Snapshot = self._call(self.server.snapshot)
        return snapshot

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the server do nothing for the time of a block: what peers send meanwhile has come at once."""
        begun, over = threading.Event(), threading.Event()

        def hold() -> None:
            begun.set()
            assert over.wait(LIMIT)

        with contextlib.ExitStack() as stack:
            if self._portal is None:
                assert isinstance(self.server, gear_sync.Server)
                self.server.call_soon(hold)
            else:
                held = self._portal.start_task_soon(hold)
                stack.callback(held.result, LIMIT)
            stack.callback(over.set)
            assert begun.wait(LIMIT)
            yield

    @property
    def serving(self) -> bool:
        """Whether the server serves still."""
        if isinstance(self._end, Future):
            return not self._end.done()
        return self._end is not None and self._end.running

    def wait(self) -> None:
        """Wait until the server serves no more; raise what it has raised."""
        if isinstance(self._end, Future):
            self._end.result(LIMIT)
        elif self._end is not None:
            self._end.result()

    def restart(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Stop the server and wait for its end; an error that `wait` has raised is over."""
        try:
            if self.serving:
                self.stop()
                self.wait()
        finally:
            self._stack.close()
            self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
