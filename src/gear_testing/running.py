"""A job server and a worker that run in threads of the test process."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self, Unpack

import gear_sync
from gear_sync import ServerOptions

__all__ = ["LocalServer", "running"]

_LIMIT: Final = 10.0  # seconds that a worker has to end in


class LocalServer:
    """A job server in a thread, on a Unix socket in a directory of its own: it takes no port.

    Any client or worker reaches it, in this process or another one, of `gear_sync` or `gear_anyio`.

    Attributes:
        address: what to give to clients and workers, as ``unix:PATH``.
    """

    def __init__(self, **options: Unpack[ServerOptions]) -> None:
        """Start it; the options are those of `gear_sync.Server`."""
        self._directory = tempfile.TemporaryDirectory(prefix="gear-")
        self._options = options
        self.address = f"unix:{Path(self._directory.name, 's')}"
        try:
            self._server = self._start()
        except BaseException:
            self._directory.cleanup()
            raise

    def _start(self) -> gear_sync.Server:
        options: ServerOptions = {**self._options, "listen": [self.address]}
        return gear_sync.Server(**options).__enter__()

    def snapshot(self) -> gear_sync.Snapshot:
        """Count what the server holds now."""
        return self._server.snapshot()

    def stop(self) -> None:
        """Stop the server; clients and workers lose their connections. Nothing the second time."""
        self._server.__exit__(None, None, None)

    def restart(self) -> None:
        """Stop the server, and start it again under the same address; it forgets all jobs."""
        self.stop()
        self._server = self._start()

    def close(self) -> None:
        """Stop the server for good. Can be called twice."""
        self.stop()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the server."""
        self.close()


@contextmanager
def running(worker: gear_sync.Worker) -> Iterator[gear_sync.Worker]:
    """Run a worker in a thread for the time of a block; then stop it, once its jobs have ended.

    Raises:
        RuntimeError: a function does not return within 10 seconds; its thread is left behind.
        BaseException: what `gear_sync.Worker.run` has raised.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            errors.append(error)
        finally:
            worker.close()

    thread = threading.Thread(target=run, name="gear worker", daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(_LIMIT)
    if thread.is_alive():
        raise RuntimeError(f"the worker has not stopped within {_LIMIT:g} s: a function does not return")
    if errors:
        raise errors[0]
