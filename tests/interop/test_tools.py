"""Programs of others against our server: ``gearman`` and ``gearadmin``, clients and workers in Perl and PHP."""

from __future__ import annotations

import contextlib
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gearproto.packets import (
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    JobCreated,
    Noop,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.harness.foreign import LANGUAGES, Processes, completed
from tests.harness.servers import poll_until
from tests.harness.sites import TcpSite

PERL = pytest.mark.interop("perl")
PHP = pytest.mark.interop("php")
TOOL = pytest.mark.interop("gearman")
ADMIN = pytest.mark.interop("gearadmin")


@pytest.fixture
def processes(ours: TcpSite, tmp_path: Path) -> Iterator[Processes]:
    """Runs programs against our server."""
    with contextlib.closing(Processes(ours.server, tmp_path)) as processes:
        yield processes


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.interop(name)) for name in LANGUAGES])
def client(request: pytest.FixtureRequest) -> str:
    """The language of the client."""
    return str(request.param)


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.interop(name)) for name in LANGUAGES])
def worker(request: pytest.FixtureRequest) -> str:
    """The language of the worker."""
    return str(request.param)


def await_worker(ours: TcpSite, function: bytes) -> None:
    """Wait until somebody can run a function."""
    admin = ours.connect()

    def registered() -> bool:
        rows = (row.split(b"\t") for row in admin.ask_rows(b"status"))
        return any(name == function and int(workers) for name, _total, _running, workers in rows)

    poll_until(registered, f"a worker for {function!r}")


def workload(size: int) -> bytes:
    """Make a workload of all bytes, never the text 0, which Perl takes for none."""
    return random.Random(size).randbytes(size - 1) + b"x"


# Perl and PHP


@pytest.mark.parametrize("size", [1, 1024 * 1024])
def test_workloads_and_results_of_any_size_go_through(
    ours: TcpSite, processes: Processes, client: str, worker: str, size: int
) -> None:
    processes.start_worker(worker)
    await_worker(ours, b"reverse")
    data = workload(size)
    done = processes.client(client, "foreground", b"reverse", data)
    assert done.lines == [completed(data[::-1])]
    assert done.code == 0


@PERL
def test_16_mebibytes_go_through(ours: TcpSite, processes: Processes) -> None:
    # With PHP the same takes 10 seconds for each side: libgearman copies what it has at every small read.
    processes.start_worker("perl")
    await_worker(ours, b"reverse")
    data = workload(16 * 1024 * 1024)
    assert processes.client("perl", "foreground", b"reverse", data).lines == [completed(data[::-1])]


def test_client_hears_progress_data_and_warnings(ours: TcpSite, processes: Processes, client: str, worker: str) -> None:
    processes.start_worker(worker)
    await_worker(ours, b"talk")
    done = processes.client(client, "foreground", b"talk", b"w")
    assert done.lines == ["status 1 4", "data part", "warning careful", completed(b"done")]


def test_failing_job_fails_for_the_client(ours: TcpSite, processes: Processes, client: str, worker: str) -> None:
    processes.start_worker(worker)
    await_worker(ours, b"fail")
    assert processes.client(client, "foreground", b"fail", b"w").lines == ["fail"]


def test_exception_reaches_the_client_and_the_worker_goes_on(
    ours: TcpSite, processes: Processes, client: str, worker: str
) -> None:
    processes.start_worker(worker)
    await_worker(ours, b"throw")
    assert processes.client(client, "foreground", b"throw", b"w").lines == ["exception oops"]
    assert processes.client(client, "foreground", b"reverse", b"ab").lines == [completed(b"ba")]


@pytest.mark.parametrize(
    ("client", "command", "row"),
    [
        pytest.param("perl", "high-background", b"f\t1\t0\t0\t1\n", marks=PERL),
        pytest.param("perl", "background", b"f\t0\t1\t0\t1\n", marks=PERL),
        pytest.param("php", "high-background", b"f\t1\t0\t0\t1\n", marks=PHP),
        pytest.param("php", "background", b"f\t0\t1\t0\t1\n", marks=PHP),
        pytest.param("php", "low-background", b"f\t0\t0\t1\t1\n", marks=PHP),
    ],
)
def test_background_job_is_queued_with_its_priority(
    ours: TcpSite, processes: Processes, client: str, command: str, row: bytes
) -> None:
    (line,) = processes.client(client, command, b"f", b"workload", "key").lines
    handle = line.removeprefix("handle ").encode()
    worker = ours.worker(b"f")
    assert worker.ask_rows(b"show jobs") == [handle + b"\t0\t0\t1\n"]
    assert worker.ask_rows(b"prioritystatus") == [row]
    assert worker.grab(GrabJobUniq()) == JobAssignUniq(handle, b"f", b"key", b"workload")


