"""`gear_sync.Client` and `gear_sync.Worker` against our server and against Debian's gearmand: the same behaviour."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest

from gear_sync import Client, Task, Worker, WorkerJob
from gearproto import Completed, JobFailed, JobLost, JobNotSent, JobRaised, JobRejected, Priority, ServerError
from gearproto.events import Data, Progress, Warned
from tests.harness.servers import Kind, RunningServer, poll_until, running
from tests.harness.threads import Call, working

LIMIT = 30.0  # seconds; only a hang reaches it

Function = Callable[[WorkerJob], object]
StartWorker = Callable[..., Worker]


@pytest.fixture
def server(kind: Kind) -> Iterator[RunningServer]:
    with running(kind) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address, timeout=LIMIT) as client:
        yield client


@pytest.fixture
def start(server: RunningServer) -> Iterator[StartWorker]:
    """Start workers in threads: ``start(name=function, ...)``."""
    with ExitStack() as stack:

        def start_worker(client_id: str | None = None, **functions: Function) -> Worker:
            worker = Worker(server.address, client_id=client_id)
            for name, function in functions.items():
                worker.register(name, function)
            stack.enter_context(working(worker))
            return worker

        yield start_worker


def reverse(job: WorkerJob) -> bytes:
    return job.workload[::-1]


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 1024 * 1024, 16 * 1024 * 1024])
def test_results_of_any_size_come_back(client: Client, start: StartWorker, size: int) -> None:
    start(reverse=reverse)
    workload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    assert client.submit("reverse", workload).result(LIMIT) == workload[::-1]


def test_jobs_submitted_at_once_get_their_own_results(client: Client, start: StartWorker) -> None:
    start(reverse=reverse)
    workloads = [b"job %d" % number for number in range(500)]
    jobs = client.submit_many(Task(function="reverse", workload=workload) for workload in workloads)
    assert [job.result(LIMIT) for job in jobs] == [workload[::-1] for workload in workloads]


def test_progress_data_and_warnings_come_in_their_order(client: Client, start: StartWorker) -> None:
    def talk(job: WorkerJob) -> bytes:
        job.progress(1, 4)
        job.send(b"part")
        job.warn(b"careful")
        return b" end"

    start(talk=talk)
    job = client.submit("talk")
    progress, data, warned, outcome = job.events(LIMIT)
    assert isinstance(progress, Progress)
    assert (progress.numerator, progress.denominator) == (1, 4)
    assert isinstance(data, Data)
    assert data.data == b"part"
    assert isinstance(warned, Warned)
    assert warned.data == b"careful"
    assert outcome == Completed(b" end")
    assert job.progress == (1, 4)
    assert job.result(0) == b"part end"


def test_generator_sends_pieces(client: Client, start: StartWorker) -> None:
    def pieces(job: WorkerJob) -> Generator[bytes, None, bytes]:
        yield b"one "
        yield b"two "
        return b"three"

    start(pieces=pieces)
    assert client.submit("pieces").result(LIMIT) == b"one two three"


def test_job_failed_is_raised_as_job_failed(client: Client, start: StartWorker) -> None:
    def fail(job: WorkerJob) -> bytes:
        raise JobFailed

    start(fail=fail)
    with pytest.raises(JobFailed):
        client.submit("fail").result(LIMIT)


def test_exception_reaches_a_client_that_asks_for_it(client: Client, start: StartWorker) -> None:
    def throw(job: WorkerJob) -> bytes:
        raise ValueError("no such luck")

    start(throw=throw)
    with pytest.raises(JobRaised, match="ValueError: no such luck"):
        client.submit("throw").result(LIMIT)


def test_exception_is_a_failure_for_a_client_that_does_not_ask(server: RunningServer, start: StartWorker) -> None:
    def throw(job: WorkerJob) -> bytes:
        raise ValueError

    start(throw=throw)  # gearmand ends the handle of its WORK_FAIL with a NUL
    with Client(server.address, exceptions=False) as client:
        for _ in range(2):  # and goes on
            with pytest.raises(JobFailed):
                client.submit("throw").result(LIMIT)


def test_same_unique_is_one_job_for_both_submissions(server: RunningServer, client: Client, start: StartWorker) -> None:
    runs = []
    release = threading.Event()

    def once(job: WorkerJob) -> bytes:
        runs.append(job.unique)
        assert release.wait(LIMIT)
        return b"result"

    with Client(server.address) as other:
        jobs = [client.submit("once", unique="u"), client.submit("once", unique="u"), other.submit("once", unique="u")]
        poll_until(lambda: client.status_unique("u").clients == 3, "three clients wait")
        start(once=once)
        release.set()
        assert [job.result(LIMIT) for job in jobs] == [b"result"] * 3
    assert runs == [b"u"]
    assert len({job.handle for job in jobs}) == 1


def test_pieces_are_not_doubled_for_submissions_that_share_a_job(client: Client, start: StartWorker) -> None:
    def pieces(job: WorkerJob) -> Iterator[bytes]:
        yield b"a"
        yield b"b"

    jobs = [client.submit("pieces", unique="u"), client.submit("pieces", unique="u")]
    start(pieces=pieces)
    assert [job.result(LIMIT) for job in jobs] == [b"ab", b"ab"]


def test_priorities_decide_the_order(client: Client, start: StartWorker) -> None:
    order: list[bytes] = []
    done = threading.Event()

    def note(job: WorkerJob) -> None:
        order.append(job.workload)
        if len(order) == 6:
            done.set()

    for number in (b"1", b"2"):
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
            client.submit_background("note", priority.name.encode() + number, priority=priority)
    start(note=note)
    assert done.wait(LIMIT)
    assert order == [b"HIGH1", b"HIGH2", b"NORMAL1", b"NORMAL2", b"LOW1", b"LOW2"]


def test_priorities_decide_the_order_of_jobs_that_somebody_waits_for(client: Client, start: StartWorker) -> None:
    order: list[bytes] = []
    jobs = [client.submit("note", b"%d" % number, priority=Priority(number % 3)) for number in range(6)]
    client.echo(b"")  # all have arrived
    start(note=lambda job: order.append(job.workload))
    assert [job.result(LIMIT) for job in jobs] == [b""] * 6
    assert order == [b"0", b"3", b"1", b"4", b"2", b"5"]


def test_status_of_unknown_jobs_says_so(client: Client) -> None:
    for status in (client.status(b"H:nothing:1"), client.status_unique("nothing")):
        assert (status.known, status.running, status.numerator, status.denominator) == (False, False, 0, 0)


def test_status_tells_queued_running_and_gone(client: Client, start: StartWorker) -> None:
    running_ = threading.Event()
    release = threading.Event()

    def wait(job: WorkerJob) -> None:
        job.progress(3, 7)
        running_.set()
        assert release.wait(LIMIT)

    handle = client.submit_background("wait", unique="w")
    status = client.status(handle)
    assert (status.known, status.running, status.clients) == (True, False, None)
    start(wait=wait)
    assert running_.wait(LIMIT)
    poll_until(lambda: client.status(handle).numerator == 3, "the server knows the progress")
    status = client.status_unique("w")
    assert (status.known, status.running, status.numerator, status.denominator) == (True, True, 3, 7)
    release.set()
    poll_until(lambda: not client.status(handle).known, "the job is gone")


def test_delayed_job_whose_time_has_come_runs(client: Client, start: StartWorker) -> None:
    ran = threading.Event()
    start(later=lambda job: ran.set())
    client.submit_background("later", run_at=time.time() - 1)
    assert ran.wait(LIMIT)


def test_reducer_reaches_the_worker(client: Client, start: StartWorker) -> None:
    start(reduce=lambda job: job.reducer + b" " + job.unique)
    assert client.submit("reduce", reducer="sum", unique="u").result(LIMIT) == b"sum u"


def test_background_reduce_job_runs(client: Client, start: StartWorker) -> None:
    seen: list[tuple[bytes, bytes]] = []
    ran = threading.Event()

    def reduce(job: WorkerJob) -> None:
        seen.append((job.reducer, job.workload))
        ran.set()

    start(reduce=reduce)
    client.submit_background("reduce", b"w", reducer="sum")
    assert ran.wait(LIMIT)
    assert seen == [(b"sum", b"w")]


def test_job_delayed_for_long_waits(client: Client, start: StartWorker) -> None:
    start(later=reverse)
    handle = client.submit_background("later", run_at=time.time() + 1000)
    assert client.submit("later", b"ab").result(LIMIT) == b"ba"  # the worker has had its chance
    status = client.status(handle)
    assert (status.known, status.running) == (True, False)


def test_cancelled_job_fails_for_who_waits(client: Client) -> None:
    job = client.submit("nobody")
    client.echo(b"")
    assert job.handle is not None
    client.admin.cancel(job.handle)
    with pytest.raises(JobFailed):
        job.result(LIMIT)


def test_created_function_is_dropped(client: Client) -> None:
    client.admin.create_function("made")
    client.admin.drop_function("made")
    assert client.admin.status() == ()


def test_queue_limit_can_be_one_for_each_priority_and_taken_back(client: Client) -> None:
    client.submit_background("f")
    client.admin.max_queue("f", 0, 1, 0)
    client.submit_background("f", priority=Priority.HIGH)
    with pytest.raises(JobRejected, match="QUEUE_ERROR"):
        client.submit_background("f")
    client.admin.max_queue("f", 0)
    client.submit_background("f")


def test_full_queue_rejects_a_job(client: Client) -> None:
    client.submit_background("full")
    client.admin.max_queue("full", 1)
    with pytest.raises(JobRejected, match="QUEUE_ERROR: Job queue is full"):
        client.submit_background("full")
    with pytest.raises(JobRejected, match="QUEUE_ERROR: Job queue is full"):
        client.submit("full").result(LIMIT)


def test_admin_api(server: RunningServer, client: Client, start: StartWorker) -> None:
    start("the worker", idle=reverse)
    poll_until(lambda: any(row.client_id == b"the worker" for row in client.admin.workers()), "the worker is there")
    client.admin.create_function("made")
    handle = client.submit_background("made", unique="u", priority=Priority.HIGH)
    status = {row.function: (row.total, row.running, row.workers) for row in client.admin.status()}
    assert status == {b"idle": (0, 0, 1), b"made": (1, 0, 0)}
    assert {row.function: row.high for row in client.admin.priority_status()} == {b"idle": 0, b"made": 1}
    assert [(row.handle, row.background) for row in client.admin.jobs()] == [(handle, True)]
    assert [row.unique for row in client.admin.unique_jobs()] == [b"u"]
    client.admin.cancel(handle)
    with pytest.raises(ServerError, match="UNKNOWN_JOB"):
        client.admin.cancel(b"H:nothing:1")
    assert client.admin.version()
    assert client.admin.verbose() == "ERROR"
    assert client.admin.pid() > 0
    with pytest.raises(ServerError, match="function: not found"):
        client.admin.drop_function("nothing")
    if server.kind == "gearmand":
        for graceful in (False, True):
            with pytest.raises(ServerError, match="UNKNOWN_COMMAND"):
                client.admin.shutdown(graceful=graceful)
    assert client.echo(b"\0 any \xff") == b"\0 any \xff"


def test_job_of_a_lost_worker_is_done_by_another(client: Client, start: StartWorker) -> None:
    first = threading.Event()

    def give_up(job: WorkerJob) -> bytes:
        first.set()
        workers[0].abort()
        return b"never sent"

    workers = [start(task=give_up)]
    job = client.submit("task")
    assert first.wait(LIMIT)
    start(task=lambda job: b"second")
    assert job.result(LIMIT) == b"second"


PROGRAM = """
import sys
import gear_sync
worker = gear_sync.Worker(sys.argv[1])
@worker.function("task")
def task(job):
    print("started", flush=True)
    sys.stdin.readline()
