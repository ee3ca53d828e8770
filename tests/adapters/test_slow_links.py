"""Links that are slow but move: what is large is delivered, however silent the server is meanwhile."""

from __future__ import annotations

import time
from typing import Any, Final

import pytest

from gearproto.packets import GrabJobAll, JobAssignAll, JobCreated, OptionRes, SubmitJob, WorkComplete
from gearproto.server import Report
from tests.harness.hostile import HostileServer, Peer
from tests.harness.idioms import Idiom, make_client, make_worker, until, working
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio

SIZE: Final = 6_000_000
PROBES: Final[dict[str, Any]] = {"probe_interval": 0.1, "probe_timeout": 0.2}  # much less than SIZE takes


def read_slowly(peer: Peer) -> None:
    """Read all but the end of something large as a slow link would bring it, without a word."""
    read = 0
    while read < SIZE - 100_000:
        read += peer.take(32 * 1024)
        time.sleep(0.003)


async def test_large_upload_over_a_slow_link_arrives(idiom: Idiom) -> None:
    def server(peer: Peer) -> None:
        read_slowly(peer)
        submitted = peer.receive_until(SubmitJob)
        assert isinstance(submitted, SubmitJob)
        size = b"%d" % len(submitted.workload)
        peer.send(OptionRes(b"exceptions"), JobCreated(b"H:1"), WorkComplete(b"H:1", size))
        peer.wait_for_end()

    with HostileServer(server) as hostile:
        async with make_client(idiom, hostile.address, **PROBES) as client:
            job = await client.submit("f", bytes(SIZE))
            assert await job.result(LIMIT) == b"%d" % SIZE


async def test_large_result_over_a_slow_link_arrives(idiom: Idiom) -> None:
    results: list[int] = []

    def server(peer: Peer) -> None:
        for size in (SIZE, 1):  # the second tells that the connection has been kept
            peer.receive_until(GrabJobAll)
            peer.send(JobAssignAll(b"H:1", b"f", b"", b"", b"%d" % size))
            if size == SIZE:
                read_slowly(peer)
            report = peer.receive_until(Report)
            assert isinstance(report, Report)
            results.append(len(report.data))
        peer.wait_for_end()

    with HostileServer(server) as hostile:
        worker = make_worker(idiom, hostile.address, **PROBES)
        worker.register("f", lambda job: bytes(int(job.workload)))
        async with working(worker):
            await until(lambda: len(results) == 2)
    assert results == [SIZE, 1]
