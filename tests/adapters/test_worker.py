"""Workers of both packages: the same behaviour on every event loop, with every server, and over every transport."""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import gear_anyio
import gear_sync
from gearproto import Completed, Failed, JobFailed, JobRaised, JobRejected, LocalProtocolError, Raised
from gearproto.codec import MAX_GROWTH
from gearproto.events import Data, Progress, Warned
from gearproto.functions import BYTES, Function
from gearproto.packets import CanDo, GrabJobAll, JobAssignAll, WorkFail
from gearproto.server import Report
from tests.adapters.conftest import StartWorker
from tests.harness.hostile import HostileServer, Peer
from tests.harness.idioms import (
    AnyClient,
    AnyWorker,
    Gate,
    Idiom,
    ThreadedWorker,
    checkpoints,
    in_thread,
    make_worker,
    until,
    working,
)
from tests.harness.network import Network, NetworkServer
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio

JobRequest = gear_sync.JobRequest
MIB = 1024 * 1024

_context: ContextVar[bytes] = ContextVar("_context", default=b"nothing")


def reverse(job: Any) -> bytes:
    result: bytes = job.workload[::-1]
    return result


def kinds(idiom: Idiom, plain: Callable[..., Any], coroutine: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Return the kinds of a function that an idiom can run."""
    return [plain] if idiom == "gear_sync" else [plain, coroutine]


async def registered(client: AnyClient) -> set[bytes]:
    return {row.function for row in await client.admin.status() if row.workers}


# What functions are, and what they tell


async def test_functions_of_every_kind_tell_the_same(idiom: Idiom, client: AnyClient, start: StartWorker) -> None:
    def plain(job: Any) -> bytes:
        job.progress(1, 2)
        job.send(b"piece ")
        job.warn(b"careful")
        return bytes(job.function + job.unique + job.reducer + job.workload)

    async def coroutine(job: Any) -> bytes:
        await job.progress(1, 2)
        await job.send(b"piece ")
        await job.warn(b"careful")
        return bytes(job.function + job.unique + job.reducer + job.workload)

    class Callable_:  # noqa: N801
        def __call__(self, job: Any) -> Any:
            return plain(job)

    class Awaitable_:  # noqa: N801
        async def __call__(self, job: Any) -> Any:
            return await coroutine(job)

    for function in kinds(idiom, plain, coroutine) + kinds(idiom, Callable_(), Awaitable_()):
        worker = await start(f=function)
        job = await client.submit("f", b"w", unique="u", reducer="r")
        _, _, _, outcome = events = [event async for event in job.events(LIMIT)]
        assert [type(event) for event in events] == [Progress, Data, Warned, Completed]
        assert outcome == Completed(b"furw")
        worker.stop()


async def test_functions_know_how_much_time_they_have(idiom: Idiom, client: AnyClient, start: StartWorker) -> None:
    told: list[tuple[float | None, float | None]] = []

    def plain(job: Any) -> None:
        told.append((job.timeout, job.time_left))

    async def coroutine(job: Any) -> None:
        plain(job)

    worker = await start(unlimited=plain)
    for number, function in enumerate(kinds(idiom, plain, coroutine)):
        worker.register(f"f{number}", function, timeout=LIMIT)
        await client.call(Function(f"f{number}", takes=BYTES, returns=BYTES), b"", timeout=LIMIT)
        timeout, left = told.pop()
        assert timeout == LIMIT
        assert left is not None
        assert 0 < left <= LIMIT
    await (await client.submit("unlimited")).result(LIMIT)
    assert told == [(None, None)]


async def test_threads_that_a_function_starts_may_report(idiom: Idiom, client: AnyClient, start: StartWorker) -> None:
    def f(job: Any) -> bytes:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: job.send(b"%d" % number), range(10)))
        return b"all"

    await start(f=f)
    job = await client.submit("f")
    assert sorted(await job.result(LIMIT)) == sorted(b"0123456789all")


async def test_generators_send_pieces(idiom: Idiom, client: AnyClient, start: StartWorker) -> None:
    def pieces(job: Any) -> Generator[bytes, None, bytes]:
        yield b"one "
        yield b"two "
        return b"three"

    async def async_pieces(job: Any) -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two "
        yield b"three"

    for number, function in enumerate(kinds(idiom, pieces, async_pieces)):
        await start(**{f"f{number}": function})
        job = await client.submit(f"f{number}")
        events = [event.data async for event in job.events(LIMIT) if isinstance(event, Data)]
        assert events[:2] == [b"one ", b"two "]
        assert await job.result(0) == b"one two three"


async def test_what_a_job_sets_in_its_context_the_next_does_not_see(
    idiom: Idiom, client: AnyClient, start: StartWorker
) -> None:
    def plain(job: Any) -> bytes:
        seen = _context.get()
        _context.set(job.workload)
        return seen

    def pieces(job: Any) -> Generator[bytes, None, None]:
        yield plain(job)
        yield _context.get()

    async def coroutine(job: Any) -> bytes:
        return plain(job)

    async def async_pieces(job: Any) -> AsyncIterator[bytes]:
        yield plain(job)
        yield _context.get()

    for number, function in enumerate(kinds(idiom, plain, coroutine) + kinds(idiom, pieces, async_pieces)):
        await start(**{f"f{number}": function})
        for workload in (b"1", b"2"):
            result = await (await client.submit(f"f{number}", workload)).result(LIMIT)
            assert result in (b"nothing", b"nothing" + workload)


@pytest.mark.parametrize(
    ("result", "data"),
    [(b"bytes", b"bytes"), (bytearray(b"array"), b"array"), (memoryview(b"view"), b"view"), (None, b"")],
)
async def test_result_is_bytes_or_nothing(
    idiom: Idiom, client: AnyClient, start: StartWorker, result: object, data: bytes
) -> None:
    async def coroutine(job: Any) -> object:
        return result

    for number, function in enumerate(kinds(idiom, lambda job: result, coroutine)):
        await start(**{f"f{number}": function})
        job = await client.submit(f"f{number}")
        assert await job.result(LIMIT) == data


async def test_what_functions_raise_is_how_the_job_ends(
    idiom: Idiom, client: AnyClient, start: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    raised = {"failure": JobFailed("no reason"), "error": ValueError("\udcff"), "type": "text", "group": None}

    def plain(job: Any) -> Any:
        match raised[job.function.decode()[:-1]]:
            case Exception() as error:
                raise error
            case None:
                raise ExceptionGroup("several", [ValueError("one")])
            case text:
                return text

    async def coroutine(job: Any) -> Any:
        return plain(job)

    for number, function in enumerate(kinds(idiom, plain, coroutine)):
        await start(**{f"{name}{number}": function for name in raised})
        ends = {}
        for name in raised:
            job = await client.submit(f"{name}{number}")
            assert await job.wait(LIMIT)
            ends[name] = job.outcome
        assert ends["failure"] == Failed()
        assert ends["error"] == Raised(rb"ValueError: \udcff")
        assert ends["type"] == Raised(b"TypeError: type%d returned str; a result has to be bytes or None" % number)
        assert ends["group"] == Raised(b"ExceptionGroup: several (1 sub-exception)")
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 3 * (number + 1)


async def test_generator_that_raises_is_closed_and_ends_the_job(
    idiom: Idiom, client: AnyClient, start: StartWorker
) -> None:
    def pieces(job: Any) -> Iterator[bytes]:
        yield b"one"
        raise JobFailed

    async def async_pieces(job: Any) -> AsyncIterator[bytes]:
        yield b"one"
        raise JobFailed

    for number, function in enumerate(kinds(idiom, pieces, async_pieces)):
        await start(**{f"f{number}": function})
        job = await client.submit(f"f{number}")
        events = [event async for event in job.events(LIMIT)]
        assert isinstance(events[0], Data)
        assert events[1:] == [Failed()]


async def test_result_over_the_packet_limit_is_an_exception_and_the_worker_goes_on(
    client: AnyClient, start: StartWorker
) -> None:
    await start({"max_packet_size": 1000}, f=lambda job: b"x" * 1000 if job.workload else b"small")
    job = await client.submit("f", b"large")
    with pytest.raises(JobRaised, match=r"WORK_COMPLETE: .* bytes, limit 1000"):
        await job.result(LIMIT)
    job = await client.submit("f")
    assert await job.result(LIMIT) == b"small"


@pytest.mark.parametrize("backend", ["ours", "pipes"])
async def test_job_at_the_limit_of_its_server_runs_and_a_larger_one_is_refused(network: Network) -> None:
    server = await network.start(max_packet_size=1000)
    worker = network.worker(server, max_packet_size=1000)
    worker.register("f", lambda job: b"%d" % len(job.workload))
    await network.working(worker)
    room = 1000 - MAX_GROWTH - len(b"f\0\0")
    client = await network.connected_client(server)
    for size in (room - 1, room):
        job = await client.submit("f", bytes(size))
        assert await job.result(LIMIT) == b"%d" % size
    job = await client.submit("f", bytes(room + 1))
    with pytest.raises(JobRejected, match="SUBMIT_JOB: 936 bytes, 1001 when it is assigned, limit 1000"):
        await job.result(LIMIT)


async def test_large_results_arrive_from_functions_of_every_kind(
    idiom: Idiom, client: AnyClient, start: StartWorker
) -> None:
    result = b"x" * (8 * MIB)  # more than a socket takes at once

    async def coroutine(job: Any) -> bytes:
        return result

    for number, function in enumerate(kinds(idiom, lambda job: result, coroutine)):
        await start(**{f"f{number}": function})
        job = await client.submit(f"f{number}")
        assert await job.result(LIMIT) == result


async def test_piece_over_the_packet_limit_is_an_exception_of_the_function(
    client: AnyClient, start: StartWorker
) -> None:
    refused: list[str] = []

    def f(job: Any) -> bytes:
        with pytest.raises(LocalProtocolError) as caught:
            job.send(b"x" * 1000)
        refused.append(str(caught.value))
        return b"all the same"

    await start({"max_packet_size": 1000}, f=f)
    job = await client.submit("f")
    assert await job.result(LIMIT) == b"all the same"
    assert "WORK_DATA" in refused[0]


# Time limits


async def test_function_that_takes_too_long_ends_with_an_exception(
    idiom: Idiom, client: AnyClient, network: Network, server: NetworkServer
) -> None:
    begun, over = Gate(), Gate()
    raised: list[BaseException] = []

    def plain(job: Any) -> None:
        begun.open()
        over.wait()
        try:
            job.progress(1, 2)
        except BaseException as error:
            raised.append(error)
            raise

    async def coroutine(job: Any) -> None:
        await anyio.sleep_forever()

    worker = network.worker(server, concurrency=1)
    for number, function in enumerate(kinds(idiom, plain, coroutine)):
        worker.register(f"f{number}", function, timeout=0.05)
    worker.register("reverse", reverse)
    await network.working(worker)
    for number, function in enumerate(kinds(idiom, plain, coroutine)):
        ran = False
        while not ran:  # the time may be over before the thread of a plain function begins
            job = await client.submit(f"f{number}")
            with pytest.raises(JobRaised, match=r"TimeoutError: the job has taken longer than 0\.05 s"):
                await job.result(LIMIT)
            ran = begun.is_open or function is coroutine
    over.open()
    job = await client.submit("reverse", b"ab")
    assert await job.result(LIMIT) == b"ba"
    await until(lambda: raised)
    assert [type(error) for error in raised] == [TimeoutError]


async def test_function_in_time_has_no_trouble_with_its_limit(
    client: AnyClient, network: Network, server: NetworkServer
) -> None:
    worker = network.worker(server)
    worker.function("f", timeout=LIMIT)(reverse)
    await network.working(worker)
    job = await client.submit("f", b"ab")
    assert await job.result(LIMIT) == b"ba"


@pytest.mark.parametrize("limit", [0, -1])
async def test_limit_that_makes_no_sense_is_refused(network: Network, server: NetworkServer, limit: float) -> None:
    worker = network.worker(server)
    with pytest.raises(ValueError, match=r"the timeout of a function is .*, which has to be above 0"):
        worker.register("f", reverse, timeout=limit)


# How many at once


@pytest.mark.parametrize("servers", [1, 2])
async def test_worker_runs_as_many_jobs_as_it_has_room_for_and_never_more(
    idiom: Idiom, network: Network, servers: int
) -> None:
    room, count = 3, 30
    for _ in range(servers):
        await network.start()
    lock = threading.Lock()
    running = most = 0
    full = threading.Barrier(room)

    def enter() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def leave() -> None:
        nonlocal running
        with lock:
            running -= 1

    def plain(job: Any) -> bytes:
        enter()
        if job.workload:
            full.wait(LIMIT)  # so many do run at once
        leave()
        return b"done"

    async def coroutine(job: Any) -> bytes:
        enter()
        if job.workload:
            await anyio.to_thread.run_sync(full.wait, LIMIT)
        await anyio.lowlevel.checkpoint()
        leave()
        return b"done"

    for function in kinds(idiom, plain, coroutine):
        client = await network.connected_client(policy="round_robin")
        jobs = await client.submit_many(JobRequest("f", b"x" * (number < room)) for number in range(count))
        await client.echo(b"")
        worker = network.worker(concurrency=room)
        worker.register("f", function)
        async with working(worker):
            assert [await job.result(LIMIT) for job in jobs] == [b"done"] * count
        assert most == room
        assert running == 0


class Crowd:
    """Functions that note how many of them run at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.gate = Gate()
        self.running = self.most = self.runs = 0

    def enter(self) -> None:
        with self.lock:
            self.runs += 1
            self.running += 1
            self.most = max(self.most, self.running)

    def leave(self) -> None:
        with self.lock:
            self.running -= 1

    def plain(self, job: Any) -> bytes:
        self.enter()
        self.gate.wait()
        self.leave()
        return b""

    async def coroutine(self, job: Any) -> bytes:
        self.enter()
        await self.gate.reached()
        self.leave()
        return b""


@pytest.mark.parametrize("room", [None, 1, 2])
async def test_worker_never_runs_more_jobs_than_it_has_room_for_whatever_servers_assign(
    idiom: Idiom, room: int | None
) -> None:
    def assigns_many(peer: Peer) -> None:
        peer.receive_until(GrabJobAll)
        peer.send(*[JobAssignAll(b"H:%d" % number, b"f", b"", b"", b"") for number in range(10)])
        for _ in range(10):
            peer.receive_until(Report)

    crowd = Crowd()
    for function in kinds(idiom, crowd.plain, crowd.coroutine):
        crowd.gate = Gate()
        with HostileServer(assigns_many) as server:
            worker = make_worker(idiom, [server.address], concurrency=room)
            worker.register("f", function)
            async with working(worker):
                await until(lambda: crowd.running == (room or 1))
                await checkpoints()
                crowd.gate.open()
                await in_thread(server.join)
        assert (crowd.running, crowd.most) == (0, room or 1)
    assert crowd.runs == 10 * len(kinds(idiom, crowd.plain, crowd.coroutine))


@pytest.mark.parametrize("room", [None, 2])
async def test_job_that_waits_for_room_is_dropped_with_its_connection(idiom: Idiom, room: int | None) -> None:
    """The server gives it to another worker."""
    crowd = Crowd()

    def goes(peer: Peer) -> None:
        peer.receive_until(GrabJobAll)
        peer.send(*[JobAssignAll(b"H:%d" % number, b"f", b"", b"", b"") for number in range(10)])
        poll_until(lambda: crowd.running == (room or 1), "the worker is full")

    def is_back(peer: Peer) -> None:
        peer.receive_until(CanDo)
        back.open()
        peer.receive_until(GrabJobAll)

    for function in kinds(idiom, crowd.plain, crowd.coroutine):
        crowd.gate, crowd.runs, back = Gate(), 0, Gate()
        with HostileServer(goes, is_back) as server:
            worker = make_worker(idiom, [server.address], concurrency=room)
            worker.register("f", function)
            async with working(worker):
                await in_thread(partial(server.wait_for_scripts, 1))
                if idiom != "gear_sync" or room is not None:  # else it cannot look while the job runs
                    await back.reached()
                crowd.gate.open()
                await in_thread(server.join)
        assert crowd.runs == (room or 1)


async def test_full_worker_leaves_jobs_to_others(network: Network, client: AnyClient, start: StartWorker) -> None:
    gate, begun = Gate(), Gate()

    def slow(job: Any) -> bytes:
        begun.open()
        gate.wait()
        return b"slow"

    await start(slow=slow, f=lambda job: b"first")
    job = await client.submit("slow")
    await begun.reached()
    await start(f=lambda job: b"second")
    for _ in range(5):
        other = await client.submit("f")
        assert await other.result(LIMIT) == b"second"
    gate.open()
    assert await job.result(LIMIT) == b"slow"


async def test_job_of_a_function_that_is_not_registered_any_more_fails(idiom: Idiom) -> None:
    """A job may be on its way to the worker while it takes a function back."""

    reports: list[Report] = []

    def script(peer: Peer) -> None:
        peer.receive_until(GrabJobAll)
        peer.send(JobAssignAll(b"H:1", b"unknown", b"", b"", b""))
        report = peer.receive_until(Report)
        assert isinstance(report, Report)
        reports.append(report)

    with HostileServer(script) as server:
        worker = make_worker(idiom, [server.address])
        worker.register("f", reverse)
        async with working(worker):
            await in_thread(server.join)
    assert [(report.packet, report.handle) for report in reports] == [(WorkFail, b"H:1")]


async def test_room_for_no_job_is_refused(idiom: Idiom) -> None:
    name, least = ("threads", 0) if idiom == "gear_sync" else ("concurrency", 1)
    kind: Any = gear_sync.Worker if idiom == "gear_sync" else gear_anyio.Worker
    for wrong in (least - 1, 1.5, "2", None, math.nan):
        with pytest.raises(ValueError, match=f"{name} is {wrong!r}, not a whole number of {least} or more"):
            kind("localhost", **{name: wrong})


@pytest.mark.parametrize("client_id", ["a\0b", "x" * 10_000, 5])
async def test_name_that_no_server_would_take_is_refused_at_once(idiom: Idiom, client_id: Any) -> None:
    with pytest.raises(LocalProtocolError, match=r"SET_CLIENT_ID|has to be bytes"):
        make_worker(idiom, "localhost", client_id=client_id)


async def test_function_that_is_registered_without_a_name_is_refused_at_once(
    network: Network, server: NetworkServer
) -> None:
    worker: Any = network.worker(server)
    with pytest.raises(TypeError, match=r'is not a name: write @worker.function\("name"\)'):
        worker.function(reverse)


# Functions come and go


async def test_functions_come_and_go_while_the_worker_runs(client: AnyClient, start: StartWorker) -> None:
    worker = await start({"client_id": "w"}, one=reverse)
    await until_registered(client, {b"one"})
    worker.register("two", reverse)
    await until_registered(client, {b"one", b"two"})
    job = await client.submit("two", b"ab")
    assert await job.result(LIMIT) == b"ba"
    worker.unregister("one")
    await until_registered(client, {b"two"})
    handle = await client.submit_background("one")
    job = await client.submit("two", b"cd")
    assert await job.result(LIMIT) == b"dc"
    assert not (await client.status(handle)).running
    worker.register("one", lambda job: b"again")
    job = await client.submit("one")
    assert await job.result(LIMIT) == b"again"
    with pytest.raises(LocalProtocolError, match="was not offered"):
        worker.unregister("three")


async def test_functions_that_were_unregistered_are_forgotten(client: AnyClient, start: StartWorker) -> None:
    any_worker = await start(reverse=reverse)
    worker = any_worker.worker if isinstance(any_worker, ThreadedWorker) else any_worker
    for number in range(20):
        worker.register(f"f{number}", reverse)
        job = await client.submit(f"f{number}", b"ab")
        assert await job.result(LIMIT) == b"ba"
        worker.unregister(f"f{number}")
    await (await client.submit("reverse")).result(LIMIT)
    await until(lambda: {*worker._jobs.functions} == {b"reverse"})


async def test_job_whose_function_is_unregistered_meanwhile_runs_once_and_ends(
    network: Network, server: NetworkServer, client: AnyClient
) -> None:
    gate, begun = Gate(), Gate()
    runs: list[bytes] = []

    def slow(job: Any) -> bytes:
        runs.append(job.handle)
        begun.open()
        gate.wait()
        return b"done"

    worker = network.worker(server, concurrency=2)
    worker.register("slow", slow)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        job = await client.submit("slow")
        await begun.reached()
        worker.unregister("slow")
        gate.open()
        assert await job.result(LIMIT) == b"done"
        await until_registered(client, set())
        worker.stop()
    assert len(runs) == 1


async def until_registered(client: AnyClient, functions: set[bytes]) -> None:
    async def are_registered() -> bool:
        return await registered(client) == functions

    await until(are_registered)


async def test_function_may_change_what_the_worker_offers(idiom: Idiom, client: AnyClient, start: StartWorker) -> None:
    def change(job: Any) -> None:
        worker.unregister("other")
        worker.register("changed", reverse)

    async def coroutine(job: Any) -> None:
        change(job)

    worker = await start(change=change if idiom == "gear_sync" else coroutine, other=reverse)
    job = await client.submit("change")
    assert await job.result(LIMIT) == b""
    job = await client.submit("changed", b"ab")
    assert await job.result(LIMIT) == b"ba"
    await until_registered(client, {b"change", b"changed"})


# The end


@pytest.mark.parametrize("concurrency", [None, 2])
async def test_worker_that_stops_ends_the_jobs_in_hand_and_takes_no_other(
    network: Network, server: NetworkServer, client: AnyClient, concurrency: int | None
) -> None:
    gate, begun = Gate(), Gate()

    def slow(job: Any) -> bytes:
        begun.open()
        gate.wait()
        return b"x" * (4 * MIB)

    worker = network.worker(server, concurrency=concurrency)
    worker.register("slow", slow)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        job = await client.submit("slow")
        await begun.reached()
        worker.stop()
        handle = await client.submit_background("slow")
        gate.open()
        assert await job.result(LIMIT) == b"x" * (4 * MIB)
    if concurrency is None:  # else the worker may have asked for one more job just before
        status = await client.status(handle)
        assert (status.known, status.running) == (True, False)


async def test_worker_that_aborts_leaves_its_job_to_another(
    idiom: Idiom, network: Network, server: NetworkServer, client: AnyClient
) -> None:
    gate, begun = Gate(), Gate()
    workers: list[AnyWorker] = []

    def abort(job: Any) -> bytes:
        begun.open()
        gate.wait()
        return b"never sent"

    async def coroutine(job: Any) -> bytes:
        begun.open()
        workers[-1].abort()
        await anyio.sleep_forever()
        return b"never reached"

    for function in kinds(idiom, abort, coroutine):
        workers.append(network.worker(server, concurrency=1))
        workers[-1].register("f", function)
        job = await client.submit("f")
        async with anyio.create_task_group() as group:
            group.start_soon(workers[-1].run)
            await begun.reached()
            workers[-1].abort()
        other = network.worker(server)
        other.register("f", lambda job: b"by another")
        async with working(other):
            assert await job.result(LIMIT) == b"by another"
    gate.open()


async def test_jobs_that_do_not_end_in_time_are_left_to_others(
    idiom: Idiom, network: Network, server: NetworkServer, client: AnyClient
) -> None:
    gate, begun = Gate(), Gate()

    def hang(job: Any) -> bytes:
        begun.open()
        gate.wait()
        return b"too late"

    async def coroutine(job: Any) -> None:
        begun.open()
        await anyio.sleep_forever()

    for function in kinds(idiom, hang, coroutine):
        worker = network.worker(server, concurrency=1, stop_timeout=0.05)
        worker.register("f", function)
        job = await client.submit("f")
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            await begun.reached()
            worker.stop()
        other = network.worker(server)
        other.register("f", lambda job: b"by another")
        async with working(other):
            assert await job.result(LIMIT) == b"by another"
    gate.open()


async def test_worker_stopped_before_it_runs_does_not_run(network: Network, server: NetworkServer) -> None:
    worker = network.worker(server)
    worker.register("f", reverse)
    worker.stop()
    with anyio.fail_after(LIMIT):
        await worker.run()


async def test_workers_that_leave_in_peace_take_no_job_with_them(
    network: Network, server: NetworkServer, client: AnyClient
) -> None:
    jobs = await client.submit_many(JobRequest("f", b"%d" % number) for number in range(10))
    done: Counter[bytes] = Counter()

    def one(job: Any) -> bytes:
        done[job.workload] += 1
        return bytes(job.workload)

    for _ in range(10):
        worker = network.worker(server, concurrency=1)
        worker.register("f", one)
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            await until(partial(lambda taken: done.total() > taken, done.total()))
            worker.stop()
        if len(done) == len(jobs):
            break
    assert [await job.result(LIMIT) for job in jobs] == [b"%d" % number for number in range(10)]
    assert {*done.values()} == {1}


# Servers come and go


async def test_worker_is_back_after_a_restart_with_all_it_offers(
    network: Network, server: NetworkServer, client: AnyClient, start: StartWorker
) -> None:
    worker = await start({"client_id": "the worker", "retry_pauses": (0.01, 0.05)}, one=reverse)
    worker.register("two", reverse, timeout=5)
    await until_registered(client, {b"one", b"two"})
    for _ in range(2):
        await server.restart()
        other = network.client(server, retry_pauses=(0.01, 0.05))
        async with other:
            await until_registered(other, {b"one", b"two"})
            assert b"the worker" in {row.client_id for row in await other.admin.workers()}
            job = await other.submit("two", b"ab")
            assert await job.result(LIMIT) == b"ba"


async def test_job_whose_server_is_lost_is_told_so_and_the_worker_goes_on(
    idiom: Idiom, network: Network, server: NetworkServer
) -> None:
    begun, gate = Gate(), Gate()
    raised: list[str] = []

    def plain(job: Any) -> None:
        begun.open()
        gate.wait()
        for _ in range(100):
            try:
                job.send(b"piece")
            except BaseException as error:
                raised.append(type(error).__name__)
                raise

    async def coroutine(job: Any) -> None:
        begun.open()
        await anyio.to_thread.run_sync(gate.wait)
        for _ in range(100):
            try:
                await job.send(b"piece")
            except BaseException as error:
                raised.append(type(error).__name__)
                raise

    worker = network.worker(server, concurrency=1, retry_pauses=(0.01, 0.05))
    for number, function in enumerate(kinds(idiom, plain, coroutine)):
        worker.register(f"f{number}", function)
    worker.register("reverse", reverse)
    await network.working(worker)
    for number, _ in enumerate(kinds(idiom, plain, coroutine)):
        async with network.client(server, retry_pauses=(0.01, 0.05)) as client:
            job = await client.submit(f"f{number}")
            await begun.reached()
            await server.restart()
            gate.open()
            assert await job.wait(LIMIT)
            job = await client.submit("reverse", b"ab")
            assert await job.result(LIMIT) == b"ba"
    assert {*raised} <= {"ConnectionLost"}


async def test_worker_serves_all_servers_and_goes_on_without_one(network: Network) -> None:
    servers = [await network.start() for _ in range(3)]
    worker = network.worker(retry_pauses=(0.01, 0.05))
    worker.register("reverse", reverse)
    await network.working(worker)
    for server in servers:
        async with network.client(server) as client:
            job = await client.submit("reverse", b"ab")
            assert await job.result(LIMIT) == b"ba"
    await servers[1].close()
    for server in (servers[0], servers[2]):
        async with network.client(server) as client:
            job = await client.submit("reverse", b"cd")
            assert await job.result(LIMIT) == b"dc"
