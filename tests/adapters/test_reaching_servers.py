"""How clients and workers of both packages reach servers: by name, by each of its addresses, past those that hang."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import anyio
import pytest

from gear_sync import TLS, JobRequest, Server
from gearproto import ConnectionLost, JobLost, JobNotSent, LocalProtocolError, NotSent
from gearproto.addresses import Address
from gearproto.codec import Packet
from gearproto.packets import GrabJobAll, WorkComplete
from gearproto.standing import Standing
from tests.harness.certificates import authority
from tests.harness.hostile import HostileServer, Peer
from tests.harness.idioms import (
    AnyWorker,
    Gate,
    Idiom,
    in_thread,
    make_client,
    make_worker,
    until,
    working,
)
from tests.harness.servers import OurServer, full_listener
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio

PAUSES = (0.001, 0.01)


class Names:
    """The resolver: what the name ``jobs.example`` stands for, and how often it was asked."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.asked = 0
        self._resolve = socket.getaddrinfo

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        if host not in ("jobs.example", b"jobs.example"):
            return self._resolve(host, port, *args, **options)
        self.asked += 1
        if not self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for host in self.hosts for found in self._resolve(host, port, *args, **options)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    return names


@pytest.fixture
def server() -> Iterator[OurServer]:
    server = OurServer()
    yield server
    server.close()


def reverse(job: Any) -> bytes:
    result: bytes = job.workload[::-1]
    return result


@asynccontextmanager
async def running(worker: AnyWorker) -> AsyncIterator[None]:
    """Run a worker for the time of a block, and close it."""
    worker.register("reverse", reverse)
    async with working(worker):
        yield


async def test_name_is_looked_up_for_each_attempt_of_a_client(idiom: Idiom, names: Names, server: OurServer) -> None:
    async with make_client(idiom, ("jobs.example", server.port), retry_pauses=PAUSES) as client:
        with pytest.raises(JobNotSent, match=r"jobs\.example:.* Name or service not known"):
            await client.submit("f")
        names.hosts = ["127.0.0.2"]  # where nobody listens
        with pytest.raises(JobNotSent, match="Connection refused"):
            await client.submit("f")
        names.hosts = ["127.0.0.2", "127.0.0.1"]
        assert await client.echo(b"x") == b"x"
        await in_thread(server.close)
        names.hosts = ["127.0.0.2"]
        with Server("127.0.0.2", server.port):  # it has moved
            assert await client.echo(b"y") == b"y"


async def test_name_is_looked_up_for_each_attempt_of_a_worker(idiom: Idiom, names: Names, server: OurServer) -> None:
    async with (
        running(make_worker(idiom, ("jobs.example", server.port), retry_pauses=PAUSES)),
        make_client(idiom, server.address) as client,
    ):
        await until(lambda: names.asked > 1)
        names.hosts = ["127.0.0.2", "127.0.0.1"]
        job = await client.submit("reverse", b"ab")
        assert await job.result(LIMIT) == b"ba"
        await in_thread(server.close)
        names.hosts = ["127.0.0.2"]
        with Server("127.0.0.2", server.port) as moved:
            async with make_client(idiom, ("127.0.0.2", moved.port)) as other:
                job = await other.submit("reverse", b"cd")
                assert await job.result(LIMIT) == b"dc"


async def test_name_with_addresses_of_both_families_is_reached_by_either(
    idiom: Idiom, names: Names, server: OurServer
) -> None:
    names.hosts = ["::1", "127.0.0.1"]  # the server listens at the second only
    async with make_client(idiom, ("jobs.example", server.port)) as client:
        assert await client.echo(b"four") == b"four"
    names.hosts = ["127.0.0.1", "::1"]
    with Server("::1", 0) as six:
        async with make_client(idiom, ("jobs.example", six.port)) as client:
            assert await client.echo(b"six") == b"six"


@pytest.mark.parametrize("role", ["client", "worker"])
async def test_address_of_a_name_that_answered_is_tried_first_from_then_on(
    idiom: Idiom, names: Names, server: OurServer, role: str
) -> None:
    names.hosts = ["127.0.0.2", "127.0.0.1"]  # nobody listens at the first, yet
    name = ("jobs.example", server.port)
    async with make_client(idiom, name, retry_pauses=PAUSES) as client:
        worker = make_worker(idiom, name if role == "worker" else server.address)
        async with running(worker):
            await (await client.submit("reverse", b"ab")).result(LIMIT)
            with Server("127.0.0.2", server.port) as other:
                await in_thread(server.restart)
                job = await client.submit("reverse", b"ab")
                assert await job.result(LIMIT) == b"ba"  # so they have met
                async with make_client(idiom, ("127.0.0.2", other.port)) as elsewhere:
                    assert await elsewhere.admin.status() == ()
                    others = await elsewhere.admin.workers()
                    assert not any(row.functions for row in others)


