"""What clients and workers of both packages make of servers that go away, hang, or cannot be had."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import pytest

import gear_anyio
from gearproto import ConnectionLost, JobError, JobLost, JobNotSent
from gearproto.addresses import Address, parse_address
from gearproto.packets import SubmitJob
from tests.harness.hostile import HostileServer, Peer, serve_clients
from tests.harness.idioms import AnyWorker, Idiom, in_thread, make_client, make_worker, until, working
from tests.harness.network import Connector
from tests.harness.servers import HangingServer, OurServer
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio

PAUSES = (0.001, 0.002)


@pytest.fixture
def server() -> Iterator[OurServer]:
    server = OurServer()
    yield server
    server.close()


@contextlib.contextmanager
def closing_listener() -> Iterator[tuple[str, int]]:
    """Listen, and close each connection as soon as it is there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[:2]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(LIMIT)


def loses_a_job(peer: Peer) -> None:
    """Take a foreground job, and go."""
    peer.receive_until(SubmitJob)


@asynccontextmanager
async def running(worker: AnyWorker) -> AsyncIterator[None]:
    """Run a worker for the time of a block, and close it."""
    async with working(worker):
        yield


# What becomes of jobs


async def test_job_that_no_server_keeps_is_lost_or_not_sent_each_time(idiom: Idiom) -> None:
    with closing_listener() as one, closing_listener() as other:
        async with make_client(idiom, [one, other], retry_pauses=PAUSES) as client:
            for _ in range(40):
                with pytest.raises((JobLost, JobNotSent)):
                    await (await client.submit("f", b"x")).result(LIMIT)


async def test_job_goes_to_the_next_server_if_the_first_has_no_room(idiom: Idiom, server: OurServer) -> None:
    full = await in_thread(lambda: OurServer(max_connections=0))
    try:
        worker = make_worker(idiom, server.address)
        worker.register("reverse", lambda job: job.workload[::-1])
        servers = [full.address, server.address]
        async with running(worker):
            for _ in range(5):
                async with make_client(idiom, servers) as client:
                    assert await (await client.submit("reverse", b"ab")).result(LIMIT) == b"ba"
    finally:
        await in_thread(full.close)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_job_that_is_on_its_way_again_ends_when_the_block_is_cancelled(anyio_backend: str) -> None:
    with HostileServer(loses_a_job) as server, anyio.CancelScope() as scope:
        async with gear_anyio.Client(server.address, retry_pauses=(60, 60), connect_timeout=100) as client:
            job = await client.submit("f", unique="u", resubmit=True)
            await until(lambda: client._servers._unfinished)
            scope.cancel()
            await anyio.sleep_forever()
    with pytest.raises(JobLost):
        await job.result(LIMIT)


async def test_lost_submission_looks_for_its_only_server_until_that_is_back(idiom: Idiom, server: OurServer) -> None:
    connector = Connector(idiom)
    results: list[bytes] = []
    async with make_client(idiom, server.address, connect=connector.connect, retry_pauses=PAUSES) as client:
        job = await client.submit("reverse", b"ab", unique="u", resubmit=True)
        assert await client.echo(b"the server has it") is not None
        connector.refuses = True
        await in_thread(server.restart)

        async def wait_for_result() -> None:
            results.append(await job.result(LIMIT))

        async with anyio.create_task_group() as group:
            group.start_soon(wait_for_result)
            await until(lambda: connector.calls > 5)
            connector.refuses = False
            worker = make_worker(idiom, server.address)
            worker.register("reverse", lambda job: job.workload[::-1])
            async with running(worker):
                await until(lambda: results)
    assert results == [b"ba"]


async def test_lost_submission_is_lost_in_the_end(idiom: Idiom) -> None:
    connector = Connector(idiom)
    times = {"connect_timeout": 0.01, "resubmit_timeout": 0.1}
    with HostileServer(loses_a_job) as server:
        client = make_client(idiom, server.address, connect=connector.connect, retry_pauses=PAUSES, **times)
        async with client:
            job = await client.submit("f", unique="u", resubmit=True)
            connector.refuses = True
            with pytest.raises(JobLost, match="closed the connection"):
                await job.result(LIMIT)
    assert connector.calls > 5


