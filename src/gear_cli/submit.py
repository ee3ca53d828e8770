"""``gear submit``: submits jobs and prints their results."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gear_sync import Client, Job, Task
from gear_sync.job import outcome_error
from gearproto import Completed, JobError, NotSent
from gearproto.events import Progress, Warned

from .options import FAILED, TIMED_OUT, UNREACHABLE, USAGE, PriorityName, Servers, addresses, fail, priority_of, report

__all__ = ["submit"]


def submit(
    function: str,
    workload: str | None = None,
    /,
    *,
    file: Annotated[Path | None, Parameter(name=["--file", "-f"])] = None,
    lines: Annotated[bool, Parameter(negative=())] = False,
    background: Annotated[bool, Parameter(name=["--background", "-b"], negative=())] = False,
    priority: PriorityName = "normal",
    unique: Annotated[str, Parameter(name=["--unique", "-u"])] = "",
    timeout: Annotated[float | None, Parameter(name=["--timeout", "-t"])] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    server: Servers = None,
) -> int:
    """Submit a job, wait for it, and write its result to standard output.

    Exit codes: 0 if every job was completed, 1 if one failed, 2 for a command line that makes no sense, 3 if no server
    could be reached, 4 if the time has passed.

    Args:
        function: Name of the function to run.
        workload: What to work on; standard input if it is - or missing.
        file: Read the workload from this file.
        lines: Submit each line of the input as a job of its own, and print the results in their order, one a line.
        background: Do not wait; print the job's handle.
        priority: Which queue: high, normal or low.
        unique: Your own name for the job; the server joins jobs of one function and unique.
        timeout: Longest time to wait in seconds.
        as_json: Print one JSON object for each job, with its handle, outcome and data.
        server: A job server as host or host:port; may be given several times. Default: 127.0.0.1:4730.
    """
    level = priority_of(priority)
    if lines and unique:
        fail("--unique with --lines would join all the jobs into one", USAGE)
    payload = _read(workload, file)
    payloads = payload.splitlines() if lines else [payload]
    end = None if timeout is None else time.monotonic() + timeout
    with Client(addresses(server)) as client:
        if background:
            for item in payloads:
                handle = client.submit_background(function, item, unique=unique, priority=level)
                text = handle.decode("utf-8", "backslashreplace")
                print(json.dumps({"handle": text}) if as_json else text)
            return 0
        tasks = [Task(function=function, workload=item, unique=unique, priority=level) for item in payloads]
        jobs = client.submit_many(tasks)
        with _bar(len(jobs)) as advance:
            codes = [_finish(job, end, as_json, lines, advance) for job in jobs]
    return max(codes, default=0)


def _read(workload: str | None, file: Path | None) -> bytes:
    if file is not None:
        if workload is not None:
            fail("give a workload or --file, not both", USAGE)
        try:
            return file.read_bytes()
        except OSError as error:
            fail(f"cannot read {file}: {error.strerror}", FAILED)
    if workload is not None and workload != "-":
        return workload.encode("utf-8", "surrogateescape")
    if workload is None and sys.stdin.isatty():
        fail("no workload: give it as an argument, with --file, or on standard input", USAGE)
    return sys.stdin.buffer.read()


@contextmanager
def _bar(jobs: int) -> Iterator[Any]:
    """Show a progress bar on a terminal; elsewhere nothing. Yields what to call with a job's progress or end."""
    if not sys.stderr.isatty():
        yield lambda _job, _fraction: None
        return
    from rich.console import Console  # noqa: PLC0415 (takes longer to load than the job may take)
    from rich.progress import Progress as Bar  # noqa: PLC0415

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("jobs", total=float(jobs))
        fractions: dict[Job, float] = {}

        def advance(job: Job, fraction: float) -> None:
            fractions[job] = fraction
            bar.update(task, completed=sum(fractions.values()))

        yield advance


def _finish(job: Job, end: float | None, as_json: bool, lines: bool, advance: Any) -> int:
    """Wait for a job and print what came of it; return its exit code."""
    left = None if end is None else max(0.0, end - time.monotonic())
    try:
        for event in job.events(left):
            if isinstance(event, Progress) and event.denominator:
                advance(job, min(1.0, event.numerator / event.denominator))
            elif isinstance(event, Warned):
                report(f"warning: {event.data.decode('utf-8', 'backslashreplace')}")
    except TimeoutError as error:
        report(str(error))
        return TIMED_OUT
    advance(job, 1.0)
    outcome = job.outcome
    assert outcome is not None
    if as_json:
        print(json.dumps(_as_json(job)))
    elif isinstance(outcome, Completed):
        sys.stdout.buffer.write(job.result() + (b"\n" if lines else b""))
        sys.stdout.buffer.flush()
    failure = outcome_error(outcome)
    if failure is None:
        return 0
    report(f"{type(outcome).__name__.lower()}: {failure}")
    return UNREACHABLE if isinstance(outcome, NotSent) else FAILED


def _as_json(job: Job) -> dict[str, str | None]:
    handle = None if job.handle is None else job.handle.decode("utf-8", "backslashreplace")
    found: dict[str, str | None] = {"handle": handle, "outcome": type(job.outcome).__name__}
    try:
        data = job.result()
    except JobError as error:
        return found | {"error": str(error)}
    try:
        return found | {"data": data.decode()}
    except UnicodeDecodeError:
        return found | {"data_base64": base64.b64encode(data).decode()}
