"""What `gear_anyio` does about servers that hang while their system still accepts connections, in virtual time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest

from gear_anyio import Client, JobRequest, Worker, WorkerJob
from gearproto import JobLost, JobNotSent
from gearproto.addresses import Address
from gearproto.event import Event
from gearproto.packets import (
    EchoReq,
    EchoRes,
    GetStatus,
    GrabJobAll,
    JobAssignAll,
    JobCreated,
    NoJob,
    Noop,
    StatusRes,
    SubmitJob,
    WorkComplete,
)
from tests.harness.peers import PipePeer, Pipes, virtual_time

pytestmark = [pytest.mark.anyio, virtual_time()]

FIRST, SECOND = "first:4730", "second:4730"


async def next_request(peer: PipePeer) -> Event | None:
    """Return what comes next, None at the end; probes are answered."""
    try:
        request = await peer.receive(Event)
        if isinstance(request, EchoReq):
            await peer.send(EchoRes(request.data))
    except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
        return None
    return request


class Net:
    """Two servers of which the first hangs: the way to it is there, and it may be made to answer."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self.first, self.second = Pipes(1000), Pipes(1000)
        self._group = group

    async def connect(self, address: Address) -> anyio.abc.AnyByteStream:
        return await (self.first if address.host == "first" else self.second).connect(address)

    def serve(self, pipes: Pipes) -> None:
        """Let a server complete each job, from now on."""
        self._group.start_soon(self._serve, pipes)

    async def _serve(self, pipes: Pipes) -> None:
        while True:
            self._group.start_soon(self._answer, await pipes.accept())

    async def _answer(self, peer: PipePeer) -> None:
        with contextlib.suppress(anyio.BrokenResourceError):  # the other side may have gone long ago
            await self._complete_jobs(peer)

    async def _complete_jobs(self, peer: PipePeer) -> None:
        jobs = 0
        while (request := await next_request(peer)) is not None:
            if isinstance(request, GetStatus):
                await peer.send(StatusRes(request.handle, True, False, 0, 0))
            elif isinstance(request, SubmitJob):
                jobs += 1
                await peer.send(JobCreated(b"H:%d" % jobs), WorkComplete(b"H:%d" % jobs, b"done"))


@asynccontextmanager
async def two_servers() -> AsyncIterator[Net]:
    async with anyio.create_task_group() as group:
        net = Net(group)
        try:
            yield net
        finally:
            group.cancel_scope.cancel()
            net.first.close()
            net.second.close()


def client_of(net: Net, **options: Any) -> Client:
    return Client([FIRST, SECOND], connect=net.connect, exceptions=False, **options)


async def lose_a_job(client: Client, net: Net) -> None:
    """Submit a job to the first server, which hangs."""
    job = await client.submit("f")
    with pytest.raises(JobLost, match="no answer to ECHO_REQ within 10 s"):
        await job.result()


@pytest.mark.parametrize("policy", ["ordered", "round_robin", "unique_hash"])
async def test_server_that_hangs_costs_one_job_and_all_others_go_to_the_next(policy: str) -> None:
    async with two_servers() as net:
        net.serve(net.second)
        async with client_of(net, policy=policy) as client:
            began = anyio.current_time()
            await lose_a_job(client, net)
            assert anyio.current_time() - began == pytest.approx(40)
            for _ in range(20):
                lost_at = anyio.current_time()
                tasks = [JobRequest("f", unique=str(number)) for number in range(9)]
                jobs = [await client.submit("f"), *await client.submit_many(tasks)]
                assert [await job.result() for job in jobs] == [b"done"] * 10
                assert anyio.current_time() == lost_at
                await anyio.sleep(6)


@pytest.mark.parametrize("policy", ["round_robin", "unique_hash"])
async def test_server_gets_its_share_of_jobs_again_once_it_answers(policy: str) -> None:
    async with two_servers() as net:
        net.serve(net.second)
        async with client_of(net, policy=policy) as client:
            await lose_a_job(client, net)
            await anyio.sleep(100)
            net.serve(net.first)
            servers = set()
            for _ in range(10):
                jobs = await client.submit_many([JobRequest("f")] * 2)
                assert [await job.result() for job in jobs] == [b"done"] * 2
                servers = {str(job.server) for job in jobs}
                await anyio.sleep(5)
            assert servers == {FIRST, SECOND}


async def test_server_that_hangs_is_tried_less_and_less_often() -> None:
    async with two_servers() as net:
        net.serve(net.second)
        async with client_of(net, policy="round_robin") as client:
            await lose_a_job(client, net)
            for _ in range(900):
                await (await client.submit("f")).result()
                await anyio.sleep(1)
        assert 900 / 36 <= len(net.first.times) <= 900 / 25  # 5 s each, and pauses of half a minute


async def test_only_server_that_hangs_takes_no_job_until_it_answers() -> None:
    async with two_servers() as net, Client(FIRST, connect=net.connect, exceptions=False) as client:
        await lose_a_job(client, net)
        began = anyio.current_time()
        with pytest.raises(JobNotSent, match="first:4730: no answer within 5 s"):
            await client.submit("f")
        assert anyio.current_time() - began < 6
        net.serve(net.first)
        await anyio.sleep(30)
        assert await (await client.submit("f")).result() == b"done"


async def test_status_is_asked_of_servers_first_that_answer() -> None:
    async with two_servers() as net:
        net.serve(net.second)
        async with client_of(net) as client:
            await lose_a_job(client, net)
            asked_at = anyio.current_time()
            assert (await client.status(b"H:1")).known
            assert await client.echo(b"x") == b"x"
            assert anyio.current_time() == asked_at


async def test_worker_takes_jobs_of_others_while_a_server_is_on_trial() -> None:
    async with two_servers() as net:
        worker = Worker([FIRST, SECOND], connect=net.connect)

        @worker.function("f")
        async def f(job: WorkerJob) -> bytes:
            return b"done"

        times: list[float] = []

        async def give_jobs(peer: PipePeer) -> None:
            """Give jobs when they are asked for, once they are wanted."""
            while (request := await next_request(peer)) is not None:
                if isinstance(request, GrabJobAll) and not 0 < wanted != len(times):
                    await peer.send(NoJob())
                elif isinstance(request, GrabJobAll):
                    times.append(anyio.current_time())
                    await peer.send(JobAssignAll(b"H:1", b"f", b"", b"", b""))

        wanted = 0
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            good, hung = await net.second.accept(), await net.first.accept()
            group.start_soon(give_jobs, good)
            await hung.expect_end()
            on_trial = await net.first.accept()
            wanted = 10
            await good.send(Noop())
            await anyio.wait_all_tasks_blocked()
            request = await on_trial.receive(EchoReq)
            assert len(times) == 10
            assert set(times) == {anyio.current_time()}
            await on_trial.send(EchoRes(request.data))
            await on_trial.receive(GrabJobAll)
            group.cancel_scope.cancel()