@pytest.mark.parametrize("away_first", [False, True])
async def test_status_is_found_though_another_server_is_away(idiom: Idiom, server: OurServer, away_first: bool) -> None:
    away = ("127.0.0.2", server.port)
    servers = [away, server.address] if away_first else [server.address, away]
    async with make_client(idiom, servers, retry_pauses=PAUSES) as client:
        handle = bytes(await client.submit_background("nobody", unique="u"))
        assert (await client.status(handle)).known
        assert (await client.status_unique("u")).known
        for unknown in (client.status(b"H:none:1"), client.status_unique("none")):
            with pytest.raises(ConnectionLost, match=f"127.0.0.2:{server.port}: "):  # which might know it
                await unknown


@contextlib.contextmanager
def hangs_in_connect() -> Iterator[tuple[str, int]]:
    with full_listener() as listener:
        yield listener.getsockname()[:2]


@contextlib.contextmanager
def says_nothing() -> Iterator[tuple[str, int]]:
    with HostileServer(lambda peer: peer.wait_for_end()) as server:
        yield server.address


silences = pytest.mark.parametrize("silence", [hangs_in_connect, says_nothing])


@silences
async def test_silent_server_keeps_no_job_of_a_worker_waiting(
    idiom: Idiom, server: OurServer, silence: Callable[[], contextlib.AbstractContextManager[tuple[str, int]]]
) -> None:
    with silence() as address:
        async with (
            running(make_worker(idiom, [address, server.address], connect_timeout=2 * LIMIT, grab_timeout=0.01)),
            make_client(idiom, server.address) as client,
        ):
            for job in await client.submit_many([JobRequest("reverse", b"ab")] * 5):
                assert await job.result(LIMIT) == b"ba"


async def test_handshake_that_hangs_keeps_no_job_of_a_worker_waiting(idiom: Idiom) -> None:
    ours = authority("ours")
    tls = TLS(ca=ours.ca, check_host=False)
    with says_nothing() as address:
        server = await in_thread(lambda: OurServer(tls=replace(ours.issue(), ca=None)))
        try:
            async with (
                running(make_worker(idiom, [address, server.address], tls=tls, connect_timeout=2 * LIMIT)),
                make_client(idiom, server.address, tls=tls) as client,
            ):
                job = await client.submit("reverse", b"ab")
                assert await job.result(LIMIT) == b"ba"
        finally:
            await in_thread(server.close)


@silences
async def test_silent_server_keeps_no_job_for_another_waiting(
    idiom: Idiom,
    server: OurServer,
    silence: Callable[[], contextlib.AbstractContextManager[tuple[str, int]]],
) -> None:
    ran: list[bytes] = []

    def note(job: Any) -> None:
        ran.append(job.workload)

    with silence() as address:
        worker = make_worker(idiom, server.address)
        worker.register("note", note)
        async with (
            running(worker),
            make_client(idiom, [address, server.address], policy="round_robin", connect_timeout=2 * LIMIT) as client,
            anyio.create_task_group() as group,
        ):
            group.start_soon(client.submit_many, [JobRequest("note", b"%d" % number) for number in range(4)])
            await until(lambda: len(ran) == 2)
            group.cancel_scope.cancel()
            client.close()
    assert sorted(ran) == [b"1", b"3"]


