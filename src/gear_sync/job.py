"""A submitted job, as the client sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from gearproto.policies import Candidates
from gearproto.records import JobEvent, JobRecord
from gearproto.tasks import Task

__all__ = ["Job"]


class Home(Protocol):
    """The client of a job."""

    def wait_for_job(self, job: Job, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is done, or the job has ended."""
        ...


class Job(JobRecord):
    """A submitted job. It goes on whether somebody waits for it or not."""

    __slots__ = ("_home",)

    def __init__(
        self, home: Home, task: Task, candidates: Candidates, *, background: bool = False, resubmit: bool = False
    ) -> None:
        """Make the record of a submission; clients do that."""
        super().__init__(task, candidates, background=background, resubmit=resubmit)
        self._home = home

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            Whether it has ended. If not, it goes on, and can be waited for again.
        """
        return self._home.wait_for_job(self, lambda: self.outcome is not None, timeout)

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
            raise TimeoutError(f"job {self.handle!r} has not ended within {timeout:g} s; it goes on")
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
        return _Events(self, self._home, timeout)


class _Events(Iterator[JobEvent]):
    """One iteration over the events of a job."""

    def __init__(self, job: Job, home: Home, timeout: float | None) -> None:
        self._job = job
        self._home = home
        self._timeout = timeout
        self._until = None if timeout is None else time.monotonic() + timeout
        self._cursor = job.cursor()

    def __next__(self) -> JobEvent:
        left = None if self._until is None else max(0.0, self._until - time.monotonic())
        if not self._home.wait_for_job(self._job, self._cursor.fetch, left):
            raise TimeoutError(f"job {self._job.handle!r} has not ended within {self._timeout:g} s; it goes on")
        event = self._cursor.take()
        if event is None:  # the outcome has been taken
            raise StopIteration
        return event
