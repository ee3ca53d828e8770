"""Servers embedded in event loops serve as `gear serve` does, and an embedded client knows what has not left."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import gear_sync
from gear_testing.running import running
from gearproto import ClientConnection, Completed, Failed, Lost, NotSent
from gearproto.codec import Route, decoders
from gearproto.events import Line
from gearproto.framing import Decoder
from gearproto.packets import EchoReq, EchoRes, JobCreated, SubmitJob, SubmitJobBg
from gearproto.server import Endpoint, Engine
from tests.harness.examples import load
from tests.harness.foreign import Processes, completed
from tests.harness.ports import HOST
from tests.harness.servers import RunningServer, poll_until
from tests.harness.threads import LIMIT, Call

SERVERS = ["selectors_server", "asyncio_protocol", "trio_server", "gevent_server", "twisted_server"]
NEEDS = {"gevent_server": "gevent", "twisted_server": "twisted"}
MANY = int(os.environ.get("GEARPROTO_MANY", "2000"))


@pytest.fixture(params=SERVERS)
def address(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Run an embedded server until the test is over."""
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    serve = load(request.param).serve
    endpoint = Endpoint(Engine(handle_prefix=b"H:x", epoch_offset=0.0, allow_shutdown=True))
    listener = socket.create_server((HOST, 0))
    address: tuple[str, int] = listener.getsockname()
    thread = threading.Thread(target=serve, args=(endpoint, listener), daemon=True)
    thread.start()
    yield address
    with connect(address) as sock:
        sock.sendall(b"shutdown\n")
        assert sock.makefile("rb").readline() == b"OK\r\n"
    thread.join(LIMIT)
    assert not thread.is_alive()
    listener.close()


