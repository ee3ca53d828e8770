"""`gear_sync.Worker`: what functions may do, how it stops, and what it does when servers come, go and misbehave."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

import pytest

import gear_net.sessions
import gear_sync.worker_session
from gear_net.standing import LoggedStanding
from gear_sync import Client, Server, Worker, WorkerJob
from gearproto import (
    DEFAULT_MAX_SERVER_PACKET_SIZE,
    AlreadyClosed,
    ConnectionLost,
    JobFailed,
    JobLost,
    JobRaised,
    LocalProtocolError,
    Priority,
)
from gearproto.addresses import Address
from gearproto.codec import RESPONSE, Packet
from gearproto.events import Data
from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    EchoReq,
    EchoRes,
    Error,
    GrabJobAll,
    JobAssign,
    JobAssignAll,
    JobCreated,
    NoJob,
    Noop,
    PreSleep,
    SetClientId,
    WorkComplete,
    WorkFail,
)
from gearproto.server import Report
from tests.harness.hostile import HostileServer, Peer
from tests.harness.servers import OurServer, poll_until
from tests.harness.threads import LIMIT, Call, nothing_left_open, working

MIB: Final = 1024 * 1024


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(port=0) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, timeout=LIMIT) as client:
        yield client


@pytest.fixture
def worker(server: Server) -> Iterator[Worker]:
    with Worker(server.address) as worker:
        yield worker


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers connect again at once."""

    def impatient(address: Address, log: logging.Logger, _pauses: tuple[float, float]) -> LoggedStanding:
        return LoggedStanding(address, log, (0.001, 0.001))

    monkeypatch.setattr(gear_net.sessions, "LoggedStanding", impatient)


def reverse(job: WorkerJob) -> bytes:
    return job.workload[::-1]


def wants_a_job(peer: Peer) -> None:
    """Wait until a worker asks for a job."""
    peer.receive_until(GrabJobAll)


def assign(peer: Peer, workload: bytes = b"", handle: bytes = b"H:1", function: bytes = b"reverse") -> None:
    peer.send(JobAssignAll(handle, function, b"", b"", workload))


def reports(peer: Peer) -> Report:
    report = peer.receive_until(Report)
    assert isinstance(report, Report)
    return report


class Noted(list[Any]):
    """What scripts of hostile servers have seen; scripts run in other threads, where a failed check is nobody's."""


def run_scripts(worker_of: Callable[[tuple[str, int]], Worker], *scripts: Callable[[Peer], None]) -> None:
    """Run a worker with a hostile server, until that has played its last script."""
    with HostileServer(*scripts) as server, worker_of(server.address) as worker:
        worker.register("reverse", reverse)
        with working(worker):
            server.join()


# Results


@pytest.mark.parametrize(
    ("result", "data"),
    [(b"bytes", b"bytes"), (bytearray(b"array"), b"array"), (memoryview(b"view"), b"view"), (b"", b""), (None, b"")],
)
def test_result_is_bytes_or_nothing(client: Client, worker: Worker, result: Any, data: bytes) -> None:
    worker.register("f", lambda job: result)
    with working(worker):
        assert client.submit("f").result(LIMIT) == data


def test_result_of_another_type_is_an_exception(client: Client, worker: Worker) -> None:
    worker.register("f", lambda job: "text")  # type: ignore[arg-type, return-value]
    worker.register("reverse", reverse)
    with working(worker):
        with pytest.raises(JobRaised, match=r"^TypeError: f returned str; a result has to be bytes or None$"):
            client.submit("f").result(LIMIT)
        assert client.submit("reverse", b"ab").result(LIMIT) == b"ba"


def test_job_tells_all_that_the_server_knows_of_it(client: Client, worker: Worker) -> None:
    seen: list[tuple[bytes, ...]] = []

    @worker.function("f")
    def f(job: WorkerJob) -> None:
        seen.append((job.handle, job.function, job.unique, job.reducer, job.workload))

    with working(worker):
        job = client.submit(b"f", b"\0work\0", unique="unique", reducer="reducer")
        assert job.result(LIMIT) == b""
    assert seen == [(job.handle, b"f", b"unique", b"reducer", b"\0work\0")]


