"""The loop on `Endpoint` that the documentation shows, with real clients and workers."""

from __future__ import annotations

import ast
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, Final

import pytest

from gear_sync import Client, Worker
from gearproto.codec import RESPONSE
from gearproto.packets import CanDo, EchoReq, EchoRes, JobCreated, SubmitJob, SubmitJobBg, WorkComplete, WorkData
from gearproto.server import Endpoint, Engine
from tests.harness.examples import EXAMPLES, load
from tests.harness.ports import HOST
from tests.harness.raw import TURNED_AWAY, RawConnection
from tests.harness.servers import RunningServer
from tests.harness.threads import LIMIT, Call, nothing_left_open

MIB: Final = 1024 * 1024


class LoopServer(RunningServer):
    """The example, in a thread."""

    kind = "ours"

    def __init__(self, **options: Any) -> None:
        engine = Engine(handle_prefix=b"H:x", epoch_offset=0.0, allow_shutdown=True)
        self.endpoint = Endpoint(engine, **options)
        self._listener = socket.create_server((HOST, 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        self._serving = Call(lambda: load("selectors_server").serve(self.endpoint, self._listener))

    def restart(self) -> None:
        raise NotImplementedError

    def wait(self) -> None:
        """Wait until it serves no more."""
        self._serving.result()

    def close(self) -> None:
        if self._serving.running:
            with RawConnection(self) as admin:
                admin.send_bytes(b"shutdown\n")
                assert admin.receive_line() == b"OK\r\n"
        self.wait()
        self._listener.close()


Start = Callable[..., LoopServer]


@pytest.fixture
def start() -> Iterator[Start]:
    with nothing_left_open(), ExitStack() as stack:

        def start(**options: Any) -> LoopServer:
            server = LoopServer(**options)
            stack.callback(server.close)
            return server

        yield start


def test_it_imports_nothing_of_ours_but_the_server_of_gearproto() -> None:
    tree = ast.parse((EXAMPLES / "selectors_server.py").read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"gearproto.server"}


def test_clients_and_workers_are_served(start: Start) -> None:
    server = start()
    with Worker((HOST, server.port)) as worker, Client((HOST, server.port), timeout=LIMIT) as client:
        worker.register("reverse", lambda job: job.workload[::-1])
        running = threading.Thread(target=worker.run)
        running.start()
        try:
            texts = [b"%d" % number for number in range(500)]
            jobs = [client.submit("reverse", text) for text in texts]
            assert [job.result(LIMIT) for job in jobs] == [text[::-1] for text in texts]
            assert client.submit("reverse", b"ab" * MIB).result(LIMIT) == b"ba" * MIB
        finally:
            worker.stop()
            running.join()


def test_slow_reader_gets_the_rows_of_60_000_jobs_while_others_are_served(start: Start) -> None:
    server = start()
    count = 60_000
    with RawConnection(server) as client, RawConnection(server) as admin:
        submitting = Call(lambda: client.send(*[SubmitJobBg(b"f", b"", b"")] * count))
        assert {type(client.receive_any()) for _ in range(count)} == {JobCreated}
        submitting.result()
        admin.send_bytes(b"show jobs\n" * 10)  # 23 MB, more than the system holds
        for _ in range(100):
            client.expect_nothing()
        rows = 0
        while rows < 10 * (count + 1):
            rows += admin.sock.recv(1_000_000).count(b"\n")
            client.expect_nothing()
        admin.expect_nothing()


def test_peer_that_never_reads_is_closed_and_others_are_served(start: Start) -> None:
    server = start(max_unsent=4 * MIB)
    with RawConnection(server) as client, RawConnection(server) as worker, RawConnection(server) as other:
        handle = client.submit(SubmitJob(b"f", b"", b""))
        worker.send(CanDo(b"f"))
        worker.grab()
        while len(other.ask_rows(b"workers")) == 3:
            worker.send(WorkData(handle, bytes(MIB)))
            worker.expect_nothing()
            other.expect_nothing()


def test_requests_of_a_peer_that_does_not_read_wait_and_all_are_answered(start: Start) -> None:
    server = start(pause_at=1000)
    count, size = 200, 100_000
    with RawConnection(server) as greedy, RawConnection(server) as other:
        sending = Call(lambda: greedy.send(*[EchoReq(b"%05d" % number + bytes(size)) for number in range(count)]))
        for _ in range(20):
            other.expect_nothing()
        for number in range(count):
            assert greedy.receive_raw() == EchoRes(b"%05d" % number + bytes(size)).encode(RESPONSE)
        sending.result()


def test_peer_that_sends_no_more_gets_all_its_answers(start: Start) -> None:
    server = start()
    with RawConnection(server) as peer:
        peer.send(*[EchoReq(b"%d" % number) for number in range(5000)])
        peer.sock.shutdown(socket.SHUT_WR)
        for number in range(5000):
            peer.expect(EchoRes(b"%d" % number))
        peer.expect_closed()


def test_peer_that_breaks_the_protocol_reads_why_and_is_closed(start: Start) -> None:
    server = start(linger=0.05)
    with RawConnection(server) as peer:
        peer.send_bytes(b"\0REQ\0\0\0\7\xff\xff\xff\xff")
        assert peer.receive_raw()[:8] == b"\0RES\0\0\0\x13"
        assert peer.sock.recv(1) == b""


def test_connections_past_the_limit_are_turned_away(start: Start) -> None:
    server = start(max_connections=1)
    with RawConnection(server) as first:
        first.expect_nothing()
        with RawConnection(server) as second:
            second.expect(TURNED_AWAY)
        first.send_bytes(b"shutdown\n")  # as there is room for nobody else
        assert first.receive_line() == b"OK\r\n"
        server.wait()


def test_peer_that_resets_its_connection_is_forgotten(start: Start) -> None:
    server = start()
    with RawConnection(server) as other:
        for _ in range(3):
            with RawConnection(server) as peer:
                peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                peer.send(EchoReq(bytes(MIB)))
        while len(other.ask_rows(b"workers")) > 1:
            pass


def test_graceful_stop_lets_a_job_end_and_its_client_read_the_result(start: Start) -> None:
    server = start()
    with RawConnection(server) as client, RawConnection(server) as worker, RawConnection(server) as admin:
        handle = client.submit(SubmitJob(b"f", b"", b""))
        worker.send(CanDo(b"f"))
        worker.grab()
        admin.send_bytes(b"shutdown graceful\n")
        assert admin.receive_line() == b"OK\r\n"
        result = WorkComplete(handle, bytes(16 * MIB))
        sending = Call(lambda: worker.send(result))
        assert client.receive(WorkComplete) == result
        with suppress(ConnectionError):
            sending.result()
        server.wait()
