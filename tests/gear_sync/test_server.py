"""The job server under each of its drivers: how it starts and ends, what it counts, and what it leaves behind.

`gear_sync.Server`, and `gear_anyio.Server` on asyncio and on trio, have to do the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import gear_anyio
import gear_sync
import gearproto
from gear_sync import Client, Server, Worker, WorkerJob
from gearproto import Completed, JobFailed, JobLost, JobNotSent, JobRejected, Lost
from gearproto.codec import Packet
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
    WorkComplete,
)
from gearproto.server import Engine
from tests.harness.drivers import DRIVERS, Driver, ThreadedServer
from tests.harness.raw import RawConnection
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT, Call, nothing_left_open, working

MIB: Final = 1024 * 1024

Start = Callable[..., ThreadedServer]


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    driver: Driver = request.param
    return driver


@pytest.fixture
def kind(driver: Driver) -> Callable[..., Server | gear_anyio.Server]:
    """The class of the server."""
    return gear_sync.Server if driver == "gear_sync" else gear_anyio.Server


@pytest.fixture
def start(driver: Driver) -> Iterator[Start]:
    """Start servers; nothing of them may be left at the end."""
    with nothing_left_open(), contextlib.ExitStack() as stack:

        def start(**options: Any) -> ThreadedServer:
            return stack.enter_context(ThreadedServer(driver, **options))

        yield start


def refuses(address: tuple[str, int]) -> bool:
    """Tell whether nobody listens at an address."""
    try:
        socket.create_connection(address, LIMIT).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it stops to listen just now
        return False
    return False


def echoes(address: tuple[str, int]) -> bool:
    with Client(address, timeout=LIMIT) as client:
        return client.echo(b"x") == b"x"


# Starting and ending


def test_server_listens_where_it_says_until_its_end(start: Start) -> None:
    server = start()
    assert server.server.addresses == [("127.0.0.1", server.port)]
    assert server.server.address == ("127.0.0.1", server.port)
    assert server.server.port == server.port != 0
    assert echoes(server.server.address)
    server.close()
    assert refuses(server.server.address)


def test_port_0_is_a_port_of_its_own_for_each_server(start: Start) -> None:
    assert start().port != start().port


def test_taken_port_is_an_error_that_leaves_nothing_open(
    start: Start, kind: Callable[..., Server | gear_anyio.Server]
) -> None:
    server = start()
    with nothing_left_open():
        with pytest.raises(OSError, match="in use") as caught:
            kind(port=server.port)
        assert caught.value.errno == errno.EADDRINUSE


def test_port_can_be_taken_again_at_once(start: Start) -> None:
    server = start()
    with Client(server.server.address) as client:
        client.echo(b"x")  # its socket will wait for late packets
        server.close()
    assert echoes(start(port=server.port).server.address)


def test_unknown_option_is_an_error_that_leaves_nothing_open(
    kind: Callable[..., Server | gear_anyio.Server],
) -> None:
    with nothing_left_open(), pytest.raises(TypeError, match="max_conections"):
        kind(port=0, max_conections=7)


def test_several_addresses_are_one_server(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    families = {family for family, *_rest in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    server = start(listen=["localhost:0", ("127.0.0.1", 0), f"unix:{path}"])
    places = server.server.addresses
    assert len(places) >= len(families) + 2
    assert places[-1] == str(path)
    handles = set()
    for place in places:
        family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        with socket.socket(family) as sock:
            sock.settimeout(LIMIT)
            sock.connect(place)
            sock.sendall(SubmitJobBg(b"f", b"one", b"").encode())
            handles.add(sock.recv(100))
    assert len(handles) == 1
    server.close()
    assert not path.exists()


def test_listening_sockets_are_used_as_they_are(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        server = start(sockets=[listener])
        assert server.server.address == address
        assert echoes(address)
        server.close()
        assert listener.fileno() == -1


def test_connections_from_before_the_start_are_served(start: Start) -> None:
    server = start(serve=False)
    with Client(server.server.address, timeout=LIMIT) as client:
        call = Call(lambda: client.echo(b"early"))
        server.serve()
        assert call.result() == b"early"


@pytest.mark.parametrize("graceful", [False, True])
def test_server_serves_until_stop_however_often_it_is_called(start: Start, graceful: bool) -> None:
    server = start()
    assert echoes(server.server.address)
    server.stop(graceful=graceful)
    server.wait()
    assert refuses(server.server.address)
    server.server.close()
    server.server.stop()


@pytest.mark.parametrize("graceful", [False, True])
def test_server_that_was_stopped_before_it_serves_returns_at_once(start: Start, graceful: bool) -> None:
    server = start(serve=False)
    server.stop(graceful=graceful)
    server.serve()
    server.wait()


def test_server_that_never_serves_can_be_closed(start: Start) -> None:
    server = start(serve=False)
    server.server.close()
    server.server.close()
    assert refuses(server.server.address)


def test_end_closes_every_connection_and_waiting_clients_are_told(start: Start) -> None:
    server = start()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server.server.address, timeout=LIMIT)) for _ in range(20)]
        jobs = [client.submit("f") for client in clients]
        for client in clients:
            client.echo(b"")
        server.stop()
        assert all(job.wait(LIMIT) for job in jobs)
        assert {type(job.outcome) for job in jobs} == {Lost}


def test_fault_of_the_server_comes_out_and_closes_everything(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """No peer can cause one; it must not leave a server behind that looks alive."""

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Engine, "receive_data", fail)
    server = start(serve=False)
    with RawConnection(server) as peer:
        peer.send(EchoReq(b""))
        server.serve()
        with pytest.raises(ZeroDivisionError):
            server.wait()
        peer.expect_closed()
    assert refuses(server.server.address)


# Peers


def test_clients_and_workers_are_served(start: Start) -> None:
    server = start()
    with Worker(server.server.address) as worker, Client(server.server.address) as client:
        worker.register("reverse", lambda job: job.workload[::-1])
        with working(worker):
            jobs = [client.submit("reverse", b"%d ab" % number) for number in range(100)]
            assert [job.result(LIMIT) for job in jobs] == [(b"%d ab" % number)[::-1] for number in range(100)]
            assert client.admin.version() == gearproto.__version__


def test_handles_differ_from_start_to_start(start: Start) -> None:
    handles = set()
    for _ in range(3):
        with Client(start(handle_prefix="X").server.address) as client:
            handles.add(client.submit_background("f"))
    assert len(handles) == 3
    assert all(handle.startswith(b"X:") for handle in handles)


def test_deadline_is_kept_though_nothing_arrives(start: Start) -> None:
    """One deadline stands for all: which there are, and when, is the engine's business."""
    server = start(wakeup_timeout=0.02)
    with contextlib.ExitStack() as stack:
        client, first, second = [stack.enter_context(RawConnection(server)) for _ in range(3)]
        for worker in (first, second):
            worker.send(CanDo(b"f"), PreSleep())
            worker.expect_nothing()
        client.submit(SubmitJob(b"f", b"", b""))
        first.expect(Noop())
        second.expect(Noop())  # as the first has not asked in time


