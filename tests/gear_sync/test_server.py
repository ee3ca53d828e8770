"""`gear_sync.Server`: how it starts and ends, what it counts, and what it leaves behind."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from gear_sync import Client, Server, Worker, WorkerJob
from gearproto import Completed, JobFailed, JobLost, JobNotSent, JobRejected, Lost
from gearproto.packets import (
    CanDo,
    EchoReq,
    EchoRes,
    GrabJob,
    JobAssign,
    JobCreated,
    NoJob,
    Packet,
    SubmitJob,
    WorkComplete,
)
from tests.harness.raw import RawConnection
from tests.harness.servers import OurServer, poll_until
from tests.harness.threads import LIMIT, Call, nothing_left_open, working


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


def test_block_runs_the_server_in_a_thread_and_ends_it() -> None:
    with nothing_left_open():
        with Server(port=0) as server:
            assert server.addresses == [("127.0.0.1", server.port)]
            assert server.address == ("127.0.0.1", server.port)
            assert echoes(server.address)
        assert refuses(server.address)


def test_port_0_is_a_port_of_its_own_for_each_server() -> None:
    with Server(port=0) as one, Server(port=0) as two:
        assert 0 not in (one.port, two.port)
        assert one.port != two.port


def test_taken_port_is_an_error_that_leaves_nothing_open() -> None:
    with Server(port=0) as server, nothing_left_open():
        with pytest.raises(OSError, match="in use") as caught:
            Server(port=server.port)
        assert caught.value.errno == errno.EADDRINUSE


def test_port_can_be_taken_again_at_once() -> None:
    with Server(port=0) as server, Client(server.address) as client:
        client.echo(b"x")  # its socket will wait for late packets
    with Server(port=server.port) as again:
        assert echoes(again.address)


def test_localhost_is_served_in_each_family_that_it_has() -> None:
    families = {family for family, *_rest in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    with Server("localhost", 0) as server:
        assert len(server.addresses) >= len(families)
        for address in server.addresses:
            assert isinstance(address, tuple)
            assert address[1] == server.port
            assert echoes(address)


def test_connections_from_before_the_start_are_served() -> None:
    server = Server(port=0)
    with Client(server.address, timeout=LIMIT) as client:
        call = Call(lambda: client.echo(b"early"))
        with server:
            assert call.result() == b"early"


@pytest.mark.parametrize("when", ["before", "after"])
def test_serve_forever_serves_until_stop(when: str) -> None:
    with nothing_left_open():
        server = Server(port=0)
        if when == "before":
            server.stop()
        call = Call(server.serve_forever)
        if when == "after":
            assert echoes(server.address)
            server.stop()
            server.stop()
        call.result()
        assert refuses(server.address)
        server.close()
        server.stop()


def test_server_that_never_serves_can_be_closed() -> None:
    with nothing_left_open():
        server = Server(port=0)
        server.close()
        server.close()
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


def test_end_closes_every_connection_and_waiting_clients_are_told() -> None:
    with nothing_left_open(), contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(port=0))
        clients = [stack.enter_context(Client(server.address, timeout=LIMIT)) for _ in range(20)]
        jobs = [client.submit("f") for client in clients]
        for client in clients:
            client.echo(b"")
        server.stop()
        assert all(job.wait(LIMIT) for job in jobs)
        assert {type(job.outcome) for job in jobs} == {Lost}


def test_error_in_a_turn_comes_out_of_serve_forever_and_closes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(timeout: float | None = None) -> bool:
        raise ZeroDivisionError

    with nothing_left_open():
        server = Server(port=0)
        monkeypatch.setattr(server._reactor, "turn", fail)
        with pytest.raises(ZeroDivisionError):
            Call(server.serve_forever).result()
        assert refuses(server.address)


def test_unknown_option_is_an_error_that_leaves_nothing_open() -> None:
    with nothing_left_open(), pytest.raises(TypeError, match="max_conections"):
        Server(port=0, max_conections=7)  # type: ignore[call-arg]


# Graceful ends


@pytest.fixture
def drained() -> Iterator[tuple[OurServer, RawConnection, RawConnection, bytes]]:
    """A server with a client, a worker, and a job that the worker has in hand."""
    server = OurServer()
    with contextlib.closing(server), RawConnection(server) as client, RawConnection(server) as worker:
        worker.send(CanDo(b"f"))
        handle = client.submit(SubmitJob(b"f", b"", b""))
        worker.grab()
        yield server, client, worker, handle


def end_by_stop(server: OurServer, client: RawConnection) -> None:
    server.server.stop(graceful=True)
    poll_until(lambda: refuses(server.server.address), "the server listens no more")


def end_by_administrator(server: OurServer, client: RawConnection) -> None:
    assert client.ask(b"shutdown graceful") == b"OK\r\n"


Drained = tuple[OurServer, RawConnection, RawConnection, bytes]


@pytest.mark.parametrize("end", [end_by_stop, end_by_administrator])
def test_graceful_end_lets_running_jobs_end_and_takes_nothing_new(
    drained: Drained, end: Callable[[OurServer, RawConnection], None]
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
    assert server.server._thread is not None
    assert server.server._thread.is_alive()
    worker.send(WorkComplete(handle, b"r"))
    client.expect(WorkComplete(handle, b"r"))
    client.expect_closed()
    worker.expect_closed()
    server.server._thread.join(LIMIT)
    assert not server.server._thread.is_alive()


def test_worker_that_leaves_a_draining_server_does_not_keep_it_up(drained: Drained) -> None:
    server, client, worker, _handle = drained
    end_by_stop(server, client)
    worker.close()
    client.expect_closed()
    assert server.server._thread is not None
    server.server._thread.join(LIMIT)
    assert not server.server._thread.is_alive()


def test_stop_at_once_ends_a_draining_server(drained: Drained) -> None:
    server, client, worker, _handle = drained
    end_by_stop(server, client)
    server.server.stop()
    client.expect_closed()
    worker.expect_closed()


def test_graceful_end_without_running_jobs_comes_at_once() -> None:
    with Server(port=0) as server, Client(server.address) as client:
        client.submit_background("f")
        job = client.submit("g")
        server.stop(graceful=True)
        with pytest.raises((JobLost, JobRejected)):
            job.result(LIMIT)
        assert server._thread is not None
        server._thread.join(LIMIT)
        assert not server._thread.is_alive()
        with pytest.raises(JobNotSent):
            client.submit("f")


def test_clients_and_workers_see_a_graceful_end_through() -> None:
    started, release = threading.Event(), threading.Event()

    def f(job: WorkerJob) -> bytes:
        started.set()
        assert release.wait(LIMIT)
        return b"the last"

    with Server(port=0) as server, Worker(server.address) as worker, Client(server.address) as client:
        worker.register("f", f)
        with working(worker):
            job = client.submit("f")
            assert started.wait(LIMIT)
            server.stop(graceful=True)
            poll_until(lambda: refuses(server.address), "the server listens no more")
            other = client.submit("f")
            with pytest.raises(JobRejected):
                other.result(LIMIT)
            release.set()
            assert job.result(LIMIT) == b"the last"
            assert job.outcome == Completed(b"the last")


# Counting


def test_snapshot_counts_what_the_server_holds_and_has_done() -> None:
    with OurServerContext() as server, RawConnection(server) as client, RawConnection(server) as worker:
        assert server.server.snapshot().jobs.submitted == 0
        worker.send(CanDo(b"f"))
        handles = [client.submit(SubmitJob(b"f", b"", b"%d" % number)) for number in range(3)]
        worker.send(GrabJob(), GrabJob())
        worker.expect(JobAssign(handles[0], b"f", b"0"), JobAssign(handles[1], b"f", b"1"))
        worker.send(WorkComplete(handles[0], b""))
        client.expect(WorkComplete(handles[0], b""))
        snapshot = server.server.snapshot()
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


class OurServerContext(OurServer):
    """Our server, closed at the end of a block."""

    def __enter__(self) -> OurServerContext:
        return self

    def __exit__(self, *_arguments: object) -> None:
        self.close()


def test_snapshot_counts_what_peers_have_not_read() -> None:
    with OurServerContext() as server, RawConnection(server) as client, RawConnection(server) as other:
        client.send(EchoReq(bytes(16 * 1024 * 1024)))
        poll_until(lambda: server.server.snapshot().unsent > 0, "the answer does not fit into the socket")
        assert server.server.snapshot().unsent <= 16 * 1024 * 1024 + 12
        other.expect_nothing()
        client.receive_raw()
        poll_until(lambda: server.server.snapshot().unsent == 0, "all is read")


def test_snapshot_is_there_before_the_start_and_after_the_end() -> None:
    server = Server(port=0)
    assert server.snapshot().jobs.peers == 0
    with server, Client(server.address) as client:
        client.submit_background("f")
    assert server.snapshot().jobs.submitted == 1
    assert server.snapshot().jobs.peers == 0


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


def test_handles_differ_from_start_to_start() -> None:
    handles = set()
    for _ in range(3):
        with Server(port=0, handle_prefix="X") as server, Client(server.address) as client:
            handles.add(client.submit_background("f"))
    assert len(handles) == 3
    assert all(handle.startswith(b"X:") for handle in handles)


def test_job_whose_worker_keeps_vanishing_fails_in_the_end() -> None:
    with Server(port=0, job_retries=2) as server, Client(server.address, timeout=LIMIT) as client:
        job = client.submit("f")
        client.echo(b"")
        workers: list[Worker] = []
        for _ in range(3):
            assert not job.wait(0)
            with Worker(server.address) as worker:
                workers.append(worker)
                worker.register("f", lambda job: workers[-1].abort())
                Call(worker.run).result()
        with pytest.raises(JobFailed):
            job.result(LIMIT)
