"""Faults of clients and workers that `gear` 0.16 has: none is here. The numbers are those of its list of weaknesses."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from gear_sync import gear
from gear_sync.gear import constants
from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GrabJobUniq,
    JobAssignUniq,
    JobCreated,
    NoJob,
    OptionReq,
    PreSleep,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkException,
    WorkFail,
)
from gearproto.server import Report
from gearproto.standing import DEFAULT_PAUSES, Failure, Standing
from tests.harness.gear_api import Shop, WatchedClient
from tests.harness.hostile import HostileServer, Peer
from tests.harness.servers import poll_until, running
from tests.harness.threads import LIMIT, Call

BOTH = pytest.mark.parametrize("kind", ["ours", pytest.param("gearmand", marks=pytest.mark.interop("gearmand"))])


def status(client: gear.Client, connection: gear.Connection) -> bytes:
    request = gear.StatusAdminRequest()
    connection.sendAdminRequest(request, timeout=LIMIT)
    assert request.response is not None
    return request.response


def no_delay(sock: socket.socket | None) -> bool:
    assert sock is not None
    return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


def connection_to(client: gear.BaseClient, address: tuple[str, int]) -> gear.Connection:
    everywhere = (*client.active_connections, *client.inactive_connections)
    return next(connection for connection in everywhere if connection.port == address[1])


def test_c1_small_packets_are_not_held_back(shop: Shop, server: gear.Server) -> None:
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    assert no_delay(client.getConnection().conn)
    assert no_delay(worker.getConnection().conn)
    assert all(no_delay(sock) for sock in server._reactor.sockets().values())


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_c2_threads_that_submit_get_their_own_results(shop: Shop, server: gear.Server, hasty_threads: None) -> None:
    client, worker = shop.client(server), shop.worker(server, functions=("f",))

    def work() -> None:
        with contextlib.suppress(gear.InterruptedError):
            while True:
                job = worker.getJob()
                job.sendWorkComplete(job.arguments)

    def submit(name: int) -> None:
        for number in range(20):
            job = gear.Job("f", b"%d %d" % (name, number))
            client.submitJob(job)
            client.finish(job)
            assert job.data == [job.arguments]
            assert status(client, client.getConnection()).endswith(b".\n")

    working = Call(work)
    for call in [Call(lambda name=name: submit(name)) for name in range(12)]:  # type: ignore[misc]
        call.result()
    worker.shutdown()
    working.result()


def test_c2_a_request_is_queued_and_sent_in_one_step(shop: Shop, server: gear.Server) -> None:
    client = shop.client(server)
    connection = client.getConnection()
    with connection.send_lock:  # whoever is between the two holds it
        call = Call(lambda: client.submitJob(gear.Job("f", b"")))
        assert not connection.pending_tasks
    call.result()


@BOTH
def test_c3_jobs_that_the_server_joins_all_complete(shop: Shop, kind: str) -> None:
    with running("gearmand" if kind == "gearmand" else "ours") as server:
        address = server.host, server.port
        client, worker = shop.client(address), shop.worker(address, functions=("f",))
        first, second = gear.Job("f", b"", unique="u"), gear.Job("f", b"", unique="u")
        client.submitJob(first)
        client.submitJob(second)
        assert first.handle == second.handle
        job = worker.getJob()
        job.sendWorkData(b"piece")
        job.sendWorkComplete(b"done")
        client.finish(first)
        client.finish(second)
        assert first.data == second.data == [b"piece", b"done"]
        assert len(client.getConnection().related_jobs) == 0


def test_c4_a_result_is_for_the_server_that_gave_the_job(shop: Shop) -> None:
    def first(peer: Peer) -> None:
        peer.receive_until(GrabJobUniq)
        peer.send(JobAssignUniq(b"H:1", b"f", b"", b"old"))

    def second(peer: Peer) -> None:
        peer.receive_until(GrabJobUniq)
        peer.send(JobAssignUniq(b"H:1", b"f", b"", b"new"))
        assert peer.receive() == Report(WorkComplete, b"H:1", b"H:1\0new")

    with HostileServer(first, second) as server:
        worker = shop.worker(server.address, functions=("f",))
        old = worker.getJob()
        new = worker.getJob()
        with pytest.raises(gear.DisconnectError, match="the connection that the job came over is down"):
            old.sendWorkComplete(b"old")
        new.sendWorkComplete(b"new")


def test_c5_half_a_packet_of_one_server_holds_up_no_other(shop: Shop, server: gear.Server) -> None:
    def stall(peer: Peer) -> None:
        peer.send(b"\0RES\0\0")
        peer.wait_for_end()

    with HostileServer(stall) as stalled:
        client = shop.client(stalled.address, server)
        healthy = connection_to(client, ("", server.port))
        assert status(client, healthy) == b".\n"
        client.connection_index = client.active_connections.index(healthy) - 1  # whose turn it is next
        client.submitJob(gear.Job("f", b""), timeout=LIMIT)
        with pytest.raises(gear.GearmanError, match=r"did not answer within 0\.02 s"):
            client.submitJob(gear.Job("f", b""), timeout=0.02)
        client.shutdown()
    assert server.max_handle == 1


def test_c6_a_refused_job_is_offered_to_each_server_once(shop: Shop) -> None:
    refusals: list[object] = []

    def refuse(peer: Peer) -> None:
        with contextlib.suppress(EOFError):
            while True:
                refusals.append(peer.receive_until(SubmitJob))
                peer.send(Error(b"QUEUE_ERROR", b"full"))

    with HostileServer(lambda _peer: None) as dead, HostileServer(refuse) as second, HostileServer(refuse) as third:
        client = shop.client(dead.address, second.address, third.address, wait=False)
        dead.join()
        others = {second.address[1], third.address[1]}
        poll_until(lambda: {c.port for c in client.active_connections} == others, "the two are connected")
        with pytest.raises(gear.GearmanError, match="full"):
            client.submitJob(gear.Job("f", b""))
        client.shutdown()
    assert len(refusals) == 2


def test_c7_requests_end_when_the_server_goes(shop: Shop) -> None:
    def leave_at_submission(peer: Peer) -> None:
        peer.receive_until(SubmitJob)

    def leave_at_text(peer: Peer) -> None:
        peer.receive()

    with HostileServer(leave_at_submission, leave_at_text, leave_at_text) as server:
        client = shop.client(server.address)
        with pytest.raises(gear.GearmanError, match="closed the connection: the job may be queued there"):
            client.submitJob(gear.Job("f", b""), timeout=None)
        client.waitForServer(LIMIT)
        with pytest.raises(gear.DisconnectError, match="closed the connection"):
            client.getConnection().sendAdminRequest(gear.VersionAdminRequest(), timeout=None)
        client.waitForServer(LIMIT)
        with pytest.raises(gear.DisconnectError, match="closed the connection"):
            client.getConnection().echo(timeout=None)


def test_c8_a_job_ends_when_its_server_is_lost(shop: Shop) -> None:
    def take_and_leave(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        peer.send(JobCreated(b"H:1"))
        peer.receive_until(SubmitJobBg)
        peer.send(JobCreated(b"H:2"))

    with HostileServer(take_and_leave) as server:
        client = shop.client(server.address)
        job, background = gear.Job("f", b""), gear.Job("f", b"")
        client.submitJob(job)
        client.submitJob(background, background=True)
        client.finish(job)
        client.until(lambda: len(client.disconnected) == 2)
    assert (job.complete, job.failure) == (True, True)
    assert (background.complete, background.failure) == (False, False)  # nobody knows, and the server keeps it
    assert client.disconnected == [job, background]


def test_c9_a_hook_that_raises_delays_nothing(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    class Raising(WatchedClient):
        def handleWorkData(self, packet: gear.Packet) -> gear.Job:
            raise ZeroDivisionError

    def answer(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        handle = b"H:1"
        piece = bytes(gear.Packet(constants.RES, constants.WORK_DATA, handle + b"\0x").toBinary())
        peer.send(JobCreated(handle).encode() + piece + WorkComplete(handle, b"done").encode(constants.RES))
        peer.wait_for_end()

    with HostileServer(answer) as server:
        client = Raising()
        client.addServer(*server.address)
        client.waitForServer(LIMIT)
        job = gear.Job("f", b"")
        client.submitJob(job)
        client.finish(job)
        client.shutdown()
    assert job.data == [b"done"]
    assert "ZeroDivisionError" in caplog.text


def test_c10_results_of_text_jobs_need_not_be_text(shop: Shop, server: gear.Server) -> None:
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    job = gear.TextJob("f", "")
    client.submitJob(job)
    taken = worker.getJob()
    taken.sendWorkData(b"\xff")
    taken.sendWorkException(b"\xfe")
    client.finish(job)
    assert job.data == ["\udcff"]
    assert job.exception == "\udcfe"
    assert list(job.binary_data) == [b"\xff"]


def test_c11_function_names_need_not_be_text(shop: Shop, server: gear.Server) -> None:
    client, worker = shop.client(server), shop.worker(server, functions=(b"\xff",))
    client.submitJob(gear.Job(b"\xff", b""))
    job = worker.getJob()
    assert gear.convert_to_bytes(job.name) == job.binary_name == b"\xff"
    assert repr(job).startswith("<gear.Job ")


def test_c12_a_failure_behind_an_exception_is_no_news(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    def answer(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        handle = b"H:1"
        peer.send(JobCreated(handle), WorkException(handle, b"oops"), WorkFail(handle))
        peer.send(EchoRes(peer.receive_until(EchoReq).data))  # type: ignore[attr-defined]
        peer.wait_for_end()

    with HostileServer(answer) as server:
        client = shop.client(server.address)
        job = gear.Job("f", b"")
        client.submitJob(job)
        client.getConnection().echo(timeout=LIMIT)
        client.shutdown()
    assert job.exception == b"oops"
    assert constants.WORK_FAIL not in client.seen
    assert "Error in a hook" not in caplog.text


def test_c13_text_that_nobody_asked_for_ends_the_connection(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    def chatter(peer: Peer) -> None:
        peer.send(b"hello\n" * 1000)
        peer.wait_for_end()

    with HostileServer(chatter, Peer.wait_for_end) as server:
        client = shop.client(server.address, wait=False)
        server.wait_for_scripts(1)
        poll_until(lambda: bool(client.active_connections), "it is connected again")
        client.shutdown()
    assert len([record for record in caplog.records if "hello" in record.getMessage()]) == 1


def test_c14_a_late_or_missing_answer_goes_to_nobody_else(shop: Shop) -> None:
    def answer(peer: Peer) -> None:
        assert peer.receive().text == b"version"  # type: ignore[attr-defined]
        while not isinstance(question := peer.receive(), GetStatus):  # the client asks where it is in the stream
            pass
        peer.send(StatusRes(question.handle, False, False, 0, 0))
        assert peer.receive().text == b"status"  # type: ignore[attr-defined]
        peer.send(b"f\t0\t0\t0\n.\n")
        peer.wait_for_end()

    with HostileServer(answer) as server:
        client = shop.client(server.address)
        connection = client.getConnection()
        with pytest.raises(gear.TimeoutError, match="no answer to b'version'"):
            connection.sendAdminRequest(gear.VersionAdminRequest(), timeout=0.01)
        assert status(client, connection) == b"f\t0\t0\t0\n.\n"
        client.shutdown()


def test_c15_a_server_that_closes_at_once_is_left_alone_for_ever_longer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    failed = Standing.failed

    def record(standing: Standing, now: float, reason: str, kind: Failure) -> None:
        failed(standing, now, reason, kind)
        pauses.append(standing.retry_at - now)

    monkeypatch.setattr(Standing, "failed", record)
    with HostileServer(*[lambda _peer: None] * 3) as server:
        client = shop.client(server.address, wait=False)
        server.join()
        poll_until(lambda: len(pauses) >= 3, "the last end is noticed")
        client.shutdown()
    shortest, _longest = DEFAULT_PAUSES
    for pause, times in zip(pauses, (1, 2, 4), strict=False):
        assert pause >= 0.7 * shortest * times


def test_c15_an_error_that_nobody_asked_for_costs_no_connection(shop: Shop) -> None:
    def scold(peer: Peer) -> None:
        peer.send(Error(b"ODD", b"for no reason"))
        peer.send(EchoRes(peer.receive_until(EchoReq).data))  # type: ignore[attr-defined]
        peer.wait_for_end()

    with HostileServer(scold) as server:
        client = shop.client(server.address)
        client.until(lambda: client.seen == [constants.ERROR])
        client.getConnection().echo(timeout=LIMIT)
        client.shutdown()


@contextlib.contextmanager
def black_hole() -> Iterator[tuple[str, int]]:
    """Listen, and let connecting take for ever: the queue of those who wait to be accepted is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_c16_a_server_that_cannot_be_reached_holds_up_no_other_and_no_end(shop: Shop, server: gear.Server) -> None:
    with black_hole() as hole:
        client = shop.client(hole, server, wait=False)
        client.waitForServer(LIMIT)
        poll_until(lambda: bool(client._attempts), "the other is being tried")
        attempts = list(client._attempts.values())
        client.shutdown()
        assert not any(thread.is_alive() for thread in attempts)


