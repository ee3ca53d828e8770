"""A connection on which a job streams without end: every other call is over in time, whoever reads."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from gear_sync import JobRequest
from gearproto import ConnectionLost, GearmanError, JobNotSent, Lost, NotSent
from gearproto.packets import JobCreated, OptionRes, SubmitJob, WorkData
from tests.harness.hostile import HostileServer, Peer, bytes_of
from tests.harness.idioms import AnyClient, Idiom, ThreadedClient, ThreadedJob, in_thread, make_client
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio

SOON: Final = 0.005  # seconds; the time limit of each call


def streams_without_end(peer: Peer) -> None:
    """Answer the first job with pieces of its result for as long as the client reads, and nothing else."""
    peer.receive_until(SubmitJob)
    peer.send(OptionRes(b"exceptions"), JobCreated(b"H:1"))
    pieces = bytes_of(*[WorkData(b"H:1", b"piece")] * 5000)
    while True:
        peer.send(pieces)


class Site:
    """A client with a job that streams, and another one that is not answered."""

    def __init__(self, client: AnyClient, streaming: Any, other: Any) -> None:
        self.client: Any = client
        self.streaming = streaming
        self.other = other

    async def iterate(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Read what streams, until the client is closed."""
        with contextlib.suppress(GearmanError):
            events = self.streaming.events()
            await anext(events)
            task_status.started()
            async for _event in events:
                await anyio.lowlevel.checkpoint()


async def submitted(client: Any, function: str) -> Any:
    """Submit a job, however often a busy machine takes longer to connect than a call may."""
    while True:
        with contextlib.suppress(JobNotSent):
            return await client.submit(function)


@pytest.fixture(params=["nobody reads on", "another reads on"])
async def site(anyio_backend: object, idiom: Idiom, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    with HostileServer(then=streams_without_end) as server:
        async with make_client(idiom, server.address, timeout=SOON) as client, anyio.create_task_group() as group:
            site = Site(client, await submitted(client, "stream"), await submitted(client, "other"))
            if request.param == "another reads on":
                await group.start(site.iterate)
            yield site
            client.close()
            group.cancel_scope.cancel()


async def late(call: Awaitable[object]) -> None:
    with pytest.raises((TimeoutError, ConnectionLost), match=r"within 0\.005 s|time was up before"):
        await call


async def read(events: AsyncIterator[object]) -> None:
    async for _event in events:
        pass


async def read_stream(site: Site) -> None:
    job = site.streaming
    if isinstance(job, ThreadedJob):  # event by event in threads it would be slower than what comes
        await in_thread(lambda: list(job.job.events(SOON)))
    else:
        await read(job.events(SOON))


CALLS: Final[dict[str, Callable[[Site], Awaitable[object]]]] = {
    "submit": lambda site: site.client.submit("f"),
    "submit_many": lambda site: site.client.submit_many([JobRequest("f")] * 3),
    "submit_background": lambda site: late(site.client.submit_background("f")),
    "submit_background_many": lambda site: site.client.submit_background_many([JobRequest("f")] * 3),
    "wait": lambda site: site.other.wait(SOON),
    "wait_queued": lambda site: late(site.other.wait_queued(SOON)),
    "result": lambda site: late(site.other.result(SOON)),
    "result of the stream": lambda site: late(site.streaming.result(SOON)),
    "events": lambda site: late(read(site.other.events(SOON))),
    "events of the stream": lambda site: late(read_stream(site)),
    "as_completed": lambda site: late(read(site.client.as_completed([site.other], SOON))),
    "status": lambda site: late(site.client.status(b"H:9")),
    "status_unique": lambda site: late(site.client.status_unique(b"u")),
    "status of a job": lambda site: late(site.streaming.status()),
    "echo": lambda site: late(site.client.echo(b"")),
    "admin": lambda site: late(site.client.admin.version()),
}


async def test_each_call_is_over_in_time_though_a_job_streams_without_end(site: Site) -> None:
    for name, call in CALLS.items():
        with anyio.move_on_after(LIMIT) as scope:
            await call(site)
        assert not scope.cancelled_caught, f"{name} does not end"
    with anyio.fail_after(LIMIT):
        if isinstance(site.client, ThreadedClient):
            await in_thread(site.client.close)
        else:
            site.client.close()
        await site.other.wait()
    assert isinstance(site.other.outcome, Lost | NotSent)
