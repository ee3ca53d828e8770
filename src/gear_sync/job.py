"""A submitted job, as the client sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from gearproto.events import StatusReceived
from gearproto.job_events import JobEvent
from gearproto.policies import Candidates
from gearproto.records import JobRecord
from gearproto.tasks import JobHandle, Task

__all__ = ["Job"]


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


class Job(JobRecord):
    """A submitted job. It goes on whether somebody waits for it or not."""

    __slots__ = ("_owner",)

    def __init__(
        self, owner: Owner, task: Task, candidates: Candidates, *, background: bool = False, resubmit: bool = False
    ) -> None:
        """Make the record of a submission; clients do that."""
        super().__init__(task, candidates, background=background, resubmit=resubmit)
        self._owner = owner

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            Whether it has ended. If not, it goes on, and can be waited for again.
        """
        return self._owner.wait_for_job(self, lambda: self.outcome is not None, timeout)

    def wait_queued(self, timeout: float | None = None) -> JobHandle:
        """Wait until a server has taken the job (``JOB_CREATED``).

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            The job's handle.

        Raises:
            JobError: no server has taken it: `JobRejected`, `JobNotSent` or `JobLost`.
            TimeoutError: the time has passed. The job goes on, and can be waited for again.
        """
        if not self._owner.wait_for_job(self, lambda: self.taken_or_ended, timeout):
            raise TimeoutError(f"{self} has not been taken by a server within {timeout:g} s; it goes on")
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

        The job is cancelled for all who wait for it: for submissions that the server has joined to this one, too. A
        worker that has the job is not told.

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
            TimeoutError: the time has passed. The job goes on, and can be waited for again.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"{self} has not ended within {timeout:g} s; it goes on")
        return self.result_data()

    def __iter__(self) -> Iterator[JobEvent]:
        """Yield what happens to the job, without a time limit: see `events`."""
        return self.events()

    def events(self, timeout: float | None = None) -> Iterator[JobEvent]:
        """Yield what happens to the job, from the oldest event that is kept; the outcome comes last.

        Every iteration yields all pieces of the result and all warnings, also one that begins late. Progress that an
        iteration has not yielded before the next comes is dropped. `gearproto.events.Restarted` says that the job's
        worker was lost and another begins from the beginning, and `gearproto.records.Resubmitted`, only with
        ``resubmit``, that the job was sent once more: what was told before is no part of the result, and is not kept.

        Args:
            timeout: longest time to wait in seconds, for all events together; None for no limit.

        Raises:
            TimeoutError: the time has passed. The job goes on, and its events can be asked for again.
        """
        return _Events(self, timeout)


class _Events(Iterator[JobEvent]):
    """One iteration over the events of a job."""

    def __init__(self, job: Job, timeout: float | None) -> None:
        self._job = job
        self._timeout = timeout
        self._until = None if timeout is None else time.monotonic() + timeout
        self._begun = False
        self._cursor = job.cursor()

    def __next__(self) -> JobEvent:
        left = None if self._until is None else self._until - time.monotonic()
        if left is not None and left < 0 and not self._begun:
            left = 0
        self._begun = True
        if not self._job._owner.wait_for_job(self._job, self._cursor.fetch, left):
            raise TimeoutError(f"{self._job} has not ended within {self._timeout:g} s; it goes on")
        event = self._cursor.take()
        if event is None:  # the outcome has been taken
            raise StopIteration
        return event
