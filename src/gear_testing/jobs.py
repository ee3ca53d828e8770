"""Runs the function of a worker on one job, without a server and without a worker.

>>> def resize(job):
...     job.progress(1, 2)
...     yield b"first half, "
...     return b"second half"
>>> run = run_job(resize, b"picture")
>>> run.result()
b'first half, second half'
>>> run.progress
[(1, 2)]
"""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from gear_net.worker_jobs import BlockingJob, BytesLike, JobView, is_kind, iterate
from gearproto import Completed, Failed, Raised, WorkerConnection
from gearproto.arguments import as_bytes, as_payload
from gearproto.codec import Route, decoders
from gearproto.event import Event
from gearproto.events import JobAssigned
from gearproto.framing import Decoder
from gearproto.packets import (
    JobAssignAll,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from gearproto.worker import Assignment, completed, ended_by, piece

__all__ = ["JobRun", "run_job", "run_job_async"]

_FROM_WORKER: Final = decoders(Route.FROM_WORKER)


@dataclass(slots=True)
class JobRun:
    """What came of a job.

    Attributes:
        outcome: how the job ended, as its client sees it.
        exception: what the function has raised; None for nothing.
        pieces: the pieces of the result that it has sent or yielded.
        progress: what it has reported as progress: pairs of units done and units in all.
        warnings: the warnings that it has sent.
    """

    outcome: Completed | Failed | Raised = field(default_factory=Failed)
    exception: Exception | None = None
    pieces: list[bytes] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)
    warnings: list[bytes] = field(default_factory=list)

    def result(self) -> bytes:
        """Return the whole result, as the client gets it: all pieces, and what the function has returned.

        Raises:
            Exception: what the function has raised.
        """
        if self.exception is not None:
            raise self.exception
        assert isinstance(self.outcome, Completed)
        return b"".join((*self.pieces, self.outcome.data))


class _Reporter:
    """A connection with one job in hand, whose reports go nowhere but into a `JobRun`."""

    def __init__(self, assigned: JobAssignAll, timeout: float | None) -> None:
        self.run = JobRun()
        assigned.validate()
        conn = WorkerConnection()
        conn.receive_data(assigned.encode())
        event = conn.next_event()
        assert isinstance(event, JobAssigned)
        self.held = Assignment(event, conn)
        self.held.begin(timeout, time.monotonic())
        self._decoder = Decoder(_FROM_WORKER)

    def report(self, call: Callable[[WorkerConnection], object]) -> None:
        """Make a call to the connection, and keep what it has sent."""
        call(self.held.conn)
        self._decoder.feed(self.held.conn.data_to_send())
        while (report := self._decoder.next()) is not None:
            self._keep(report)

    def _keep(self, report: Event) -> None:
        run = self.run
        match report:
            case WorkStatus():
                run.progress.append((report.numerator, report.denominator))
            case WorkData():
                run.pieces.append(report.data)
            case WorkWarning():
                run.warnings.append(report.data)
            case WorkComplete():
                run.outcome = Completed(report.data)
            case WorkException():
                run.outcome = Raised(report.data)
            case _:
                assert isinstance(report, WorkFail)
                run.outcome = Failed()

    def end(self, outcome: Completed | Failed | Raised) -> None:
        """Report the end of the job."""
        self.report(lambda _conn: self.held.report_end(outcome))

    def end_by(self, error: Exception) -> None:
        """Report that the function has raised."""
        self.run.exception = error
        self.end(ended_by(error))


class _Job(BlockingJob[Assignment]):
    """The job as a plain function sees it."""

    __slots__ = ("_reporter",)

    def __init__(self, reporter: _Reporter) -> None:
        super().__init__(reporter.held)
        self._reporter = reporter

    def _report(self, call: Callable[[WorkerConnection], None]) -> None:
        self._reporter.report(call)


class _AsyncJob(JobView[Assignment]):
    """The job as a coroutine sees it."""

    __slots__ = ("_reporter",)

    def __init__(self, reporter: _Reporter) -> None:
        super().__init__(reporter.held)
        self._reporter = reporter

    async def progress(self, numerator: int, denominator: int) -> None:
        self._reporter.report(lambda conn: conn.work_status(self.handle, numerator, denominator))

    async def send(self, data: bytes | bytearray) -> None:
        self._reporter.report(lambda conn: conn.work_data(self.handle, as_payload("a piece", data)))

    async def warn(self, data: bytes | bytearray) -> None:
        self._reporter.report(lambda conn: conn.work_warning(self.handle, as_payload("a warning", data)))


def run_job(
    handler: Callable[[Any], BytesLike | Generator[BytesLike, None, BytesLike | None] | None],
    workload: bytes | bytearray = b"",
    *,
    function: str | bytes = b"test",
    unique: str | bytes = b"",
    reducer: str | bytes = b"",
    timeout: float | None = None,
) -> JobRun:
    """Call a plain function or a generator of a worker, as `gear_sync.Worker` and the threads of `gear_anyio` do.

    Args:
        handler: the function.
        workload: the data to work on.
        function: the name that the job is submitted under.
        unique: the client's own name for the job.
        reducer: name of the reducer.
        timeout: seconds that the function sees as its timeout; nothing ends it.

    Returns:
        How the job ended, and what was reported on it. What the function raises ends the job, and is kept.

    Raises:
        LocalProtocolError: a name is too long, or something is not bytes.
        TypeError: the function is asynchronous: see `run_job_async`.
    """
    if is_kind(handler, inspect.iscoroutinefunction, inspect.isasyncgenfunction):
        raise TypeError(f"{handler!r} is asynchronous: use run_job_async")
    reporter = _reporter(workload, function, unique, reducer, timeout)
    try:
        outcome = completed(reporter.held.function, iterate(handler, _Job(reporter)))
    except Exception as error:
        reporter.end_by(error)
    else:
        reporter.end(outcome)
    return reporter.run


async def run_job_async(
    handler: Callable[[Any], Any],
    workload: bytes | bytearray = b"",
    *,
    function: str | bytes = b"test",
    unique: str | bytes = b"",
    reducer: str | bytes = b"",
    timeout: float | None = None,  # noqa: ASYNC109  (what the function is shown)
) -> JobRun:
    """Call a coroutine function or an asynchronous generator of a worker, as `gear_anyio.Worker` does; see `run_job`.

    It needs no particular event loop. If it is cancelled, the function is.

    Raises:
        LocalProtocolError: a name is too long, or something is not bytes.
        TypeError: the function is not asynchronous: see `run_job`.
    """
    if not is_kind(handler, inspect.iscoroutinefunction, inspect.isasyncgenfunction):
        raise TypeError(f"{handler!r} is not asynchronous: use run_job")
    reporter = _reporter(workload, function, unique, reducer, timeout)
    try:
        outcome = completed(reporter.held.function, await _await(handler, _AsyncJob(reporter)))
    except Exception as error:
        reporter.end_by(error)
    else:
        reporter.end(outcome)
    return reporter.run


def _reporter(
    workload: bytes | bytearray, function: str | bytes, unique: str | bytes, reducer: str | bytes, timeout: float | None
) -> _Reporter:
    names = (as_bytes(function), as_bytes(unique), as_bytes(reducer))
    return _Reporter(JobAssignAll(b"H:test:1", *names, as_payload("the workload", workload)), timeout)


async def _await(handler: Callable[[Any], Any], job: _AsyncJob) -> object:
    result = handler(job)
    if not isinstance(result, AsyncGenerator):
        return await result
    async with aclosing(result) as pieces:
        async for data in pieces:
            await job.send(piece(job.function, data))
    return None