def test_decorated_function_stays_what_it_was(worker: Worker) -> None:
    assert worker.function("reverse")(reverse) is reverse


def test_job_failed_is_a_failure_and_not_logged_as_an_error(
    client: Client, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(job: WorkerJob) -> bytes:
        raise JobFailed("too small")

    worker.register("fail", fail)
    with caplog.at_level(logging.INFO, "gear_sync.worker"), working(worker), pytest.raises(JobFailed):
        client.submit("fail").result(LIMIT)
    (record,) = [record for record in caplog.records if "too small" in record.message]
    assert record.levelno == logging.INFO


def test_exception_is_reported_and_logged_with_its_traceback(
    client: Client, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    def throw(job: WorkerJob) -> bytes:
        raise KeyError("ünknown \udcff")

    worker.register("throw", throw)
    with working(worker), pytest.raises(JobRaised) as caught:
        client.submit("throw").result(LIMIT)
    assert caught.value.data.startswith("KeyError: 'ünknown ".encode())
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


@pytest.mark.parametrize("error", [ConnectionLost("database"), JobLost("another job server")])
def test_connection_of_the_function_s_own_that_is_lost_is_an_exception_like_others(
    client: Client, worker: Worker, error: ConnectionLost
) -> None:
    def throw(job: WorkerJob) -> bytes:
        raise error

    worker.register("throw", throw)
    with working(worker), pytest.raises(JobRaised, match=f"{type(error).__name__}: {error}"):
        client.submit("throw").result(LIMIT)


def test_result_over_the_packet_limit_is_an_exception_and_the_worker_goes_on(server: Server, client: Client) -> None:
    with Worker(server.address, max_packet_size=1000) as worker:
        worker.register("zeros", lambda job: bytes(int(job.workload)))
        with working(worker):
            with pytest.raises(JobRaised, match=r"WORK_COMPLETE: .* bytes, limit 1000"):
                client.submit("zeros", b"1000").result(LIMIT)
            assert client.submit("zeros", b"900").result(LIMIT) == bytes(900)


def test_exception_over_the_packet_limit_is_cut_down_to_one_that_says_so(server: Server, client: Client) -> None:
    def throw(job: WorkerJob) -> bytes:
        raise ValueError("x" * 2000)

    with Worker(server.address, max_packet_size=1000) as worker:
        worker.register("throw", throw)
        with working(worker), pytest.raises(JobRaised, match=r"WORK_EXCEPTION: .* bytes, limit 1000"):
            client.submit("throw").result(LIMIT)


@pytest.mark.parametrize("report", [WorkerJob.send, WorkerJob.warn])
def test_piece_over_the_packet_limit_is_an_error_in_the_function(
    server: Server, client: Client, report: Callable[[WorkerJob, bytes], None]
) -> None:
    def handle(job: WorkerJob) -> bytes:
        with pytest.raises(LocalProtocolError, match="limit 1000"):
            report(job, bytes(1000))
        return b"went on"

    with Worker(server.address, max_packet_size=1000) as worker:
        worker.register("f", handle)
        with working(worker):
            assert client.submit("f").result(LIMIT) == b"went on"


def test_generator_s_pieces_are_sent_as_they_come(client: Client, worker: Worker) -> None:
    release = threading.Event()

    @worker.function("pieces")
    def pieces(job: WorkerJob) -> Iterator[bytes]:
        yield b"one"
        assert release.wait(LIMIT)
        yield b"two"

    with working(worker):
        job = client.submit("pieces")
        events = job.events(LIMIT)
        first = next(events)
        assert isinstance(first, Data)
        assert first.data == b"one"
        release.set()
        assert job.result(LIMIT) == b"onetwo"


def test_reports_wait_for_a_slow_server_instead_of_piling_up(server: Server, client: Client) -> None:
    with Worker(server.address, max_output_size=2 * MIB) as worker:

        @worker.function("pieces")
        def pieces(job: WorkerJob) -> Iterator[bytes]:
            yield from [bytes(MIB)] * 32

        with working(worker):
            assert client.submit("pieces").result(LIMIT) == bytes(32 * MIB)


@pytest.mark.parametrize(("error", "expected"), [(JobFailed(), JobFailed), (ValueError("late"), JobRaised)])
def test_generator_that_raises_ends_the_job_so(
    client: Client, worker: Worker, error: Exception, expected: type[Exception]
) -> None:
    @worker.function("pieces")
    def pieces(job: WorkerJob) -> Iterator[bytes]:
        yield b"one"
        raise error

    with working(worker):
        job = client.submit("pieces")
        with pytest.raises(expected):
            job.result(LIMIT)
        data, outcome = job.events(LIMIT)
        assert isinstance(data, Data)
        assert outcome == job.outcome


def test_jobs_are_run_one_after_the_other_in_the_order_of_the_queue(client: Client, worker: Worker) -> None:
    order: list[bytes] = []
    worker.register("note", lambda job: order.append(job.workload))
    jobs = [client.submit("note", b"%d" % number, priority=Priority(number % 3)) for number in range(9)]
    client.echo(b"")  # all have arrived
    with working(worker):
        assert [job.result(LIMIT) for job in jobs] == [b""] * 9
    assert order == [b"%d" % number for priority in range(3) for number in range(priority, 9, 3)]


# What the worker tells servers


def test_worker_tells_its_name_and_functions_and_time_limits() -> None:
    seen: list[object] = []

    def script(peer: Peer) -> None:
        while not isinstance(packet := peer.receive(), GrabJobAll):
            seen.append(packet)

    def worker_of(address: tuple[str, int]) -> Worker:
        worker = Worker(address, client_id="wörker")
        worker.register(b"\xff", reverse, timeout=30)
        worker.register("short", reverse, timeout=0.0001)
        return worker

    run_scripts(worker_of, script)
    expected = [SetClientId("wörker".encode()), CanDoTimeout(b"\xff", 31_000), CanDoTimeout(b"short", 1000)]
    assert seen == [*expected, CanDo(b"reverse")]


def test_wrong_function_is_an_error_at_once(worker: Worker) -> None:
    async def coroutine(job: WorkerJob) -> bytes:
        return b""

    with pytest.raises(LocalProtocolError, match="CAN_DO: function must not be empty"):
        worker.register("", reverse)
    with pytest.raises(TypeError, match="coroutine is asynchronous"):
        worker.register("f", coroutine)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="CANT_DO for b'f', which was not offered"):
        worker.unregister("f")


def test_wrong_address_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="not a valid address"):
        Worker("host:port")
    with pytest.raises(ValueError, match="no server is given"):
        Worker([])


