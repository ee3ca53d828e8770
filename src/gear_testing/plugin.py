"""Fixtures for pytest; they are there wherever this package is installed.

Only what a test asks for is imported: a plugin that imports a package before its coverage is measured hides its lines.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import gear_anyio
    import gear_sync

    from .clock import VirtualClock
    from .running import LocalServer


def _is_async(request: pytest.FixtureRequest) -> bool:
    """Tell whether a fixture is for a coroutine, which has to be a test of anyio then."""
    if not inspect.iscoroutinefunction(request.function):
        return False
    if importlib.util.find_spec("anyio") is None:
        raise pytest.UsageError(
            f"{request.fixturename} in a coroutine needs anyio, which is not installed: "
            f"pip install 'gearproto[anyio,testing]'"
        )
    if "anyio_backend" not in request.fixturenames:
        raise pytest.UsageError(f"{request.fixturename} in a coroutine needs pytest.mark.anyio: {request.node.nodeid}")
    return True


@pytest.fixture
def gear_server() -> Iterator[LocalServer]:
    """A job server in a thread, without a port: give ``gear_server.address`` to clients and workers."""
    from .running import LocalServer  # noqa: PLC0415

    with LocalServer() as server:
        yield server


@pytest.fixture
def gear_client(request: pytest.FixtureRequest, gear_server: LocalServer) -> gear_sync.Client | gear_anyio.Client:
    """A client of ``gear_server``: `gear_sync.Client` in plain tests, `gear_anyio.Client` in tests of anyio."""
    name = "_gear_anyio_client" if _is_async(request) else "_gear_sync_client"
    client: gear_sync.Client | gear_anyio.Client = request.getfixturevalue(name)
    return client


@pytest.fixture
def gear_worker(request: pytest.FixtureRequest, gear_server: LocalServer) -> gear_sync.Worker | gear_anyio.Worker:
    """A worker of ``gear_server`` that runs, without a function yet: `gear_sync.Worker` or `gear_anyio.Worker`.

    Decorate functions with ``gear_worker.function(name)`` in the test.
    """
    name = "_gear_anyio_worker" if _is_async(request) else "_gear_sync_worker"
    worker: gear_sync.Worker | gear_anyio.Worker = request.getfixturevalue(name)
    return worker


@pytest.fixture
def gear_clock() -> VirtualClock:
    """A virtual clock that begins at 0: `gear_testing.clock.VirtualClock`."""
    from .clock import VirtualClock  # noqa: PLC0415

    return VirtualClock()


@pytest.fixture
def _gear_sync_client(gear_server: LocalServer) -> Iterator[gear_sync.Client]:
    import gear_sync  # noqa: PLC0415

    with gear_sync.Client(gear_server.address) as client:
        yield client


@pytest.fixture
def _gear_sync_worker(gear_server: LocalServer) -> Iterator[gear_sync.Worker]:
    import gear_sync  # noqa: PLC0415

    from .running import running  # noqa: PLC0415

    with running(gear_sync.Worker(gear_server.address)) as worker:
        yield worker


@pytest.fixture
async def _gear_anyio_client(gear_server: LocalServer, anyio_backend: Any) -> AsyncIterator[gear_anyio.Client]:
    import gear_anyio  # noqa: PLC0415

    async with gear_anyio.Client(gear_server.address) as client:
        yield client


@pytest.fixture
async def _gear_anyio_worker(gear_server: LocalServer, anyio_backend: Any) -> AsyncIterator[gear_anyio.Worker]:
    import anyio  # noqa: PLC0415

    import gear_anyio  # noqa: PLC0415

    worker = gear_anyio.Worker(gear_server.address)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: worker.run(handle_signals=False))
        yield worker
        worker.stop()
