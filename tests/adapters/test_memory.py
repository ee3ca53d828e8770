"""Jobs that have ended leave nothing behind, in clients and workers of both packages and in the server."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any, Final

import pytest
import trio

from gear_sync import JobRequest
from gearproto import JobFailed
from tests.harness.idioms import Idiom, in_thread, make_client, make_worker, until, working
from tests.harness.servers import OurServer
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio

BATCH: Final = 100  # jobs of each kind
ROUNDS: Final = 3


def reverse(job: Any) -> bytes:
    result: bytes = job.workload[::-1]
    return result


def talk(job: Any) -> bytes:
    job.progress(1, 2)
    job.send(b"piece")
    return b"end"


def fail(job: Any) -> None:
    raise JobFailed


async def async_reverse(job: Any) -> bytes:
    return reverse(job)


async def async_talk(job: Any) -> bytes:
    await job.progress(1, 2)
    await job.send(b"piece")
    return b"end"


async def async_fail(job: Any) -> None:
    raise JobFailed


FUNCTIONS: Final = {False: (reverse, talk, fail), True: (async_reverse, async_talk, async_fail)}


def objects() -> int:
    """Count what lives, but for scopes with a deadline: trio drops those that are over a thousand at a time."""
    gc.collect()
    return sum(not (is_scope(one) or (type(one) is tuple and any(map(is_scope, one)))) for one in gc.get_objects())


def is_scope(one: object) -> bool:
    return isinstance(one, trio.CancelScope)


async def test_memory_does_not_grow_with_jobs_that_have_ended(idiom: Idiom) -> None:
    server = await in_thread(OurServer)
    try:
        worker = make_worker(idiom, server.address, concurrency=4)
        functions: Sequence[Any] = FUNCTIONS[idiom != "gear_sync"]
        for name, function in zip(("reverse", "talk", "fail"), functions, strict=True):
            worker.register(name, function, timeout=LIMIT)
        async with make_client(idiom, server.address) as client, working(worker):

            async def run() -> None:
                for number in range(ROUNDS):
                    tasks = [
                        JobRequest("reverse", b"%d" % index, unique=b"%d %d" % (number, index))
                        for index in range(BATCH)
                    ]
                    tasks += [JobRequest("talk")] * BATCH + [JobRequest("fail")] * BATCH
                    jobs: Any = await client.submit_many(tasks)
                    async for job in client.as_completed(jobs, LIMIT):
                        assert job.outcome is not None
                    await client.submit_background_many([JobRequest("reverse", b"%d" % number)] * BATCH)
                await until(is_idle)

            async def is_idle() -> bool:
                return not any(row.total for row in await client.admin.status())

            await run()
            for _ in range(3):  # what grows with jobs grows each time; what a thread has in hand does not
                before = objects()
                await run()
                grown = objects() - before
                if grown < ROUNDS * BATCH:
                    break
            assert grown < ROUNDS * BATCH, f"{grown} objects more after {ROUNDS * 4 * BATCH} jobs more"
    finally:
        await in_thread(server.close)
