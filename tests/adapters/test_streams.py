"""Jobs that stream: pieces are consumed as they come, and what is unread is bounded by not reading the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import anyio
import pytest

import gear_sync
from gearproto import Completed, LocalProtocolError, StreamBlocked
from gearproto.addresses import Address
from gearproto.client import Unread
from gearproto.events import Data, Warned
from tests.adapters.conftest import StartWorker
from tests.harness.idioms import AnyClient, AnyJob, Gate, ThreadedClient, checkpoints, until
from tests.harness.network import Network, NetworkServer
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio

PIECES: Final = [b"%03d" % number * 10_000 for number in range(100)]
ALLOWED: Final = 200_000
READ_AT_ONCE: Final = 256 * 1024 + len(PIECES[0])  # what may come beyond: what is read at once, and a piece in it


def talk(job: Any) -> bytes:
    for piece in PIECES:
        job.send(piece)
    job.warn(b"careful")
    return b"end"


def unread(client: AnyClient) -> Unread:
    return (client.client if isinstance(client, ThreadedClient) else client)._servers.settings.unread


@pytest.fixture
async def client(network: Network, server: NetworkServer, start: StartWorker) -> AnyClient:
    """A client that may hold little unread, of a server with a worker that talks much."""
    await start({"concurrency": 2}, talk=talk, reverse=lambda job: job.workload[::-1])
    return await network.connected_client(server, max_unread=ALLOWED)


async def blocked_by(client: AnyClient) -> AnyJob:
    """Return a job that streams, of which nobody takes anything, once the client reads no more."""
    stream = await client.submit("talk", stream=True)
    with pytest.raises(StreamBlocked):
        await stream.wait(LIMIT)
    return stream


async def pieces_of(job: AnyJob) -> list[bytes]:
    return [event.data async for event in job.events(LIMIT) if isinstance(event, Data)]


async def collect(events: AsyncIterator[object], seen: list[object]) -> None:
    """Append events to a list, also if the iteration ends with an exception."""
    async for event in events:
        seen.append(event)  # noqa: PERF401


async def test_stream_yields_every_piece_once_and_keeps_none(client: AnyClient) -> None:
    job = await client.submit("talk", stream=True)
    most = 0
    seen = []
    async for event in job.events(LIMIT):
        most = max(most, unread(client)._size)
        seen.append(event)
    *pieces, warned, end = seen
    assert [piece.data for piece in pieces if isinstance(piece, Data)] == PIECES
    assert isinstance(warned, Warned)
    assert end == Completed(b"end")
    assert most <= ALLOWED + READ_AT_ONCE
    assert unread(client).size == 0
    assert [event async for event in job] == [Completed(b"end")]
    assert await job.wait(0)
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="streams and keeps no result"):
            await job.result()


async def test_unread_pieces_are_bounded_and_none_is_lost(client: AnyClient) -> None:
    job = await blocked_by(client)
    assert ALLOWED < unread(client).size <= ALLOWED + READ_AT_ONCE
    assert await pieces_of(job) == PIECES
    other = await client.submit("reverse", b"ab")
    assert await other.result(LIMIT) == b"ba"


async def test_waiting_for_anything_else_of_the_connection_is_refused_at_once(
    client: AnyClient, server: NetworkServer
) -> None:
    handle = await client.submit_background("nobody")
    other = await client.submit("reverse", b"ab")
    stream = await blocked_by(client)
    late = await client.submit("reverse", b"cd")
    jobs: Any = [late]

    async def wait_for_all() -> None:
        await anext(client.as_completed(jobs, LIMIT))

    waits: list[Callable[[], Any]] = [
        late.wait,
        late.result,
        late.wait_queued,
        late.status,
        late.cancel,
        lambda: anext(late.events()),
        lambda: anext(aiter(late)),
        wait_for_all,
        lambda: client.status(handle),
        lambda: client.status_unique("u"),
        lambda: client.echo(b"x"),
        client.admin.version,
        lambda: client.submit_background("nobody"),
    ]
    for wait in waits:
        with pytest.raises(
            StreamBlocked, match=r"is not read: jobs that stream hold \d+ bytes unread, limit 200000; use"
        ):
            await wait()
    (error,) = await client.submit_background_many([gear_sync.JobRequest("nobody")])
    assert isinstance(error, StreamBlocked)
    assert await pieces_of(stream) == PIECES  # all goes on
    assert await late.result(LIMIT) == b"dc"
    assert await other.result(LIMIT) == b"ba"
    assert (await client.status(handle)).known


async def test_wait_that_has_begun_is_refused_when_the_connection_is_no_longer_read(client: AnyClient) -> None:
    refused = 0

    async def wait(call: Callable[[], Any]) -> None:
        nonlocal refused
        with pytest.raises(StreamBlocked):
            await call()
        refused += 1

    nobodys = await client.submit("nobody")
    stream = await client.submit("talk", stream=True)
    jobs: Any = [nobodys]
    async with anyio.create_task_group() as group:
        group.start_soon(wait, nobodys.wait)
        group.start_soon(wait, lambda: anext(nobodys.events(LIMIT)))
        group.start_soon(wait, lambda: anext(client.as_completed(jobs, LIMIT)))
    assert refused == 3
    assert await pieces_of(stream) == PIECES


async def test_quick_iteration_waits_for_the_slow_one_and_both_get_all(client: AnyClient) -> None:
    job = await client.submit("talk", stream=True)
    quick: list[bytes] = []

    async def consume() -> None:
        quick.extend(await pieces_of(job))

    slow = job.events(LIMIT)
    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        await until(lambda: unread(client)._size > ALLOWED)
        rest = [event.data async for event in slow if isinstance(event, Data)]
    assert rest == quick == PIECES
    assert unread(client).size == 0


@pytest.mark.parametrize("closed", [False, True])
async def test_leaving_the_last_iteration_discards_the_rest(client: AnyClient, closed: bool) -> None:
    stream = await blocked_by(client)
    if closed:
        async with aclosing(stream.events(LIMIT)) as events:
            assert isinstance(await anext(events), Data)
    else:
        async for _event in stream.events(LIMIT):
            break
    await until(lambda: unread(client).size == 0)
    other = await client.submit("reverse", b"ab")
    assert await other.result(LIMIT) == b"ba"
    assert [event async for event in stream.events(LIMIT)] == [Completed(b"end")]
    assert unread(client).size == 0


async def test_iteration_that_runs_out_of_time_is_not_left(client: AnyClient, start: StartWorker) -> None:
    gate = Gate()

    def slow(job: Any) -> None:
        job.send(b"1")
        gate.wait()
        job.send(b"2")

    await start(slow=slow)
    job = await client.submit("slow", stream=True)
    seen: list[object] = []
    with pytest.raises(TimeoutError):
        await collect(job.events(0.01), seen)
    gate.open()
    await collect(job.events(LIMIT), seen)
    *pieces, end = seen
    assert [piece.data for piece in pieces if isinstance(piece, Data)] == [b"1", b"2"]
    assert end == Completed(b"")


async def test_iteration_that_is_refused_is_not_left(client: AnyClient, start: StartWorker) -> None:
    gate = Gate()

    def slow(job: Any) -> None:
        job.send(b"1")
        gate.wait()
        job.send(b"2")

    await start(slow=slow)
    job = await client.submit("slow", stream=True)
    seen: list[object] = []
    events = job.events(LIMIT)
    seen.append(await anext(events))
    other = await blocked_by(client)
    with pytest.raises(StreamBlocked):
        await anext(events)
    del events
    gate.open()
    assert await pieces_of(other) == PIECES
    await collect(job.events(LIMIT), seen)
    assert [piece.data for piece in seen if isinstance(piece, Data)] == [b"1", b"2"]


async def test_other_servers_are_read_all_the_same_and_whoever_waits_for_them_reads_on(network: Network) -> None:
    busy, quiet = [await network.start() for _ in range(2)]
    worker = network.worker(busy, quiet)
    worker.register("talk", talk)
    worker.register("reverse", lambda job: job.workload[::-1])
    await network.working(worker)
    client = await network.connected_client(busy, quiet, policy="round_robin", max_unread=ALLOWED)
    stream = await blocked_by(client)
    other = await client.submit("reverse", b"ab")
    assert await other.result(LIMIT) == b"ba"
    further = await client.submit("nobody")  # to the first server
    nobodys = await client.submit("nobody")
    assert (await nobodys.wait_queued(LIMIT)).server == Address(*quiet.address)

    async def wait() -> None:
        await nobodys.wait(LIMIT)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)  # in gear_sync, this thread now moves the bytes for all
        await checkpoints()
        assert await pieces_of(stream) == PIECES
        client.close()
    assert further.outcome is not None