def test_c16_connecting_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gear.Connection, "connect_timeout", 0.02)
    with black_hole() as hole, pytest.raises(gear.ConnectionError, match=r"no answer within 0\.02 s"):
        gear.Connection(*hole).connect()


def test_c21_a_server_that_passes_options_over_costs_nothing(shop: Shop) -> None:
    def pass_over(peer: Peer) -> None:
        while True:
            received = peer.receive()
            if isinstance(received, GetStatus):
                peer.send(StatusRes(received.handle, False, False, 0, 0))
            elif isinstance(received, SubmitJob):
                peer.send(JobCreated(b"H:1"))
            elif not isinstance(received, OptionReq):
                return

    with HostileServer(pass_over, pass_over) as server:
        client = shop.client(server.address)
        assert client.setOption("exceptions", timeout=LIMIT) is False
        client.submitJob(gear.Job("f", b""))
        client.getConnection().sendRaw(b"leave\n")
        server.wait_for_scripts(1)
        poll_until(lambda: not client.active_connections or server._played > 1, "the end is noticed")
        client.waitForServer(LIMIT)
        client.submitJob(gear.Job("f", b""))
        client.shutdown()


def test_c22_background_jobs_that_the_program_has_dropped_are_not_kept(shop: Shop, server: gear.Server) -> None:
    client = shop.client(server)
    for _ in range(300):
        client.submitJob(gear.Job("f", b""), background=True)
    kept = gear.Job("f", b"")
    client.submitJob(kept, background=True)
    connection = client.getConnection()
    connection.echo(timeout=LIMIT)  # whatever the thread that reads has in hand is not of these any more
    assert list(connection.related_jobs.values()) == [kept]


