"""Jobs that stream, in `gear_anyio`: probes meanwhile, and iterations that other threads drop."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from gear_anyio import Client, Job
from gearproto import JobLost, StreamBlocked
from gearproto.client import record_of
from gearproto.events import Data
from gearproto.packets import EchoReq, JobCreated, SubmitJob, WorkComplete, WorkData
from tests.harness.peers import PipePeer, Pipes, virtual_time
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio


async def blocked(pipes: Pipes, client: Client) -> tuple[PipePeer, Job, Job]:
    """Return a server, a job that streams and holds too much, and another job, both of that server."""
    stream = await client.submit("stream", stream=True)
    other = await client.submit("other")
    peer = await pipes.accept()
    await peer.receive(SubmitJob)
    await peer.send(JobCreated(b"H:1"), JobCreated(b"H:2"), *[WorkData(b"H:1", bytes(100))] * 100)
    with pytest.raises(StreamBlocked):
        await other.wait()
    return peer, stream, other


@virtual_time()
async def test_probes_rest_while_a_job_that_streams_is_not_consumed() -> None:
    pipes = Pipes(1000)
    async with Client("server", connect=pipes.connect, exceptions=False, max_unread=1000) as client:
        peer, stream, other = await blocked(pipes, client)
        await anyio.sleep(10_000)
        assert other.outcome is None
        async for event in stream:
            if not isinstance(event, Data):
                break
            if len(record_of(stream).log._events) == 0:  # type: ignore[union-attr]
                await peer.send(WorkComplete(b"H:1", b""))
        resumed = anyio.current_time()
        with pytest.raises(JobLost, match="no answer to ECHO_REQ within 10 s"):
            await other.result()
        assert anyio.current_time() == resumed + 40
        assert isinstance(await peer.receive(EchoReq), EchoReq)
    pipes.close()


async def test_iteration_that_another_thread_drops_lets_the_next_who_waits_read_on() -> None:
    pipes = Pipes(1000)
    async with Client("server", connect=pipes.connect, exceptions=False, max_unread=1000) as client:
        peer, stream, other = await blocked(pipes, client)
        iterations = [stream.events()]
        await anext(iterations[0])
        await anyio.to_thread.run_sync(iterations.clear)
        await peer.send(WorkComplete(b"H:2", b"done"))
        assert await other.result(LIMIT) == b"done"
    pipes.close()
