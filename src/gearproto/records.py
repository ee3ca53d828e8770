"""What a client keeps of its open requests, and what their answers mean to the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, Generic, Self, TypeVar

from .addresses import Address
from .admin import Command
from .client import ClientConnection
from .errors import (
    ConnectionLost,
    JobError,
    JobFailed,
    JobLost,
    JobNotSent,
    JobRaised,
    JobRejected,
    LocalProtocolError,
    ServerError,
    StreamBlocked,
)
from .event import Event
from .events import (
    AdminReplied,
    ConnectionClosed,
    Data,
    Echoed,
    JobEnded,
    JobQueued,
    Progress,
    RequestFailed,
    RequestId,
    RequestLost,
    Restarted,
    StatusReceived,
    Warned,
)
from .job_events import Cursor, EventLog, JobEvent, Resubmitted
from .outcomes import Completed, Failed, Lost, NotSent, Outcome, Raised, Rejected
from .policies import Candidates, ServerChooser
from .streams import StreamLog, Unread
from .tasks import JobHandle, Task, as_bytes

__all__ = ["DEFAULT_RESUBMIT_TIMEOUT", "Answer", "JobEvent", "JobRecord", "Records", "Resubmitted", "outcome_error"]


MAX_RESUBMISSIONS: Final = 5
"""How often a submission that was lost is sent once more, if that is asked for."""

DEFAULT_RESUBMIT_TIMEOUT: Final = 60.0
"""Seconds for which a submission that was lost looks for a server, if it is to be sent once more."""

_T = TypeVar("_T")


def outcome_error(outcome: Outcome) -> JobError | None:
    """Return the exception that an outcome is raised as; None for `Completed`."""
    match outcome:
        case Completed():
            return None
        case Failed():
            return JobFailed("the worker reported WORK_FAIL")
        case Raised(data):
            return JobRaised(data)
        case Rejected(code, text):
            return JobRejected(code, text)
        case NotSent(cause):
            return JobNotSent(cause)
    return JobLost(outcome.cause)


class JobRecord:
    """What is known of a submitted job. It goes on whether somebody waits for it or not.

    Attributes:
        function: name of the function that runs it.
        unique: the caller's own name for it; may be empty.
        handle: the server's name for it; None until the server has told it.
        outcome: how it ended; None as long as it has not, as far as anybody has looked.
        progress: the latest progress, as units done and units in all; None before the first.
        server: where it was submitted; None until it was.
        background: whether it is a background job, of which nothing is told but that a server has taken it.
        task: what was submitted; None once it is settled.
        candidates: the servers that it can go to yet.
        stranded: what its submission came to, if it may be sent once more; `restart` it then, or `end` it.
        search_until: monotonic time in seconds until which a submission that was lost looks for a server.
        log: its events; None before the first, unless it streams.
        records: where the submission is open; None if it is not.
    """

    __slots__ = (
        "_lives",
        "_lost",
        "_watchers",
        "background",
        "candidates",
        "function",
        "handle",
        "log",
        "outcome",
        "progress",
        "records",
        "search_until",
        "server",
        "stranded",
        "task",
        "unique",
    )

    def __init__(
        self,
        task: Task,
        candidates: Candidates,
        *,
        background: bool = False,
        resubmit: bool = False,
        unread: Unread | None = None,
    ) -> None:
        """Make the record of a job that is not submitted yet.

        Args:
            task: the job.
            candidates: the servers that it can go to.
            background: whether it is a background job, of which nothing is told but that a server has taken it.
            resubmit: whether a submission that was lost with its connection is sent once more.
            unread: counts what the job holds unread, if it streams; None if it keeps all events.

        Raises:
            LocalProtocolError: a job without a unique would be submitted again, and might run twice.
        """
        self.function = as_bytes(task.function)
        self.unique = as_bytes(task.unique)
        if resubmit and not self.unique:
            raise LocalProtocolError("client: resubmit needs a unique, by which servers join the submissions")
        self.task: Task | None = task
        self.candidates = candidates
        self.background = background
        self.server: Address | None = None
        self.stranded: NotSent | Lost | None = None
        self.search_until = -inf
        self.handle: JobHandle | None = None
        self.outcome: Outcome | None = None
        self.progress: tuple[int, int] | None = None
        self._lives = MAX_RESUBMISSIONS if resubmit else 0
        self._lost: Lost | None = None  # what an earlier submission came to
        self._watchers: list[Callable[[JobRecord], object]] | None = None
        self.log: EventLog | None = None if unread is None else StreamLog(unread)  # most jobs never need one
        self.records: Records[Any, Any] | None = None

    def __repr__(self) -> str:
        """Show function, handle and outcome."""
        return f"<{type(self).__name__} {self.function!r} handle={self.handle!r} outcome={self.outcome!r}>"

    def __str__(self) -> str:
        """Name the job, for messages."""
        details = [f"{what} {name.decode('utf-8', 'backslashreplace')}" for what, name in self._names() if name]
        function = self.function.decode("utf-8", "backslashreplace")
        return f"job {function!r}" + f" ({', '.join(details)})" * bool(details)

    def _names(self) -> tuple[tuple[str, bytes | None], ...]:
        return ("unique", self.unique), ("handle", self.handle)

    def on_event(self, event: Event) -> bool:
        """Take an event of the connection; return whether it was the submission's last."""
        if isinstance(event, JobQueued):
            assert self.server is not None
            self.handle = JobHandle(event.handle, self.server)
            if self.background:
                self.records = None
                self._tell_watchers()
            return self.background
        if isinstance(event, JobEnded):
            outcome = event.outcome
            if isinstance(outcome, NotSent) or (isinstance(outcome, Lost) and self._lives > 0):
                self.strand(outcome)
            else:
                self.end(outcome)
            return True
        assert isinstance(event, Progress | Data | Warned | Restarted)
        if isinstance(event, Restarted):
            self._begin_anew(event)
            return False
        if isinstance(event, Progress):
            self.progress = (event.numerator, event.denominator)
        if self.log is None:
            self.log = EventLog()
        self.log.add(event)
        return False

    @property
    def settled(self) -> bool:
        """Whether the job has ended or, if it is a background job, a server has taken it."""
        return self.outcome is not None or (self.background and self.handle is not None)

    @property
    def streams(self) -> bool:
        """Whether its events are dropped once they have been taken."""
        return isinstance(self.log, StreamLog)

    @property
    def stuck(self) -> bool:
        """Whether waiting for the job is in vain, as its connection is not read: see `check_progress`."""
        return self.records is not None and self.records.stopped and not self._consumed

    @property
    def _consumed(self) -> bool:
        return isinstance(self.log, StreamLog) and self.log.consumed

    def check_progress(self) -> None:
        """Make sure that what the job's server sends is read, or will be once others have taken events of this job.

        Raises:
            StreamBlocked: it is not.
        """
        if self.records is not None and not self._consumed:
            self.records.check_progress()

    @property
    def taken_or_ended(self) -> bool:
        """Whether `taken` has an answer: a server has taken the job, or none will."""
        return self.handle is not None or self.outcome is not None

    def strand(self, came_to: NotSent | Lost) -> None:
        """Take note that the submission came to nothing, and may be sent once more."""
        self.records = None
        self.stranded = came_to

    def end_stranded(self) -> None:
        """End a stranded job with what its submission came to."""
        assert self.stranded is not None
        self.end(self.stranded)

    def search(self, until: float) -> None:
        """Let a stranded submission that was lost look for a server until a time, and one attempt long at the least."""
        if isinstance(self.stranded, Lost):
            self.search_until = until

    def restart(self, chooser: ServerChooser) -> None:
        """Forget what came of a stranded submission, as it is to be sent once more.

        One that never left goes on to the servers that were not tried. One that was lost may go to any again, and is
        told as `Resubmitted`, in place of the events before.

        Args:
            chooser: chooses among the servers.
        """
        stranded = self.stranded
        if isinstance(stranded, Lost):  # else nothing can have come of it
            self._lost = stranded
            self._lives -= 1
            self.candidates = chooser.candidates(self.unique)
            self.handle = None
            self._begin_anew(Resubmitted(stranded.cause))
        self.stranded = None  # last: after KeyboardInterrupt the loss is still known

    def _begin_anew(self, event: Restarted | Resubmitted) -> None:
        """Forget what a run has sent that was lost: the next run sends its own."""
        self.progress = None
        if self.log is None:
            self.log = EventLog()
        self.log.begin_anew(event)

    def end(self, outcome: Outcome) -> None:
        """Give the job its outcome.

        A job of which an earlier submission was lost may have run, whatever became of the later ones: it is `Lost`
        where it would be `NotSent` or `Rejected` otherwise.
        """
        if self._lost is not None and isinstance(outcome, NotSent | Rejected):
            outcome = self._lost
        self.outcome = outcome
        self.records = None
        self.stranded = None
        self.task = None
        self._tell_watchers()

    def watch(self, watcher: Callable[[Self], object]) -> None:
        """Have a function called, once, when the job is settled; at once if it is already."""
        if self.settled:
            watcher(self)
        elif self._watchers is None:
            self._watchers = [watcher]  # type: ignore[list-item]
        else:
            self._watchers.append(watcher)  # type: ignore[arg-type]

    def unwatch(self, watcher: Callable[..., object]) -> None:
        """Call a function no more, if it has not been called yet."""
        if self._watchers is not None and watcher in self._watchers:
            self._watchers.remove(watcher)

    def _tell_watchers(self) -> None:
        watchers, self._watchers = self._watchers, None
        for watcher in watchers or ():
            watcher(self)

    def cursor(self) -> Cursor:
        """Begin an iteration over the events, at the oldest that is kept; it ends with the outcome.

        Progress right before other progress is dropped, and what was told of a run, or a submission, that was lost.
        """
        return Cursor(self)

    def check_keeps_result(self) -> None:
        """Make sure that the pieces of the result are kept.

        Raises:
            LocalProtocolError: the job streams.
        """
        if self.streams:
            raise LocalProtocolError(f"client: {self} streams and keeps no result: take its pieces from its events")

    def result_data(self) -> bytes:
        """Return the result of a job that has ended: all its pieces (``WORK_DATA``) and its end, joined.

        Raises:
            JobError: the job ended otherwise than by ``WORK_COMPLETE``.
            LocalProtocolError: the job streams.
        """
        self.check_keeps_result()
        outcome = self.outcome
        if isinstance(outcome, Completed):
            pieces = [] if self.log is None else self.log.pieces()
            return b"".join((*pieces, outcome.data)) if pieces else outcome.data
        raise self._error()

    def taken(self) -> JobHandle:
        """Return the handle of a job that a server has taken.

        Raises:
            JobRejected: the server refused it.
            JobNotSent: no byte of it left.
            JobLost: the connection went before the answer.
        """
        if self.handle is not None:
            return self.handle
        raise self._error()

    def _error(self) -> JobError:
        assert self.outcome is not None
        error = outcome_error(self.outcome)
        assert error is not None
        return error