def connect(address: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(address)
    sock.settimeout(LIMIT)
    return sock


def read_to_end(sock: socket.socket) -> list[Any]:
    decoder = Decoder(decoders(Route.FROM_SERVER))
    while data := sock.recv(65536):
        decoder.feed(data)
    return list(iter(decoder.next, None))


def test_many_submissions_in_one_write_are_done(address: tuple[str, int]) -> None:
    worker = gear_sync.Worker(address)

    @worker.function("reverse")
    def reverse(job: gear_sync.WorkerJob) -> bytes:
        return job.workload[::-1]

    with gear_sync.Client(address) as client, running(worker):
        jobs = client.submit_many([gear_sync.JobRequest("reverse", b"%d" % number) for number in range(MANY)])
        assert [job.result(LIMIT) for job in jobs] == [(b"%d" % number)[::-1] for number in range(MANY)]


def test_half_close_gets_all_answers_and_then_the_end(address: tuple[str, int]) -> None:
    with connect(address) as sock:
        sock.sendall(SubmitJobBg(b"f", b"", b"w").encode() + EchoReq(b"last").encode())
        sock.shutdown(socket.SHUT_WR)
        created, echoed = read_to_end(sock)
    assert isinstance(created, JobCreated)
    assert echoed == EchoRes(b"last")


def test_half_a_packet_disturbs_nobody(address: tuple[str, int]) -> None:
    with connect(address) as half, gear_sync.Client(address) as client:
        half.sendall(SubmitJob(b"f", b"", b"w").encode()[:15])
        assert client.echo(b"well") == b"well"
        half.shutdown(socket.SHUT_WR)
        assert read_to_end(half) == []
        assert client.echo(b"well") == b"well"


def test_nonsense_is_closed(address: tuple[str, int]) -> None:
    with connect(address) as sock:
        sock.sendall(b"\0nonsense, and no header at all")
        assert read_to_end(sock) == []


def test_peer_that_reads_late_gets_everything_and_keeps_nobody_waiting(address: tuple[str, int]) -> None:
    echo, count = EchoReq(b"e" * 60_000), 200  # 12 MB, more than sockets hold
    with connect(address) as lazy, gear_sync.Client(address) as client:
        sender = threading.Thread(target=lazy.sendall, args=(echo.encode() * count,))
        sender.start()
        assert client.echo(b"well") == b"well"
        decoder = Decoder(decoders(Route.FROM_SERVER))
        for _ in range(count):
            while (answer := decoder.next()) is None:
                decoder.feed(lazy.recv(65536))
            assert answer == EchoRes(echo.data)
        sender.join(LIMIT)


def test_long_answer_is_whole(address: tuple[str, int]) -> None:
    with connect(address) as sock:
        sock.sendall(SubmitJobBg(b"f", b"", b"w").encode() * MANY + b"show jobs\n")
        sock.shutdown(socket.SHUT_WR)
        messages = read_to_end(sock)
    assert sum(isinstance(message, JobCreated) for message in messages) == MANY
    assert sum(isinstance(message, Line) for message in messages) == MANY + 1
    assert messages[-1] == Line(b".")


def test_peer_that_resets_its_connection_is_forgotten(address: tuple[str, int]) -> None:
    with gear_sync.Client(address) as client:
        sock = connect(address)
        sock.sendall(SubmitJob(b"f", b"", b"w").encode())
        assert sock.recv(100)
        assert client.admin.status()[0].total == 1
        reset(sock)
        poll_until(lambda: client.admin.status()[0].total == 0, "the job is gone")


def test_delayed_jobs_come_in_time(address: tuple[str, int]) -> None:
    """A loop that forgets the deadlines of the endpoint would sleep for ever."""
    worker = gear_sync.Worker(address)
    done = threading.Event()
    worker.register("later", lambda _job: done.set())
    with gear_sync.Client(address) as client, running(worker):
        client.submit_background("later", run_at=time.time() + 0.5)
        assert done.wait(LIMIT)


@pytest.mark.parametrize("most", [1, 4, 100])
@pytest.mark.parametrize("message", [b"", b"version\n", b"\0BAD\0\0\0\1\0\0\0\0"])
@pytest.mark.parametrize("name", SERVERS)
def test_peers_that_are_gone_before_they_are_served_do_not_end_the_server(name: str, message: bytes, most: int) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    serve = load(name).serve
    endpoint = Endpoint(Engine(handle_prefix=b"H:x", epoch_offset=0.0, allow_shutdown=True), max_connections=most)
    with socket.create_server((HOST, 0)) as listener, connect(listener.getsockname()) as admin:
        for _ in range(8):  # they are turned away if no more than the first connection is allowed
            gone = connect(listener.getsockname())
            gone.sendall(message)
            reset(gone)
        server = Call(lambda: serve(endpoint, listener))
        admin.sendall(b"shutdown\n")
        assert admin.makefile("rb").readline() == b"OK\r\n"
        server.result()


@pytest.mark.parametrize("name", SERVERS)
def test_connection_that_is_closed_because_its_peer_does_not_read_leaves_nothing_open(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    example = load(name)
    monkeypatch.setattr(example, "LAST_WORDS", 0.2, raising=False)
    engine = Engine(handle_prefix=b"H:x", epoch_offset=0.0, allow_shutdown=True, max_output_size=100_000_000)
    endpoint = Endpoint(engine, linger=0.0, pause_at=100_000_000)
    listener = socket.create_server((HOST, 0))
    address = listener.getsockname()
    with listener, connect(address) as admin:
        server = Call(lambda: example.serve(endpoint, listener))
        admin.sendall(b"version\n")
        assert admin.recv(100).startswith(b"OK ")
        before = len(os.listdir("/proc/self/fd"))
        with connect(address) as sock:
            sock.sendall(EchoReq(bytes(100_000)).encode() * 200 + b"\0BAD\0\0\0\1\0\0\0\0")
            poll_until(lambda: len(os.listdir("/proc/self/fd")) == before + 1, "the server has closed its end")
        admin.sendall(b"shutdown\n")
        assert admin.makefile("rb").readline() == b"OK\r\n"
        server.result()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


# Programs of others


class Embedded(RunningServer):
    """An embedded server, as the harness for programs of others knows servers."""

    kind = "ours"

    def __init__(self, address: tuple[str, int]) -> None:
        self.port = address[1]

    def restart(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.mark.interop("gearman", "gearadmin", "perl")
def test_programs_of_others_work(address: tuple[str, int], tmp_path: Path) -> None:
    with closing(Processes(Embedded(address), tmp_path)) as processes, gear_sync.Client(address) as client:
        processes.start_gearman("-w", "-f", "swap", "--", "tr", "ab", "ba")
        processes.start_worker("perl")
        poll_until(lambda: sum(row.workers > 0 for row in client.admin.status()) > 1, "both workers are there")
        done = processes.gearman("-f", "swap", workload=b"a" * 100_000)
        assert (done.code, done.output) == (0, b"b" * 100_000)
        assert processes.client("perl", "foreground", b"reverse", b"abc").lines == [completed(b"cba")]
        assert "swap\t0\t0\t1" in processes.gearadmin("--status").lines


# Clients and workers of asyncio


@pytest.mark.parametrize("address", ["asyncio_protocol"], indirect=True)
def test_asyncio_client_and_worker(address: tuple[str, int]) -> None:
    assert asyncio.run(load("asyncio_protocol").demo(address)) == Completed(b"cba")


def test_asyncio_client_knows_what_has_not_left() -> None:
    async def main() -> list[Any]:
        with socket.create_server((HOST, 0)) as listener:
            loop = asyncio.get_running_loop()
            _transport, client = await loop.create_connection(load("asyncio_protocol").Client, *listener.getsockname())
            results = [client.submit(b"f", b"w" * 1_000_000) for _ in range(30)]
            assert client.transport is not None
            client.transport.abort()
            return await asyncio.gather(*results)

    first, *_between, last = asyncio.run(main())
    assert isinstance(first, Lost)
    assert isinstance(last, NotSent)


# A loop with nothing but a timer and a watcher


@pytest.mark.parametrize("address", ["asyncio_protocol"], indirect=True)
def test_client_and_worker_in_a_foreign_loop(address: tuple[str, int]) -> None:
    done, failed = load("foreign_loop").demo(address)
    assert (done, failed) == (Completed(b"25"), Failed())


def test_foreign_loop_probes_a_silent_server_by_its_timer() -> None:
    example = load("foreign_loop")
    with socket.create_server((HOST, 0)) as silent:
        loop = example.Loop()
        client = example.Client(loop, silent.getsockname())
        client.connection = ClientConnection(probe_interval=0.01, probe_timeout=0.01, now=time.monotonic())
        outcomes: list[Any] = []

        def done(outcome: Any) -> None:
            outcomes.append(outcome)
            loop.quit()

        client.submit(b"f", b"w", done)
        loop.run()
        loop.selector.close()
    assert outcomes == [Lost("no answer to ECHO_REQ within 0.01 s")]
