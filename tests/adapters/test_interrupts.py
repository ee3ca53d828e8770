"""What is meant for the whole program goes through a function: KeyboardInterrupt, and cancellation from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

import gear_anyio
import gear_sync
from gearproto import JobRaised
from tests.harness.idioms import IDIOMS, Idiom, until
from tests.harness.loops import LOOPS, Loop, run
from tests.harness.servers import OurServer
from tests.harness.threads import LIMIT, working


@pytest.fixture
def server() -> Iterator[OurServer]:
    server = OurServer()
    yield server
    server.close()


@pytest.fixture
def client(server: OurServer) -> Iterator[gear_sync.Client]:
    with gear_sync.Client(server.address) as client:
        yield client


def done_by_another(server: OurServer, job: gear_sync.Job) -> bytes:
    """Let another worker do a job."""
    with gear_sync.Worker(server.address) as worker:
        worker.register(job.function, lambda job: b"by another")
        with working(worker):
            return job.result(LIMIT)


def raise_plain(job: Any) -> bytes:
    raise KeyboardInterrupt("enough")


def raise_in_group(job: Any) -> bytes:
    raise BaseExceptionGroup("enough", [ValueError(), BaseExceptionGroup("of it", [KeyboardInterrupt()])])


@pytest.mark.parametrize("idiom", IDIOMS)
@pytest.mark.parametrize("function", [raise_plain, raise_in_group])
def test_keyboard_interrupt_in_the_main_thread_is_reported_and_ends_the_worker(
    idiom: Idiom, function: Callable[[Any], bytes], server: OurServer, client: gear_sync.Client
) -> None:
    job, other = client.submit("f"), client.submit("f")
    if idiom == "gear_sync":
        with gear_sync.Worker(server.address) as worker:
            worker.register("f", function)
            with pytest.raises(KeyboardInterrupt):
                worker.run()
    else:

        async def coroutine(job: gear_anyio.WorkerJob) -> bytes:
            return function(job)

        async_worker = gear_anyio.Worker(server.address)
        async_worker.register("f", coroutine)
        with pytest.raises(KeyboardInterrupt):
            run(idiom, async_worker.run)
    with pytest.raises(JobRaised, match="enough"):
        job.result(LIMIT)
    assert done_by_another(server, other) == b"by another"


@pytest.mark.parametrize("loop", LOOPS)
def test_keyboard_interrupt_leaves_other_jobs_of_the_worker_to_others(
    loop: Loop, server: OurServer, client: gear_sync.Client
) -> None:
    hanging, job = client.submit("hang"), client.submit("f")
    hangs = anyio.Event()
    worker = gear_anyio.Worker(server.address, concurrency=2)

    @worker.function("hang")
    async def hang(job: gear_anyio.WorkerJob) -> None:
        hangs.set()
        await anyio.sleep_forever()

    @worker.function("f")
    async def f(job: gear_anyio.WorkerJob) -> None:
        await hangs.wait()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(loop, worker.run)
    with pytest.raises(JobRaised, match="KeyboardInterrupt"):
        job.result(LIMIT)
    assert done_by_another(server, hanging) == b"by another"


@pytest.mark.parametrize("loop", [loop for loop in LOOPS if loop != "trio"])
@pytest.mark.parametrize("last_first", [False, True])
def test_worker_whose_tasks_are_all_cancelled_reports_nothing(
    loop: Loop, last_first: bool, server: OurServer, client: gear_sync.Client
) -> None:
    """As programs do that end, in the order in which the tasks happen to be."""

    async def main() -> None:
        begun = anyio.Event()
        worker = gear_anyio.Worker(server.address)

        @worker.function("f")
        async def f(job: gear_anyio.WorkerJob) -> None:
            begun.set()
            await asyncio.get_running_loop().create_future()

        running = asyncio.create_task(worker.run(), name="running")
        await begun.wait()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in sorted(tasks, key=lambda task: task is running, reverse=last_first):
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    job = client.submit("f")
    run(loop, main)
    assert done_by_another(server, job) == b"by another"


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_function_raises_when_it_is_cancelled_keeps_no_worker_from_ending(
    loop: Loop, server: OurServer, client: gear_sync.Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        begun = anyio.Event()
        worker = gear_anyio.Worker(server.address)

        @worker.function("f")
        async def f(job: gear_anyio.WorkerJob) -> None:
            begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                raise SystemExit("on the way out")

        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            await begun.wait()
            group.cancel_scope.cancel()

    job = client.submit("f")
    run(loop, main)
    assert done_by_another(server, job) == b"by another"
    assert "on the way out" in caplog.text


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_function_raises_when_its_time_is_over_is_logged_and_the_limit_is_reported(
    loop: Loop, server: OurServer, client: gear_sync.Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        worker = gear_anyio.Worker(server.address)

        @worker.function("f", timeout=0.01)
        async def f(job: gear_anyio.WorkerJob) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise SystemExit("on the way out")

        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            await until(lambda: job.wait(0))
            worker.stop()

    job = client.submit("f")
    run(loop, main)
    with pytest.raises(JobRaised, match="TimeoutError: the job has taken longer"):
        job.result(0)
    assert "on the way out" in caplog.text