# Stopping


def test_stop_from_a_function_sends_its_result_and_leaves_other_jobs_queued(client: Client, worker: Worker) -> None:
    @worker.function("last")
    def last(job: WorkerJob) -> bytes:
        worker.stop()
        return b"the last"

    first, second = client.submit("last"), client.submit("last")
    call = Call(worker.run)
    assert first.result(LIMIT) == b"the last"
    call.result()
    poll_until(lambda: client.admin.status()[0].workers == 0, "the worker has gone")
    assert not second.wait(0)
    (row,) = client.admin.status()
    assert (row.total, row.running) == (1, 0)


def test_stop_from_another_thread_ends_an_idle_worker(client: Client, worker: Worker) -> None:
    worker.register("f", reverse)
    call = Call(worker.run)
    poll_until(lambda: bool(client.admin.status()), "the worker is there")
    worker.stop()
    worker.stop()
    call.result()


def test_stop_from_another_thread_waits_for_the_job_in_hand(client: Client, worker: Worker) -> None:
    started, release = threading.Event(), threading.Event()

    @worker.function("f")
    def f(job: WorkerJob) -> bytes:
        started.set()
        assert release.wait(LIMIT)
        return b"finished"

    call = Call(worker.run)
    job = client.submit("f")
    assert started.wait(LIMIT)
    worker.stop()
    release.set()
    assert job.result(LIMIT) == b"finished"
    call.result()