async def test_lost_submission_tries_once_more_though_its_time_is_over(idiom: Idiom) -> None:
    with HostileServer(loses_a_job, serve_clients) as server:
        async with make_client(idiom, server.address, retry_pauses=PAUSES, resubmit_timeout=0) as client:
            job = await client.submit("f", unique="u", resubmit=True)
            assert await job.result(LIMIT) == b"result"


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_fault_in_a_client_ends_no_block_of_its_user(
    anyio_backend: str, server: OurServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise KeyError("a fault")

    async with gear_anyio.Client(server.address) as client:
        client._servers._start(fail)
        await until(lambda: caplog.records)
        assert await client.echo(b"x") == b"x"
    assert "a fault" in caplog.text


# Servers that hang


@pytest.fixture(scope="module")
def process() -> Iterator[HangingServer]:
    server = HangingServer()
    yield server
    server.close()


@pytest.fixture
def hanging(process: HangingServer) -> Iterator[HangingServer]:
    """A server that a test may let hang; what it hears of the test later is no job that it keeps."""
    yield process
    process.go_on()


PROBES: Final[dict[str, Any]] = {"probe_interval": 0.25, "probe_timeout": 0.25, "connect_timeout": 0.25}


@pytest.mark.parametrize("policy", ["ordered", "round_robin"])
async def test_server_that_hangs_costs_one_job_and_is_used_again_once_it_answers(
    idiom: Idiom, hanging: HangingServer, server: OurServer, policy: str
) -> None:
    servers = [hanging.address, server.address]
    worker = make_worker(idiom, servers)
    worker.register("reverse", lambda job: job.workload[::-1])
    async with running(worker), make_client(idiom, servers, policy=policy, retry_pauses=PAUSES, **PROBES) as client:
        job = await client.submit("reverse", b"ab")
        assert await job.result(LIMIT) == b"ba"
        assert job.server == hanging.address
        if policy == "round_robin":
            await (await client.submit("reverse")).result(LIMIT)
        hanging.hang()
        lost = await client.submit("reverse", b"ab")
        with pytest.raises(JobLost, match="no answer"):
            await lost.result(LIMIT)
        for _ in range(6):
            job = await client.submit("reverse", b"ab")
            assert await job.result(LIMIT) == b"ba"
            assert job.server == parse_address(server.address)
        hanging.go_on()
        if policy == "ordered":
            await in_thread(server.close)

        async def is_used_again() -> bool:
            with contextlib.suppress(JobError):
                job = await client.submit("reverse", b"ab")
                return await job.result(LIMIT) == b"ba" and job.server == hanging.address
            return False

        await until(is_used_again)


async def test_server_that_hangs_keeps_no_job_of_a_worker_waiting(
    idiom: Idiom, hanging: HangingServer, server: OurServer, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker(idiom, [hanging.address, server.address], **PROBES)
    worker.register("reverse", lambda job: job.workload[::-1])
    async with (
        running(worker),
        make_client(idiom, server.address) as client,
        make_client(idiom, hanging.address) as other,
    ):
        assert await (await other.submit("reverse", b"ab")).result(LIMIT) == b"ba"
        hanging.hang()
        await until(lambda: "no answer" in caplog.text)
        for _ in range(3):
            assert await (await client.submit("reverse", b"ab")).result(LIMIT) == b"ba"
        hanging.go_on()
        assert await (await other.submit("reverse", b"ab")).result(LIMIT) == b"ba"


# What users bring


class ProxyError(Exception):
    """What a library may raise that knows nothing of OSError."""


def raises(address: Address) -> Any:
    raise ProxyError("the proxy is away")


async def raises_soon(address: Address) -> Any:
    raises(address)


def returns_nothing(address: Address) -> Any:
    return None


async def returns_nothing_soon(address: Address) -> Any:
    return None


@pytest.mark.parametrize(
    ("plain", "coroutine", "words"),
    [
        (raises, raises_soon, "the proxy is away"),
        (returns_nothing, returns_nothing_soon, "TypeError: None is not a"),
    ],
)
async def test_connect_that_fails_is_told_at_the_call(idiom: Idiom, plain: Any, coroutine: Any, words: str) -> None:
    connect = plain if idiom == "gear_sync" else coroutine
    async with make_client(idiom, "jobs.example", connect=connect, retry_pauses=PAUSES) as client:
        with pytest.raises(JobNotSent, match=rf"jobs\.example:4730: connect= failed: .*{words}"):
            await client.submit("f")
        with pytest.raises(ConnectionLost, match=rf"connect= failed: .*{words}"):
            await client.echo(b"x")


async def test_worker_outlives_a_connect_that_fails(idiom: Idiom, server: OurServer) -> None:
    calls = 0

    def open_socket(address: Address) -> socket.socket:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ProxyError("the proxy is away")
        return socket.create_connection(address)

    async def open_socket_soon(address: Address) -> socket.socket:
        return open_socket(address)

    worker = make_worker(idiom, server.address, connect=open_socket if idiom == "gear_sync" else open_socket_soon)
    worker.register("reverse", lambda job: job.workload[::-1])
    async with running(worker), make_client(idiom, server.address) as client:
        assert await (await client.submit("reverse", b"ab")).result(LIMIT) == b"ba"


class FaultyStream(anyio.abc.ByteStream):
    """A stream that raises what no stream should, at one of its methods."""

    def __init__(self, faulty: str) -> None:
        self._faulty = faulty

    async def _call(self, name: str) -> None:
        if name == self._faulty:
            raise RuntimeError(f"cannot {name}")
        await anyio.sleep_forever()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await self._call("receive")
        return b""

    async def send(self, item: bytes) -> None:
        await self._call("send")

    async def send_eof(self) -> None:
        await self._call("send_eof")

    async def aclose(self) -> None:
        raise RuntimeError("cannot close")


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("faulty", ["receive", "send"])
async def test_stream_that_raises_anything_is_a_lost_connection(anyio_backend: str, faulty: str) -> None:
    async def connect(_address: Address) -> anyio.abc.AnyByteStream:
        return FaultyStream(faulty)

    async with gear_anyio.Client("jobs.example", connect=connect, retry_pauses=PAUSES) as client:
        with pytest.raises((JobLost, JobNotSent), match=f"cannot {faulty}"):
            await (await client.submit("f")).result(LIMIT)
