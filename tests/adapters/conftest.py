"""Each idiom in turn, with each backend in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.harness.idioms import STRICT_IDIOMS, AnyClient, AnyWorker, Idiom, anyio_backend_of
from tests.harness.loops import asking_nothing_in_callbacks
from tests.harness.network import BACKENDS, Backend, Network, NetworkServer, open_network

StartWorker = Callable[..., Awaitable[AnyWorker]]


@pytest.fixture(params=STRICT_IDIOMS)
def idiom(request: pytest.FixtureRequest) -> Iterator[Idiom]:
    with asking_nothing_in_callbacks():
        yield request.param


@pytest.fixture
def anyio_backend(idiom: Idiom) -> Any:
    return anyio_backend_of(idiom)


@pytest.fixture(
    params=[
        pytest.param(backend, marks=[pytest.mark.interop("gearmand")] * (backend == "gearmand")) for backend in BACKENDS
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    backend: Backend = request.param
    return backend


@pytest.fixture
async def network(anyio_backend: object, idiom: Idiom, backend: Backend) -> AsyncIterator[Network]:
    """A network without servers."""
    async with open_network(idiom, backend) as network:
        yield network


@pytest.fixture
async def server(network: Network) -> NetworkServer:
    """A server."""
    return await network.start()


@pytest.fixture
async def client(network: Network, server: NetworkServer) -> AnyClient:
    """A client of that server."""
    return await network.connected_client(server)


@pytest.fixture
async def start(network: Network, server: NetworkServer) -> StartWorker:
    """Start workers: ``await start(name=function, ...)``, with options of the worker as ``options``."""

    async def start_worker(options: dict[str, Any] | None = None, **functions: Callable[..., Any]) -> AnyWorker:
        worker = network.worker(server, **(options or {}))
        for name, function in functions.items():
            worker.register(name, function)
        return await network.working(worker)

    return start_worker
