"""What a client keeps of a submitted job, and what its outcome means to the caller.

Theory of operation. A `JobRecord` outlives the connections that its job is submitted on: a submission belongs to one
connection, and a job may be submitted several times. The record is in one of the states of
`gearproto.client.JobState`; `gearproto.client.JOB_MOVES` has every move between them. The state is not stored. It
follows from `outcome`, `retryable`, `records` and `handle`, so that it cannot contradict them.

Three things move a job:

- `gearproto.client.Dispatch` finds a server for a job that is unsent. Where none is left the job ends; when the time is
  up it becomes retryable.
- `gearproto.client.OpenRequests` opens it on a connection (sent), and gives it the events of that connection
  (`JobRecord.on_event`): the job becomes queued or taken, ends, or becomes retryable.
- An adapter takes a retryable job up again (`JobRecord.prepare_retry`, then another `Dispatch`), or ends it
  (`JobRecord.give_up`).

What never happens:

- A job has two outcomes, or has none although nothing will move it any more. Only `JobRecord.end` sets the outcome.
- A job that may have run is submitted again, unless the caller has asked for it (``resubmit``), and then no more than
  `MAX_RESUBMISSIONS` times. Without that, only a submission of which no byte left is retried.
- A job of which one submission was lost ends as if it could not have run. `JobRecord.end` puts `Lost` in place of
  `NotSent` and `Rejected` then.
- A job is open on two connections: it becomes retryable only when its submission has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, Protocol, Self

from gearproto.addresses import Address
from gearproto.errors import (
    JobError,
    JobFailed,
    JobLost,
    JobNotSent,
    JobRaised,
    JobRejected,
    LocalProtocolError,
)
from gearproto.event import Event
from gearproto.events import (
    Data,
    JobEnded,
    JobQueued,
    Progress,
    Restarted,
    Warned,
)
from gearproto.outcomes import Completed, Failed, Lost, NotSent, Outcome, Raised, Rejected
from gearproto.packets import SUBMISSIONS

from .job_events import Cursor, EventLog, Resubmitted
from .job_request import JobHandle
from .job_states import JobState
from .policies import Candidates, ServerChooser
from .streams import StreamLog, Unread
from .submissions import Submission

__all__ = ["DEFAULT_RESUBMIT_TIMEOUT", "MAX_RESUBMISSIONS", "JobRecord", "outcome_error"]


MAX_RESUBMISSIONS: Final = 5
"""How often a submission that was lost is sent again, if that is asked for."""

DEFAULT_RESUBMIT_TIMEOUT: Final = 60.0
"""Seconds for which a submission that was lost looks for a server, if it is to be sent again."""


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


class _OpenRequests(Protocol):
    """Where a submission is open: see `gearproto.client.requests.OpenRequests`."""

    @property
    def stopped(self) -> bool: ...

    def check_progress(self) -> None: ...


class JobRecord:
    """What is known of a submitted job. It runs whether you wait for it or not.

    Attributes:
        function: name of the function that runs it.
        unique: the caller's own name for it; may be empty.
        handle: the server's name for it; None until the server has sent it.
        outcome: how it ended; None as long as this is not known.
        progress: the latest progress, as units done and units in all; None before the first.
        server: where it was submitted; None until it was.
        background: whether it is a background job, which only reports that a server has taken it.
        packet: what submits it; None once the job has ended.
        candidates: the servers that it can go to yet.
        retryable: how its last submission ended, if it may be submitted again: `prepare_retry` then, or `give_up`.
        search_until: monotonic time in seconds until which a submission that was lost looks for a server.
        log: its events; None before the first, unless it streams.
        records: where the submission is open; None if it is not.
    """

    __slots__ = (
        "_lost",
        "_resubmissions_left",
        "_watchers",
        "background",
        "candidates",
        "function",
        "handle",
        "log",
        "outcome",
        "packet",
        "progress",
        "records",
        "retryable",
        "search_until",
        "server",
        "unique",
    )

    def __init__(
        self,
        packet: Submission,
        candidates: Candidates,
        *,
        resubmit: bool = False,
        unread: Unread | None = None,
    ) -> None:
        """Make the record of a job that is not submitted yet.

        Args:
            packet: what submits the job.
            candidates: the servers that it can go to.
            resubmit: whether a submission that was lost with its connection is sent again.
            unread: counts what the job holds unread, if it streams; None if it keeps all events.

        Raises:
            LocalProtocolError: a job without a unique would be submitted again, and might run twice.
        """
        self.function = packet.function
        self.unique = packet.unique
        if resubmit and not self.unique:
            raise LocalProtocolError("client: resubmit needs a unique, by which servers join the submissions")
        self.packet: Submission | None = packet
        self.candidates = candidates
        self.background = SUBMISSIONS[type(packet)][1]
        self.server: Address | None = None
        self.retryable: NotSent | Lost | None = None
        self.search_until = -inf
        self.handle: JobHandle | None = None
        self.outcome: Outcome | None = None
        self.progress: tuple[int, int] | None = None
        self._resubmissions_left = MAX_RESUBMISSIONS if resubmit else 0
        self._lost: Lost | None = None  # outcome of an earlier submission
        self._watchers: list[Callable[[JobRecord], object]] | None = None
        self.log: EventLog | None = None if unread is None else StreamLog(unread)  # most jobs never need one
        self.records: _OpenRequests | None = None

    def __repr__(self) -> str:
        """Show function, state, handle and outcome."""
        return f"<{type(self).__name__} {self.shown()}>"

    def shown(self) -> str:
        """Return function, state, handle and outcome, for developers."""
        return f"{self.function!r} {self.state.value} handle={self.handle!r} outcome={self.outcome!r}"

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
            if isinstance(outcome, NotSent) or (isinstance(outcome, Lost) and self._resubmissions_left > 0):
                self.mark_retryable(outcome)
            else:
                self.end(outcome)
            return True
        assert isinstance(event, Progress | Data | Warned | Restarted)
        if isinstance(event, Restarted):
            self._forget_run(event)
            return False
        if isinstance(event, Progress):
            self.progress = (event.numerator, event.denominator)
        if self.log is None:
            self.log = EventLog()
        self.log.add(event)
        return False

    @property
    def state(self) -> JobState:
        """The state of the job, as far as events have been read."""
        if self.outcome is not None:
            return JobState.ENDED
        if self.retryable is not None:
            return JobState.RETRYABLE
        if self.records is not None:
            return JobState.SENT if self.handle is None else JobState.QUEUED
        return JobState.UNSENT if self.handle is None else JobState.TAKEN

    @property
    def resolved(self) -> bool:
        """Whether the job has ended or, if it is a background job, a server has taken it."""
        return self.outcome is not None or (self.background and self.handle is not None)

    @property
    def streams(self) -> bool:
        """Whether its events are dropped once they have been taken."""
        return isinstance(self.log, StreamLog)

    @property
    def stuck(self) -> bool:
        """Whether waiting for the job is in vain, as its connection is not read; see `check_progress`."""
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
        """Whether `taken` has an answer, because a server has taken the job, or none will."""
        return self.handle is not None or self.outcome is not None

    def mark_retryable(self, outcome: NotSent | Lost) -> None:
        """Record how the submission ended; the job may be submitted again."""
        self.records = None
        self.retryable = outcome

    def give_up(self) -> None:
        """End a job that may be submitted again with the outcome of its last submission."""
        assert self.retryable is not None
        self.end(self.retryable)

    def search(self, until: float) -> None:
        """Let a job whose submission was lost look for a server until a time, with one attempt at least."""
        if isinstance(self.retryable, Lost):
            self.search_until = until

    def prepare_retry(self, chooser: ServerChooser) -> None:
        """Prepare the job to be submitted again.

        A submission that was never sent moves on to the servers that have not been tried. One that was lost may go to
        any server, and the event `Resubmitted` replaces the events before it.

        Args:
            chooser: chooses among the servers.
        """
        ended = self.retryable
        if isinstance(ended, Lost):  # a submission that was never sent has left nothing to forget
            self._lost = ended
            self._resubmissions_left -= 1
            self.candidates = chooser.candidates(self.unique)
            self.handle = None
            self._forget_run(Resubmitted(ended.cause))
        self.retryable = None  # last: after KeyboardInterrupt the loss is still known

    def _forget_run(self, event: Restarted | Resubmitted) -> None:
        """Forget what a run has sent that was lost: the next run sends its own."""
        self.progress = None
        if self.log is None:
            self.log = EventLog()
        self.log.restart(event)

    def end(self, outcome: Outcome) -> None:
        """Give the job its outcome.

        A job of which an earlier submission was lost may have run, whatever became of the later ones: it is `Lost`
        where it would be `NotSent` or `Rejected` otherwise.
        """
        if self._lost is not None and isinstance(outcome, NotSent | Rejected):
            outcome = self._lost
        self.outcome = outcome
        self.records = None
        self.retryable = None
        self.packet = None
        self._tell_watchers()

    def watch(self, watcher: Callable[[Self], object]) -> None:
        """Have a function called once, when the job is resolved; at once if it already is."""
        if self.resolved:
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

        Progress that newer progress follows directly is dropped, and so are the events of a lost run or submission.
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
            JobError: the job ended without ``WORK_COMPLETE``.
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
            JobLost: the connection ended before the answer.
        """
        if self.handle is not None:
            return self.handle
        raise self._error()

    def _error(self) -> JobError:
        assert self.outcome is not None
        error = outcome_error(self.outcome)
        assert error is not None
        return error
