"""Functions that are generators are closed, in both packages, however their jobs end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from gearproto import JobLost, JobRaised
from tests.harness.idioms import (
    STRICT_IDIOMS,
    AnyWorker,
    Gate,
    Idiom,
    in_thread,
    make_client,
    make_worker,
    working,
)
from tests.harness.servers import OurServer
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio


class Endless:
    """A function that yields without end, and notes when it begins and is closed."""

    def __init__(self) -> None:
        self.begun, self.go, self.closed = Gate(), Gate(), Gate()

    def plain(self, job: Any) -> Iterator[bytes]:
        try:
            yield b"first"
            self.begun.open()
            self.go.wait()
            while True:
                yield b"more"
        finally:
            self.closed.open()

    async def asynchronous(self, job: Any) -> AsyncIterator[bytes]:
        try:
            yield b"first"
            self.begun.open()
            await self.go.reached()
            while True:
                yield b"more"
        finally:
            self.closed.open()


async def its_time_is_over(function: Endless, worker: AnyWorker, server: OurServer) -> None:
    function.go.open()


async def the_worker_aborts(function: Endless, worker: AnyWorker, server: OurServer) -> None:
    await function.begun.reached()
    worker.abort()
    function.go.open()


async def the_server_goes(function: Endless, worker: AnyWorker, server: OurServer) -> None:
    await function.begun.reached()
    await in_thread(server.close)
    function.go.open()


@pytest.mark.parametrize(
    ("idiom", "kind"),
    [(idiom, "plain") for idiom in STRICT_IDIOMS]
    + [(idiom, "asynchronous") for idiom in STRICT_IDIOMS if idiom != "gear_sync"],
    indirect=["idiom"],
)
@pytest.mark.parametrize("concurrency", [None, 2])
@pytest.mark.parametrize("end", [its_time_is_over, the_worker_aborts, the_server_goes])
async def test_generator_is_closed_when(
    idiom: Idiom, kind: str, end: Callable[..., Any], concurrency: int | None
) -> None:
    function = Endless()
    server = await in_thread(OurServer)
    try:
        worker = make_worker(idiom, server.address, concurrency=concurrency)
        worker.register("f", getattr(function, kind), timeout=0.2 if end is its_time_is_over else None)
        async with make_client(idiom, server.address) as client, working(worker):
            job = await client.submit("f")
            await end(function, worker, server)
            await function.closed.reached()
            if end is not the_worker_aborts:
                with pytest.raises((JobRaised, JobLost)):
                    await job.result(LIMIT)
    finally:
        await in_thread(server.close)
