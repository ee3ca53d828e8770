"""Jobs that run again because their worker was lost: nothing of the lost run is taken for a part of the result."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from gearproto import Completed
from gearproto.event import Event
from gearproto.events import Data, Restarted
from gearproto.packets import GrabJobAll, JobAssign, NoJob, WorkComplete, WorkData
from gearproto.server import Report
from tests.harness.hostile import HostileServer, Peer
from tests.harness.idioms import AnyClient, Gate, Idiom, in_thread, make_worker, until, working
from tests.harness.network import Network, NetworkServer
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio


async def test_pieces_of_a_lost_run_are_not_joined_with_those_of_the_next(
    network: Network, server: NetworkServer, client: AnyClient
) -> None:
    begun, gate = Gate(), Gate()

    def first(job: Any) -> bytes:
        job.send(b"FIRST-")
        begun.open()
        gate.wait()
        return b"never sent"

    def second(job: Any) -> bytes:
        job.send(b"second-")
        return b"run"

    job = await client.submit("f")
    worker = network.worker(server, concurrency=1)
    worker.register("f", first)
    seen: list[object] = []

    async def watch() -> None:
        async for event in job.events(LIMIT):
            seen.append(event)  # noqa: PERF401  (also if it ends with an exception)

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        group.start_soon(watch)
        await begun.reached()
        await until(lambda: seen)  # the piece has come
        worker.abort()
        gate.open()
        other = network.worker(server)
        other.register("f", second)
        async with working(other):
            assert await job.wait(LIMIT)
    pieces = [event.data if isinstance(event, Data) else type(event) for event in seen]
    if network.kind == "ours":
        assert await job.result() == b"second-run"
        assert pieces == [b"FIRST-", Restarted, b"second-", Completed]
    else:  # gearmand does not know the option, and nothing that it sends tells the runs apart
        assert await job.result() == b"FIRST-second-run"
        assert pieces == [b"FIRST-", b"second-", Completed]


async def test_run_that_the_server_has_taken_away_sends_nothing_into_the_next(idiom: Idiom) -> None:
    over, gate = Gate(), Gate()
    reports: list[tuple[type, bytes]] = []

    def script(peer: Peer) -> None:
        peer.receive_until(GrabJobAll)
        peer.send(JobAssign(b"H:1", b"f", b"1"))
        note(peer.receive_until(Report))
        peer.send(JobAssign(b"H:1", b"f", b"2"))  # the time that it had for the job is over
        note(peer.receive_until(Report))
        gate.open()
        while True:
            request = peer.receive()
            if isinstance(request, GrabJobAll):
                peer.send(NoJob())
            elif isinstance(request, Report):
                note(request)

    def note(report: Event) -> None:
        assert isinstance(report, Report)
        reports.append((report.packet, report.data))

    def send_late(job: Any) -> None:
        job.send(b"1")
        gate.wait()
        job.send(b"late")

    def function(job: Any) -> bytes:
        if job.workload == b"1":
            with pytest.raises(TimeoutError):
                send_late(job)
            over.open()
        else:
            job.send(b"2")
        over.wait()
        return b"end of " + bytes(job.workload)

    with HostileServer(script) as server:
        worker = make_worker(idiom, server.address, concurrency=2)
        worker.register("f", function)
        async with working(worker):
            await until(lambda: len(reports) == 3)
        await in_thread(server.join)
    assert reports == [(WorkData, b"1"), (WorkData, b"2"), (WorkComplete, b"end of 2")]