class Answer:
    """What a request that is no foreground submission comes to.

    Attributes:
        event: the answer; None until it has come.
    """

    __slots__ = ("event",)

    def __init__(self) -> None:
        """Begin without an answer."""
        self.event: Event | None = None

    def on_event(self, event: Event) -> bool:
        """Take the answer: the first event is the last."""
        self.event = event
        return True


_R = TypeVar("_R", bound=JobRecord)
_A = TypeVar("_A", bound=Answer)


class Records(Generic[_R, _A]):
    """The open requests of one connection.

    Attributes:
        conn: the connection.
        server: the server, for handles and messages.
        reason: why it has ended, for people; empty until it has.
        cost: whether the end has cost a request its answer.
    """

    def __init__(self, conn: ClientConnection, server: Address) -> None:
        """Begin without a request.

        Args:
            conn: the connection; requests that are to be recorded go through this object.
            server: the server, for handles and messages.
        """
        self.conn = conn
        self.reason = ""
        self.cost = False
        self.server = server
        self._open: dict[RequestId, _R | _A] = {}
        self._streams = 0  # open jobs that stream
        self._unread: Unread | None = None  # what they hold, with those of other connections

    def submit(self, records: Sequence[_R]) -> None:
        """Submit jobs; all or, if one breaks a rule, none.

        Raises:
            LocalProtocolError: the task of one breaks a rule, or the connection has ended.
        """
        packets = []
        for record in records:
            assert record.task is not None
            record.server = self.server
            packets.append(record.task.packet(background=record.background))
        self._open.update(zip(self.conn.submit_jobs(packets), records, strict=True))
        for record in records:
            record.records = self
            if isinstance(record.log, StreamLog):
                self._streams += 1
                self._unread = record.log.unread

    def ask(self, request: Callable[[ClientConnection], RequestId], answer: _A) -> None:
        """Queue any other request.

        Args:
            request: queues it, and returns its id.
            answer: takes the answer.

        Raises:
            LocalProtocolError: the request breaks a rule, or the connection has ended.
        """
        self._open[request(self.conn)] = answer

    def on_event(self, event: Event) -> _R | _A | None:
        """Hand an event of the connection to the request that it belongs to.

        Returns:
            That request's record; None if the event belongs to none.
        """
        if type(event) is ConnectionClosed:
            self.reason = event.reason
            return None
        request: RequestId | None = getattr(event, "request", None)
        if request is None:
            return None  # a report that belongs to nothing, or some worker's malformed progress
        record = self._open.get(request)
        if record is None:
            return None  # KeyboardInterrupt has kept the request from being recorded
        if record.on_event(event):
            del self._open[request]
            if type(event) is RequestLost or (type(event) is JobEnded and isinstance(event.outcome, Lost | NotSent)):
                self.cost = True
            if self._streams and isinstance(record, JobRecord) and record.streams:
                self._streams -= 1
        return record

    @property
    def stopped(self) -> bool:
        """Whether the connection is not to be read now.

        Jobs that stream are open on it, and the jobs of the client that stream hold more unread than they may.
        """
        return self._streams > 0 and self._unread is not None and self._unread.full

    def check_progress(self) -> None:
        """Make sure that the answers to what is open can come.

        Raises:
            StreamBlocked: the connection is not read.
        """
        if self.stopped:
            assert self._unread is not None
            raise StreamBlocked(
                f"{self.server} is not read: jobs that stream hold {self._unread.size} bytes unread,"
                f" limit {self._unread.limit}; use another client beside a long stream"
            )

    @property
    def open(self) -> list[_R | _A]:
        """What is open."""
        return list(self._open.values())

    @property
    def idle(self) -> bool:
        """Whether no request is open."""
        return not self._open

    def __contains__(self, record: object) -> bool:
        """Tell whether a request is open."""
        return record in self._open.values()

    def abandon(self, reason: str) -> list[_R | _A]:
        """End what is open still though the connection has ended, as KeyboardInterrupt may leave it behind.

        Returns:
            The records that were open.
        """
        left = list(self._open.items())
        self._open.clear()
        self._streams = 0
        for request, record in left:
            if isinstance(record, JobRecord):
                record.on_event(JobEnded(request, record.handle, record.outcome or Lost(reason)))
            else:
                record.on_event(RequestLost(request, sent=True))
        self.reason = self.reason or reason
        return [record for _request, record in left]

    # What answers mean

    def reply(self, command: Command[_T], event: Event) -> _T:
        """Return what the answer to a text command tells.

        Raises:
            ServerError: the server refused it.
            ConnectionLost: the connection went before the answer.
        """
        self._check(event)
        assert isinstance(event, AdminReplied)
        return command.result(event.reply)

    def status(self, event: Event) -> StatusReceived:
        """Return the status that the answer to a query tells; raises as `reply`."""
        self._check(event)
        assert isinstance(event, StatusReceived)
        return event

    def echoed(self, event: Event) -> bytes:
        """Return the data that ``ECHO_RES`` brought back; raises as `reply`."""
        self._check(event)
        assert isinstance(event, Echoed)
        return event.data

    def _check(self, event: Event) -> None:
        if isinstance(event, RequestFailed):
            raise ServerError(event.code, event.text)
        if isinstance(event, RequestLost):
            raise ConnectionLost(f"{self.server}: {self.reason}")
