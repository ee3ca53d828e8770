"""`gear_sync.Worker` with threads, with functions that come and go, with time limits, and at its end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from gear_sync import Client, Server, Worker, WorkerJob
from gearproto import ConnectionLost, Grab, JobFailed, JobRaised, LocalProtocolError
from gearproto.events import Data, Progress, Warned
from gearproto.packets import GrabJobAll, JobAssignAll, NoJob, Noop, PreSleep
from gearproto.server import Report
from tests.harness.hostile import HostileServer, Peer
from tests.harness.servers import OurServer, poll_until
from tests.harness.threads import LIMIT, Call, nothing_left_open, working

BIG = 16 * 1024 * 1024  # more than sockets hold


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(port=0) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, timeout=LIMIT) as client:
        yield client


def reverse(job: WorkerJob) -> bytes:
    return job.workload[::-1]


class Gate:
    """A function whose jobs wait until they are let go, and which counts how many run."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._open = False
        self.most = 0

    def __call__(self, job: WorkerJob) -> bytes:
        with self._changed:
            self._running += 1
            self.most = max(self.most, self._running)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._open, LIMIT)
            self._running -= 1
            self._changed.notify_all()
        return job.workload

    def wait_for(self, count: int) -> None:
        """Wait until so many jobs run."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._running == count, LIMIT)

    def open(self) -> None:
        """Let all jobs go."""
        with self._changed:
            self._open = True
            self._changed.notify_all()


def row_of(client: Client, function: bytes) -> tuple[int, int, int]:
    """Return how many jobs of a function there are, how many run, and how many workers can run it."""
    for row in client.admin.status():
        if row.function == function:
            return row.total, row.running, row.workers
    return 0, 0, 0


# Threads


def test_number_of_threads_makes_sense() -> None:
    with pytest.raises(ValueError, match=r"^threads is -1, not a whole number of 0 or more$"):
        Worker("127.0.0.1", threads=-1)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_so_many_jobs_run_at_once_and_never_more(server: Server, client: Client, threads: int) -> None:
    gate = Gate()
    with Worker(server.address, threads=threads) as worker:
        worker.register("f", gate)
        with working(worker):
            jobs = [client.submit("f", b"%d" % number) for number in range(10)]
            gate.wait_for(threads)
            client.echo(b"")
            assert row_of(client, b"f") == (10, threads, 1)
            gate.open()
            assert [job.result(LIMIT) for job in jobs] == [b"%d" % number for number in range(10)]
    assert gate.most == threads


def test_threads_report_side_by_side(server: Server, client: Client) -> None:
    meeting = threading.Barrier(3)

    def reports(job: WorkerJob) -> Iterator[bytes]:
        meeting.wait(LIMIT)
        for number in range(50):
            job.progress(number, 50)
            job.warn(b"w%d" % number)
            yield job.workload

    with Worker(server.address, threads=3) as worker:
        worker.register("f", reports)
        with working(worker):
            jobs = [client.submit("f", b"%d" % number) for number in range(3)]
            for number, job in enumerate(jobs):
                events = list(job.events(LIMIT))
                assert [event.data for event in events if isinstance(event, Warned)] == [b"w%d" % n for n in range(50)]
                assert [event.data for event in events if isinstance(event, Data)] == [b"%d" % number] * 50
                assert any(isinstance(event, Progress) for event in events)
                assert job.result() == b"%d" % number * 50


def fail_loudly(job: WorkerJob) -> bytes:
    raise KeyError("x")


@pytest.mark.parametrize("threads", [0, 2])
def test_errors_of_functions_reach_the_caller_and_the_worker_goes_on(
    server: Server, client: Client, threads: int
) -> None:
    def fail(job: WorkerJob) -> bytes:
        raise JobFailed

    def throw(job: WorkerJob) -> bytes:
        raise KeyError("x")

    with Worker(server.address, threads=threads) as worker:
        worker.register("fail", fail)
        worker.register("throw", throw)
        worker.register("reverse", reverse)
        with working(worker):
            for _ in range(3):
                with pytest.raises(JobFailed):
                    client.submit("fail").result(LIMIT)
                with pytest.raises(JobRaised, match="KeyError: 'x'"):
                    client.submit("throw").result(LIMIT)
            assert client.submit("reverse", b"ab").result(LIMIT) == b"ba"


def test_fault_in_a_thread_of_the_pool_is_raised_by_run(server: Server, client: Client) -> None:
    class Unlucky(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if "raised after" in record.msg:
                raise ZeroDivisionError
            return True

    logger = logging.getLogger("gear_sync.worker")
    with Worker(server.address, threads=2) as worker:
        worker.register("fail", fail_loudly)
        logger.addFilter(unlucky := Unlucky())
        call = Call(worker.run)
        try:
            client.submit("fail")
            with pytest.raises(ZeroDivisionError):
                call.result()
        finally:
            logger.removeFilter(unlucky)
            worker.stop()


def test_worker_with_threads_leaves_nothing_open(server: Server) -> None:
    with (
        nothing_left_open(server_goes_on=True),
        Worker(server.address, threads=4) as worker,
        Client(server.address) as client,
    ):
        worker.register("reverse", reverse)
        with working(worker):
            assert client.submit("reverse", b"ab").result(LIMIT) == b"ba"
        poll_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("gear worker")], "threads end")


# Functions that come and go


@pytest.mark.parametrize("threads", [0, 2])
def test_function_that_is_registered_at_run_time_gets_the_jobs_that_wait(
    server: Server, client: Client, threads: int
) -> None:
    with Worker(server.address, threads=threads) as worker:
        worker.register("other", reverse)
        with working(worker):
            job = client.submit("reverse", b"abc")
            assert client.submit("other", b"ab").result(LIMIT) == b"ba"  # the worker is there, and goes to sleep
            worker.register("reverse", reverse)
            assert job.result(LIMIT) == b"cba"


@pytest.mark.parametrize("threads", [0, 2])
def test_function_that_is_unregistered_gets_no_further_jobs(server: Server, client: Client, threads: int) -> None:
    with Worker(server.address, threads=threads) as worker:
        worker.register("reverse", reverse)
        worker.register("other", reverse)
        with working(worker):
            assert client.submit("reverse", b"abc").result(LIMIT) == b"cba"
            worker.unregister("reverse")
            poll_until(lambda: row_of(client, b"reverse") == (0, 0, 0), "nobody can run it")
            job = client.submit("reverse", b"abc")
            assert client.submit("other", b"ab").result(LIMIT) == b"ba"
            assert row_of(client, b"reverse") == (1, 0, 0)
            with pytest.raises(LocalProtocolError, match="not offered"):
                worker.unregister("reverse")
            worker.register("reverse", lambda job: b"new")
            assert job.result(LIMIT) == b"new"


@pytest.mark.parametrize("threads", [0, 2])
def test_function_may_change_the_functions_itself(server: Server, client: Client, threads: int) -> None:
    with Worker(server.address, threads=threads) as worker:

        @worker.function("switch")
        def switch(job: WorkerJob) -> None:
            worker.unregister("old")
            worker.register("reverse", reverse)

        worker.register("old", reverse)
        with working(worker):
            client.submit("switch").result(LIMIT)
            assert client.submit("reverse", b"ab").result(LIMIT) == b"ba"
            assert row_of(client, b"old")[2] == 0


# Time limits


@pytest.mark.parametrize("threads", [0, 1])
def test_report_after_the_time_limit_is_a_timeout_and_the_job_has_failed(
    server: Server, client: Client, threads: int
) -> None:
    told: list[str] = []

    def slow(job: WorkerJob) -> bytes:
        try:
            while True:
                job.progress(1, 2)
        except TimeoutError as error:
            told.append(str(error))
            raise

    with Worker(server.address, threads=threads) as worker:
        worker.register("slow", slow, timeout=0.05)
        worker.register("reverse", reverse)
        with working(worker):
            job = client.submit("slow")
            with pytest.raises((JobFailed, JobRaised)):
                job.result(LIMIT)
            assert client.submit("reverse", b"ab").result(LIMIT) == b"ba"
    assert "has exceeded its timeout" in told[0]


def test_job_in_a_thread_ends_with_an_exception_when_its_time_is_over(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    with Worker(server.address, threads=2) as worker:
        worker.register("slow", gate, timeout=0.05)
        worker.register("reverse", reverse)
        with working(worker):
            job = client.submit("slow", b"late")
            with pytest.raises(JobRaised, match=r"TimeoutError: the job has taken longer than 0\.05 s"):
                job.result(LIMIT)
            gate.wait_for(1)  # it still runs, and takes its room
            assert client.submit("reverse", b"ab").result(LIMIT) == b"ba"
            gate.open()
            gate.wait_for(0)
            assert client.submit("reverse", b"cd").result(LIMIT) == b"dc"
    assert "has taken longer than 0.05 s" in caplog.text
    assert "refused" not in caplog.text  # its end is not reported a second time


def test_job_within_its_time_limit_is_like_any_other(server: Server, client: Client) -> None:
    with Worker(server.address, threads=1) as worker:
        worker.register("reverse", reverse, timeout=LIMIT)
        with working(worker):
            assert client.submit("reverse", b"ab").result(LIMIT) == b"ba"


# The end


@pytest.mark.parametrize("threads", [1, 3])
def test_stop_lets_the_jobs_in_threads_end(server: Server, client: Client, threads: int) -> None:
    gate = Gate()
    with Worker(server.address, threads=threads, stop_timeout=LIMIT) as worker:
        worker.register("f", gate)
        call = Call(worker.run)
        jobs = [client.submit("f", b"%d" % number) for number in range(threads)]
        gate.wait_for(threads)
        further = client.submit("f")
        worker.stop()
        gate.open()
        assert [job.result(LIMIT) for job in jobs] == [b"%d" % number for number in range(threads)]
        call.result()
        poll_until(lambda: row_of(client, b"f") == (1, 0, 0), "the worker has gone")
        assert not further.wait(0)


def test_stop_aborts_when_its_time_is_over_and_hanging_threads_keep_nobody(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    with Worker(server.address, threads=2, stop_timeout=0.05) as worker, Worker(server.address) as second:
        worker.register("f", gate)
        second.register("f", lambda job: b"second")
        call = Call(worker.run)
        job = client.submit("f")
        gate.wait_for(1)
        worker.stop()
        call.result()
        assert "aborting" in caplog.text
        with working(second):
            assert job.result(LIMIT) == b"second"
        gate.open()
        gate.wait_for(0)


def test_abort_ends_run_though_threads_hang(server: Server, client: Client) -> None:
    errors: list[Exception] = []
    gate = Gate()

    def hangs(job: WorkerJob) -> None:
        gate(job)
        try:
            job.progress(1, 2)
        except ConnectionLost as error:
            errors.append(error)

    with Worker(server.address, threads=1) as worker:
        worker.register("f", hangs)
        call = Call(worker.run)
        client.submit("f")
        gate.wait_for(1)
        worker.abort()
        call.result()
        poll_until(lambda: row_of(client, b"f") == (1, 0, 0), "the job is back in the queue")
        gate.open()
        poll_until(lambda: bool(errors), "the function is told")


def test_stop_timeout_without_threads_cuts_reports_off(server: Server, client: Client) -> None:
    started = threading.Event()

    def endless(job: WorkerJob) -> None:
        started.set()
        while True:
            job.progress(1, 2)

    with Worker(server.address, stop_timeout=0.05) as worker:
        worker.register("f", endless)
        call = Call(worker.run)
        client.submit("f")
        assert started.wait(LIMIT)
        worker.stop()
        call.result()


@pytest.mark.parametrize("threads", [0, 2])
def test_report_to_a_server_that_does_not_read_waits_no_longer_than_the_function_may(threads: int) -> None:
    over = threading.Event()
    waited: list[str] = []

    def server(peer: Peer) -> None:
        peer.receive_until(GrabJobAll)
        peer.send(JobAssignAll(b"H:1", b"f", b"", b"", b""))
        assert over.wait(LIMIT)

    def send(job: WorkerJob) -> None:
        try:
            job.send(bytes(BIG))
        except TimeoutError as error:
            waited.append(str(error))
        finally:
            over.set()

    with HostileServer(server) as hostile, Worker(hostile.address, threads=threads, probe_interval=None) as worker:
        worker.register("f", send, timeout=0.05)
        with working(worker):
            assert over.wait(LIMIT)
            worker.abort()
    (reason,) = waited  # which of two threads is the first to notice decides whether the job has ended by then
    assert reason.endswith("has exceeded its timeout")


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("reads_at_all", [True, False])
def test_stop_timeout_holds_for_results_that_a_server_does_not_read(threads: int, reads_at_all: bool) -> None:
    ended = threading.Event()

    def server(peer: Peer) -> None:
        peer.receive_until(GrabJobAll)
        peer.send(JobAssignAll(b"H:1", b"f", b"", b"", b""))
        if reads_at_all:
            peer.take(1)
        assert ended.wait(LIMIT)

    with (
        HostileServer(server) as hostile,
        Worker(hostile.address, threads=threads, stop_timeout=0.05, probe_interval=None) as worker,
    ):
        worker.register("f", lambda _job: bytes(BIG))
        call = Call(worker.run)
        poll_until(lambda: (link := worker._sessions[0].link) is not None and link.sending, "the result is on its way")
        worker.stop()
        call.result()
        ended.set()


def test_stop_timeout_does_not_matter_to_an_idle_worker(server: Server, client: Client) -> None:
    with Worker(server.address, threads=2, stop_timeout=LIMIT) as worker:
        worker.register("f", reverse)
        call = Call(worker.run)
        poll_until(lambda: row_of(client, b"f")[2] == 1, "the worker is there")
        worker.stop()
        call.result()


# Several servers


def wants_a_job(peer: Peer) -> None:
    peer.receive_until(GrabJobAll)


def test_full_worker_asks_no_server() -> None:
    gate = Gate()
    asleep, full, woken = threading.Event(), threading.Event(), threading.Event()
    seen: list[object] = []

    def has_nothing(peer: Peer) -> None:
        wants_a_job(peer)
        peer.send(NoJob())
        peer.receive_until(PreSleep)

    def wakes_a_full_worker(peer: Peer) -> None:
        has_nothing(peer)
        asleep.set()
        assert full.wait(LIMIT)
        peer.send(Noop())
        woken.set()
        seen.append(peer.receive())
        seen.append("asked" if opened.is_set() else "asked while full")
        peer.send(NoJob())
        peer.wait_for_end()

    def gives_a_job(peer: Peer) -> None:
        has_nothing(peer)
        assert asleep.wait(LIMIT)
        peer.send(Noop())
        wants_a_job(peer)
        peer.send(JobAssignAll(b"H:1", b"f", b"", b"", b"one"))
        gate.wait_for(1)
        full.set()
        peer.receive_until(Report)
        peer.receive_until(GrabJobAll)
        peer.send(NoJob())
        peer.wait_for_end()

    opened = threading.Event()
    with (
        HostileServer(wakes_a_full_worker) as first,
        HostileServer(gives_a_job) as second,
        Worker([first.address, second.address], threads=1) as worker,
    ):
        worker.register("f", gate)
        with working(worker):
            assert woken.wait(LIMIT)
            poll_until(lambda: worker._sessions[0].conn.state is Grab.IDLE, "the worker is woken")
            opened.set()
            gate.open()
            poll_until(lambda: len(seen) == 2, "the server is asked")
    assert seen == [GrabJobAll(), "asked"]


def test_silent_server_does_not_stall_work_on_the_others(server: Server, client: Client) -> None:

    def silent(peer: Peer) -> None:
        peer.wait_for_end()

    with HostileServer(silent) as blackhole, Worker([blackhole.address, server.address], grab_timeout=0.01) as worker:
        worker.register("reverse", reverse)
        with working(worker):
            for _ in range(5):
                assert client.submit("reverse", b"ab").result(LIMIT) == b"ba"


def test_silent_server_does_not_keep_a_new_function_from_the_others() -> None:
    reports: list[Report] = []
    first_asked = threading.Event()

    def falls_silent(peer: Peer) -> None:
        wants_a_job(peer)
        peer.send(NoJob())
        peer.receive_until(PreSleep)
        first_asked.set()
        peer.wait_for_end()

    def has_a_job_of_the_new_function(peer: Peer) -> None:
        wants_a_job(peer)
        assert first_asked.wait(LIMIT)
        peer.send(NoJob())
        peer.receive_until(PreSleep)
        wants_a_job(peer)
        peer.send(JobAssignAll(b"H:1", b"late", b"", b"", b"abc"))
        report = peer.receive_until(Report)
        assert isinstance(report, Report)
        reports.append(report)

    with (
        HostileServer(falls_silent) as first,
        HostileServer(has_a_job_of_the_new_function) as second,
        Worker([first.address, second.address], grab_timeout=0.01) as worker,
        working(worker),
    ):
        poll_until(lambda: all(server.conn.state is Grab.ASLEEP for server in worker._sessions), "the worker sleeps")
        poll_until(lambda: worker._wake_at == float("inf"), "nobody is waited for")
        worker.register("late", reverse)
        second.join()
    assert [report.data for report in reports] == [b"cba"]


def test_worker_is_back_after_a_restart_with_its_own_pauses() -> None:
    server = OurServer()
    try:
        with Worker(server.address, threads=2) as worker:
            worker.register("reverse", reverse)
            with working(worker):
                for _ in range(3):
                    with Client(server.address) as client:
                        assert client.submit("reverse", b"ab").result(LIMIT) == b"ba"
                    server.restart()
    finally:
        server.close()