@pytest.mark.parametrize(
    ("client", "command", "row"),
    [
        pytest.param("perl", "high", b"f\t1\t0\t0\t1\n", marks=PERL),
        pytest.param("perl", "foreground", b"f\t0\t1\t0\t1\n", marks=PERL),
        pytest.param("php", "high", b"f\t1\t0\t0\t1\n", marks=PHP),
        pytest.param("php", "foreground", b"f\t0\t1\t0\t1\n", marks=PHP),
        pytest.param("php", "low", b"f\t0\t0\t1\t1\n", marks=PHP),
    ],
)
def test_foreground_job_is_queued_with_its_priority(
    ours: TcpSite, processes: Processes, client: str, command: str, row: bytes
) -> None:
    worker = ours.worker(b"f")
    worker.sleep()
    process = processes.start_client(client, command, b"f", b"workload", "key")
    worker.expect(Noop())
    assert worker.ask_rows(b"prioritystatus") == [row]
    job = worker.grab(GrabJobUniq())
    assert job == JobAssignUniq(job.handle, b"f", b"key", b"workload")
    worker.send(WorkComplete(job.handle, b"result"))
    assert process.finish().lines == [completed(b"result")]


def test_same_unique_is_one_job(ours: TcpSite, processes: Processes, client: str) -> None:
    first = processes.client(client, "background", b"f", b"one", "key").lines
    assert processes.client(client, "background", b"f", b"two", "key").lines == first
    assert processes.client(client, "background", b"f", b"two", "other").lines != first
    assert sorted(ours.connect().ask_rows(b"show unique jobs")) == [b"key\n", b"other\n"]


def test_status_of_a_job_is_told(ours: TcpSite, processes: Processes, client: str) -> None:
    (line,) = processes.client(client, "background", b"f", b"w", "key").lines
    handle = line.removeprefix("handle ").encode()

    def status() -> list[str]:
        return processes.client(client, "status", handle).lines

    assert status()[0].startswith("status 1 0")
    worker = ours.worker(b"f")
    worker.grab()
    worker.send(WorkStatus(handle, 3, 4))
    worker.expect_nothing()
    assert status() == ["status 1 1 3 4"]
    worker.send(WorkComplete(handle, b""))
    worker.expect_nothing()
    assert status()[0].startswith("status 0 0")


@PHP
def test_status_by_unique_is_told_to_php(ours: TcpSite, processes: Processes) -> None:
    submitter, worker = ours.connect(), ours.worker(b"f")
    handle = submitter.submit(SubmitJob(b"f", b"key", b"w"))
    worker.grab()
    worker.send(WorkStatus(handle, 3, 4))
    worker.expect_nothing()
    assert processes.client("php", "status-unique", b"", unique="key").lines == ["status 1 1 3 4"]
    assert processes.client("php", "status-unique", b"", unique="other").lines == ["status 0 0 0 0"]


def test_worker_serves_many_jobs_of_a_raw_client(ours: TcpSite, processes: Processes, worker: str) -> None:
    processes.start_worker(worker)
    await_worker(ours, b"reverse")
    client = ours.connect()
    workloads = [b"job %d" % number for number in range(100)]
    client.send(*(SubmitJob(b"reverse", b"", data) for data in workloads))
    packets = [client.receive_any() for _ in range(200)]
    handles = [packet.handle for packet in packets if isinstance(packet, JobCreated)]
    results = {packet.handle: packet.data for packet in packets if isinstance(packet, WorkComplete)}
    assert results == {handle: data[::-1] for handle, data in zip(handles, workloads, strict=True)}


def test_worker_reports_reach_a_raw_client(ours: TcpSite, processes: Processes, worker: str) -> None:
    processes.start_worker(worker)
    await_worker(ours, b"talk")
    client = ours.connect()
    handle = client.submit(SubmitJob(b"talk", b"", b"w"))
    client.expect(WorkStatus(handle, 1, 4), WorkData(handle, b"part"), WorkWarning(handle, b"careful"))
    client.expect(WorkComplete(handle, b"done"))
    handle = client.submit(SubmitJob(b"throw", b"", b"w"))
    client.expect(WorkFail(handle))  # without the option
    client.expect_nothing()


