"""What may be called from callbacks of asyncio, such as handlers of signals: they run outside of any task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gear_anyio import Client, Server, Worker, WorkerJob
from gearproto import GearmanError
from tests.harness.idioms import until
from tests.harness.loops import LOOPS, Loop, run
from tests.harness.threads import LIMIT

ASYNCIO = [loop for loop in LOOPS if loop != "trio"]


async def call_back(*calls: Callable[[], object]) -> None:
    """Make calls from a callback each; raise what they raise."""
    loop = asyncio.get_running_loop()
    for call in calls:
        called = loop.create_future()

        def back(call: Callable[[], object] = call, called: asyncio.Future[None] = called) -> None:
            try:
                call()
            except BaseException as error:
                called.set_exception(error)
            else:
                called.set_result(None)

        loop.call_soon(back)
        await called


async def reverse(job: WorkerJob) -> bytes:
    return job.workload[::-1]


@pytest.mark.parametrize("loop", ASYNCIO)
@pytest.mark.parametrize("end", ["stop", "abort"])
def test_worker_takes_calls_from_callbacks(loop: Loop, end: str) -> None:
    async def main() -> None:
        server = Server(port=0)
        serving = asyncio.create_task(server.serve())
        worker = Worker(server.address)
        worker.register("f", reverse)
        running = asyncio.create_task(worker.run())
        async with Client(server.address) as client:
            assert await (await client.submit("f", b"ab")).result(LIMIT) == b"ba"
            await call_back(lambda: worker.register("g", reverse), lambda: worker.unregister("f"))
            assert await (await client.submit("g", b"cd")).result(LIMIT) == b"dc"

            async def offered() -> bool:
                return {row.function for row in await client.admin.status() if row.workers} == {b"g"}

            await until(offered)
            await call_back(getattr(worker, end))
            await asyncio.wait_for(running, LIMIT)
            await call_back(server.stop)
            await asyncio.wait_for(serving, LIMIT)

    run(loop, main)


@pytest.mark.parametrize("loop", ASYNCIO)
def test_client_that_a_callback_closes_ends_its_jobs(loop: Loop) -> None:
    async def main() -> None:
        server = Server(port=0)
        serving = asyncio.create_task(server.serve())
        async with Client(server.address) as client:
            job = await client.submit("f", unique="u", resubmit=True)
            await call_back(client.close)
            assert await job.wait(0)
            with pytest.raises(GearmanError, match="closed"):
                await client.submit("f")
        server.stop()
        await serving

    run(loop, main)
