"""`gear_anyio.Worker`: cancellation, threads, and what it does in time. What both packages do: `tests/adapters`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest

import gear_sync
from gear_anyio import JobRequest, ThreadJob, Worker, WorkerJob
from gear_anyio.threadsafe import ThreadsafeCalls
from gearproto import AlreadyClosed, ConnectionLost, JobRaised
from gearproto.packets import (
    CanDo,
    EchoReq,
    EchoRes,
    GrabJobAll,
    JobAssignAll,
    NoJob,
    Noop,
    PreSleep,
    WorkComplete,
    WorkData,
    WorkException,
)
from gearproto.server import Report
from tests.harness.idioms import AnyClient, Gate, checkpoints, in_thread, until
from tests.harness.loops import RUN, Loop
from tests.harness.network import Backend, Network, NetworkServer, open_network
from tests.harness.peers import PipePeer, Pipes, virtual_time
from tests.harness.servers import OurServer
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


@pytest.fixture
async def network(anyio_backend: Any, loop: Loop) -> AsyncIterator[Network]:
    async with open_network(loop, "pipes") as network:
        yield network


@pytest.fixture
async def server(network: Network) -> NetworkServer:
    return await network.start()


@pytest.fixture
async def client(network: Network, server: NetworkServer) -> AnyClient:
    return await network.connected_client(server)


def worker_of(pipes: Pipes, **options: Any) -> Worker:
    return Worker("server", connect=pipes.connect, **options)


async def assign(peer: PipePeer, *workloads: bytes, function: bytes = b"f") -> None:
    """Wait until a worker asks for a job, and assign it some."""
    await peer.receive(GrabJobAll)
    await peer.send(*[JobAssignAll(b"H:" + workload, function, b"", b"", workload) for workload in workloads])


async def report(peer: PipePeer) -> tuple[type, bytes]:
    """Return the next report on a job: which packet, and what it says."""
    packet = await peer.receive(Report)
    return packet.packet, packet.body.partition(b"\0")[2]


# The end of a worker


async def test_cancelled_worker_leaves_its_job_to_another(
    network: Network, server: NetworkServer, client: AnyClient
) -> None:
    ended: list[str] = []
    begun = anyio.Event()

    async def hang(job: WorkerJob) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")

    worker = Worker(server.address, connect=network.connect)
    worker.register("f", hang)
    job = await client.submit("f")
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        await begun.wait()
        group.cancel_scope.cancel()
    assert ended == ["cancelled"]
    other = network.worker(server)
    other.register("f", lambda job: b"by another")
    await network.working(other)
    assert await job.result(LIMIT) == b"by another"


@pytest.mark.parametrize("backend", ["ours", "pipes"])
async def test_worker_that_is_cancelled_leaves_without_a_warning(
    loop: Loop, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_network(loop, backend) as network:
        server = await network.start()
        client = await network.connected_client(server)
        async with anyio.create_task_group() as group:
            group.start_soon(network.worker(server, client_id="w").run)
            await until(lambda: is_there(client, b"w"))
            await server.restart()
            await until(lambda: is_there(client, b"w"))
            assert any("closed the connection" in record.getMessage() for record in caplog.records)
            caplog.clear()
            group.cancel_scope.cancel()
        assert caplog.messages == []


async def is_there(client: AnyClient, client_id: bytes) -> bool:
    with contextlib.suppress(ConnectionLost):
        return any(row.client_id == client_id for row in await client.admin.workers())
    return False


@pytest.mark.parametrize("backend", ["ours", "pipes"])
@pytest.mark.parametrize("end", ["stop", "abort", "cancel"])
async def test_no_task_outlives_a_client_or_worker(loop: Loop, backend: Backend, end: str) -> None:
    async with open_network(loop, backend) as network:
        server = await network.start()
        begun = Gate()

        async def hang(job: WorkerJob) -> None:
            begun.open()
            await anyio.sleep(0 if end == "stop" else math.inf)

        await checkpoints()
        before = len(anyio.get_running_tasks())
        async with network.client(server) as client, anyio.create_task_group() as group:
            worker = network.worker(server, concurrency=2)
            worker.register("hang", hang, timeout=LIMIT)
            group.start_soon(worker.run)
            await client.submit_many([JobRequest("hang"), JobRequest("nobody")])
            await begun.reached()
            if end == "cancel":
                group.cancel_scope.cancel()
            else:
                getattr(worker, end)()
        if backend == "pipes":  # the server's tasks take notice first
            await until(lambda: len(anyio.get_running_tasks()) <= before)
        assert len(anyio.get_running_tasks()) == before


async def test_aborted_worker_begins_no_other_job(pipes: Pipes) -> None:
    begun: list[bytes] = []
    worker = worker_of(pipes, concurrency=2)

    @worker.function("f")
    async def f(job: WorkerJob) -> None:
        begun.append(job.workload)
        worker.abort()
        await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        await assign(await pipes.accept(), b"1", b"2")
    assert len(begun) == 1


async def test_worker_runs_once(pipes: Pipes) -> None:
    worker = worker_of(pipes)
    worker.stop()
    await worker.run()
    with pytest.raises(AlreadyClosed, match="this worker is closed: make another one"):
        await worker.run()


async def test_group_is_told_when_functions_can_be_used(pipes: Pipes) -> None:
    worker = worker_of(pipes)
    async with anyio.create_task_group() as group:
        await group.start(worker.run)
        worker.register("late", lambda job: None)
        peer = await pipes.accept()
        assert (await peer.receive(CanDo)).function == b"late"
        worker.stop()
        await peer.receive(GrabJobAll)
        await peer.send(NoJob())


async def test_last_result_is_sent_whole_to_a_server_that_is_slow(tight: Pipes) -> None:
    worker = worker_of(tight)

    @worker.function("f")
    async def f(job: WorkerJob) -> bytes:
        worker.stop()
        return b"x" * MIB

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        peer = await tight.accept()
        await assign(peer, b"1")
        await anyio.wait_all_tasks_blocked()
        assert await report(peer) == (WorkComplete, b"x" * MIB)


@virtual_time()
@pytest.mark.parametrize("stop_timeout", [None, 30])
async def test_last_result_is_sent_as_long_as_some_of_it_is_read_and_jobs_may_take(
    tight: Pipes, stop_timeout: float | None
) -> None:
    worker = worker_of(tight, stop_timeout=stop_timeout)

    @worker.function("f")
    async def f(job: WorkerJob) -> bytes:
        worker.stop()
        return b"x" * MIB

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        peer = await tight.accept()
        await assign(peer, b"1")
        began = anyio.current_time()
        read = 0
        with contextlib.suppress(anyio.EndOfStream):
            while True:
                await anyio.sleep(4)
                read += len(await peer.stream.receive())
    took = anyio.current_time() - began
    if stop_timeout is None:
        assert read > MIB
    else:
        assert took < stop_timeout + 4
        assert read < MIB


@virtual_time()
async def test_server_that_does_not_read_the_last_result_is_not_waited_for_long(tight: Pipes) -> None:
    worker = worker_of(tight)

    @worker.function("f")
    async def f(job: WorkerJob) -> bytes:
        worker.stop()
        return b"x" * MIB

    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        await assign(await tight.accept(), b"1")
    assert anyio.current_time() == pytest.approx(began + 5)


# Functions and cancellation


@pytest.mark.parametrize("limit", [None, LIMIT])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_function_that_awaits_something_cancelled_ends_with_an_exception(
    pipes: Pipes, limit: float | None
) -> None:
    worker = worker_of(pipes)

    async def f(job: WorkerJob) -> None:
        task = asyncio.ensure_future(anyio.sleep_forever())
        await anyio.lowlevel.checkpoint()
        task.cancel()
        await task

    worker.register("f", f, timeout=limit)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        peer = await pipes.accept()
        await assign(peer, b"1")
        kind, text = await report(peer)
        assert kind is WorkException
        assert text == b"RuntimeError: CancelledError: what the function awaited was cancelled"
        await assign(peer, b"2")  # and the worker goes on
        assert (await report(peer))[0] is WorkException
        worker.stop()
        await peer.send(NoJob())


@virtual_time()
async def test_function_is_cancelled_when_its_time_is_over(pipes: Pipes) -> None:
    worker = worker_of(pipes)
    ended: list[float] = []

    @worker.function("f", timeout=7)
    async def f(job: WorkerJob) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        peer = await pipes.accept()
        await assign(peer, b"1")
        began = anyio.current_time()
        assert await report(peer) == (WorkException, b"TimeoutError: the job has taken longer than 7 s")
        assert ended == [pytest.approx(began + 7)]
        group.cancel_scope.cancel()


async def test_thread_that_hangs_past_its_time_keeps_no_other_job_waiting(pipes: Pipes) -> None:
    gate = Gate()
    worker = worker_of(pipes)
    worker.register("hang", lambda job: gate.wait(), timeout=0.01)
    worker.register("f", lambda job: b"done", timeout=LIMIT / 4)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        peer = await pipes.accept()
        for number in range(3):
            await assign(peer, b"%d" % number, function=b"hang")
            assert (await report(peer))[0] is WorkException
        await assign(peer, b"4")
        assert await report(peer) == (WorkComplete, b"done")
        gate.open()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("end", ["timeout", "abort", "cancel"])
async def test_thread_left_behind_is_told_why_it_cannot_report(pipes: Pipes, end: str) -> None:
    begun, gate, over = Gate(), Gate(), Gate()
    raised: list[BaseException] = []
    worker = worker_of(pipes)

    def f(job: ThreadJob) -> None:
        begun.open()
        gate.wait()
        calls: list[Callable[[], None]] = [partial(job.progress, 1, 2), partial(job.send, b""), partial(job.warn, b"")]
        for call in calls:
            try:
                call()
            except BaseException as error:
                raised.append(error)
        over.open()

    worker.register("f", f, timeout=0.05 if end == "timeout" else None)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        peer = await pipes.accept()
        await assign(peer, b"1")
        await begun.reached()
        if end == "timeout":
            await report(peer)
        elif end == "abort":
            worker.abort()
            await peer.expect_end()
        if end != "cancel":
            gate.open()
            await over.reached()
        group.cancel_scope.cancel()
    gate.open()
    await over.reached()
    assert [type(error) for error in raised] == [TimeoutError if end == "timeout" else ConnectionLost] * 3


async def test_report_that_is_on_its_way_when_the_time_is_over_ends(
    network: Network, client: AnyClient, server: NetworkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporting, ended, told = Gate(), Gate(), Gate()
    errors: list[BaseException] = []
    wait = ThreadsafeCalls.wait

    def wait_later(calls: ThreadsafeCalls, call: Callable[[], Any]) -> None:
        reporting.open()
        ended.wait()  # as a thread does that is slow
        wait(calls, call)

    def f(job: ThreadJob) -> None:
        try:
            job.progress(1, 2)
        except BaseException as error:
            errors.append(error)
        told.open()

    monkeypatch.setattr(ThreadsafeCalls, "wait", wait_later)
    worker = network.worker(server)
    worker.register("f", f, timeout=0.01)
    await network.working(worker)
    while not reporting.is_open:  # the time may be over before the thread begins
        job = await client.submit("f")
        with pytest.raises(JobRaised, match="TimeoutError"):
            await job.result(LIMIT)
    ended.open()
    await told.reached()
    assert [type(error) for error in errors] == [TimeoutError]


async def test_report_of_an_ended_job_does_not_end_its_next_assignment(pipes: Pipes) -> None:
    worker = worker_of(pipes, concurrency=2)
    jobs: list[WorkerJob] = []
    go = anyio.Event()

    @worker.function("f")
    async def f(job: WorkerJob) -> bytes:
        jobs.append(job)
        if len(jobs) > 1:
            await go.wait()
        return b"%d" % len(jobs)

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        peer = await pipes.accept()
        await assign(peer, b"1")
        assert await report(peer) == (WorkComplete, b"1")
        await peer.send(JobAssignAll(b"H:1", b"f", b"", b"", b"1"))
        await until(lambda: len(jobs) == 2)
        with pytest.raises(TimeoutError):
            await jobs[0].send(b"stale")
        go.set()
        assert await report(peer) == (WorkComplete, b"2")
        group.cancel_scope.cancel()


# Time, and servers


@virtual_time()
async def test_worker_connects_ten_times_in_four_seconds_at_the_most(pipes: Pipes) -> None:
    worker = worker_of(pipes)

    async def hang_up() -> None:
        while True:
            await (await pipes.accept()).close()

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        group.start_soon(hang_up)
        await anyio.sleep(4)
        group.cancel_scope.cancel()
    pauses = [later - earlier for earlier, later in zip(pipes.times, pipes.times[1:], strict=False)]
    assert 5 <= len(pipes.times) <= 10
    assert max(pauses) <= 0.8


@virtual_time()
async def test_silent_server_is_probed_and_connected_to_again(pipes: Pipes) -> None:
    worker = worker_of(pipes, probe_interval=30, probe_timeout=10)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        began = anyio.current_time()
        first = await pipes.accept()
        await first.receive(EchoReq)
        assert anyio.current_time() == pytest.approx(began + 30)
        second = await pipes.accept()
        assert began + 40 <= anyio.current_time() < began + 41
        await first.expect_end()
        await second.send(EchoRes((await second.receive(EchoReq)).data))
        await second.receive(GrabJobAll)
        group.cancel_scope.cancel()


@virtual_time()
async def test_server_that_answers_no_grab_keeps_no_job_of_another_waiting(pipes: Pipes) -> None:
    worker = Worker(["one", "two"], connect=pipes.connect)

    @worker.function("f")
    async def f(job: WorkerJob) -> bytes:
        return b"done"

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        peers = [await pipes.accept(), await pipes.accept()]
        asked: list[PipePeer] = []

        async def listen(peer: PipePeer) -> None:
            await peer.receive(GrabJobAll)
            asked.append(peer)

        for peer in peers:
            group.start_soon(listen, peer)
        await anyio.sleep(1)
        assert len(asked) == 1  # there is room for one job
        await anyio.sleep(1.5)
        assert len(asked) == 2
        await asked[1].send(JobAssignAll(b"H:1", b"f", b"", b"", b""))
        assert await report(asked[1]) == (WorkComplete, b"done")
        group.cancel_scope.cancel()


async def test_function_that_sends_waits_for_a_server_that_does_not_read(tight: Pipes) -> None:
    worker = worker_of(tight)
    sent = 0

    @worker.function("f")
    async def f(job: WorkerJob) -> None:
        nonlocal sent
        for _ in range(100):
            await job.send(b"x" * 50_000)
            sent += 1

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        peer = await tight.accept()
        await assign(peer, b"1")
        await anyio.wait_all_tasks_blocked()
        assert sent < 20
        for _ in range(100):
            assert await report(peer) == (WorkData, b"x" * 50_000)
        assert await report(peer) == (WorkComplete, b"")
        group.cancel_scope.cancel()


async def test_sleeping_worker_is_woken(pipes: Pipes) -> None:
    worker = worker_of(pipes)

    @worker.function("f")
    async def f(job: WorkerJob) -> bytes:
        return b"done"

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        peer = await pipes.accept()
        for _ in range(2):
            await peer.receive(GrabJobAll)
            await peer.send(NoJob())
            await peer.receive(PreSleep)
            await peer.send(Noop())
        await assign(peer, b"1")
        assert await report(peer) == (WorkComplete, b"done")
        group.cancel_scope.cancel()


# Signals

PROGRAM: Final = f"""
{RUN}
import gear_anyio
worker = gear_anyio.Worker(sys.argv[1])
@worker.function("wait")
async def wait(job):
    print("begun", flush=True)
    await anyio.to_thread.run_sync(sys.stdin.readline)
    return b"to the end"