@PERL
def test_empty_result_completes_the_job_and_the_worker_goes_on(ours: TcpSite, processes: Processes) -> None:
    processes.start_worker("perl")
    await_worker(ours, b"reverse")
    client = ours.connect()
    for data in (b"", b"after it"):  # Perl's worker sends the first without the NUL behind the handle
        handle = client.submit(SubmitJob(b"reverse", b"", data))
        client.expect(WorkComplete(handle, data[::-1]))


def test_worker_is_listed_with_its_id_and_functions(ours: TcpSite, processes: Processes, worker: str) -> None:
    processes.start_worker(worker)
    pattern = rb"\d+ 127\.0\.0\.1 %b-worker : (\w+) (\w+) (\w+) (\w+) (\w+)\n" % worker.encode()
    administrator = ours.connect()

    def listed() -> list[set[bytes]]:
        rows = administrator.ask_rows(b"workers")
        return [set(match.groups()) for row in rows if (match := re.fullmatch(pattern, row))]

    poll_until(lambda: listed() == [{b"reverse", b"talk", b"fail", b"throw", b"wait"}], "the worker is listed")


def test_killed_worker_gives_its_job_back(ours: TcpSite, processes: Processes, worker: str) -> None:
    process = processes.start_worker(worker)
    await_worker(ours, b"wait")
    client = ours.connect()
    handle = client.submit(SubmitJob(b"wait", b"", b"w"))
    poll_until(lambda: b"wait\t1\t1\t1\n" in client.ask_rows(b"status"), "the worker has the job")
    other = ours.worker(b"wait")
    other.sleep()
    process.kill()
    other.expect(Noop())
    assert other.grab() == JobAssign(handle, b"wait", b"w")
    other.send(WorkComplete(handle, b"r"))
    client.expect(WorkComplete(handle, b"r"))


# gearman, as client


@TOOL
@pytest.mark.parametrize("size", [1, 100_000])
def test_gearman_runs_a_job(ours: TcpSite, processes: Processes, size: int) -> None:
    processes.start_gearman("-w", "-f", "swap", "-c", "1", "--", "tr", "ab", "ba")
    await_worker(ours, b"swap")
    done = processes.gearman("-f", "swap", workload=b"a" * size)
    assert (done.code, done.output) == (0, b"b" * size)


@TOOL
def test_gearman_takes_the_workload_as_an_argument(ours: TcpSite, processes: Processes) -> None:
    processes.start_gearman("-w", "-f", "swap", "--", "tr", "ab", "ba")
    await_worker(ours, b"swap")
    assert processes.gearman("-f", "swap", "abab").output == b"baba"
    assert processes.gearman("-f", "swap", "-s").output == b""


@TOOL
@pytest.mark.parametrize(
    ("options", "row"), [((), b"\t0\t1\t0\t"), (("-I",), b"\t1\t0\t0\t"), (("-L",), b"\t0\t0\t1\t")]
)
def test_gearman_queues_background_jobs(
    ours: TcpSite, processes: Processes, options: tuple[str, ...], row: bytes
) -> None:
    assert processes.gearman("-b", "-f", "f", "-u", "key", *options, "data").code == 0
    worker = ours.worker(b"f")
    assert row in worker.ask_rows(b"prioritystatus")[0]
    job = worker.grab(GrabJobUniq())
    assert job == JobAssignUniq(job.handle, b"f", b"key", b"data")
    assert worker.ask_rows(b"show jobs") == [job.handle + b"\t0\t0\t1\n"]


@TOOL
@pytest.mark.parametrize(("option", "end"), [("-n", b"\n"), ("-N", b"")])
def test_gearman_runs_one_job_a_line(ours: TcpSite, processes: Processes, option: str, end: bytes) -> None:
    assert processes.gearman("-b", "-f", "f", option, workload=b"one\ntwo\n").code == 0
    worker = ours.worker(b"f")
    assert [worker.grab().workload, worker.grab().workload] == [b"one" + end, b"two" + end]
    worker.expect_no_job()


@TOOL
def test_gearman_submits_to_several_functions(ours: TcpSite, processes: Processes) -> None:
    processes.start_gearman("-w", "-f", "f", "-f", "g", "-c", "2", "cat")
    await_worker(ours, b"g")
    done = processes.gearman("-f", "f", "-f", "g", "-P", "data")
    assert sorted(done.output.replace(b"data", b"data\n").split()) == [b"data", b"data", b"f:", b"g:"]


@TOOL
def test_gearman_ends_with_1_if_the_job_fails(ours: TcpSite, processes: Processes) -> None:
    processes.start_gearman("-w", "-f", "f", "false")
    await_worker(ours, b"f")
    assert processes.gearman("-f", "f", "data").code == 1