def test_job_whose_worker_keeps_vanishing_fails_in_the_end_with_a_warning(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(job_retries=2)
    with Client(server.server.address, timeout=LIMIT) as client:
        job = client.submit("f")
        client.echo(b"")
        workers: list[Worker] = []
        for _ in range(3):
            assert not job.wait(0)
            with Worker(server.server.address) as worker:
                workers.append(worker)
                worker.register("f", lambda job: workers[-1].abort())
                Call(worker.run).result()
        with pytest.raises(JobFailed):
            job.result(LIMIT)
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "gear_sync.server"]
    assert warning == f"job {job.handle!r} of b'f' failed: its worker was lost, or its timeout passed, 3 times"


def test_peer_that_breaks_the_protocol_disturbs_nobody(start: Start) -> None:
    server = start()
    with RawConnection(server) as other, RawConnection(server) as bad:
        bad.send_bytes(EchoReq(b"first").encode() + b"\0REQ\0\0\0\7\xff\xff\xff\xff")  # announces 4 GiB
        bad.expect(EchoRes(b"first"))
        bad.receive(Error)
        other.expect_nothing()
        bad.expect_closed()
        other.expect_nothing()


def test_peer_that_has_sent_its_last_still_gets_its_answers(start: Start) -> None:
    with RawConnection(start(max_output_size=65536)) as peer:
        big = [EchoReq(b"%d" % number * 200_000) for number in range(10)]

        def send_all() -> None:
            peer.send(*big)
            peer.sock.shutdown(socket.SHUT_WR)

        call = Call(send_all)
        for request in big:
            peer.expect(EchoRes(request.data))
        call.result()
        peer.expect_closed()