def test_stop_before_run_makes_it_return_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Worker(listener.getsockname()) as worker:
        worker.stop()
        Call(worker.run).result()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_close_waits_for_the_job_in_hand_and_can_be_called_twice(client: Client, server: Server) -> None:
    started, release = threading.Event(), threading.Event()

    def f(job: WorkerJob) -> bytes:
        started.set()
        assert release.wait(LIMIT)
        return b"finished"

    worker = Worker(server.address)
    worker.register("f", f)
    call = Call(worker.run)
    job = client.submit("f")
    assert started.wait(LIMIT)
    closing = Call(worker.close)
    release.set()
    closing.result()
    assert worker._pump._opened is None
    assert job.result(LIMIT) == b"finished"
    call.result()
    worker.close()
    worker.stop()


def test_worker_runs_once(worker: Worker) -> None:
    with working(worker) as call:
        with pytest.raises(RuntimeError, match="this worker is running already"):
            worker.run()
        worker.stop()
        call.result()
    with pytest.raises(AlreadyClosed, match="this worker is closed: make another one"):
        worker.run()


def test_worker_that_was_closed_does_not_run() -> None:
    worker = Worker("127.0.0.1:1")
    worker.close()
    with pytest.raises(AlreadyClosed, match="this worker is closed: make another one"):
        worker.run()


def test_server_that_was_closed_does_not_serve() -> None:
    server = Server(port=0)
    server.close()
    for serve in (server.serve_forever, server.__enter__):
        with pytest.raises(AlreadyClosed, match="this server is closed: make another one"):
            serve()


@pytest.mark.parametrize("threads", [0, 2])
def test_close_from_a_function_is_an_error_that_names_the_way_out(client: Client, server: Server, threads: int) -> None:
    with Worker(server.address, threads=threads) as worker:
        worker.register("f", lambda job: worker.close())
        with working(worker), pytest.raises(JobRaised, match=r"RuntimeError: .*call stop"):
            client.submit("f").result(LIMIT)


def test_job_that_is_being_assigned_while_the_worker_stops_is_done() -> None:
    asked, stopped = threading.Event(), threading.Event()
    seen = Noted()

    def script(peer: Peer) -> None:
        wants_a_job(peer)
        asked.set()
        assert stopped.wait(LIMIT)
        assign(peer, b"abc")
        seen.append(reports(peer).data)
        with pytest.raises(EOFError):
            peer.receive()  # no further GRAB_JOB
        seen.append("closed")

    with HostileServer(script) as server, Worker(server.address) as worker:
        worker.register("reverse", reverse)
        with working(worker) as call:
            assert asked.wait(LIMIT)
            worker.stop()
            stopped.set()
            call.result()
    assert seen == [b"cba", "closed"]


def test_server_that_does_not_answer_does_not_keep_a_worker_from_stopping() -> None:
    asked = threading.Event()

    def script(peer: Peer) -> None:
        wants_a_job(peer)
        asked.set()
        peer.wait_for_end()

    with HostileServer(script) as server, Worker(server.address, grab_timeout=0.01) as worker, working(worker) as call:
        assert asked.wait(LIMIT)
        worker.stop()
        call.result()


PROGRAM: Final = """
import select, signal, sys
import gear_sync
before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
worker = gear_sync.Worker(sys.argv[1])
@worker.function("f")
def f(job):
    print("started", flush=True)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        pass  # a signal that comes just before a call would not wake it
    assert sys.stdin.readline() == "go on\\n"
    return b"finished"
with worker:
    try:
        worker.run()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    else:
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
        print("returned", flush=True)
"""


@pytest.fixture
def program(server: Server) -> Iterator[subprocess.Popen[str]]:
    """A worker in the main thread of another process."""
    host, port = server.address
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, f"{host}:{port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return Call(process.stdout.readline).result()


