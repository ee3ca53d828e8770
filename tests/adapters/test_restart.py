"""A job server that is restarted under load: no outcome is missing or false, in any idiom, and workers are back."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import anyio
import pytest

from gearproto import Completed, JobNotSent, Lost, NotSent, Outcome
from gearproto.client import Resubmitted
from tests.harness.idioms import Idiom, in_thread, make_client, make_worker, working
from tests.harness.servers import Gearmand, OurServer, RunningServer
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("resubmit", [False, True])
@pytest.mark.parametrize("start", [OurServer, pytest.param(Gearmand, marks=pytest.mark.interop("gearmand"))])
async def test_every_submission_ends_truly_and_workers_are_back(
    idiom: Idiom, start: type[RunningServer], resubmit: bool
) -> None:
    ran: Counter[bytes] = Counter()
    counting = threading.Lock()
    outcomes: dict[bytes, Outcome | None] = {}
    done = 0
    more = anyio.Event()
    over = False

    def note(workload: bytes) -> None:
        with counting:
            ran[workload] += 1

    def reverse(job: Any) -> bytes:
        note(job.workload)
        job.send(job.workload[::-1])
        return b" end"

    async def async_reverse(job: Any) -> bytes:
        note(job.workload)
        await job.send(job.workload[::-1])
        return b" end"

    async def load(name: int) -> None:
        nonlocal done
        number = 0
        while not over:
            workload = b"%d %d" % (name, number)
            number += 1
            try:
                job = await client.submit("reverse", workload, unique=workload, resubmit=resubmit)
            except JobNotSent as error:
                outcomes[workload] = NotSent(str(error))
                continue
            pieces: list[bytes] = []
            async for event in job.events(LIMIT):
                if isinstance(event, Resubmitted):
                    pieces.clear()
                elif hasattr(event, "data"):
                    pieces.append(event.data)
            outcomes[workload] = job.outcome
            if isinstance(job.outcome, Completed):
                assert b"".join(pieces) == await job.result() == workload[::-1] + b" end"
                done += 1
                more.set()

    async def completed(count: int) -> None:
        """Wait until so many more jobs are completed."""
        nonlocal more
        until = done + count
        while done < until:
            more = anyio.Event()
            await more.wait()

    server = await in_thread(start)
    try:
        worker = make_worker(idiom, server.address, concurrency=2)
        worker.register("reverse", reverse if idiom == "gear_sync" else async_reverse)
        with anyio.fail_after(2 * LIMIT):
            async with (
                working(worker),
                make_client(idiom, server.address) as client,
                anyio.create_task_group() as group,
            ):
                for name in range(4):
                    group.start_soon(load, name)
                for _ in range(3):
                    await completed(20)
                    await in_thread(server.restart)
                await completed(20)
                over = True
    finally:
        await in_thread(server.close)
    assert set(ran) <= set(outcomes)
    for workload, outcome in outcomes.items():
        assert isinstance(outcome, Completed | Lost | NotSent), outcome
        if isinstance(outcome, Completed):
            assert ran[workload]
        elif isinstance(outcome, NotSent):
            assert not ran[workload], "it ran, but was called not sent"
        if not resubmit:
            assert ran[workload] <= 1
