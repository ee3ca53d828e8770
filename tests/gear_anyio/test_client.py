"""`gear_anyio.Client`: cancellation, scopes, and what it does in time; tests/adapters has the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import TaskGroup

import gear_anyio
from gear_anyio import Client, Job, JobRequest
from gearproto import Completed, ConnectionLost, GearmanError, JobLost, JobNotSent, Lost, NotSent
from gearproto.addresses import Address
from gearproto.client import record_of
from gearproto.functions import BYTES, Function
from gearproto.packets import EchoReq, EchoRes, JobCreated, SubmitJob, WorkComplete
from tests.harness.idioms import until
from tests.harness.loops import Loop
from tests.harness.network import Network, NetworkServer, open_network
from tests.harness.peers import Pipes, virtual_time
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio

MIB: Final = 1024 * 1024


@pytest.fixture
async def pipes(anyio_backend: object) -> AsyncIterator[Pipes]:
    """A way to no server, that takes all that is sent."""
    pipes = Pipes(1000)
    yield pipes
    pipes.close()


@pytest.fixture
async def tight(anyio_backend: object) -> AsyncIterator[Pipes]:
    """A way to no server, that takes nothing but what somebody reads."""
    pipes = Pipes()
    yield pipes
    pipes.close()


def client_of(pipes: Pipes, **options: Any) -> Client:
    options = {"connect": pipes.connect, "exceptions": False, **options}
    return Client("server", **options)


# Cancellation


@pytest.fixture
async def network(anyio_backend: Any, loop: Loop) -> AsyncIterator[Network]:
    async with open_network(loop, "pipes") as network:
        yield network


@pytest.fixture
async def server(network: Network) -> NetworkServer:
    """A server with a worker that reverses."""
    server = await network.start()
    worker = network.worker(server, concurrency=10)

    async def reverse(job: gear_anyio.WorkerJob) -> bytes:
        return job.workload[::-1]

    worker.register("reverse", reverse)
    await network.working(worker)
    return server


async def submit(client: Client) -> None:
    await client.submit("reverse", b"x" * 200_000)


async def submit_much(client: Client) -> None:
    await client.submit_many([JobRequest("reverse", b"x" * 100_000)] * 10)


async def submit_background(client: Client) -> None:
    await client.submit_background("reverse")


async def submit_background_many(client: Client) -> None:
    await client.submit_background_many([JobRequest("reverse", b"x" * 100_000)] * 3)


async def wait_for_result(client: Client) -> None:
    job = await client.submit("reverse", b"ab")
    assert await job.result(LIMIT) == b"ba"


async def wait_for_events(client: Client) -> None:
    job = await client.submit("reverse", b"ab")
    assert len([event async for event in job.events(LIMIT)]) == 1


async def wait_for_all(client: Client) -> None:
    jobs = await client.submit_many([JobRequest("reverse", b"ab")] * 3)
    assert len([job async for job in client.as_completed(jobs, LIMIT)]) == 3


async def ask(client: Client) -> None:
    assert await client.echo(b"x" * 100_000) == b"x" * 100_000
    assert not (await client.status(b"H:1")).known
    assert await client.admin.version()


async def test_jobs_that_are_looked_at_again_and_again_remember_nobody(network: Network, server: NetworkServer) -> None:
    async with network.client(server) as client:
        assert isinstance(client, Client)
        nobodys = await client.submit("nobody")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await anext(client.as_completed([nobodys, nobodys], 0))
            async for job in client.as_completed([nobodys, await client.submit("reverse")]):
                assert job is not nobodys
                break
        assert record_of(nobodys)._watchers == []


@pytest.mark.parametrize(
    "call",
    [
        submit,
        submit_much,
        submit_background,
        submit_background_many,
        wait_for_result,
        wait_for_events,
        wait_for_all,
        ask,
    ],
)
async def test_who_is_cancelled_anywhere_cuts_no_packet_and_leaves_no_record(
    network: Network, server: NetworkServer, call: Callable[[Client], Awaitable[None]]
) -> None:
    async def cancel_after(turns: int, scope: anyio.CancelScope) -> None:
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    turns = 0
    ended = False
    while not ended:
        async with Client(server.address, connect=network.connect, timeout=LIMIT) as client:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(cancel_after, turns, scope)
                    await call(client)
                    ended = True
                    group.cancel_scope.cancel()
            assert await client.echo(b"goes on") == b"goes on"
            job = await client.submit("reverse", b"ab")
            assert await job.result(LIMIT) == b"ba"
            (session,) = client._servers.sessions
            await until(lambda session=session: not session.records._open)  # type: ignore[misc]
        turns += 1 + turns // 10
    assert turns > 2

    async def all_jobs_have_run() -> bool:
        async with Client(server.address, connect=network.connect) as client:
            return all(row.total == 0 for row in await client.admin.status())

    await until(all_jobs_have_run)


async def test_cancelled_wait_cancels_no_job(pipes: Pipes) -> None:
    async with client_of(pipes) as client:
        job = await client.submit("f")
        peer = await pipes.accept()
        await peer.receive(SubmitJob)
        for wait in (job.wait, job.result, job.events().__anext__):
            with anyio.move_on_after(0):
                await wait()
        await peer.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"all the same"))
        assert await job.result(LIMIT) == b"all the same"


async def test_connecting_goes_on_for_others_when_who_began_it_is_cancelled(tight: Pipes) -> None:
    asked, go = anyio.Event(), anyio.Event()

    async def connect(address: Any) -> Any:
        asked.set()
        await go.wait()
        return await tight.connect(address)

    async with client_of(tight, connect=connect) as client, anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def first() -> None:
            with scope:
                await client.submit("first")

        group.start_soon(first)
        await asked.wait()
        group.start_soon(client.submit, "second")
        scope.cancel()
        go.set()
        peer = await tight.accept()
        assert (await peer.receive(SubmitJob)).function == b"second"
    assert len(tight.times) == 1


async def test_cancelled_block_ends_what_is_open(pipes: Pipes) -> None:
    jobs = []
    with anyio.CancelScope() as scope:
        async with client_of(pipes) as client:
            jobs.append(await client.submit("f"))
            peer = await pipes.accept()
            await peer.receive(SubmitJob)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert jobs[0].outcome == Lost("closed by the client")
    await peer.expect_end()


# The end


async def test_error_in_the_block_comes_out_as_itself(pipes: Pipes) -> None:
    error = ValueError("of the caller")

    async def fail() -> None:
        async with client_of(pipes) as client:
            await client.submit("f")
            async with client_of(pipes) as inner:
                await inner.submit("f")
                raise error

    with pytest.raises(ValueError, match="of the caller") as caught:
        await fail()
    assert caught.value is error


async def test_client_can_be_used_from_task_groups_within_and_around_it(pipes: Pipes) -> None:
    async def use(client: Client) -> None:
        job = await client.submit("f")
        assert await job.result(LIMIT) == b"done"

    async def serve() -> None:
        peer = await pipes.accept()
        for number in range(4):
            await peer.receive(SubmitJob)
            await peer.send(JobCreated(b"H:%d" % number), WorkComplete(b"H:%d" % number, b"done"))

    async with anyio.create_task_group() as outer, client_of(pipes) as client:
        outer.start_soon(serve)
        async with anyio.create_task_group() as inner:
            for group in (outer, inner, outer, inner):
                group.start_soon(use, client)
        await until(lambda: len(outer_done(outer)) == 0)


def outer_done(group: TaskGroup) -> list[object]:
    """Return the tasks that run in a group."""
    tasks = getattr(group, "_tasks", None)
    return list(group._nursery.child_tasks if tasks is None else tasks)  # type: ignore[attr-defined]


async def test_closed_client_lets_the_rest_of_its_block_be(pipes: Pipes) -> None:
    async with client_of(pipes) as client:
        job = await client.submit("f")
        peer = await pipes.accept()
        await peer.receive(SubmitJob)
        client.close()
        client.close()
        assert job.outcome == Lost("closed by the client")
        await peer.expect_end()
        await anyio.lowlevel.checkpoint()
        with pytest.raises(GearmanError, match="this client is closed"):
            await client.submit("f")


async def test_client_is_for_one_block(pipes: Pipes) -> None:
    client = client_of(pipes)
    with pytest.raises(GearmanError, match="not open"):
        await client.submit("f")
    async with client:
        pass
    with pytest.raises(GearmanError, match="make another one"):
        await client.__aenter__()
    with pytest.raises(GearmanError, match="closed"):
        await client.submit("f")


@virtual_time()
@pytest.mark.parametrize("size", [1, 10 * MIB])
async def test_block_ends_at_once_with_a_server_that_does_not_read(tight: Pipes, size: int) -> None:
    began = anyio.current_time()
    async with client_of(tight) as client, anyio.create_task_group() as group:
        group.start_soon(client.submit, "f", b"x" * size)
        await tight.accept()
        await anyio.wait_all_tasks_blocked()
        client.close()
    assert anyio.current_time() == began


@virtual_time()
async def test_block_ends_at_once_while_a_server_hangs_in_connect(pipes: Pipes) -> None:
    async def hang(_address: Any) -> Any:
        await anyio.sleep_forever()

    began = anyio.current_time()
    outcomes: list[str] = []

    async def submit(client: Client) -> None:
        with pytest.raises(JobNotSent) as caught:
            await client.submit("f")
        outcomes.append(str(caught.value))

    async with client_of(pipes, connect=hang) as client, anyio.create_task_group() as group:
        group.start_soon(submit, client)
        await anyio.wait_all_tasks_blocked()
        client.close()
    assert anyio.current_time() == began
    assert outcomes == ["no server could be reached: server:4730: closed by the client"]


async def test_job_on_its_way_to_another_server_stays_lost_when_the_client_is_closed(pipes: Pipes) -> None:
    async with client_of(pipes, retry_pauses=(60, 60), connect_timeout=100) as client:
        job = await client.submit("f", unique="u", resubmit=True)
        peer = await pipes.accept()
        await peer.receive(SubmitJob)
        await peer.close()
        await until(lambda: client._servers._unfinished)
        client.close()
        assert job.outcome == Lost("the server closed the connection")
    assert job.outcome == Lost("the server closed the connection")


async def test_job_that_there_is_no_room_for_when_it_is_sent_again_is_lost(pipes: Pipes) -> None:
    async with client_of(pipes, max_output_size=1000, retry_pauses=(0.001, 0.001)) as client:
        jobs = [await client.submit("f", b"x" * 600, unique="0", resubmit=True)]
        peer = await pipes.accept()
        await peer.receive(SubmitJob)
        jobs.append(await client.submit("f", b"x" * 600, unique="1", resubmit=True))
        await peer.receive(SubmitJob)
        await peer.close()
        peer = await pipes.accept()
        await peer.receive(SubmitJob)
        await peer.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"done"))
        for job in jobs:
            assert await job.wait(LIMIT)
        outcomes = [job.outcome for job in jobs]
        assert Completed(b"done") in outcomes
        assert Lost("the server closed the connection") in outcomes


# Time


@virtual_time()
async def test_server_that_says_nothing_is_probed_and_given_up(pipes: Pipes) -> None:
    async with client_of(pipes, probe_interval=30, probe_timeout=10) as client:
        began = anyio.current_time()
        job = await client.submit("f")
        peer = await pipes.accept()
        await peer.receive(SubmitJob)
        await peer.receive(EchoReq)
        assert anyio.current_time() == pytest.approx(began + 30)
        await peer.send(JobCreated(b"H:1"), EchoRes(b"probe"))
        await peer.receive(EchoReq)
        assert anyio.current_time() == pytest.approx(began + 60)
        with pytest.raises(JobLost, match="no answer to ECHO_REQ within 10 s"):
            await job.result()
        assert anyio.current_time() == pytest.approx(began + 70)
        await peer.expect_end()


@virtual_time()
async def test_stream_that_moves_is_kept_and_one_that_stops_is_given_up(tight: Pipes) -> None:
    async with client_of(tight, probe_interval=30, probe_timeout=10, timeout=None) as client:
        async with anyio.create_task_group() as group:
            jobs: list[Job] = []

            async def submit() -> None:
                jobs.append(await client.submit("f", b"x" * MIB))

            group.start_soon(submit)
            peer = await tight.accept()
            for _ in range(10):
                await anyio.sleep(39)
                await peer.stream.receive()
            began = anyio.current_time()
        assert anyio.current_time() == pytest.approx(began + 40)
        assert jobs[0].outcome == Lost("no output could be sent within 10 s")


@virtual_time()
async def test_server_that_does_not_read_is_given_up_and_its_stream_closed(tight: Pipes) -> None:
    async with client_of(tight, probe_interval=30, probe_timeout=10) as client:
        job = await client.submit("f", b"x" * 1000)
        peer = await tight.accept()
        assert await job.wait(100)
        assert isinstance(job.outcome, Lost)
        await anyio.wait_all_tasks_blocked()
        assert not client._servers._scopes  # no task is left
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await peer.send(b"x")


@virtual_time()
async def test_connecting_has_a_time_limit(pipes: Pipes) -> None:
    async def hang(_address: Any) -> Any:
        await anyio.sleep_forever()

    began = anyio.current_time()
    async with client_of(pipes, connect=hang, connect_timeout=5) as client:
        with pytest.raises(JobNotSent, match="server:4730: no answer within 5 s"):
            await client.submit("f")
        assert anyio.current_time() == pytest.approx(began + 5)
        with pytest.raises(ConnectionLost, match="server:4730: no answer within 5 s"):  # it is left alone for a while
            await client.echo(b"")
        assert anyio.current_time() == pytest.approx(began + 5)


@virtual_time()
async def test_server_that_closes_at_once_is_left_alone_for_longer_and_longer(pipes: Pipes) -> None:
    async with client_of(pipes) as client, anyio.create_task_group() as group:

        async def hang_up() -> None:
            while True:
                await (await pipes.accept()).close()

        group.start_soon(hang_up)
        with anyio.move_on_after(4):
            while True:
                with pytest.raises((JobLost, JobNotSent)):
                    await client.submit_background("f")
        group.cancel_scope.cancel()
    assert 4 <= len(pipes.times) <= 10


@virtual_time()
async def test_lost_submission_looks_for_a_server_for_a_minute(pipes: Pipes) -> None:
    tries: list[float] = []

    async def connect(address: Address) -> anyio.abc.AnyByteStream:
        tries.append(anyio.current_time())
        if len(tries) > 1:
            raise ConnectionRefusedError
        return await pipes.connect(address)

    async with client_of(pipes, connect=connect) as client:
        job = await client.submit("f", unique="u", resubmit=True)
        peer = await pipes.accept()
        await peer.receive(SubmitJob)
        lost_at = anyio.current_time()
        await peer.close()
        with pytest.raises(JobLost):
            await job.result()
    assert 59 < anyio.current_time() - lost_at <= 60
    pauses = [later - sooner for sooner, later in pairwise(tries[2:])]
    assert max(pauses) < 1


@virtual_time()
async def test_answers_have_a_time_limit(pipes: Pipes) -> None:
    async with client_of(pipes, timeout=3, probe_interval=None) as client:
        for call in (lambda: client.echo(b""), lambda: client.submit_background("f"), client.admin.version):
            began = anyio.current_time()
            with pytest.raises(TimeoutError, match="server:4730: no answer within 3 s"):
                await call()
            assert anyio.current_time() == pytest.approx(began + 3)
        results = await client.submit_background_many([JobRequest("f"), JobRequest("f")])
        assert [type(result) for result in results] == [TimeoutError] * 2
        # What comes later is nobody's, and keeps nothing from its place.
        peer = await pipes.accept()
        await peer.receive(EchoReq)
        await peer.send(EchoRes(b""), JobCreated(b"H:1"), b"OK 1.0\n", JobCreated(b"H:2"), JobCreated(b"H:3"))
        job = await client.submit("f")
        await peer.send(JobCreated(b"H:4"), WorkComplete(b"H:4", b"mine"))
        assert await job.result() == b"mine"


ECHOES: Final = Function("f", takes=BYTES, returns=BYTES)


async def submits(client: Client) -> None:
    job = await client.submit("f", b"x" * MIB)
    assert job.outcome is None  # it is on its way


async def submits_many(client: Client) -> None:
    jobs = await client.submit_many([JobRequest("f", b"x" * MIB)] * 2)
    assert [job.outcome for job in jobs] == [None, None]


async def submits_in_background(client: Client) -> None:
    with pytest.raises(TimeoutError, match="server:4730: no answer within 3 s"):
        await client.submit_background("f", b"x" * MIB)


async def submits_many_in_background(client: Client) -> None:
    results = await client.submit_background_many([JobRequest("f", b"x" * MIB)] * 2)
    assert [str(result) for result in results] == ["server:4730: no answer within 3 s"] * 2


async def calls(client: Client) -> None:
    with pytest.raises(TimeoutError, match="has not ended within 3 s"):
        await client.call(ECHOES, b"x" * MIB, timeout=3)


async def asks(client: Client) -> None:
    with pytest.raises(TimeoutError, match="server:4730: no answer within 3 s"):
        await client.status(b"H:1")


async def commands(client: Client) -> None:
    with pytest.raises(TimeoutError, match="server:4730: no answer within 3 s"):
        await client.admin.version()


LIMITED: Final = [submits, submits_many, submits_in_background, submits_many_in_background, calls, asks, commands]


@virtual_time()
@pytest.mark.parametrize("use", LIMITED)
async def test_time_limit_covers_the_whole_call_though_the_server_does_not_read(
    tight: Pipes, use: Callable[[Client], Awaitable[None]]
) -> None:
    async with client_of(tight, timeout=3, probe_interval=None) as client:
        await client.submit("f", b"x" * MIB)
        began = anyio.current_time()
        await use(client)
        assert anyio.current_time() == pytest.approx(began + 3)


@virtual_time()
@pytest.mark.parametrize("use", LIMITED)
async def test_time_limit_covers_the_search_for_a_server(
    pipes: Pipes, use: Callable[[Client], Awaitable[None]]
) -> None:
    async def hang(_address: Any) -> Any:
        await anyio.sleep_forever()

    not_sent = "no server could be reached: server:4730: no answer in time"
    async with client_of(pipes, connect=hang, timeout=3, connect_timeout=100) as client:
        began = anyio.current_time()
        if use is submits_many:
            assert [job.outcome for job in await client.submit_many([JobRequest("f")])] == [NotSent(not_sent)]
        elif use is submits_many_in_background:
            assert [str(error) for error in await client.submit_background_many([JobRequest("f")])] == [not_sent]
        elif use in (asks, commands):
            await use(client)
        else:
            with pytest.raises(JobNotSent, match=not_sent):
                await use(client)
        assert anyio.current_time() == pytest.approx(began + 3)


@virtual_time()
async def test_waits_of_one_job_end_by_their_own_limits(pipes: Pipes) -> None:
    async with client_of(pipes, probe_interval=None) as client:
        job = await client.submit("f")
        for wait in (
            job.result,
            lambda t: job.events(t).__anext__(),
            lambda t: client.as_completed([job], t).__anext__(),
        ):
            for seconds in (0, 2.5):
                began = anyio.current_time()
                with pytest.raises(TimeoutError, match=f"within {seconds:g} s"):
                    await wait(seconds)
                assert anyio.current_time() == pytest.approx(began + seconds)
        assert not await job.wait(1)


# Much at once


async def test_who_submits_waits_for_a_server_that_does_not_read(tight: Pipes) -> None:
    submitted = 0
    async with client_of(tight) as client, anyio.create_task_group() as group:

        async def submit() -> None:
            nonlocal submitted
            for _ in range(100):
                await client.submit("f", b"x" * 100_000)
                submitted += 1

        group.start_soon(submit)
        peer = await tight.accept()
        await anyio.wait_all_tasks_blocked()
        before = submitted
        assert before < 10
        for _ in range(100):
            await peer.receive(SubmitJob)
        await until(lambda: submitted == 100)


async def test_result_that_comes_before_its_job_is_created_is_no_other_jobs(pipes: Pipes) -> None:
    async with client_of(pipes) as client:
        jobs = [await client.submit("f") for _ in range(2)]
        peer = await pipes.accept()
        await peer.send(
            WorkComplete(b"H:2", b"two"), JobCreated(b"H:1"), JobCreated(b"H:2"), WorkComplete(b"H:1", b"1")
        )
        assert [await job.result(LIMIT) for job in jobs] == [b"1", b"two"]


async def test_stream_that_breaks_in_connect_is_a_server_that_cannot_be_reached(pipes: Pipes) -> None:
    async def broken(_address: Any) -> Any:
        raise anyio.BrokenResourceError

    async with client_of(pipes, connect=broken) as client:
        (job,) = await client.submit_many([JobRequest("f")])
        assert isinstance(job.outcome, NotSent)


# Other event loops, and other clients


@pytest.mark.parametrize("other", ["asyncio", "trio"])
async def test_client_is_refused_in_another_event_loop_at_each_call(
    network: Network, server: NetworkServer, other: str
) -> None:
    async with Client(server.address, connect=network.connect, timeout=LIMIT) as client:
        job = await client.submit("nobody")
        calls: list[Callable[[], Any]] = [
            lambda: client.submit("reverse"),
            lambda: client.submit_many([JobRequest("reverse")]),
            lambda: client.submit_background("reverse"),
            lambda: client.submit_background_many([JobRequest("reverse")]),
            lambda: client.status(b"H:1"),
            lambda: client.echo(b"x"),
            client.admin.version,
            lambda: client.as_completed([job]),
            job.wait,
            lambda: job.result(LIMIT),
            lambda: anext(job.events(LIMIT)),
            lambda: anext(aiter(job)),
        ]

        async def elsewhere() -> None:
            for call in calls:
                with pytest.raises(GearmanError, match=r"^this client belongs to another event loop: use it"):
                    await call()

        await anyio.to_thread.run_sync(lambda: anyio.run(elsewhere, backend=other))
        assert await (await client.submit("reverse", b"ab")).result(LIMIT) == b"ba"


async def test_jobs_of_another_client_are_refused_at_the_call(network: Network, server: NetworkServer) -> None:
    async with network.client(server) as client, network.client(server) as other:
        assert isinstance(client, Client)
        assert isinstance(other, Client)
        job = await client.submit("nobody", unique="u")
        with pytest.raises(
            ValueError, match=r"^job 'nobody' \(unique u.*\) belongs to another client; only that client can wait"
        ):
            other.as_completed([job])