def write_line(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go on\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_the_job_in_hand_end_and_its_result_arrives(
    client: Client, program: subprocess.Popen[str], number: signal.Signals
) -> None:
    job, other = client.submit("f"), client.submit("f")
    assert read_line(program) == "started\n"
    program.send_signal(number)
    write_line(program)
    assert job.result(LIMIT) == b"finished"
    assert read_line(program) == "returned\n"
    assert program.wait(LIMIT) == 0
    assert not other.wait(0)


def test_second_signal_interrupts_and_the_job_stays_for_others(
    client: Client, worker: Worker, program: subprocess.Popen[str]
) -> None:
    job = client.submit("f")
    assert read_line(program) == "started\n"
    program.send_signal(signal.SIGTERM)
    program.send_signal(signal.SIGINT)
    assert read_line(program) == "interrupted\n"
    worker.register("f", lambda job: b"by another")
    with working(worker):
        assert job.result(LIMIT) == b"by another"


def test_killed_process_s_job_is_done_by_another_worker(
    client: Client, worker: Worker, program: subprocess.Popen[str]
) -> None:
    job = client.submit("f")
    assert read_line(program) == "started\n"
    program.kill()
    worker.register("f", lambda job: b"by another")
    with working(worker):
        assert job.result(LIMIT) == b"by another"


# Losing a connection


def test_abort_cuts_reports_off_and_another_worker_does_the_job(client: Client, server: Server) -> None:
    errors: list[Exception] = []

    def cut(job: WorkerJob) -> bytes:
        first.abort()
        reports: list[Callable[[], None]]
        reports = [lambda: job.progress(1, 2), lambda: job.send(b"x"), lambda: job.warn(b"x")]
        for report in reports:
            try:
                report()
            except ConnectionLost as error:
                errors.append(error)
        return b"never sent"

    with Worker(server.address) as first, Worker(server.address) as second:
        first.register("f", cut)
        second.register("f", lambda job: b"second")
        job = client.submit("f")
        with working(first) as call:
            call.result()
        with working(second):
            assert job.result(LIMIT) == b"second"
    assert [type(error) for error in errors] == [ConnectionLost] * 3


def test_job_whose_server_is_gone_is_dropped_and_the_worker_connects_again(
    no_pauses: None, caplog: pytest.LogCaptureFixture
) -> None:
    closed = threading.Event()
    seen = Noted()

    def first(peer: Peer) -> None:
        wants_a_job(peer)
        assign(peer, function=b"slow")
        peer.receive_until(Report)

    def second(peer: Peer) -> None:
        closed.set()
        wants_a_job(peer)
        assign(peer, b"abc")
        seen.append(reports(peer).data)

    def slow(job: WorkerJob) -> bytes:
        def report_on_and_on() -> None:
            while True:
                job.progress(1, 2)

        with pytest.raises(ConnectionLost, match="the connection is gone"):
            report_on_and_on()
        return b"too late"

    def worker_of(address: tuple[str, int]) -> Worker:
        worker = Worker(address)
        worker.register("slow", slow)
        return worker

    run_scripts(worker_of, first, second)
    assert seen == [b"cba"]
    assert "its end was not reported" in caplog.text


def test_worker_comes_back_after_a_restart_with_all_that_it_can_do(no_pauses: None) -> None:
    server = OurServer()
    try:
        with Worker(server.address, client_id="back") as worker:
            worker.register("reverse", reverse)
            worker.register("other", reverse)
            with working(worker):
                for round_ in range(3):
                    with Client(server.address) as client:
                        assert client.submit("reverse", b"%d!" % round_).result(LIMIT) == b"!%d" % round_
                        rows = [row for row in client.admin.workers() if row.client_id == b"back"]
                        assert [set(row.functions) for row in rows] == [{b"reverse", b"other"}]
                    server.restart()
    finally:
        server.close()


def test_worker_waits_for_a_server_that_is_not_there_yet(no_pauses: None, caplog: pytest.LogCaptureFixture) -> None:
    server = OurServer()
    server.close()
    with Worker(server.address) as worker:
        worker.register("reverse", reverse)
        with working(worker):
            poll_until(lambda: "Connection refused" in caplog.text, "the worker has tried")
            server.restart()
            try:
                with Client(server.address) as client:
                    assert client.submit("reverse", b"ab").result(LIMIT) == b"ba"
            finally:
                server.close()


@pytest.mark.parametrize(("scripts", "longest"), [(0, 0.005), (5, 1.0)])
def test_server_that_refuses_or_closes_at_once_is_left_alone_for_growing_pauses(
    scripts: int, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def resolve(address: Address) -> list[tuple[int, Any]]:
        pauses.append(runner._sessions[0].standing._standing._pause)
        if len(pauses) == 5:
            runner.stop()
        return [(socket.AF_INET, address)]

    monkeypatch.setattr(gear_sync.worker_session, "resolve", resolve)
    with HostileServer(*[lambda peer: None] * scripts) as server:
        address = server.address if scripts else ("127.0.0.1", 9)
        with Worker(address, retry_pauses=(0.001, longest)) as runner:
            runner.register("f", reverse)
            Call(runner.run).result()
    assert pauses == [min(0.001 * 2**attempt, longest) for attempt in range(5)]


def test_name_that_takes_long_to_look_up_leaves_most_of_the_time_to_other_sessions(
    monkeypatch: pytest.MonkeyPatch, server: Server, client: Client
) -> None:
    takes = 0.005
    lookups: list[tuple[float, float]] = []
    over = threading.Event()

    def resolve(address: Address) -> list[tuple[int, Any]]:
        if address.host != "slow.example":
            return [(socket.AF_INET, (address.host, address.port))]
        began = time.monotonic()
        while time.monotonic() < began + takes:
            time.sleep(takes)
        lookups.append((began, time.monotonic()))
        if len(lookups) == 4:
            over.set()
        if len(lookups) % 2:
            raise OSError("no such name")
        return [(socket.AF_INET, ("127.0.0.1", 9))]  # where nobody listens

    monkeypatch.setattr(gear_sync.worker_session, "resolve", resolve)
    with Worker(["slow.example", server.address], retry_pauses=(0.001, 0.001)) as runner:
        runner.register("f", reverse)
        with working(runner):
            assert over.wait(LIMIT)
            assert client.submit("f", b"ab").result(LIMIT) == b"ba"
    assert all(after[0] - before[1] >= 4 * takes for before, after in pairwise(lookups))


def test_silent_server_is_found_by_probes_and_left(no_pauses: None, caplog: pytest.LogCaptureFixture) -> None:
    probed_again = threading.Event()

    def silent(peer: Peer) -> None:
        peer.receive_until(EchoReq)
        peer.wait_for_end()

    def alive(peer: Peer) -> None:
        probe = peer.receive_until(EchoReq)
        assert isinstance(probe, EchoReq)
        peer.send(NoJob(), EchoRes(probe.data))
        peer.receive_until(EchoReq)
        probed_again.set()

    with (
        HostileServer(silent, then=alive) as server,
        Worker(server.address, probe_interval=0.01, probe_timeout=0.05) as worker,
    ):
        worker.register("reverse", reverse)
        with working(worker):
            assert probed_again.wait(LIMIT)
    assert "no answer to ECHO_REQ" in caplog.text


# Hostile servers


def bytes_of(*packets: Packet) -> bytes:
    return b"".join(packet.encode(RESPONSE) for packet in packets)


CONVERSATION: Final = bytes_of(
    NoJob(), Noop(), JobAssignAll(b"H:1", b"reverse", b"", b"", b"abc"), JobAssign(b"H:2", b"unknown", b"")
)


def test_close_at_any_byte_of_a_conversation_does_no_harm(no_pauses: None) -> None:
    seen = Noted()

    def cut_at(size: int) -> Callable[[Peer], None]:
        def script(peer: Peer) -> None:
            wants_a_job(peer)
            peer.send(CONVERSATION[:size])

        return script

    def whole(peer: Peer) -> None:
        wants_a_job(peer)
        peer.send(CONVERSATION)
        seen.extend((report.packet, report.handle) for report in (reports(peer), reports(peer)))

    run_scripts(Worker, *map(cut_at, range(len(CONVERSATION))), whole)
    assert seen == [(WorkComplete, b"H:1"), (WorkFail, b"H:2")]


@pytest.mark.parametrize(
    "data",
    [
        b"\0XXX\0\0\0\0\0\0\0\0",
        b"text\n",
        bytes_of(JobCreated(b"H:1")),
        bytes_of(JobAssign(b"", b"reverse", b"")),
        b"\0RES\0\0\0\x0b\xff\xff\xff\xff",
        bytes_of(Error(b"INVALID_COMMAND", b"no such packet")),
    ],
)
def test_server_that_breaks_the_protocol_is_left_and_tried_again(
    no_pauses: None, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    seen = Noted()

    def broken(peer: Peer) -> None:
        wants_a_job(peer)
        peer.send(data)
        peer.wait_for_end()

    def good(peer: Peer) -> None:
        wants_a_job(peer)
        assign(peer, b"abc")
        seen.append(reports(peer).data)

    run_scripts(Worker, broken, good)
    assert seen == [b"cba"]
    assert next(record.levelno for record in caplog.records) == logging.WARNING


def test_wake_ups_and_errors_that_nobody_asked_for_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    seen = Noted()

    def script(peer: Peer) -> None:
        wants_a_job(peer)
        peer.send(Noop(), Error(b"JOB_NOT_FOUND", b"late"), Error(b"TOO_MANY", b"functions"), NoJob())
        peer.receive_until(PreSleep)
        peer.send(NoJob(), Noop())
        wants_a_job(peer)
        assign(peer, b"abc")
        seen.append(reports(peer).data)

    run_scripts(Worker, script)
    assert seen == [b"cba"]
    assert "a report was refused: b'late'" in caplog.text
    assert "TOO_MANY" in caplog.text


def test_job_of_a_function_that_was_never_registered_fails(caplog: pytest.LogCaptureFixture) -> None:
    seen = Noted()

    def script(peer: Peer) -> None:
        wants_a_job(peer)
        assign(peer, function=b"unknown")
        seen.append(reports(peer).packet)
        wants_a_job(peer)

    run_scripts(Worker, script)
    assert seen == [WorkFail]
    assert "which is not registered" in caplog.text


def test_second_assignment_while_a_job_runs_is_done_next() -> None:
    seen = Noted()

    def script(peer: Peer) -> None:
        wants_a_job(peer)
        for number in (b"1", b"2", b"3"):
            assign(peer, b"job " + number, b"H:" + number)
        seen.extend((report.handle, report.data) for report in (reports(peer), reports(peer), reports(peer)))

    run_scripts(Worker, script)
    assert seen == [(b"H:1", b"1 boj"), (b"H:2", b"2 boj"), (b"H:3", b"3 boj")]


def test_two_full_buffers_do_not_wait_for_each_other() -> None:
    size = 16 * MIB
    seen = Noted()

    def script(peer: Peer) -> None:
        wants_a_job(peer)
        for handle in (b"H:1", b"H:2"):  # the second comes while the first result goes, which is not read before
            assign(peer, b"w" * size, handle)
        seen.extend((report.handle, len(report.data)) for report in (reports(peer), reports(peer)))

    run_scripts(Worker, script)
    assert seen == [(b"H:1", size), (b"H:2", size)]


def test_largest_packet_goes_both_ways(client: Client, worker: Worker) -> None:
    room = DEFAULT_MAX_SERVER_PACKET_SIZE - 200
    worker.register("f", lambda job: job.workload)
    with working(worker):
        assert client.submit("f", b"x" * room).result(LIMIT) == b"x" * room


# Several servers


def test_jobs_of_several_servers_are_done(server: Server) -> None:
    with (
        Server(port=0) as other,
        Worker([server.address, other.address]) as worker,
        Client(server.address) as first,
        Client(other.address) as second,
    ):
        worker.register("reverse", reverse)
        with working(worker):
            workloads = [b"%d!" % number for number in range(40)]
            jobs = [
                (first, second)[number % 2].submit("reverse", workload) for number, workload in enumerate(workloads)
            ]
            assert [job.result(LIMIT) for job in jobs] == [workload[::-1] for workload in workloads]


def test_server_that_is_away_does_not_keep_others_waiting(server: Server, client: Client) -> None:
    away = OurServer()
    away.close()
    with Worker([away.address, server.address]) as worker:
        worker.register("reverse", reverse)
        with working(worker):
            assert client.submit("reverse", b"ab").result(LIMIT) == b"ba"


def test_nothing_is_left_open(no_pauses: None) -> None:
    def closing(peer: Peer) -> None:
        wants_a_job(peer)

    def silent(peer: Peer) -> None:
        wants_a_job(peer)
        assign(peer)
        peer.receive_until(Report)

    with nothing_left_open():
        run_scripts(Worker, closing, silent)
        with Worker("127.0.0.1:9"):
            pass