def test_c23_signals_spoil_no_packet() -> None:
    data = bytes(range(251)) * 33422  # 8 MiB in a pattern that shows shifts
    packet = gear.Packet(constants.REQ, constants.ECHO_REQ, data)
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = gear.Connection(*listener.getsockname())
        connection.connect()
        peer, _address = listener.accept()

        def read() -> None:
            while piece := peer.recv(65536):
                received.extend(piece)

        reading = Call(read)
        caught: list[int] = []
        before = signal.signal(signal.SIGALRM, lambda number, _frame: caught.append(number))
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        try:
            connection.sendPacket(packet)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        connection.disconnect()
        reading.result()
        peer.close()
    assert caught
    assert received == packet.toBinary()


def test_c24_time_limits_are_numbers(shop: Shop) -> None:
    def check(peer: Peer) -> None:
        assert peer.receive_until(CanDoTimeout) == CanDoTimeout(b"f", 5)
        assert peer.receive() == CanDoTimeout(b"g", 6)
        assert peer.receive() == CanDo(b"h")

    with HostileServer(check) as server:
        worker = gear.Worker("w")
        worker.registerFunction("f", 5)
        worker.registerFunction("g", b"6")
        worker.registerFunction("h")
        with pytest.raises(gear.InvalidDataError, match="has to be a number"):
            worker.registerFunction("i", "soon")
        assert list(worker.functions) == [b"f", b"g", b"h"]
        worker.addServer(*server.address)
        server.join()
        worker.shutdown()