# Graceful ends


@pytest.fixture
def drained(start: Start) -> Iterator[tuple[ThreadedServer, RawConnection, RawConnection, bytes]]:
    """A server with a client, a worker, and a job that the worker has in hand."""
    server = start(allow_shutdown=True)
    with RawConnection(server) as client, RawConnection(server) as worker:
        worker.send(CanDo(b"f"))
        handle = client.submit(SubmitJob(b"f", b"", b""))
        worker.grab()
        yield server, client, worker, handle


def end_by_stop(server: ThreadedServer, client: RawConnection) -> None:
    server.stop(graceful=True)
    poll_until(lambda: refuses(server.server.address), "the server listens no more")


def end_by_administrator(server: ThreadedServer, client: RawConnection) -> None:
    assert client.ask(b"shutdown graceful") == b"OK\r\n"


Drained = tuple[ThreadedServer, RawConnection, RawConnection, bytes]


@pytest.mark.parametrize("end", [end_by_stop, end_by_administrator])
def test_graceful_end_lets_running_jobs_end_and_takes_nothing_new(
    drained: Drained, end: Callable[[ThreadedServer, RawConnection], None]
) -> None:
    server, client, worker, handle = drained
    client.submit(SubmitJob(b"f", b"", b"stays queued"))
    end(server, client)
    assert refuses(server.server.address)
    client.send(SubmitJob(b"f", b"", b"refused"))
    assert b"QUEUE_ERROR" in client.receive_raw()
    worker.send(GrabJob())
    worker.expect(NoJob())
    client.send(EchoReq(b"still served"))
    client.expect(EchoRes(b"still served"))
    assert server.serving
    result = os.urandom(8 * MIB)
    worker.send(WorkComplete(handle, result))
    client.expect(WorkComplete(handle, result))
    client.expect_closed()
    worker.expect_closed()
    server.wait()


def test_worker_that_leaves_a_draining_server_does_not_keep_it_up(drained: Drained) -> None:
    server, client, worker, _handle = drained
    end_by_stop(server, client)
    worker.close()
    client.expect_closed()
    server.wait()


def test_stop_at_once_ends_a_draining_server(drained: Drained) -> None:
    server, client, worker, _handle = drained
    end_by_stop(server, client)
    server.stop()
    client.expect_closed()
    worker.expect_closed()
    server.wait()


def test_graceful_end_without_running_jobs_comes_at_once(start: Start) -> None:
    server = start()
    with Client(server.server.address) as client:
        client.submit_background("f")
        job = client.submit("g")
        server.stop(graceful=True)
        with pytest.raises((JobLost, JobRejected)):
            job.result(LIMIT)
        server.wait()
        with pytest.raises(JobNotSent):
            client.submit("f")


def test_clients_and_workers_see_a_graceful_end_through(start: Start) -> None:
    started, release = threading.Event(), threading.Event()

    def f(job: WorkerJob) -> bytes:
        started.set()
        assert release.wait(LIMIT)
        return b"the last"

    server = start()
    address = server.server.address
    with Worker(address) as worker, Client(address) as client:
        worker.register("f", f)
        with working(worker):
            job = client.submit("f")
            assert started.wait(LIMIT)
            server.stop(graceful=True)
            poll_until(lambda: refuses(address), "the server listens no more")
            other = client.submit("f")
            with pytest.raises(JobRejected):
                other.result(LIMIT)
            release.set()
            assert job.result(LIMIT) == b"the last"
            assert job.outcome == Completed(b"the last")


# Counting


