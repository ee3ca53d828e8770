"""The job server on asyncio and on trio: byte streams, cancellation, and what it leaves behind.

What it does as `gear_sync.Server` does is tested there.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import pytest
from anyio.abc import AnyByteStream, TaskGroup
from anyio.streams.stapled import StapledObjectStream

import gear_anyio.server
from gearproto import AlreadyClosed
from gearproto.codec import Packet, Route, decoders
from gearproto.event import Event
from gearproto.events import Line
from gearproto.framing import Decoder
from gearproto.packets import (
    CanDo,
    EchoReq,
    EchoRes,
    Error,
    GrabJob,
    JobAssign,
    JobCreated,
    NoJob,
    Noop,
    PreSleep,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    WorkComplete,
    WorkData,
    WorkFail,
)
from tests.harness.certificates import authority
from tests.harness.idioms import until
from tests.harness.raw import TURNED_AWAY

pytestmark = pytest.mark.anyio

_WAIT: Final = 20.0  # seconds; only a hang reaches it
_MIB: Final = 1024 * 1024
_FROM_SERVER: Final = decoders(Route.FROM_SERVER)
_DESCRIPTORS: Final = Path("/proc/self/fd")
_P = TypeVar("_P", bound=Event)

needs_proc = pytest.mark.skipif(not _DESCRIPTORS.exists(), reason="open descriptors are read from /proc")


class Peer:
    """A client, worker or administrator over any byte stream, which speaks in packets and lines."""

    def __init__(self, stream: AnyByteStream) -> None:
        self.stream = stream
        self._decoder = Decoder(_FROM_SERVER)

    async def send(self, *messages: Packet | bytes) -> None:
        """Send packets and raw bytes in one piece."""
        await self.stream.send(b"".join(m if isinstance(m, bytes) else m.encode() for m in messages))

    async def receive(self, kind: type[_P]) -> _P:
        """Return the next packet or line, which has to be of a kind."""
        while (event := self._decoder.next()) is None:
            self._decoder.feed(await self.stream.receive())
        assert isinstance(event, kind), event
        return event

    async def ask(self, line: bytes) -> bytes:
        """Send a text command; return its answer of one line."""
        await self.send(line + b"\n")
        return (await self.receive(Line)).text

    async def ask_rows(self, line: bytes) -> list[bytes]:
        """Send a text command; return the rows of its answer."""
        await self.send(line + b"\n")
        rows = []
        while (row := (await self.receive(Line)).text) != b".":
            rows.append(row)
        return rows

    async def barrier(self) -> None:
        """Prove that all sent so far has been dealt with, and that nothing has been sent."""
        await self.send(EchoReq(b"barrier"))
        await self.receive(EchoRes)

    async def submit(self, packet: Packet) -> bytes:
        """Submit a job; return its handle."""
        await self.send(packet)
        return (await self.receive(JobCreated)).handle

    async def grab(self) -> JobAssign:
        """Ask for a job that is certainly there."""
        await self.send(GrabJob())
        return await self.receive(JobAssign)

    async def fall_asleep(self, *abilities: Packet) -> None:
        """Register functions, find no job, and sleep."""
        await self.send(*abilities, GrabJob())
        await self.receive(NoJob)
        await self.send(PreSleep())
        await self.barrier()

    async def expect_end(self) -> None:
        """Wait until the server closes the connection; it must not send anything before."""
        try:
            data = await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return
        raise AssertionError(f"not closed, but {data!r}")


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[gear_anyio.Server, TaskGroup]]:
    """Run a server on a free port for the time of a block; and give a task group for others."""
    with anyio.fail_after(_WAIT):
        async with anyio.create_task_group() as group:
            server = gear_anyio.Server(port=0, **options)
            await group.start(server.serve)
            yield server, group
            server.stop()


@asynccontextmanager
async def connected(server: gear_anyio.Server) -> AsyncIterator[Peer]:
    """Connect a peer over TCP for the time of a block."""
    async with await anyio.connect_tcp(*server.address) as stream:
        yield Peer(stream)


def pipe(size: float = 0) -> tuple[StapledObjectStream[bytes], StapledObjectStream[bytes]]:
    """Return the two ends of a pipe in memory, which holds some chunks each way before sending blocks."""
    to_left, from_right = anyio.create_memory_object_stream[bytes](size)
    to_right, from_left = anyio.create_memory_object_stream[bytes](size)
    return StapledObjectStream(to_right, from_right), StapledObjectStream(to_left, from_left)


@asynccontextmanager
async def piped(server: gear_anyio.Server, group: TaskGroup, size: float = 0) -> AsyncIterator[Peer]:
    """Connect a peer over a pipe in memory for the time of a block, then wait until the server has let it go."""
    ours, theirs = pipe(size)
    done = anyio.Event()

    async def serve_stream() -> None:
        await server.serve_stream(theirs)
        done.set()

    group.start_soon(serve_stream)
    async with ours:
        yield Peer(ours)
    await done.wait()


Connect = Callable[[gear_anyio.Server, TaskGroup], Any]
"""Connects a peer for the time of a block."""

TRANSPORTS: Final[dict[str, Connect]] = {"tcp": lambda server, _group: connected(server), "pipe": piped}


@pytest.fixture
def connect() -> Connect:
    """Over pipes; what happens over sockets is tested for all drivers together."""
    return piped


async def run_job(client: Peer, worker: Peer, workload: bytes = b"data") -> None:
    """Run a job from its submission to its result."""
    await worker.send(CanDo(b"run"))
    handle = await client.submit(SubmitJob(b"run", b"", workload))
    assert await worker.grab() == JobAssign(handle, b"run", workload)
    await worker.send(WorkComplete(handle, workload[::-1]))
    assert await client.receive(WorkComplete) == WorkComplete(handle, workload[::-1])


# Peers


async def test_a_job_goes_from_any_stream_to_any_stream(connect: Connect) -> None:
    async with serving() as (server, group), connect(server, group) as client:
        for other in TRANSPORTS.values():
            async with other(server, group) as worker:
                await run_job(client, worker)
                await run_job(worker, client)


async def test_big_workloads_pass(connect: Connect) -> None:
    async with serving() as (server, group), connect(server, group) as client, connect(server, group) as worker:
        await run_job(client, worker, os.urandom(4 * _MIB))


async def test_a_pair_of_sockets_is_a_stream() -> None:
    ours, theirs = socket.socketpair()
    async with serving() as (server, group), await anyio.abc.SocketStream.from_socket(ours) as stream:
        group.start_soon(server.serve_stream, await anyio.abc.SocketStream.from_socket(theirs))
        peer = Peer(stream)
        await run_job(peer, peer)


async def test_a_stream_past_the_limit_of_connections_is_closed() -> None:
    async with serving(max_connections=1) as (server, group), connected(server) as peer:
        await peer.barrier()
        async with piped(server, group) as other:
            assert await other.receive(Error) == TURNED_AWAY
            await other.expect_end()
        await run_job(peer, peer)


async def test_a_server_that_was_closed_does_not_serve() -> None:
    server = gear_anyio.Server(listen=[])
    server.close()
    with pytest.raises(AlreadyClosed, match="this server is closed: make another one"):
        await server.serve()


async def test_a_server_without_addresses_serves_streams() -> None:
    async with serving(listen=[]) as (server, group), piped(server, group) as peer:
        assert server.addresses == []
        await run_job(peer, peer)


async def test_a_stream_is_served_as_it_is_where_sockets_want_tls() -> None:
    async with serving(tls=authority("good").issue()) as (server, group), piped(server, group) as peer:
        async with await anyio.connect_tcp(*server.address) as stream:
            with anyio.CancelScope(shield=True):
                await stream.send(b"version\n")
                assert (await stream.receive()).startswith(b"\x15\x03")  # an alert of TLS
        await run_job(peer, peer)


# Time


# Bad peers, and peers that leave


async def test_a_peer_that_breaks_the_protocol_disturbs_nobody(connect: Connect) -> None:
    async with serving() as (server, group), connect(server, group) as client, connect(server, group) as worker:
        async with connect(server, group) as bad:
            await bad.send(EchoReq(b"first"), b"\0REQ\0\0\0\7\xff\xff\xff\xff")  # announces 4 GiB
            assert await bad.receive(EchoRes) == EchoRes(b"first")
            await bad.receive(Error)
            await run_job(client, worker)
            await bad.expect_end()
        await run_job(worker, client)


async def test_a_job_whose_worker_breaks_the_protocol_ends_without_help_of_others(connect: Connect) -> None:
    async with (
        serving(job_retries=0) as (server, group),
        connect(server, group) as client,
        connect(server, group) as bad,
    ):
        handle = await client.submit(SubmitJob(b"run", b"", b"data"))
        await bad.send(CanDo(b"run"))
        await bad.grab()
        await bad.send(b"\0BAD\0\0\0\1\0\0\0\0")  # and stays connected
        assert await client.receive(WorkFail) == WorkFail(handle)


async def test_a_job_whose_worker_leaves_goes_to_another(connect: Connect) -> None:
    async with serving() as (server, group), connect(server, group) as client, connect(server, group) as other:
        handle = await client.submit(SubmitJob(b"run", b"", b"data"))
        async with connect(server, group) as worker:
            await worker.send(CanDo(b"run"))
            await worker.grab()
            await other.fall_asleep(CanDo(b"run"))
        await other.receive(Noop)
        assert (await other.grab()).handle == handle


async def test_a_stream_that_has_sent_its_last_still_gets_its_answers() -> None:
    async with serving() as (server, group), piped(server, group) as peer:
        await peer.send(EchoReq(b"last"), b"version\n")
        await peer.stream.send_eof()
        await peer.receive(EchoRes)
        await peer.receive(Line)
        await peer.expect_end()


async def test_a_peer_that_has_sent_its_last_can_read_as_slowly_as_it_likes(connect: Connect) -> None:
    names = {b"%d" % number * 50 for number in range(200)}
    count = 400  # in all 10 MiB of answers, more than the sockets hold
    async with serving(max_output_size=65536) as (server, group), connect(server, group) as peer:
        await peer.send(b"".join(b"create function %b\n" % name for name in names))
        for _ in names:
            await peer.receive(Line)
        await peer.send(b"status\n" * count)
        await peer.stream.send_eof()
        for _ in range(count):
            assert {(await peer.receive(Line)).text.partition(b"\t")[0] for _ in names} == names
            assert (await peer.receive(Line)).text == b"."
        await peer.expect_end()


async def test_a_stream_that_is_cut_is_a_connection_that_is_closed() -> None:
    async with serving() as (server, group), piped(server, group) as peer:
        await peer.barrier()
        assert server.snapshot().jobs.peers == 1
        await peer.stream.aclose()
        await until(lambda: server.snapshot().jobs.peers == 0)


async def test_cancelling_serve_stream_closes_that_connection_alone() -> None:
    async with serving() as (server, group), piped(server, group) as other:
        ours, theirs = pipe()
        async with ours, anyio.create_task_group() as inner:
            inner.start_soon(server.serve_stream, theirs)
            peer = Peer(ours)
            await peer.barrier()
            inner.cancel_scope.cancel()
        await until(lambda: server.snapshot().jobs.peers == 1)
        await run_job(other, other)


# Back pressure


async def test_a_slow_peer_gets_everything(connect: Connect) -> None:
    chunks = [b"%d" % number * 9000 for number in range(300)]
    async with (
        serving(pause_at=65536, max_unsent=_MIB, max_output_size=65536) as (server, group),
        connect(server, group) as slow,
        connect(server, group) as other,
    ):

        async def send() -> None:
            for chunk in chunks:
                await slow.send(EchoReq(chunk))

        async with anyio.create_task_group() as inner:
            inner.start_soon(send)
            await until(lambda: server.snapshot().unsent > 65536)
            await run_job(other, other)
            for chunk in chunks:
                await run_job(other, other)
                assert await slow.receive(EchoRes) == EchoRes(chunk)


async def test_time_to_read_the_rest_is_a_number_of_seconds() -> None:
    async with serving() as (server, _group):
        stream, other = pipe()
        async with stream, other:
            with pytest.raises(ValueError, match="linger is -1 s, which has to be 0 or more"):
                await server.serve_stream(stream, linger=-1)


async def test_a_peer_that_never_reads_is_closed(connect: Connect) -> None:
    async with serving(max_unsent=_MIB) as (server, group), connect(server, group) as worker:
        ours, theirs = pipe()
        left = anyio.Event()

        async def serve_stream() -> None:
            await server.serve_stream(theirs, linger=0.02)
            left.set()

        group.start_soon(serve_stream)
        async with ours:
            await ours.send(SubmitJob(b"run", b"", b"data").encode())
            await worker.send(CanDo(b"run"))
            await until(lambda: server.snapshot().jobs.queued == 1)
            handle = (await worker.grab()).handle
            peers = server.snapshot().jobs.peers
            while server.snapshot().jobs.peers == peers:
                await worker.send(WorkData(handle, bytes(65536)))
                await worker.barrier()
            await left.wait()
        await worker.send(WorkComplete(handle, b""))
        await run_job(worker, worker)


# The end


@pytest.fixture
async def nothing_left(anyio_backend: str) -> AsyncIterator[None]:
    """Check that a test leaves no descriptor, task and thread behind."""
    before, threads = (_descriptors(), _tasks()), set(threading.enumerate())
    yield
    assert (_descriptors(), _tasks()) == before
    assert set(threading.enumerate()) <= threads  # those that trio keeps for a while may end meanwhile


def _descriptors() -> dict[str, str]:
    links = {}
    for path in _DESCRIPTORS.iterdir():
        try:
            links[path.name] = os.readlink(path)
        except FileNotFoundError:  # that of the listing itself
            continue
    return links


def _tasks() -> int:
    return len(anyio.get_running_tasks())


End = Callable[[gear_anyio.Server, TaskGroup], Coroutine[Any, Any, None]]


async def _cancel(_server: gear_anyio.Server, group: TaskGroup) -> None:
    group.cancel_scope.cancel()


async def _stop(server: gear_anyio.Server, _group: TaskGroup) -> None:
    server.stop()


async def _stop_gracefully(server: gear_anyio.Server, _group: TaskGroup) -> None:
    server.stop(graceful=True)


async def _shut_down(server: gear_anyio.Server, _group: TaskGroup) -> None:
    async with connected(server) as admin:
        await admin.send(b"shutdown\n")
        assert (await admin.receive(Line)).text == b"OK"


async def _shut_down_gracefully(server: gear_anyio.Server, _group: TaskGroup) -> None:
    async with connected(server) as admin:
        await admin.send(b"shutdown graceful\n")
        assert (await admin.receive(Line)).text == b"OK"


@needs_proc
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("end", [_cancel, _stop, _stop_gracefully, _shut_down, _shut_down_gracefully])
async def test_the_end_leaves_nothing_behind(end: End, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = gear_anyio.Server(listen=["127.0.0.1:0", f"unix:{path}"], allow_shutdown=True)
    with anyio.fail_after(_WAIT):
        async with connected(server) as silent:  # connects while nobody serves yet
            ours, theirs = pipe()
            async with ours, anyio.create_task_group() as group:
                await group.start(server.serve)
                group.start_soon(server.serve_stream, theirs)
                async with connected(server) as worker:
                    await run_job(Peer(ours), worker)
                    await worker.fall_asleep()
                    await Peer(ours).submit(SubmitJobEpoch(b"run", b"", int(time.time()) + 100, b""))
                    await end(server, group)
                    if end is not _cancel:
                        await worker.expect_end()
            await silent.expect_end()
            with pytest.raises(OSError, match=r"failed|refused"):
                await anyio.connect_tcp(*server.address)
        assert not path.exists()


async def test_a_graceful_end_waits_for_running_jobs(connect: Connect) -> None:
    async with serving() as (server, group), connect(server, group) as client, connect(server, group) as worker:
        handle = await client.submit(SubmitJob(b"run", b"", b"data"))
        await worker.send(CanDo(b"run"))
        await worker.grab()
        await client.submit(SubmitJobBg(b"run", b"", b"never handed out"))
        server.stop(graceful=True)
        await worker.send(SubmitJob(b"run", b"", b"late"))
        await worker.receive(Error)
        await worker.send(GrabJob())
        await worker.receive(NoJob)
        await worker.send(WorkComplete(handle, b"done"))
        assert await client.receive(WorkComplete) == WorkComplete(handle, b"done")
        await client.expect_end()
        await worker.expect_end()


async def test_a_graceful_end_sends_the_whole_of_the_last_result(connect: Connect) -> None:
    result = os.urandom(8 * _MIB)
    async with serving() as (server, group), connect(server, group) as client, connect(server, group) as worker:
        handle = await client.submit(SubmitJob(b"run", b"", b"data"))
        await worker.send(CanDo(b"run"))
        await worker.grab()
        server.stop(graceful=True)
        await worker.send(WorkComplete(handle, result))
        assert await client.receive(WorkComplete) == WorkComplete(handle, result)
        await client.expect_end()


@needs_proc
@pytest.mark.usefixtures("nothing_left")
async def test_a_stream_for_a_closed_server_is_closed() -> None:
    server = gear_anyio.Server(port=0)
    server.close()
    ours, theirs = pipe()
    with anyio.fail_after(_WAIT):
        async with ours:
            await server.serve_stream(theirs)
            await Peer(ours).expect_end()


@pytest.mark.skipif(sys.platform == "win32", reason="waits for the selector's own descriptor")
async def test_two_servers_share_a_loop() -> None:
    async with serving() as (one, _), serving() as (two, _), connected(one) as peer, connected(two) as other:
        await run_job(peer, peer)
        await run_job(other, other)