def test_c25_new_functions_wake_a_worker_that_waits(shop: Shop, server: gear.Server) -> None:
    client, worker = shop.client(server), shop.worker(server)
    waiting = Call(worker.getJob)
    poll_until(lambda: worker.getConnection().state == "SLEEP", "the worker sleeps")
    job = gear.Job("f", b"x")
    client.submitJob(job)
    worker.setFunctions([gear.FunctionRecord("f"), gear.FunctionRecord(b"g", 1000)])
    assert waiting.result().arguments == b"x"


def test_c26_one_call_of_get_job_takes_one_job(shop: Shop) -> None:
    servers = [shop.server(gear.Server(0)) for _ in range(2)]
    for server in servers:
        shop.client(server).submitJob(gear.Job("f", b""))
    worker = shop.worker(*servers, functions=("f",))
    worker.getJob()
    for connection in worker.active_connections:
        connection.echo(timeout=LIMIT)  # whatever was asked has been answered
    assert sum(server.running_jobs for server in servers) == 1
    worker.getJob()
    assert sum(server.running_jobs for server in servers) == 2


@pytest.mark.parametrize("job", [gear.Job("a\0b", b""), gear.Job("a", b"", unique="u\0v")])
def test_c27_names_that_would_become_other_arguments_are_refused(
    shop: Shop, server: gear.Server, job: gear.Job
) -> None:
    with pytest.raises(gear.InvalidDataError, match="holds a NUL byte"):
        shop.client(server).submitJob(job)
    with pytest.raises(gear.InvalidDataError, match="holds a NUL byte"):
        shop.worker().registerFunction("a\0b")
    assert server.total_jobs == 0