@pytest.mark.parametrize("role", ["client", "worker"])
async def test_server_that_closes_at_once_is_left_alone_for_longer_and_longer(
    idiom: Idiom, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    halves: list[float] = []  # when half of each pause is over; timers may be a little early
    begun: list[float] = []
    first, attempts = 0.001, 6
    over = Gate()
    failed = Standing.failed

    def note_pause(standing: Standing, now: float, *rest: Any, **more: Any) -> str | None:
        warning = failed(standing, now, *rest, **more)
        pauses.append(standing.retry_at - now)
        halves.append(time.monotonic() + pauses[-1] / 2)
        return warning

    def closes_at_once(peer: Peer) -> None:
        begun.append(time.monotonic())
        if len(begun) == attempts:
            over.open()

    monkeypatch.setattr(Standing, "failed", note_pause)
    with HostileServer(*[closes_at_once] * attempts) as server:
        if role == "worker":
            async with running(make_worker(idiom, server.address, retry_pauses=(first, LIMIT))):
                await over.reached()
        else:
            async with make_client(idiom, server.address, retry_pauses=(first, LIMIT)) as client:
                while not over.is_open:
                    with contextlib.suppress(JobNotSent, JobLost):
                        await client.submit_background("f")
    assert all(pause >= 0.75 * first * 2**number for number, pause in enumerate(pauses[: attempts - 1])), pauses
    assert all(begin >= half for begin, half in zip(begun[1:], halves, strict=False))


class NotingSocket(socket.socket):
    """A socket that notes each piece that it sends."""

    sent: Final[list[bytes]] = []

    def send(self, data: Any, flags: int = 0) -> int:
        size = super().send(data, flags)
        self.sent.append(bytes(data[:size]))
        return size


async def test_report_and_the_next_request_leave_in_one_write(idiom: Idiom, server: OurServer) -> None:
    NotingSocket.sent.clear()

    def open_socket(address: Address) -> socket.socket:
        sock = NotingSocket()
        sock.connect((address.host, address.port))
        sock.setblocking(False)
        return sock

    async def open_socket_soon(address: Address) -> socket.socket:
        return open_socket(address)

    connect = open_socket if idiom == "gear_sync" else open_socket_soon
    async with (
        running(make_worker(idiom, server.address, connect=connect)),
        make_client(idiom, server.address) as client,
    ):
        for job in await client.submit_many([JobRequest("reverse", b"ab")] * 3):
            await job.result(LIMIT)
    ends = [data for data in NotingSocket.sent if bytes_sent(WorkComplete) in data]
    assert len(ends) == 3
    assert all(bytes_sent(GrabJobAll) in data for data in ends)


def bytes_sent(kind: type[Packet]) -> bytes:
    """Return how packets of a kind begin that a worker sends."""
    return b"\0REQ" + kind.spec.number.to_bytes(4, "big")


def hangs(peer: Peer) -> None:
    """Take all that comes, and never answer."""
    peer.wait_for_end()


async def test_status_is_told_by_the_server_that_knows_the_job_while_another_hangs(
    idiom: Idiom, server: OurServer
) -> None:
    with HostileServer(hangs) as stopped:
        async with make_client(idiom, server.address) as other:
            handle = bytes(await other.submit_background("f", unique="u"))
            async with make_client(idiom, [stopped.address, server.address], timeout=None) as client:
                assert (await client.status(handle)).known
                assert (await client.status_unique("u")).known


async def test_status_that_no_server_knows_is_not_waited_for_long_while_another_hangs(
    idiom: Idiom, server: OurServer
) -> None:
    with HostileServer(hangs) as stopped:
        servers = [stopped.address, server.address]
        async with make_client(idiom, servers, timeout=None, connect_timeout=0.2) as client:
            with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s, in which another server has answered"):
                await client.status(b"H:unknown")


async def test_status_waits_for_a_server_that_failed_lately(idiom: Idiom, server: OurServer) -> None:
    await in_thread(server.close)
    pauses = (0.05, 0.05)
    async with make_client(idiom, [server.address, server.address], retry_pauses=pauses) as client:
        with pytest.raises(ConnectionLost, match="Connection refused"):
            await client.status(b"H:1")
        await in_thread(server.restart)
        assert not (await client.status(b"H:1")).known


async def test_status_of_a_broken_rule_is_an_error_of_the_caller(idiom: Idiom, server: OurServer) -> None:
    async with make_client(idiom, [server.address, ("127.0.0.1", 9)]) as client:
        with pytest.raises(LocalProtocolError):
            await client.status(b"x" * 100)


async def test_time_limit_covers_the_search_for_a_server(idiom: Idiom) -> None:
    with full_listener() as listener:
        host, port = listener.getsockname()
        async with make_client(idiom, (host, port), timeout=0.02, connect_timeout=LIMIT) as client:
            not_sent = f"no server could be reached: {host}:{port}: no answer in time"
            with pytest.raises(JobNotSent, match=not_sent):
                await client.submit("f")
            with pytest.raises(JobNotSent, match=not_sent):
                await client.submit_background("f")
            (job,) = await client.submit_many([JobRequest("f")])
            assert job.outcome == NotSent(not_sent)
            with pytest.raises(TimeoutError, match=rf"{host}:{port}: no answer within 0\.02 s"):
                await client.echo(b"")
            with pytest.raises(TimeoutError, match=rf"{host}:{port}: no answer within 0\.02 s"):
                await client.status(b"H:1")