def test_snapshot_counts_what_the_server_holds_and_has_done(start: Start) -> None:
    server = start()
    with RawConnection(server) as client, RawConnection(server) as worker:
        assert server.snapshot().jobs.submitted == 0
        worker.send(CanDo(b"f"))
        handles = [client.submit(SubmitJob(b"f", b"", b"%d" % number)) for number in range(3)]
        worker.send(GrabJob(), GrabJob())
        worker.expect(JobAssign(handles[0], b"f", b"0"), JobAssign(handles[1], b"f", b"1"))
        worker.send(WorkComplete(handles[0], b""))
        client.expect(WorkComplete(handles[0], b""))
        snapshot = server.snapshot()
        jobs = snapshot.jobs
        assert (jobs.peers, jobs.queued, jobs.delayed, jobs.running) == (2, 1, 0, 1)
        assert (jobs.submitted, jobs.ended) == (3, 1)
        (row,) = jobs.functions
        assert (row.function, row.total, row.running, row.workers) == (b"f", 2, 1, 1)
        sent: list[Packet] = [CanDo(b"f"), GrabJob(), GrabJob(), WorkComplete(handles[0], b"")]
        sent += [SubmitJob(b"f", b"", b"%d" % number) for number in range(3)]
        assert snapshot.received == sum(len(packet.encode()) for packet in sent)
        answers: list[Packet] = [JobCreated(handle) for handle in handles]
        answers += [WorkComplete(handles[0], b"")]
        answers += [JobAssign(handles[0], b"f", b"0"), JobAssign(handles[1], b"f", b"1")]
        assert snapshot.sent == sum(len(packet.encode()) for packet in answers)
        assert snapshot.unsent == 0


def test_snapshot_counts_what_peers_have_not_read(start: Start) -> None:
    server = start()
    with RawConnection(server) as client, RawConnection(server) as other:
        client.send(EchoReq(bytes(16 * MIB)))
        poll_until(lambda: server.snapshot().unsent > 0, "the answer does not fit into the socket")
        assert server.snapshot().unsent <= 16 * MIB + 12
        other.expect_nothing()
        client.receive_raw()
        poll_until(lambda: server.snapshot().unsent == 0, "all is read")


def test_snapshot_is_there_before_the_start_and_after_the_end(start: Start) -> None:
    server = start(serve=False)
    assert server.snapshot().jobs.peers == 0
    server.serve()
    with Client(server.server.address) as client:
        client.submit_background("f")
    server.close()
    assert server.server.snapshot().jobs.submitted == 1
    assert server.server.snapshot().jobs.peers == 0


# What `gear_sync.Server` alone can do


def test_block_runs_the_server_in_a_thread_and_ends_it() -> None:
    with nothing_left_open():
        with Server(port=0) as server:
            assert echoes(server.address)
        assert refuses(server.address)


PROGRAM: Final = """
import signal, sys
import gear_sync
server = gear_sync.Server(port=0)
graceful = sys.argv[1] == "graceful"
signal.signal(signal.SIGTERM, lambda *_: server.stop(graceful=graceful))
print(server.port, flush=True)
server.serve_forever()
print("returned", flush=True)
"""


@pytest.mark.parametrize("way", ["graceful", "at once"])
def test_stop_from_a_signal_handler_ends_serve_forever(way: str) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(Call(process.stdout.readline).result())
            with Client(("127.0.0.1", port), timeout=LIMIT) as client:
                client.submit_background("f")
                process.send_signal(signal.SIGTERM)
                assert Call(process.stdout.readline).result() == "returned\n"
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("way", ["block", "serve_forever"])
def test_snapshot_is_taken_by_the_thread_that_serves(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    server = Server(port=0)
    real = server._reactor.snapshot
    threads: list[threading.Thread] = []

    def snapshot() -> object:
        threads.append(threading.current_thread())
        return real()

    monkeypatch.setattr(server._reactor, "snapshot", snapshot)
    with contextlib.ExitStack() as stack:
        if way == "block":
            stack.enter_context(server)
        else:
            call = Call(server.serve_forever)
            stack.callback(call.result)
            stack.callback(server.stop)
        assert echoes(server.address)
        assert server.snapshot().jobs.submitted == 0
    (thread,) = threads
    assert thread is not threading.current_thread()


def test_snapshots_of_many_threads_come_while_the_server_ends() -> None:
    with Server(port=0) as server:
        calls = [Call(lambda: [server.snapshot().jobs.peers for _ in range(200)]) for _ in range(5)]
        server.stop()
    assert [call.result() for call in calls] == [[0] * 200] * 5
