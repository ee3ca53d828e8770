"""A submitted job, as the client sees it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from gearproto.errors import JobError, JobFailed, JobLost, JobNotSent, JobRaised, JobRejected
from gearproto.events import Data, Event, JobEnded, JobQueued, Progress, Warned
from gearproto.outcomes import Completed, Failed, Lost, NotSent, Outcome, Raised, Rejected

from .pump import Pump

__all__ = ["Job", "JobEvent", "outcome_error"]

JobEvent = Progress | Data | Warned | Outcome
"""What iterating over a job yields; the outcome comes last."""


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
        case Lost(cause):
            return JobLost(cause)


class Job:
    """A submitted job. It goes on whether somebody waits for it or not.

    Attributes:
        function: name of the function that runs it.
        unique: the caller's own name for it; may be empty.
    """

    def __init__(self, function: bytes, unique: bytes, pump: Pump) -> None:
        """Make the record of a submission that is just being queued."""
        self.function = function
        self.unique = unique
        self._pump = pump
        self._handle: bytes | None = None
        self._outcome: Outcome | None = None
        self._progress: tuple[int, int] | None = None
        self._pieces: list[bytes] = []
        self._events: deque[JobEvent] = deque()

    def __repr__(self) -> str:
        """Show function, handle and outcome."""
        return f"<Job {self.function!r} handle={self._handle!r} outcome={self._outcome!r}>"

    @property
    def handle(self) -> bytes | None:
        """The server's name for the job; None until the server has told it."""
        return self._handle

    @property
    def outcome(self) -> Outcome | None:
        """How the job ended; None as long as it has not, as far as anybody has looked."""
        return self._outcome

    @property
    def progress(self) -> tuple[int, int] | None:
        """The latest progress, as units done and units in all; None before the first."""
        return self._progress

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            Whether it has ended. If not, it goes on, and can be waited for again.
        """
        return self._pump.wait(lambda: self._outcome is not None, timeout)

    def result(self, timeout: float | None = None) -> bytes:
        """Wait for the job's result.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            All pieces that the worker has sent (``WORK_DATA``) and the end of the result (``WORK_COMPLETE``), joined.

        Raises:
            JobError: the job ended otherwise: `JobFailed`, `JobRaised`, `JobRejected`, `JobNotSent` or `JobLost`.
            TimeoutError: the time has passed. The job goes on, and can be waited for again.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"job {self._handle!r} has not ended within {timeout:g} s; it goes on")
        assert self._outcome is not None
        if (error := outcome_error(self._outcome)) is not None:
            raise error
        assert isinstance(self._outcome, Completed)
        return b"".join((*self._pieces, self._outcome.data))

    def __iter__(self) -> Iterator[JobEvent]:
        """Yield what happens to the job, without a time limit: see `events`."""
        return self.events()

    def events(self, timeout: float | None = None) -> Iterator[JobEvent]:
        """Yield what happens to the job, each event once; the outcome comes last.

        Progress that nobody has fetched before the next comes is dropped.

        Args:
            timeout: longest time to wait in seconds, for all events together; None for no limit.

        Raises:
            TimeoutError: the time has passed. The job goes on, and its events can be asked for again.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not self._pump.wait(lambda: bool(self._events) or self._outcome is not None, left):
                raise TimeoutError(f"job {self._handle!r} has not ended within {timeout:g} s; it goes on")
            if not self._events:  # the outcome has been fetched before
                return
            event = self._events.popleft()
            yield event
            if isinstance(event, Outcome):
                return

    def on_event(self, event: Event) -> bool:
        """Take an event of the connection; return whether it was the job's last."""
        if isinstance(event, JobQueued):
            self._handle = event.handle
            return False
        if isinstance(event, JobEnded):
            self._outcome = event.outcome
            self._events.append(event.outcome)
            return True
        assert isinstance(event, Progress | Data | Warned)
        if isinstance(event, Data):
            self._pieces.append(event.data)
        elif isinstance(event, Progress):
            self._progress = (event.numerator, event.denominator)
            if self._events and isinstance(self._events[-1], Progress):
                self._events.pop()
        self._events.append(event)
        return False