@worker.function("hang")
async def hang(job):
    print("begun", flush=True)
    while not worker._stopping:
        await anyio.sleep(0.001)
    print("stopping", flush=True)
    await anyio.sleep_forever()
run(worker.run)
print("left", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_lets_the_job_in_hand_end_and_a_second_one_does_not(loop: Loop, number: signal.Signals) -> None:
    def play() -> None:
        server = OurServer()
        arguments = [sys.executable, "-W", "error", "-c", PROGRAM, server.address, loop]
        try:
            with gear_sync.Client(server.address) as client:
                for name in ("wait", "hang"):
                    job = client.submit(name)
                    with subprocess.Popen(
                        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                    ) as process:
                        assert process.stdin is not None
                        assert process.stdout is not None
                        assert process.stdout.readline() == "begun\n"
                        process.send_signal(number)
                        if name == "wait":
                            process.stdin.write("\n")
                            process.stdin.flush()
                            assert job.result(LIMIT) == b"to the end"
                        else:
                            assert process.stdout.readline() == "stopping\n"
                            process.send_signal(number)
                        assert process.stdout.readline() == "left\n"
                        assert process.wait(LIMIT) == 0
                client.echo(b"")
                assert job.handle is not None
                assert client.status(job.handle).known  # for another worker
        finally:
            server.close()

    await in_thread(play)


HANGS: Final = f"""
{RUN}
import os, time, gear_anyio
worker = gear_anyio.Worker(sys.argv[1])
@worker.function("hang")
def hang(job):
    print("begun", flush=True)
    time.sleep(3600)
@worker.function("block")
async def block(job):
    print("begun", flush=True)
    while True:
        time.sleep(0.01)  # a signal that comes just before a call would not wake it
run(worker.run)
print("left", flush=True)
if sys.argv[2] != "trio":
    os._exit(0)  # as the page on workers has it
"""


@pytest.mark.parametrize("function", ["hang", "block"])
async def test_second_signal_ends_a_worker_though_a_thread_hangs_or_a_coroutine_blocks_the_loop(
    loop: Loop, function: str
) -> None:
    def play() -> None:
        server = OurServer()
        arguments = [sys.executable, "-W", "error", "-c", HANGS, server.address, loop]
        try:
            with (
                gear_sync.Client(server.address) as client,
                subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process,
            ):
                job = client.submit(function)
                assert process.stdout is not None
                assert process.stdout.readline() == "begun\n"
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGINT)
                try:
                    assert process.stdout.readline() == "left\n"
                    assert process.wait(LIMIT) == 0
                finally:
                    process.kill()
                client.echo(b"")  # the handle has come by now
                assert job.handle is not None
                assert client.status(job.handle).known  # for another worker
        finally:
            server.close()

    await in_thread(play)
