"""Functions of workers run without a server, and see and do what they see and do in a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import pytest

import gear_anyio
import gear_sync
from gear_testing.jobs import JobRun, _AsyncJob, _Job, run_job, run_job_async
from gear_testing.running import LocalServer, running
from gearproto import Completed, Failed, GearmanError, JobFailed, Raised


def reverse(job: gear_sync.WorkerJob) -> bytes:
    return job.workload[::-1]


def halves(job: gear_sync.WorkerJob) -> Generator[bytes, None, bytes]:
    job.progress(1, 2)
    yield job.workload[:2]
    job.warn(b"half")
    job.send(job.workload[2:3])
    return job.workload[3:]


def nothing(_job: gear_sync.WorkerJob) -> None:
    pass


def fail(_job: gear_sync.WorkerJob) -> None:
    raise JobFailed("no")


def crash(job: gear_sync.WorkerJob) -> Generator[bytes, None, None]:
    yield b"piece"
    raise KeyError(job.workload)


def wrong_result(_job: Any) -> Any:
    return "text"


def wrong_piece(_job: Any) -> Any:
    yield 7


HANDLERS: list[Callable[[Any], Any]] = [reverse, halves, nothing, fail, crash, wrong_result, wrong_piece]


def test_result_progress_pieces_and_warnings_are_kept() -> None:
    assert run_job(reverse, b"abcd") == JobRun(Completed(b"dcba"))
    run = run_job(halves, bytearray(b"abcd"))
    assert run == JobRun(Completed(b"d"), None, [b"ab", b"c"], [(1, 2)], [b"half"])
    assert run.result() == b"abcd"


def test_failure_is_an_outcome_and_the_exception_is_kept() -> None:
    assert run_job(fail).outcome == Failed()
    run = run_job(crash, b"key")
    assert (run.outcome, run.pieces) == (Raised(b"KeyError: b'key'"), [b"piece"])
    with pytest.raises(KeyError):
        run.result()


@pytest.mark.parametrize("handler", HANDLERS)
def test_job_ends_as_in_a_worker(handler: Callable[[Any], Any]) -> None:
    with LocalServer() as server, gear_sync.Client(server.address) as client:
        worker = gear_sync.Worker(server.address)
        worker.register("test", handler)
        with running(worker):
            job = client.submit("test", b"abcd")
            job.wait(10)
            pieces = [event.data for event in job if isinstance(event, gear_sync.Data)]
    run = run_job(handler, b"abcd")
    assert (run.outcome, run.pieces) == (job.outcome, pieces)


def test_function_sees_names_and_reducer() -> None:
    seen: list[bytes] = []

    def look(job: gear_sync.WorkerJob) -> None:
        seen.extend((job.function, job.unique, job.reducer, job.workload))

    assert run_job(look, b"w", function="f", unique="u", reducer="r").exception is None
    assert seen == [b"f", b"u", b"r", b"w"]


@pytest.mark.parametrize(
    "report", [lambda job: job.send("text"), lambda job: job.warn(7), lambda job: job.progress(-1, 2)]
)
def test_wrong_report_raises_as_in_a_worker(report: Callable[[Any], None]) -> None:
    assert isinstance(run_job(report).exception, GearmanError)


def test_function_sees_its_timeout() -> None:
    seen: list[Any] = []
    run_job(lambda job: seen.append((job.timeout, 0 < job.time_left <= 60)), timeout=60)
    run_job(lambda job: seen.append((job.timeout, job.time_left)))
    assert seen == [(60, True), (None, None)]


def test_names_follow_the_rules_of_the_protocol() -> None:
    with pytest.raises(GearmanError, match="unique has 65 bytes, limit 64"):
        run_job(reverse, unique=b"u" * 65)


def test_asynchronous_functions() -> None:
    async def double(job: gear_anyio.WorkerJob) -> bytes:
        await job.progress(1, 1)
        await job.warn(b"!")
        return job.workload * 2

    async def pieces(job: gear_anyio.WorkerJob) -> AsyncIterator[bytes]:
        yield job.workload
        await job.send(b"more")
        raise JobFailed

    run = asyncio.run(run_job_async(double, b"ab"))
    assert run == JobRun(Completed(b"abab"), None, [], [(1, 1)], [b"!"])
    run = asyncio.run(run_job_async(pieces, b"ab"))
    assert (run.outcome, run.pieces) == (Failed(), [b"ab", b"more"])


def test_the_wrong_kind_of_function_is_refused() -> None:
    async def double(job: gear_anyio.WorkerJob) -> bytes:
        return job.workload * 2

    with pytest.raises(TypeError, match="use run_job_async"):
        run_job(double)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="use run_job"):
        asyncio.run(run_job_async(reverse))


def test_what_is_not_an_exception_leaves() -> None:
    def interrupt(_job: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(interrupt)


@pytest.mark.parametrize(("ours", "real"), [(_Job, gear_sync.WorkerJob), (_AsyncJob, gear_anyio.WorkerJob)])
def test_job_has_what_jobs_of_workers_have(ours: type, real: type) -> None:
    def public(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    assert public(ours) == public(real)
