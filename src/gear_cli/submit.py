"""``gear submit``: jobs from the command line, a file or stdin; results to stdout."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from gearproto import (
    DEFAULT_MAX_SERVER_PACKET_SIZE,
    JobLost,
    JobNotSent,
    JobRejected,
    LocalProtocolError,
    Lost,
    Outcome,
    Priority,
    Rejected,
)
from gearproto.client import DEFAULT_MAX_UNIQUE_SIZE, JobRequest
from gearproto.events import Data, Progress, Restarted, Warned

from .exits import Exit, Failure, UsageError, reason
from .options import (
    LONGEST_WAIT,
    STDIN,
    Flag,
    Servers,
    TlsCa,
    TlsCertificate,
    TlsFlag,
    TlsKey,
    client_tls,
    read_file,
    read_whole,
    seconds,
    server_addresses,
)
from .output import Output

if TYPE_CHECKING:
    from gear_sync import Client, Job

__all__ = ["submit"]

_CONNECT_TIMEOUT: Final = 5.0  # seconds, for each server
_ANSWER_TIMEOUT: Final = 30.0  # seconds; how long a server may take to say that it has a job
_AT_ONCE: Final = 1000  # jobs of --lines whose results are not written yet
_CHUNK: Final = 65536


def submit(
    function: str,
    workload: str | None = None,
    /,
    *,
    file: Annotated[Path | None, Parameter(name=["--file", "-f"])] = None,
    lines: Flag = False,
    background: Annotated[Flag, Parameter(name=["--background", "-b"])] = False,
    priority: Literal["high", "normal", "low"] = "normal",
    unique: Annotated[str, Parameter(show_default=False)] = "",
    max_unique_size: int = DEFAULT_MAX_UNIQUE_SIZE,
    timeout: Annotated[float | None, seconds(LONGEST_WAIT)] = None,
    as_json: Annotated[Flag, Parameter(name="--json")] = False,
    no_exceptions: Flag = False,
    policy: Literal["ordered", "round_robin", "unique_hash"] = "ordered",
    server: Servers = (),
    tls: TlsFlag = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> int:
    """Submit a job, wait for it, and write its result to stdout, unchanged.

    The workload is the argument, the content of --file, or stdin if the argument is -, or if there is none and stdin is
    not a terminal. Warnings and errors go to stderr, and so does the progress if stderr is a terminal.

    Exit codes: 0 success; 1 a job failed, raised an exception, was refused by the server, or was lost with the
    connection; 2 wrong usage; 3 no server could be reached; 4 timeout.

    Args:
        function: Name of the function to run.
        workload: The data to work on; - means stdin.
        file: Read the workload from this file; - means stdin.
        lines: Submit each line of the input as a job, without its line ending (LF or CRLF). Results are written in the
            order of the lines, each with a line ending; a job without a result leaves an empty line. The output ends at
            the first line that has no result in time.
        background: Do not wait for the result: print the job's handle, and exit.
        priority: Priority of the job.
        unique: Your own name for the job, at most 63 bytes; the server joins jobs with the same function and name.
        max_unique_size: Limit in bytes for --unique, up to 64; gearmand 1.1.20 corrupts jobs with 64.
        timeout: Seconds to wait for all results; no limit by default.
        as_json: Write one JSON object for each job, in one line: "handle", "outcome" (completed, failed, raised,
            rejected, not_sent, lost, timeout, queued), and the data as text ("data") or, if it is not text, "base64".
        no_exceptions: Do not ask the server for exceptions of workers, which then count as failures; for servers that
            never answer this request.
        policy: Which of several servers a job goes to: the first one that can be reached, each in turn, or the one that
            the job's unique selects, by the rule of Perl's client.
        server: see Servers.
        tls: see TlsFlag.
        tls_ca: see TlsCa.
        tls_certificate: see TlsCertificate.
        tls_key: see TlsKey.
    """
    from gear_sync.client import Client

    if workload == STDIN:
        workload = "-"
    if file is not None and workload is not None:
        raise UsageError("the workload is given twice, as an argument and with --file.")
    if lines and workload not in {None, "-"}:
        raise UsageError("--lines reads jobs from stdin or --file: leave the workload out.")
    if file is not None and str(file) in {STDIN, "-"}:
        file, workload = None, "-"
    if lines and unique:
        raise UsageError("--unique names one job, but --lines submits many.")
    work = _Work(os.fsencode(function), Priority[priority.upper()], os.fsencode(unique))
    try:
        request = JobRequest(work.function, unique=work.unique, priority=work.priority)
        request.packet(background=background, max_unique_size=max_unique_size)  # before a server is contacted
        client = Client(
            server_addresses(server),
            policy=policy,
            tls=client_tls(tls, tls_ca, tls_certificate, tls_key),
            connect_timeout=_CONNECT_TIMEOUT if timeout is None else min(_CONNECT_TIMEOUT, timeout),
            timeout=_ANSWER_TIMEOUT if timeout is None else timeout,
            exceptions=not no_exceptions,
            max_unique_size=max_unique_size,
        )
    except (LocalProtocolError, ValueError) as error:  # a file for TLS that cannot be used, say
        raise UsageError(f"{error}.") from error
    logging.getLogger("gear_sync").addHandler(logging.NullHandler())  # the outcome of each job says what went wrong
    with client, Output(as_json, lines) as output:
        if lines:
            source = _lines(file)
            if background:
                _queue_lines(client, work, source, output)
            else:
                _run_lines(client, work, source, output, timeout)
        else:
            data = _workload(workload, file)
            if background:
                _queue(client, work, data, output)
            else:
                job = _submit(client, work, data, stream=True)
                _collect(job, output, None if timeout is None else time.monotonic() + timeout, timeout)
    return output.code


@dataclass(frozen=True, slots=True)
class _Work:
    """What all jobs of one call have in common."""

    function: bytes
    priority: Priority
    unique: bytes


# Input


def _workload(argument: str | None, file: Path | None) -> bytes:
    if file is not None:
        return read_file(file)
    if argument is None and (sys.stdin is None or sys.stdin.isatty()):
        return b""
    if argument is None or argument == "-":
        return b"" if sys.stdin is None else read_whole(sys.stdin.buffer, "stdin")
    return os.fsencode(argument)


def _lines(file: Path | None) -> Iterator[bytes]:
    """Yield the lines of the input, without their endings, each as soon as it arrives."""
    if file is None:
        return iter(()) if sys.stdin is None else _split(sys.stdin.fileno())
    try:
        descriptor = os.open(file, os.O_RDONLY)
        os.read(descriptor, 0)  # a directory can be opened, but not read
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {reason(error)}.") from error
    return _split(descriptor)


def _split(descriptor: int) -> Iterator[bytes]:
    # Not through sys.stdin: a thread that still waits in there would disturb the exit of the process.
    rest = bytearray()
    while chunk := os.read(descriptor, _CHUNK):
        first, *others = chunk.split(b"\n")
        rest += first
        for line in others:
            yield bytes(rest).removesuffix(b"\r")
            rest[:] = line
        if len(rest) > DEFAULT_MAX_SERVER_PACKET_SIZE:
            raise UsageError(f"a line has more than {DEFAULT_MAX_SERVER_PACKET_SIZE} bytes, the limit of a job.")
    if rest:
        yield bytes(rest)


# Jobs


def _submit(client: Client, work: _Work, data: bytes, *, stream: bool = False) -> Job:
    try:
        return client.submit(work.function, data, unique=work.unique, priority=work.priority, stream=stream)
    except JobNotSent as error:
        raise Failure(f"{error}.", Exit.NO_SERVER) from error
    except LocalProtocolError as error:
        raise UsageError(f"{error}.") from error


def _queue(client: Client, work: _Work, data: bytes, output: Output) -> None:
    """Submit a background job."""
    try:
        handle = client.submit_background(work.function, data, unique=work.unique, priority=work.priority)
    except JobNotSent as error:
        raise Failure(f"{error}.", Exit.NO_SERVER) from error
    except LocalProtocolError as error:
        raise UsageError(f"{error}.") from error
    except JobRejected as error:
        output.end(None, Rejected(error.code, error.text))
    except JobLost as error:
        output.end(None, Lost(str(error)))
    except TimeoutError as error:
        output.end(None, TimeoutError(f"{error}; it may have taken the job"))
    else:
        output.queued(handle)


def _queue_lines(client: Client, work: _Work, lines: Iterator[bytes], output: Output) -> None:
    for data in lines:
        output.next_line()
        _queue(client, work, data, output)


def _run_lines(client: Client, work: _Work, lines: Iterator[bytes], output: Output, timeout: float | None) -> None:
    """Submit jobs in a thread as lines arrive, and write their results in this one as they arrive."""
    until = None if timeout is None else time.monotonic() + timeout
    jobs: queue.Queue[Job | Exception | None] = queue.Queue(_AT_ONCE)

    def feed() -> None:
        try:
            for data in lines:
                jobs.put(_submit(client, work, data))
                output.submitted += 1
        except Exception as error:
            jobs.put(error)
        else:
            output.all_submitted = True
            jobs.put(None)

    # A daemon: nothing can wake a thread that waits for its stdin.
    threading.Thread(target=feed, name="lines", daemon=True).start()
    while True:
        try:
            job = jobs.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
        except queue.Empty:
            output.next_line()
            raise Failure(f"{output.place}no result within {timeout:g} s.", Exit.TIMEOUT) from None
        if job is None:
            return
        if isinstance(job, Exception):
            raise job
        output.next_line()
        if not _collect(job, output, until, timeout):
            return  # there is no time for the following lines either


def _collect(job: Job, output: Output, until: float | None, timeout: float | None) -> bool:
    """Wait for a job, and pass on everything that it sends; return whether it ended in time."""
    try:
        for event in job.events(None if until is None else max(0.0, until - time.monotonic())):
            if isinstance(event, Progress):
                output.progress(event.numerator, event.denominator)
            elif isinstance(event, Data):
                output.piece(event.data)
            elif isinstance(event, Warned):
                output.warning(event.data)
            elif isinstance(event, Restarted):
                output.restarted()
            elif isinstance(event, Outcome):
                output.end(job.handle, event)
    except TimeoutError:
        output.end(job.handle, TimeoutError(f"no result within {timeout:g} s"))
        return False
    return True
