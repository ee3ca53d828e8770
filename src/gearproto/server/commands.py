"""What administrators ask of a job server in lines of text, and the answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import add
from typing import Any, Final

from gearproto.admin import (
    UNKNOWN_JOB,
    CancelJob,
    CreateFunction,
    DropFunction,
    FunctionPriorities,
    FunctionStatus,
    GetPid,
    JobListed,
    MaxQueue,
    Ok,
    PriorityStatus,
    Refused,
    Reply,
    Row,
    Rows,
    ShowJobs,
    ShowUniqueJobs,
    Shutdown,
    Status,
    UniqueListed,
    Verbose,
    Version,
    WorkerListed,
    Workers,
    parse_command,
    unknown_command,
)
from gearproto.errors import RemoteProtocolError
from gearproto.event import Event

from .jobs import FunctionQueue, Job, PeerId
from .linked import LinkedList
from .peers import Peer
from .queue import JobQueue

__all__ = ["Commands", "refuse_http", "status_row"]

_TOO_MANY_FUNCTIONS: Final = Refused(b"TOO_MANY_FUNCTIONS", b"are to be remembered, drop some first")


_FRAGMENTS_AT_ONCE: Final = 32
_PIECE_SIZE: Final = 4096  # bytes
_END: Final = Rows(()).encode()
_HTTP: Final = re.compile(rb"([A-Z]+) \S+ HTTP/\d")


class Commands:
    """Answers text commands about a queue and its peers."""

    def __init__(
        self,
        queue: JobQueue,
        peers: Mapping[PeerId, Peer],
        peer_list: LinkedList[Peer],
        *,
        version: bytes,
        pid: int,
        verbosity: bytes,
        cancel: Callable[[Job], None],
        shut_down: Callable[[bool], None] | None,
    ) -> None:
        """Begin.

        Args:
            queue: the jobs.
            peers: the connections.
            peer_list: the same, to be gone through in steps.
            version: answer to ``version``.
            pid: answer to ``getpid``.
            verbosity: answer to ``verbose``.
            cancel: called to cancel a job.
            shut_down: called to stop the server, gracefully or not; None if there is no command for it.
        """
        self._queue = queue
        self._peers = peers
        self._peer_list = peer_list
        self._cancel = cancel
        self._shut_down = shut_down
        self._handlers: dict[type[Event], Callable[[Any], Reply | Iterator[bytes]]] = {
            Status: self._status,
            PriorityStatus: self._prioritystatus,
            Workers: self._workers,
            ShowJobs: self._show_jobs,
            ShowUniqueJobs: self._show_unique_jobs,
            Version: lambda _command: Ok(version),
            Verbose: lambda _command: Ok(verbosity),
            GetPid: lambda _command: Ok(b"%d" % pid),
            CancelJob: self._cancel_job,
            CreateFunction: self._create_function,
            DropFunction: self._drop_function,
            MaxQueue: self._maxqueue,
            Shutdown: self._shutdown,
        }

    def answer(self, line: bytes) -> Iterator[bytes]:
        """Carry out a command, and return the answer to send, in pieces that are made when they are asked for."""
        command = parse_command(line)
        if isinstance(command, Shutdown) and self._shut_down is None:
            command = unknown_command(line.split()[0])
        reply = command if isinstance(command, Refused) else self._handlers[type(command)](command)
        return _pieces(reply) if isinstance(reply, Iterator) else iter((reply.encode(),))

    def _functions(self) -> Iterator[FunctionQueue]:
        return self._queue.table.ordered.walk(len(self._queue.functions))

    def _jobs(self) -> Iterator[Job]:
        return self._queue.job_list.walk(len(self._queue.jobs))

    def _status(self, _command: Status) -> Iterator[bytes]:
        return _rows(map(status_row, self._functions()))

    def _prioritystatus(self, _command: PriorityStatus) -> Iterator[bytes]:
        return _rows(map(_priorities_row, self._functions()))

    def _workers(self, _command: Workers) -> Iterator[bytes]:
        for peer in self._peer_list.walk(len(self._peers)):
            yield WorkerListed(peer.descriptor, peer.address, peer.client_id, ()).encode_head()
            for function in peer.listed():
                yield WorkerListed.encode_function(function.name)
            yield b"\n"

    def _show_jobs(self, _command: ShowJobs) -> Iterator[bytes]:
        return _rows(map(_job_row, self._jobs()))

    def _show_unique_jobs(self, _command: ShowUniqueJobs) -> Iterator[bytes]:
        return _rows(UniqueListed(job.unique) for job in self._jobs())

    def _cancel_job(self, command: CancelJob) -> Reply:
        job = self._queue.jobs.get(command.handle)
        if job is None:
            return Refused(UNKNOWN_JOB)
        self._cancel(job)
        return Ok()

    def _create_function(self, command: CreateFunction) -> Reply:
        return Ok() if self._queue.table.create(command.function, full=self._queue.full) else _TOO_MANY_FUNCTIONS

    def _drop_function(self, command: DropFunction) -> Reply:
        function = self._queue.functions.get(command.function)
        if function is None:
            return Refused(b"function", b"not found")
        if not self._queue.table.drop(function):
            return Refused(b"there", b"are still connected workers or executing clients")
        return Ok()

    def _maxqueue(self, command: MaxQueue) -> Reply:
        sizes = command.sizes
        if len(sizes) < 2:
            sizes = (*sizes, 0)[:1] * 3
        high, normal, low = (*sizes, 0)[:3]
        return Ok() if self._queue.table.limit(command.function, (high, normal, low)) else _TOO_MANY_FUNCTIONS

    def _shutdown(self, command: Shutdown) -> Reply:
        assert self._shut_down is not None
        self._shut_down(command.graceful)
        return Ok()


def refuse_http(line: bytes) -> None:
    """Refuse the first line of a connection if it is an HTTP request: what follows is not meant for a job server.

    A page in a browser can send such a request to any port of its machine, with lines in it that are commands.

    Raises:
        RemoteProtocolError: it is one.
    """
    if (request := _HTTP.match(line)) is not None:
        raise RemoteProtocolError(f"HTTP request ({request[1][:16].decode()})")


def _rows(rows: Iterable[Row]) -> Iterator[bytes]:
    return (row.encode() + b"\n" for row in rows)


def _pieces(fragments: Iterator[bytes]) -> Iterator[bytes]:
    """Put the fragments of an answer of rows together, and end it. No piece costs more than a few requests do."""
    some: list[bytes] = []
    size = 0
    for fragment in fragments:
        some.append(fragment)
        size += len(fragment)
        if size >= _PIECE_SIZE or len(some) == _FRAGMENTS_AT_ONCE:
            yield b"".join(some)
            some.clear()
            size = 0
    yield b"".join([*some, _END])


def _job_row(job: Job) -> JobListed:
    return JobListed(job.handle, job.losses, not job.wanted, job.background)


def status_row(function: FunctionQueue) -> FunctionStatus:
    """Return what ``status`` tells of a function."""
    return FunctionStatus(function.name, function.total, function.running, len(function.workers))


def _priorities_row(function: FunctionQueue) -> FunctionPriorities:
    high, normal, low = map(add, function.queued, function.delayed)
    return FunctionPriorities(function.name, high, normal, low, len(function.workers))