@TOOL
def test_gearman_gives_up_after_its_time_limit_and_the_job_is_dropped(ours: TcpSite, processes: Processes) -> None:
    done = processes.gearman("-t", "50", "-f", "f", "data")
    assert b"imeout" in done.errors + done.output
    admin = ours.connect()
    poll_until(lambda: admin.ask_rows(b"show jobs") == [], "the job is dropped with its client")


# gearman, as worker


@TOOL
def test_gearman_worker_ends_after_its_count(ours: TcpSite, processes: Processes) -> None:
    process = processes.start_gearman("-w", "-f", "f", "-c", "2", "cat")
    await_worker(ours, b"f")
    client = ours.connect()
    for _ in range(2):
        handle = client.submit(SubmitJob(b"f", b"", b"data"))
        client.expect(WorkComplete(handle, b"data"))
    assert process.finish().code == 0


@TOOL
@pytest.mark.parametrize(("option", "end"), [("-n", b"\n"), ("-N", b"")])
def test_gearman_worker_sends_data_line_by_line(ours: TcpSite, processes: Processes, option: str, end: bytes) -> None:
    processes.start_gearman("-w", "-f", "f", option, "cat")
    await_worker(ours, b"f")
    client = ours.connect()
    handle = client.submit(SubmitJob(b"f", b"", b"one\ntwo\n"))
    client.expect(WorkData(handle, b"one" + end))
    assert client.receive(WorkData).data.endswith(b"two" + end)  # the tool sends the first line again with the second


# gearadmin


@ADMIN
def test_gearadmin_shows_version_level_and_pid(ours: TcpSite, processes: Processes) -> None:
    (version,) = processes.gearadmin("--server-version").lines
    assert re.fullmatch(r"\d\S*", version)
    assert processes.gearadmin("--server-verbose").lines == ["ERROR"]
    assert processes.gearadmin("--getpid").lines == [str(os.getpid())]


@ADMIN
def test_gearadmin_shows_functions(ours: TcpSite, processes: Processes) -> None:
    worker = ours.worker(b"f")
    worker.submit(SubmitJobBg(b"f", b"", b""))
    assert processes.gearadmin("--status").lines[:1] == ["f\t1\t0\t1"]
    assert processes.gearadmin("--priority-status").lines[:1] == ["f\t0\t1\t0\t1"]


@ADMIN
def test_gearadmin_shows_workers(ours: TcpSite, processes: Processes) -> None:
    _worker = ours.worker(b"f", b"g")
    lines = processes.gearadmin("--workers").lines
    assert sum(re.fullmatch(r"\d+ 127\.0\.0\.1 - : g f", line) is not None for line in lines) == 1


@ADMIN
def test_gearadmin_shows_jobs(ours: TcpSite, processes: Processes) -> None:
    handle = ours.connect().submit(SubmitJobBg(b"f", b"key", b"")).decode()
    assert processes.gearadmin("--show-jobs").lines[:1] == [f"{handle}\t0\t0\t1"]
    assert processes.gearadmin("--show-unique-jobs").lines[:1] == ["key"]


@ADMIN
def test_gearadmin_shows_40_000_jobs(ours: TcpSite, processes: Processes) -> None:
    client, count, batch = ours.connect(), 40_000, 1000
    for _ in range(count // batch):
        client.send_bytes(SubmitJobBg(b"f", b"", b"").encode() * batch)
        for _ in range(batch):
            client.receive_raw()
    rows = [row.decode().removesuffix("\n") for row in client.ask_rows(b"show jobs")]
    assert len(rows) == count
    assert processes.gearadmin("--show-jobs").lines[:count] == rows


@ADMIN
def test_gearadmin_cancels_a_job(ours: TcpSite, processes: Processes) -> None:
    client = ours.connect()
    handle = client.submit(SubmitJob(b"f", b"", b""))
    assert processes.gearadmin("--cancel-job", handle.decode()).code == 0
    client.expect(WorkFail(handle))
    assert client.ask_rows(b"show jobs") == []
    assert b"UNKNOWN_JOB" in processes.gearadmin("--cancel-job", handle.decode()).errors


@ADMIN
def test_gearadmin_creates_and_drops_a_function(ours: TcpSite, processes: Processes) -> None:
    admin = ours.connect()
    assert processes.gearadmin("--create-function", "f").lines == ["OK"]
    assert admin.ask_rows(b"status") == [b"f\t0\t0\t0\n"]
    assert processes.gearadmin("--drop-function", "f").lines == ["OK"]
    assert admin.ask_rows(b"status") == []
    assert b"function not found" in processes.gearadmin("--drop-function", "f").errors