def test_c28_a_job_that_may_be_queued_is_offered_to_nobody_else(shop: Shop, server: gear.Server) -> None:
    with HostileServer(Peer.wait_for_end) as slow:
        client = shop.client(slow.address)
        connect = Call(lambda: client.addServer("localhost", server.port))
        connect.result()
        poll_until(lambda: len(client.active_connections) == 2, "both are connected")
        client.connection_index = 1  # it is the slow one's turn
        with pytest.raises(gear.GearmanError, match="the job may be queued there"):
            client.submitJob(gear.Job("f", b""), timeout=0.02)
        client.shutdown()
    assert server.max_handle == 0


def test_c29_nothing_is_possible_after_the_end(shop: Shop, server: gear.Server) -> None:
    client = shop.client(server)
    client.shutdown()
    actions: list[Callable[[], None]] = [
        lambda: client.addServer("localhost", 1),
        lambda: client.waitForServer(LIMIT),
        lambda: client.submitJob(gear.Job("f", b"")),
    ]
    for action in actions:
        with pytest.raises(gear.GearmanError, match="has been shut down"):
            action()


def test_c30_a_report_on_a_lost_connection_says_so(shop: Shop, server: gear.Server) -> None:
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    client.submitJob(gear.Job("f", b""))
    job = worker.getJob()
    server.shutdown()
    poll_until(lambda: not worker.active_connections, "the loss is noticed")
    with pytest.raises(gear.DisconnectError, match="down") as caught:
        job.sendWorkComplete(b"")
    assert isinstance(caught.value, OSError)


def test_a_worker_that_one_server_does_not_answer_asks_another(
    shop: Shop, server: gear.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gear_sync.gear.worker._GRAB_TIMEOUT", 0.01)
    monkeypatch.setattr("gear_sync.gear.worker._LAST_WAIT", 0.01)

    def ignore(peer: Peer) -> None:
        peer.receive_until(GrabJobUniq)
        peer.wait_for_end()

    def none(peer: Peer) -> None:
        peer.receive_until(GrabJobUniq)
        peer.send(NoJob())
        assert isinstance(peer.receive(), PreSleep)
        peer.wait_for_end()

    with HostileServer(ignore) as first, HostileServer(none) as second:
        shop.client(server).submitJob(gear.Job("f", b"x"))
        worker = shop.worker(first.address, second.address, server, functions=("f",))
        assert worker.getJob().arguments == b"x"
        worker.shutdown()
