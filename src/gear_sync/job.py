"""A submitted job, as the client sees it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from gearproto import StreamBlocked
from gearproto.client import Candidates, JobEvent, JobHandle, JobRecord, JobRequest, Unread
from gearproto.events import StatusReceived
from gearproto.timeouts import checked_timeout, deadline

__all__ = ["Job", "JobEvents"]


class Owner(Protocol):
    """The client of a job."""

    def wait_for_job(self, job: Job, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is done, or the job has ended."""
        ...

    def status_of_job(self, job: Job) -> StatusReceived:
        """Ask a job's server what it knows of the job."""
        ...

    def cancel_job(self, job: Job) -> bool:
        """Cancel a job at its server."""
        ...

    def on_event_taken(self) -> None:
        """Read on, if a job that streams has held that up and holds less now."""
        ...

    def on_iteration_left(self) -> None:
        """Read on, as `on_event_taken`; may be called at any time, in any thread."""
        ...


class Job(JobRecord):
    """A submitted job. It runs whether you wait for it or not."""

    __slots__ = ("_owner",)

    def __init__(
        self,
        owner: Owner,
        request: JobRequest,
        candidates: Candidates,
        *,
        background: bool = False,
        resubmit: bool = False,
        unread: Unread | None = None,
    ) -> None:
        """Make the record of a submission; clients do that."""
        super().__init__(request, candidates, background=background, resubmit=resubmit, unread=unread)
        self._owner = owner

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            Whether it has ended. If not, it is not cancelled, and can be waited for again.
        """
        return self._owner.wait_for_job(self, lambda: self.outcome is not None, checked_timeout(timeout))

    def wait_queued(self, timeout: float | None = None) -> JobHandle:
        """Wait until a server has taken the job (``JOB_CREATED``).

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            The job's handle.

        Raises:
            JobError: no server has taken it: `JobRejected`, `JobNotSent` or `JobLost`.
            TimeoutError: the time has passed. The job is not cancelled, and can be waited for again.
        """
        if not self._owner.wait_for_job(self, lambda: self.taken_or_ended, checked_timeout(timeout)):
            raise TimeoutError(f"{self} has not been taken by a server within {timeout:g} s; it has not been cancelled")
        return self.taken()

    def status(self) -> StatusReceived:
        """Ask the job's server what it knows of the job (``GET_STATUS``), once it has taken it.

        A job that has ended is not known. The client's ``timeout`` holds for each of the two waits.

        Raises:
            JobError: no server has taken the job.
            ConnectionLost: the server could not be reached, or the connection went before the answer.
            TimeoutError: the server has not answered in time.
        """
        return self._owner.status_of_job(self)

    def cancel(self) -> bool:
        """Cancel the job at its server (``cancel job``), once it has taken it; it ends as `Failed`.

        The job is cancelled for all its clients, including submissions that the server has joined to this one. A worker
        that is running the job does not learn of it.

        Returns:
            Whether the server has cancelled it. If not, the job had ended already.

        Raises:
            JobError, ConnectionLost, TimeoutError: as for `status`.
            ServerError: the server refuses.
        """
        return self._owner.cancel_job(self)

    def result(self, timeout: float | None = None) -> bytes:
        """Wait for the job's result.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            All pieces that the worker has sent (``WORK_DATA``) and the end of the result (``WORK_COMPLETE``), joined.

        Raises:
            JobError: the job ended otherwise: `JobFailed`, `JobRaised`, `JobRejected`, `JobNotSent` or `JobLost`.
            TimeoutError: the time has passed. The job is not cancelled, and can be waited for again.
            LocalProtocolError: the job was submitted with ``stream=True``, and keeps no result.
            StreamBlocked: another job holds so much unread that the connection is not read.
        """
        self.check_keeps_result()
        if not self.wait(timeout):
            raise TimeoutError(f"{self} has not ended within {timeout:g} s; it has not been cancelled")
        return self.result_data()

    def __iter__(self) -> JobEvents:
        """Yield what happens to the job, without a timeout: see `events`."""
        return self.events()

    def events(self, timeout: float | None = None) -> JobEvents:
        """Yield what happens to the job, from the oldest event that is kept; the outcome comes last.

        Every iteration yields all pieces of the result and all warnings, also one that begins late, unless the job
        streams. Progress that an iteration has not yielded before the next comes is dropped.
        `gearproto.events.Restarted` says that the job's worker was lost and another begins from the beginning, and
        `gearproto.client.Resubmitted`, only with ``resubmit``, that the job was sent again: events before this one
        are not part of the result, and are not kept.

        Args:
            timeout: longest time to wait in seconds, for all events together; None for no limit.

        Raises:
            TimeoutError: the time has passed. The job is not cancelled, and its events can be asked for again.
            StreamBlocked: another job holds so much unread that the connection is not read. Likewise.
        """
        return JobEvents(self, timeout, deadline(timeout, time.monotonic()))


class JobEvents(Iterator[JobEvent]):
    """One iteration over the events of a job.

    A job that streams drops an event when all its iterations have yielded it, and everything when its last iteration is
    left: by `close`, or because nothing refers to it any more. One that has ended in an exception of its own is not
    left: what it has not yielded is kept for the next.
    """

    def __init__(self, job: Job, timeout: float | None, until: float) -> None:
        """Begin an iteration; jobs do that."""
        self._cursor = job.cursor()
        self._failed = False
        self._job = job
        self._timeout = timeout
        self._until = until
        self._begun = False

    def __next__(self) -> JobEvent:
        """Return the next event, and wait for it if need be."""
        job, cursor = self._job, self._cursor
        left = None if self._until == math.inf else self._until - time.monotonic()
        if left is not None and left < 0 and not self._begun:
            left = 0
        self._begun = True
        try:
            if not job._owner.wait_for_job(job, cursor.fetch, left):
                raise TimeoutError(f"{job} has not ended within {self._timeout:g} s; it has not been cancelled")
        except (TimeoutError, StreamBlocked):
            self._failed = True
            raise
        self._failed = False
        event = cursor.take()
        if event is None:  # the outcome has been taken
            raise StopIteration
        if job.streams:
            job._owner.on_event_taken()
        return event

    def close(self) -> None:
        """Leave the iteration."""
        self._leave(discard=True)

    def __del__(self) -> None:
        self._leave(discard=not self._failed)

    def _leave(self, *, discard: bool) -> None:
        self._cursor.close(discard=discard)
        if self._job.streams:
            self._job._owner.on_iteration_left()
