"""Clients of both packages: the same behaviour on every event loop, with every server, and over every transport."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import pytest

import gear_sync
from gearproto import (
    AlreadyClosed,
    Completed,
    ConnectionLost,
    Failed,
    JobFailed,
    JobLost,
    JobNotSent,
    JobRaised,
    JobRejected,
    LocalProtocolError,
    Lost,
    NotSent,
    Priority,
    Raised,
    Rejected,
    ServerError,
)
from gearproto.addresses import Address
from gearproto.client import JobHandle, Resubmitted
from gearproto.events import Data, Line, Progress, Warned
from gearproto.packets import JobCreated, OptionRes, SubmitJob
from tests.adapters.conftest import StartWorker
from tests.harness.hostile import HostileServer, Peer
from tests.harness.idioms import AnyClient, AnyJob, Gate, Idiom, checkpoints, in_thread, make_client, until
from tests.harness.network import Network, NetworkServer
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio

JobRequest = gear_sync.JobRequest
YEAR: Final = timedelta(days=365)


def reverse(job: Any) -> bytes:
    result: bytes = job.workload[::-1]
    return result


def talk(job: Any) -> bytes:
    job.progress(1, 4)
    job.send(b"part")
    job.warn(b"careful")
    return b" end"


async def is_registered(client: AnyClient, function: bytes) -> bool:
    return any(row.function == function and row.workers for row in await client.admin.status())


async def collect(items: AsyncIterator[Any], found: list[Any]) -> None:
    """Append items to a list, also if they end with an exception."""
    async for item in items:
        found.append(item)  # noqa: PERF401


def plain(events: list[Any]) -> list[object]:
    """Return events without the numbers of requests."""
    return [
        (event.numerator, event.denominator)
        if isinstance(event, Progress)
        else (type(event), event.data)
        if isinstance(event, Data | Warned)
        else event
        for event in events
    ]


# Submitting, and results


@pytest.mark.parametrize("size", [0, 1, 65_536, 4 * 1024 * 1024])
async def test_results_of_any_size_come_back(client: AnyClient, start: StartWorker, size: int) -> None:
    await start(reverse=reverse)
    workload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    job = await client.submit("reverse", workload)
    assert await job.result(LIMIT) == workload[::-1]
    assert job.outcome == Completed(workload[::-1])


async def test_job_knows_its_names_and_where_it_is(
    client: AnyClient, server: NetworkServer, start: StartWorker
) -> None:
    await start(reverse=reverse)
    job = await client.submit(b"reverse", b"", unique="\N{SNOWMAN}")
    assert (job.function, job.unique) == (b"reverse", "\N{SNOWMAN}".encode())
    await job.result(LIMIT)
    assert isinstance(job.handle, JobHandle)
    assert job.handle.server == Address(*server.address)


async def test_priorities_decide_the_order(client: AnyClient, start: StartWorker) -> None:
    order: list[bytes] = []
    waited: list[AnyJob] = []
    for number in (b"1", b"2"):
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
            workload = priority.name.encode() + number
            await client.submit_background("note", workload, priority=priority)
            waited.append(await client.submit("note", workload.lower(), priority=priority))
    await client.echo(b"")  # all have arrived
    await start(note=lambda job: order.append(job.workload))
    for job in waited:
        assert await job.result(LIMIT) == b""
    await until(lambda: len(order) == 12)
    expected = [[b"%b%d" % (name, n)] for name in (b"HIGH", b"NORMAL", b"LOW") for n in (1, 2)]
    assert order == [workload for (name,) in expected for workload in (name, name.lower())]


async def test_submissions_with_one_unique_are_one_job(
    network: Network, server: NetworkServer, client: AnyClient, start: StartWorker
) -> None:
    runs: list[bytes] = []

    def once(job: Any) -> bytes:
        runs.append(job.unique)
        job.send(b"one ")
        return b"result"

    async with network.client(server) as other:
        jobs = [await who.submit("once", unique="u") for who in (client, client, other)]

        async def all_wait() -> bool:
            return (await client.status_unique("u")).clients == 3

        await until(all_wait)
        await start(once=once)
        for job in jobs:
            assert await job.result(LIMIT) == b"one result"
    assert runs == [b"u"]
    assert len({job.handle for job in jobs}) == 1


async def test_many_jobs_come_back_as_they_end_each_with_its_own_result(client: AnyClient, start: StartWorker) -> None:
    await start({"concurrency": 4}, reverse=reverse)
    workloads = [b"job %d" % number for number in range(100)]
    jobs: Any = await client.submit_many(JobRequest("reverse", workload) for workload in workloads)
    ended = [job async for job in client.as_completed(jobs, LIMIT)]
    assert len(ended) == len(jobs)
    assert {*ended} == {*jobs}
    assert [await job.result(0) for job in jobs] == [workload[::-1] for workload in workloads]


async def test_nothing_to_submit_is_nothing_to_wait_for(client: AnyClient) -> None:
    assert await client.submit_many([]) == []
    assert await client.submit_background_many([]) == []
    none: list[Any] = []
    assert [job async for job in client.as_completed(none)] == []


async def test_jobs_that_take_too_long_for_as_completed_go_on(client: AnyClient, start: StartWorker) -> None:
    gate = Gate()

    def slow(job: Any) -> bytes:
        gate.wait()
        return b"slow"

    await start({"concurrency": 2}, slow=slow, reverse=reverse)
    jobs: Any = await client.submit_many([JobRequest("slow"), JobRequest("reverse", b"ab")])
    assert await jobs[1].wait(LIMIT)
    seen: list[AnyJob] = []
    with pytest.raises(TimeoutError, match="1 jobs have not ended within"):
        await collect(client.as_completed(jobs, 0.01), seen)
    assert seen == [jobs[1]]
    gate.open()
    assert [await job.result(LIMIT) async for job in client.as_completed(jobs, LIMIT)] == [b"ba", b"slow"]


async def test_many_jobs_are_submitted_or_none(client: AnyClient, start: StartWorker) -> None:
    await start(reverse=reverse)
    for submit in (client.submit_many, client.submit_background_many):
        with pytest.raises(LocalProtocolError):
            await submit([JobRequest("reverse"), JobRequest("reverse", b"", "x" * 65)])
    await until(lambda: is_registered(client, b"reverse"))
    assert [row.total for row in await client.admin.status()] == [0]


async def test_background_jobs_run_and_their_handles_are_known(
    client: AnyClient, server: NetworkServer, start: StartWorker
) -> None:
    seen: set[bytes] = set()
    handles = [await client.submit_background("note", b"0")]
    for handle in await client.submit_background_many(JobRequest("note", b"%d" % number) for number in range(1, 20)):
        assert isinstance(handle, JobHandle)
        handles.append(handle)
    assert len({*handles}) == 20
    for handle in handles:
        assert handle.server == Address(*server.address)
        assert (await client.status(handle)).known
    await start(note=lambda job: seen.add(job.workload))
    await until(lambda: len(seen) == 20)


async def test_job_delayed_for_long_waits_and_one_whose_time_has_come_runs(
    client: AnyClient, start: StartWorker
) -> None:
    ran = Gate()
    await start(later=lambda job: ran.open() if job.workload else b"")
    now = datetime.now(UTC)
    handle = await client.submit_background("later", run_at=now + YEAR)
    await client.submit_background("later", b"now", run_at=(now - YEAR).timestamp())
    await ran.reached()
    job = await client.submit("later")
    assert await job.result(LIMIT) == b""  # the worker has had its chance
    status = await client.status(handle)
    assert (status.known, status.running) == (True, False)


async def test_time_without_a_zone_is_refused(client: AnyClient) -> None:
    with pytest.raises(LocalProtocolError, match="run_at needs a time zone"):
        await client.submit_background("f", run_at=datetime(2030, 1, 1))  # noqa: DTZ001


async def test_reducer_reaches_the_worker(client: AnyClient, start: StartWorker) -> None:
    seen: list[bytes] = []

    def reduce(job: Any) -> bytes:
        seen.append(job.reducer)
        return bytes(job.reducer + b" " + job.unique)

    await start(reduce=reduce)
    job = await client.submit("reduce", reducer="sum", unique="u")
    assert await job.result(LIMIT) == b"sum u"
    await client.submit_background("reduce", reducer="product")
    await until(lambda: seen == [b"sum", b"product"])


# What happens to a job


async def test_each_iteration_tells_all_in_order_and_ends_with_the_outcome(
    client: AnyClient, start: StartWorker
) -> None:
    await start(talk=talk)
    job = await client.submit("talk")
    expected = [(1, 4), (Data, b"part"), (Warned, b"careful"), Completed(b" end")]
    for _ in range(3):
        assert plain([event async for event in job.events(LIMIT)]) == expected
    assert job.progress == (1, 4)
    assert await job.result(0) == b"part end"


async def test_iteration_that_was_left_does_not_take_from_the_next(client: AnyClient, start: StartWorker) -> None:
    await start(talk=talk)
    job = await client.submit("talk")
    async for _event in job:
        break
    events = [event async for event in job]
    assert plain(events) == [(1, 4), (Data, b"part"), (Warned, b"careful"), Completed(b" end")]


async def test_two_watchers_each_get_every_event(client: AnyClient, start: StartWorker) -> None:
    gates = [Gate() for _ in range(3)]

    def chatter(job: Any) -> bytes:
        for number, gate in enumerate(gates):
            job.send(b"%d" % number)
            job.warn(b"%d" % number)
            job.progress(number, 3)
            gate.wait()
        return b"end"

    async def watch(seen: list[Any]) -> None:
        async for event in job.events(LIMIT):
            seen.append(event)
            if isinstance(event, Progress) and seen is watchers[0]:
                gates[event.numerator].open()

    await start(chatter=chatter)
    job = await client.submit("chatter")
    watchers: list[list[Any]] = [[], []]
    async with anyio.create_task_group() as group:
        for seen in watchers:
            group.start_soon(watch, seen)
    late = [event async for event in job]
    pieces = [(kind, b"%d" % number) for number in range(3) for kind in (Data, Warned)]
    for seen in (*watchers, late):
        told = [event for event in plain(seen) if event not in [(0, 3), (1, 3)]]  # where nobody is late, these come too
        assert told == [*pieces, (2, 3), Completed(b"end")]
    assert await job.result(0) == b"012end"


async def test_who_waits_for_too_long_may_wait_again(client: AnyClient, start: StartWorker) -> None:
    gate = Gate()

    def slow(job: Any) -> bytes:
        job.send(b"a")
        gate.wait()
        return b"b"

    await start(slow=slow)
    job = await client.submit("slow")
    events = []
    async for event in job:
        events.append(event)
        break
    with pytest.raises(TimeoutError, match="it has not been cancelled"):
        await collect(job.events(0.01), events)
    assert not await job.wait(0)
    assert job.outcome is None
    with pytest.raises(TimeoutError, match="it has not been cancelled"):
        await job.result(0.001)
    gate.open()
    assert await job.wait(LIMIT)
    assert plain(events) == [(Data, b"a"), (Data, b"a")]
    assert plain([event async for event in job.events(0)]) == [(Data, b"a"), Completed(b"b")]
    assert await job.result(0) == b"ab"


async def test_handle_of_a_job_can_be_waited_for(client: AnyClient, server: NetworkServer) -> None:
    job = await client.submit("nobody")
    handle = await job.wait_queued(LIMIT)
    assert handle == await job.wait_queued(0) == job.handle
    assert handle.server == Address(*server.address)
    assert (await client.status(handle)).known


async def test_job_tells_its_status_and_can_be_cancelled(
    client: AnyClient, server: NetworkServer, start: StartWorker
) -> None:
    begun, gate = Gate(), Gate()

    def slow(job: Any) -> bytes:
        job.progress(1, 2)
        begun.open()
        gate.wait()
        return b"too late"

    waiting = await client.submit("nobody")
    status = await waiting.status()  # at once: the handle is waited for
    assert (status.known, status.running) == (True, False)
    assert await waiting.cancel()
    assert await waiting.wait(LIMIT)
    assert waiting.outcome == Failed()
    if server.kind == "ours":  # gearmand remembers it until a worker passes over it
        assert not (await waiting.status()).known
        assert not await waiting.cancel()

    await start(slow=slow)
    running = await client.submit("slow")
    await begun.reached()

    async def has_come_so_far() -> bool:  # the report comes over another connection
        status = await running.status()
        assert status.running
        return (status.numerator, status.denominator) == (1, 2)

    await until(has_come_so_far)
    assert await running.cancel()
    with pytest.raises(JobFailed):
        await running.result(LIMIT)
    gate.open()


async def test_job_that_no_server_has_taken_has_no_handle_to_wait_for(client: AnyClient) -> None:
    await client.submit_background("full")
    await client.admin.max_queue("full", 1)
    job = await client.submit("full", unique="u")
    for ask in (job.wait_queued, job.status, job.cancel):
        with pytest.raises(JobRejected, match="Job queue is full"):
            await ask()


async def test_command_that_a_server_refuses_for_another_reason_is_an_error(idiom: Idiom) -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        peer.send(OptionRes(b"exceptions"), OptionRes(b"reruns"), JobCreated(b"H:1"))
        peer.receive_until(Line)
        peer.send(b"ERR NOT_ALLOWED go+away\r\n")
        peer.wait_for_end()

    with HostileServer(script) as server:
        async with make_client(idiom, server.address) as client:
            job = await client.submit("f")
            with pytest.raises(ServerError, match="NOT_ALLOWED"):
                await job.cancel()
        await in_thread(server.join)


async def test_job_without_an_answer_is_named_in_what_is_raised(idiom: Idiom) -> None:
    answer = Gate()

    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        answer.wait()
        peer.send(OptionRes(b"exceptions"), OptionRes(b"reruns"), JobCreated(b"H:1"))
        peer.wait_for_end()

    with HostileServer(script) as server:
        async with make_client(idiom, server.address) as client:
            job = await client.submit("f", unique="my own")
            named = r"^job 'f' \(unique my own\) has not"
            with pytest.raises(TimeoutError, match=named + " been taken by a server within 0 s"):
                await job.wait_queued(0)
            with pytest.raises(TimeoutError, match=named + " ended within 0 s"):
                await job.result(0)
            with pytest.raises(TimeoutError, match=named + " ended within 0 s"):
                await anext(job.events(0))
            answer.open()
            await job.wait_queued(LIMIT)
            with pytest.raises(TimeoutError, match=r"^job 'f' \(unique my own, handle H:1\) has not ended within 0 s"):
                await job.result(0)
        await in_thread(server.join)


# Outcomes


async def test_failure_is_told(client: AnyClient, start: StartWorker) -> None:
    def fail(job: Any) -> None:
        raise JobFailed("no reason")

    await start(fail=fail)
    job = await client.submit("fail")
    with pytest.raises(JobFailed):
        await job.result(LIMIT)
    assert job.outcome == Failed()


async def test_exception_is_told_to_who_asks_for_it_and_is_a_failure_for_others(
    network: Network, server: NetworkServer, client: AnyClient, start: StartWorker
) -> None:
    def throw(job: Any) -> None:
        raise ValueError("no such luck")

    await start(throw=throw)
    job = await client.submit("throw")
    with pytest.raises(JobRaised, match="ValueError: no such luck"):
        await job.result(LIMIT)
    assert job.outcome == Raised(b"ValueError: no such luck")
    async with network.client(server, exceptions=False) as other:
        for _ in range(2):  # gearmand ends the handle of its WORK_FAIL with a NUL
            job = await other.submit("throw")
            assert await job.wait(LIMIT)
            assert job.outcome == Failed()


async def test_full_queue_rejects_a_job(client: AnyClient) -> None:
    await client.submit_background("full")
    await client.admin.max_queue("full", 1)
    job = await client.submit("full")
    with pytest.raises(JobRejected, match="QUEUE_ERROR: Job queue is full"):
        await job.result(LIMIT)
    assert job.outcome == Rejected(b"QUEUE_ERROR", b"Job queue is full")
    with pytest.raises(JobRejected, match="QUEUE_ERROR: Job queue is full"):
        await client.submit_background("full")
    handle, error = await client.submit_background_many([JobRequest("other"), JobRequest("full")])
    assert isinstance(handle, JobHandle)
    assert isinstance(error, JobRejected)


async def test_queue_limit_can_be_one_for_each_priority_and_taken_back(client: AnyClient) -> None:
    await client.submit_background("f")
    await client.admin.max_queue("f", 0, 1, 0)
    await client.submit_background("f", priority=Priority.HIGH)
    with pytest.raises(JobRejected, match="QUEUE_ERROR"):
        await client.submit_background("f")
    await client.admin.max_queue("f", 0)
    await client.submit_background("f")


async def test_absent_server_is_told_as_not_sent(network: Network, server: NetworkServer) -> None:
    client = await network.connected_client(server, retry_pauses=(0.001, 0.001))
    await server.close()
    for _ in range(2):
        with pytest.raises(JobNotSent, match=r"no server could be reached: .*[a-z]$"):
            await client.submit("f")
    with pytest.raises(JobNotSent):
        await client.submit_background("f")
    (job,) = await client.submit_many([JobRequest("f")])
    assert isinstance(job.outcome, NotSent)
    (error,) = await client.submit_background_many([JobRequest("f")])
    assert isinstance(error, JobNotSent)
    with pytest.raises(ConnectionLost, match="no server could be reached"):
        await client.echo(b"")


async def test_job_that_breaks_a_rule_is_refused_though_no_server_can_be_reached(
    network: Network, server: NetworkServer
) -> None:
    client = await network.connected_client(server)
    await server.close()
    with pytest.raises(LocalProtocolError, match="function must not be empty"):
        await client.submit("")
    with pytest.raises(LocalProtocolError, match="run_at is nan"):
        await client.submit_background("f", run_at=math.nan)
    for submit in (client.submit_many, client.submit_background_many):
        with pytest.raises(LocalProtocolError, match="function must not be empty"):
            await submit([JobRequest("f"), JobRequest("")])


async def test_server_that_is_left_alone_is_told_with_its_failure(network: Network, server: NetworkServer) -> None:
    async with network.client(server, connect_timeout=0.05, retry_pauses=(60, 60)) as client:
        await server.close()
        texts = set()
        for _ in range(3):
            with pytest.raises(JobNotSent) as caught:
                await client.submit("f")
            texts.add(str(caught.value))
        assert len(texts) == 1


async def test_job_of_a_lost_server_is_lost_and_the_client_goes_on(
    client: AnyClient, server: NetworkServer, start: StartWorker
) -> None:
    job = await client.submit("nobody")
    await client.echo(b"")  # the submission has arrived
    await start(reverse=reverse)
    await server.restart()
    with pytest.raises(JobLost):
        await job.result(LIMIT)
    assert isinstance(job.outcome, Lost)
    job = await client.submit("reverse", b"abc")
    assert await job.result(LIMIT) == b"cba"


async def test_idle_client_uses_a_restarted_server_as_if_nothing_had_been(
    client: AnyClient, server: NetworkServer
) -> None:
    await client.submit_background("f")
    await server.restart()
    await checkpoints()
    handle = await client.submit_background("f")
    assert (await client.status(handle)).known


async def test_jobs_of_a_closed_client_are_lost(network: Network, server: NetworkServer) -> None:
    async with network.client(server) as client:
        job = await client.submit("nobody")
        await client.echo(b"")
        client.close()
        client.close()
        assert job.outcome == Lost("closed by the client")
        with pytest.raises(JobLost):
            await job.result()
        for call in (client.submit, client.submit_background, client.status_unique):
            with pytest.raises(AlreadyClosed, match="this client is closed"):
                await call("f")


async def test_exceptions_are_asked_for_again_after_a_restart(
    client: AnyClient, server: NetworkServer, start: StartWorker
) -> None:
    def explode(job: Any) -> None:
        raise ValueError("no such luck")

    await start(explode=explode)
    for restart in (False, True):
        if restart:
            await server.restart()
            await until(lambda: is_registered(client, b"explode"))
        job = await client.submit("explode")
        with pytest.raises(JobRaised, match="no such luck"):
            await job.result(LIMIT)


# Submitting again


async def test_lost_job_is_submitted_again_if_that_is_asked_for(
    client: AnyClient, server: NetworkServer, start: StartWorker
) -> None:
    jobs = [await client.submit("reverse", b"ab", unique="u", resubmit=True)]
    jobs += await client.submit_many(
        [JobRequest("reverse", b"cd", "v"), JobRequest("reverse", b"ef", "w")], resubmit=True
    )
    await client.echo(b"")
    await server.restart()
    await start(reverse=reverse)
    assert [await job.result(LIMIT) for job in jobs] == [b"ba", b"dc", b"fe"]


async def test_whoever_joins_the_pieces_of_a_job_that_is_submitted_again_has_them_once(
    client: AnyClient, server: NetworkServer, start: StartWorker
) -> None:
    first, second = Gate(), Gate()

    def pieces(job: Any) -> Iterator[bytes]:
        yield b"one "
        if not first.is_open:
            first.open()
            second.wait()
        yield b"two "

    await start(pieces=pieces)
    job = await client.submit("pieces", unique="u", resubmit=True)
    joined: list[bytes] = []
    seen: list[type] = []
    async for event in job:
        seen.append(type(event))
        if isinstance(event, Data):
            joined.append(event.data)
            if joined == [b"one "] and Resubmitted not in seen:
                await first.reached()
                await server.restart()
                second.open()
        elif isinstance(event, Resubmitted):
            joined.clear()
    assert seen == [Data, Resubmitted, Data, Data, Completed]
    assert b"".join(joined) == await job.result() == b"one two "


async def test_submission_that_joins_a_running_job_gets_only_the_pieces_to_come(
    client: AnyClient, start: StartWorker
) -> None:
    joined = Gate()

    def pieces(job: Any) -> Iterator[bytes]:
        yield b"one "
        joined.wait()
        yield b"two"

    await start(pieces=pieces)
    first = await client.submit("pieces", unique="u")
    assert isinstance(await anext(aiter(first)), Data)
    second = await client.submit("pieces", unique="u")
    await client.echo(b"")
    joined.open()
    assert await first.result(LIMIT) == b"one two"
    assert await second.result(LIMIT) == b"two"  # as the page on clients has it


async def test_job_without_a_unique_is_not_to_be_submitted_again(client: AnyClient) -> None:
    with pytest.raises(LocalProtocolError, match="resubmit needs a unique"):
        await client.submit("f", resubmit=True)
    with pytest.raises(LocalProtocolError, match="resubmit needs a unique"):
        await client.submit_many([JobRequest("f", b"", "u"), JobRequest("f")], resubmit=True)


# Queries


async def test_status_tells_queued_running_and_gone(client: AnyClient, start: StartWorker) -> None:
    gate, begun = Gate(), Gate()

    def wait(job: Any) -> None:
        job.progress(3, 7)
        begun.open()
        gate.wait()

    handle = await client.submit_background("wait", unique="w")
    status = await client.status(handle)
    assert (status.known, status.running, status.clients) == (True, False, None)
    await start(wait=wait)
    await begun.reached()

    async def progress_is_known() -> bool:
        return (await client.status(handle)).numerator == 3

    await until(progress_is_known)
    status = await client.status_unique("w")
    assert (status.known, status.running, status.numerator, status.denominator) == (True, True, 3, 7)
    gate.open()

    async def is_gone() -> bool:
        return not (await client.status(bytes(handle))).known

    await until(is_gone)


async def test_status_of_unknown_jobs_says_so(client: AnyClient) -> None:
    for status in (await client.status(b"H:nothing:1"), await client.status_unique("nothing")):
        assert (status.known, status.running, status.numerator, status.denominator) == (False, False, 0, 0)


@pytest.mark.parametrize("data", [b"", b"\0 any \xff", b"x" * 1_000_000])
async def test_echo_comes_back(client: AnyClient, data: bytes) -> None:
    assert await client.echo(data) == data


async def test_admin_api(client: AnyClient, server: NetworkServer, start: StartWorker) -> None:
    await start({"client_id": "the worker"}, idle=reverse)

    async def worker_is_there() -> bool:
        return any(row.client_id == b"the worker" for row in await client.admin.workers())

    await until(worker_is_there)
    await until(lambda: is_registered(client, b"idle"))
    admin = client.admin_of(server.address)
    await admin.create_function("made")
    handle = await client.submit_background("made", unique="u", priority=Priority.HIGH)
    status = {row.function: (row.total, row.running, row.workers) for row in await admin.status()}
    assert status == {b"idle": (0, 0, 1), b"made": (1, 0, 0)}
    assert {row.function: row.high for row in await admin.priority_status()} == {b"idle": 0, b"made": 1}
    assert [(row.handle, row.background) for row in await admin.jobs()] == [(handle, True)]
    assert [row.unique for row in await admin.unique_jobs()] == [b"u"]
    await admin.cancel(handle)
    with pytest.raises(ServerError, match="UNKNOWN_JOB"):
        await admin.cancel(b"H:nothing:1")
    assert await admin.version()
    assert await admin.verbose() == "ERROR"
    assert await admin.pid() > 0
    await admin.drop_function("made")
    with pytest.raises(ServerError, match="function: not found"):
        await admin.drop_function("made")
    with pytest.raises(ValueError, match=r"elsewhere:4730 is not one of this client's servers"):
        client.admin_of("elsewhere")


async def test_cancelled_job_fails_for_who_waits(client: AnyClient) -> None:
    job = await client.submit("nobody")
    await client.echo(b"")
    assert job.handle is not None
    await client.admin.cancel(job.handle)
    assert await job.wait(LIMIT)
    assert job.outcome == Failed()


async def test_shutdown_is_for_our_server_only(network: Network) -> None:
    server = await network.start(allow_shutdown=True)
    client = await network.connected_client(server)
    if server.kind == "gearmand":
        for graceful in (False, True):
            with pytest.raises(ServerError, match="UNKNOWN_COMMAND"):
                await client.admin.shutdown(graceful=graceful)
    else:
        await client.admin.shutdown()
        with pytest.raises((JobNotSent, JobLost)):
            await client.submit_background("f")


# Several servers


async def test_jobs_go_to_the_first_server_that_can_be_reached(network: Network) -> None:
    servers = [await network.start() for _ in range(3)]
    async with network.client() as client:
        for server in servers[:2]:
            handles = [await client.submit_background("f") for _ in range(3)]
            assert [handle.server for handle in handles] == [Address(*server.address)] * 3
            await server.close()
        # The other two are gone: their jobs with them, but nothing of what the client can do.
        assert (await client.submit_background("f")).server == Address(*servers[2].address)
        assert await client.echo(b"x") == b"x"


async def test_jobs_go_to_the_servers_in_turn(network: Network) -> None:
    servers = [await network.start() for _ in range(2)]
    addresses = [Address(*server.address) for server in servers]
    async with network.client(policy="round_robin") as client:
        handles = [await client.submit_background("f") for _ in range(4)]
        assert [handle.server for handle in handles] == addresses * 2
        for handle in handles:
            assert (await client.status(handle)).known
            assert (await client.status(bytes(handle))).known
        for server in servers:
            assert [row.total for row in await client.admin_of(server.address).status()] == [2]
        many = await client.submit_background_many([JobRequest("f")] * 4)
        assert [handle.server for handle in many if isinstance(handle, JobHandle)] == addresses * 2


async def test_unique_picks_the_server_for_every_client(network: Network) -> None:
    for _ in range(2):
        await network.start()
    uniques = [f"u{number}" for number in range(12)]
    async with network.client(policy="unique_hash") as one, network.client(policy="unique_hash") as other:
        chosen = {unique: (await one.submit_background("f", unique=unique)).server for unique in uniques}
        assert len({*chosen.values()}) == 2
        for unique in uniques:
            assert (await other.submit_background("f", unique=unique)).server == chosen[unique]
            assert (await other.status_unique(unique)).known


async def test_job_that_did_not_leave_goes_to_another_server(network: Network) -> None:
    servers = [await network.start() for _ in range(2)]
    async with network.client(policy="round_robin") as client:
        await servers[0].close()
        handles = [await client.submit_background("f") for _ in range(4)]
        assert {handle.server for handle in handles} == {Address(*servers[1].address)}


# Arguments


@pytest.mark.parametrize("pauses", [(0, 1), (2, 1), (math.nan, 1)])
async def test_pauses_that_make_no_sense_are_refused(
    network: Network, server: NetworkServer, pauses: tuple[float, float]
) -> None:
    for make in (network.client, network.worker):
        with pytest.raises(ValueError, match=r"^retry_pauses is "):
            make(server, retry_pauses=pauses)


async def test_unknown_policy_is_refused(network: Network, server: NetworkServer) -> None:
    with pytest.raises(ValueError, match="'random' is not a valid Policy"):
        network.client(server, policy="random")
