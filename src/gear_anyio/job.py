"""A submitted job, as the client sees it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Protocol

import anyio
import anyio.lowlevel

from gearproto.events import Event, StatusReceived
from gearproto.job_events import Cursor, JobEvent
from gearproto.outcomes import Outcome
from gearproto.policies import Candidates
from gearproto.records import JobRecord
from gearproto.tasks import JobHandle, Task

__all__ = ["Job"]


class Owner(Protocol):
    """The client of a job."""

    def check_loop(self) -> None:
        """Refuse to go on in another event loop than the client's."""
        ...

    async def status_of_job(self, job: Job) -> StatusReceived:
        """Ask a job's server what it knows of the job."""
        ...

    async def cancel_job(self, job: Job) -> bool:
        """Cancel a job at its server."""
        ...


class Job(JobRecord):
    """A submitted job. It goes on whether somebody waits for it or not, and if who waits is cancelled, too."""

    __slots__ = ("_changed", "_owner")

    def __init__(
        self, owner: Owner, task: Task, candidates: Candidates, *, background: bool = False, resubmit: bool = False
    ) -> None:
        """Make the record of a submission; clients do that."""
        super().__init__(task, candidates, background=background, resubmit=resubmit)
        self._owner = owner
        self._changed: anyio.Event | None = None

    def on_event(self, event: Event) -> bool:
        """Take an event of the connection; return whether it was the submission's last."""
        last = super().on_event(event)
        self._tell()
        return last

    def end(self, outcome: Outcome) -> None:
        """Give the job its outcome."""
        super().end(outcome)
        self._tell()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _change(self) -> None:
        self._owner.check_loop()
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            Whether it has ended. If not, it goes on, and can be waited for again.
        """
        if timeout is None:
            if self.outcome is not None:
                await anyio.lowlevel.checkpoint()
            while self.outcome is None:
                await self._change()
            return True
        with anyio.move_on_after(timeout):
            await self.wait()
        return self.outcome is not None

    async def wait_until_settled(self) -> None:
        """Wait until the job has ended or, if it is a background job, a server has taken it."""
        while not self.settled:
            await self._change()

    async def wait_queued(self, timeout: float | None = None) -> JobHandle:
        """Wait until a server has taken the job (``JOB_CREATED``).

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            The job's handle.

        Raises:
            JobError: no server has taken it: `JobRejected`, `JobNotSent` or `JobLost`.
            TimeoutError: the time has passed. The job goes on, and can be waited for again.
        """
        with anyio.CancelScope(deadline=math.inf if timeout is None else anyio.current_time() + timeout):
            while not self.taken_or_ended:
                await self._change()
        if not self.taken_or_ended:
            raise TimeoutError(f"{self} has not been taken by a server within {timeout:g} s; it goes on")
        return self.taken()

    async def status(self) -> StatusReceived:
        """Ask the job's server what it knows of the job (``GET_STATUS``), once it has taken it.

        A job that has ended is not known. The client's ``timeout`` holds for each of the two waits.

        Raises:
            JobError: no server has taken the job.
            ConnectionLost: the server could not be reached, or the connection went before the answer.
            TimeoutError: the server has not answered in time.
        """
        return await self._owner.status_of_job(self)

    async def cancel(self) -> bool:
        """Cancel the job at its server (``cancel job``), once it has taken it; it ends as `Failed`.

        The job is cancelled for all who wait for it: for submissions that the server has joined to this one, too. A
        worker that has the job is not told.

        Returns:
            Whether the server has cancelled it. If not, the job had ended already.

        Raises:
            JobError, ConnectionLost, TimeoutError: as for `status`.
            ServerError: the server refuses.
        """
        return await self._owner.cancel_job(self)

    async def result(self, timeout: float | None = None) -> bytes:
        """Wait for the job's result.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            All pieces that the worker has sent (``WORK_DATA``) and the end of the result (``WORK_COMPLETE``), joined.

        Raises:
            JobError: the job ended otherwise: `JobFailed`, `JobRaised`, `JobRejected`, `JobNotSent` or `JobLost`.
            TimeoutError: the time has passed. The job goes on, and can be waited for again.
        """
        if not await self.wait(timeout):
            raise TimeoutError(f"{self} has not ended within {timeout:g} s; it goes on")
        return self.result_data()

    def __aiter__(self) -> AsyncIterator[JobEvent]:
        """Yield what happens to the job, without a time limit: see `events`."""
        return self.events()

    def events(self, timeout: float | None = None) -> AsyncIterator[JobEvent]:
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

    async def wait_for_event(self, cursor: Cursor) -> None:
        """Wait until a cursor has an event, or has come to the end."""
        while not cursor.fetch():
            await self._change()


class _Events(AsyncIterator[JobEvent]):
    """One iteration over the events; no generator, as event loops want those to be closed by whoever leaves early."""

    def __init__(self, job: Job, timeout: float | None) -> None:
        self._job = job
        self._timeout = timeout
        self._until = math.inf if timeout is None else anyio.current_time() + timeout
        self._cursor = job.cursor()

    async def __anext__(self) -> JobEvent:
        job, cursor = self._job, self._cursor
        if not cursor.fetch():
            with anyio.CancelScope(deadline=self._until):
                await job.wait_for_event(cursor)
            if not cursor.fetch():
                raise TimeoutError(f"{job} has not ended within {self._timeout:g} s; it goes on")
        event = cursor.take()
        if event is None:  # the outcome has been taken
            raise StopAsyncIteration
        return event
