"""Each idiom in turn, with each way to a server in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.harness.idioms import IDIOMS, AnyClient, AnyWorker, Idiom, backend_of
from tests.harness.loops import asking_nothing_in_callbacks
from tests.harness.places import WAYS, Host, Place, Way, open_place

StartWorker = Callable[..., Awaitable[AnyWorker]]


@pytest.fixture(params=IDIOMS)
def idiom(request: pytest.FixtureRequest) -> Iterator[Idiom]:
    with asking_nothing_in_callbacks():
        yield request.param


@pytest.fixture
def anyio_backend(idiom: Idiom) -> Any:
    return backend_of(idiom)


@pytest.fixture(
    params=[pytest.param(way, marks=[pytest.mark.interop("gearmand")] * (way == "gearmand")) for way in WAYS]
)
def way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


@pytest.fixture
async def place(anyio_backend: object, idiom: Idiom, way: Way) -> AsyncIterator[Place]:
    """A place without servers."""
    async with open_place(idiom, way) as place:
        yield place


@pytest.fixture
async def host(place: Place) -> Host:
    """A server."""
    return await place.start()


@pytest.fixture
async def client(place: Place, host: Host) -> AnyClient:
    """A client of that server."""
    return await place.connected_client(host)


@pytest.fixture
async def start(place: Place, host: Host) -> StartWorker:
    """Start workers: ``await start(name=function, ...)``, with options of the worker as ``options``."""

    async def start_worker(options: dict[str, Any] | None = None, **functions: Callable[..., Any]) -> AnyWorker:
        worker = place.worker(host, **(options or {}))
        for name, function in functions.items():
            worker.register(name, function)
        return await place.working(worker)

    return start_worker