worker.run()
"""


def test_job_of_a_killed_process_is_done_by_another(server: RunningServer, client: Client, start: StartWorker) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            job = client.submit("task")
            assert process.stdout is not None
            assert Call(process.stdout.readline).result() == b"started\n"
        finally:
            process.kill()
    start(task=lambda job: b"second")
    assert job.result(LIMIT) == b"second"


def test_worker_that_leaves_in_peace_takes_no_job_with_it(server: RunningServer, client: Client) -> None:
    jobs = [client.submit("f", b"%d" % number) for number in range(20)]
    done: list[bytes] = []

    def one(job: WorkerJob) -> bytes:
        done.append(job.workload)
        workers[-1].stop()
        return job.workload

    workers: list[Worker] = []
    for _ in range(20):
        with Worker(server.address) as worker:
            workers.append(worker)
            worker.register("f", one)
            Call(worker.run).result()
    assert [job.result(LIMIT) for job in jobs] == [b"%d" % number for number in range(20)]
    assert sorted(done) == sorted({*done})


def test_idle_client_uses_a_restarted_server_as_if_nothing_had_been(server: RunningServer, client: Client) -> None:
    client.submit_background("f")
    server.restart()
    handle = client.submit_background("f")
    assert client.status(handle).known


def test_restarted_server_loses_waiting_jobs_and_gets_its_workers_back(
    server: RunningServer, client: Client, start: StartWorker
) -> None:
    job = client.submit("nobody")
    client.echo(b"")  # the submission has arrived
    start(reverse=reverse)
    server.restart()
    with pytest.raises(JobLost):
        job.result(LIMIT)
    assert client.submit("reverse", b"abc").result(LIMIT) == b"cba"


def test_absent_server_is_told_as_not_sent(server: RunningServer, client: Client) -> None:
    server.close()
    with pytest.raises(JobNotSent):
        client.submit("reverse")
