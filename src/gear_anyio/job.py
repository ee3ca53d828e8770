"""A submitted job, as the client sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import anyio
import anyio.lowlevel

from gearproto import StreamBlocked
from gearproto.client import Candidates, Cursor, JobEvent, JobHandle, JobRecord, JobRequest, Unread
from gearproto.event import Event
from gearproto.events import StatusReceived
from gearproto.outcomes import Outcome
from gearproto.timeouts import checked_timeout, deadline

__all__ = ["Job", "JobEvents"]


class Owner(Protocol):
    """The client of a job."""

    def before_wait(self) -> None:
        """Refuse to wait in another event loop than the client's, and read all connections that can be read."""
        ...

    def on_event_taken(self) -> None:
        """Read on, if a job that streams has held that up and holds less now."""
        ...

    def on_iteration_left(self) -> None:
        """Read on, as `on_event_taken`; may be called at any time, in any thread."""
        ...

    async def status_of_job(self, job: Job) -> StatusReceived:
        """Ask a job's server what it knows of the job."""
        ...

    async def cancel_job(self, job: Job) -> bool:
        """Cancel a job at its server."""
        ...


class Job(JobRecord):
    """A submitted job. It runs whether you wait for it or not, even if a task that waits for it is cancelled."""

    __slots__ = ("_changed", "_owner")

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
        self._changed: anyio.Event | None = None

    def on_event(self, event: Event) -> bool:
        """Take an event of the connection; return whether it was the submission's last."""
        last = super().on_event(event)
        self.look_again()
        return last

    def end(self, outcome: Outcome) -> None:
        """Give the job its outcome."""
        super().end(outcome)
        self.look_again()

    def look_again(self) -> None:
        """Wake the tasks that wait for the job."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _change(self) -> None:
        self._owner.before_wait()
        self.check_progress()
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            Whether it has ended. If not, it is not cancelled, and can be waited for again.
        """
        seconds = checked_timeout(timeout)
        if seconds is None:
            if self.outcome is not None:
                await anyio.lowlevel.checkpoint()
            while self.outcome is None:
                await self._change()
            return True
        with anyio.move_on_after(seconds):
            await self.wait()
        return self.outcome is not None

    async def wait_until_resolved(self) -> None:
        """Wait until the job has ended or, if it is a background job, a server has taken it."""
        while not self.resolved:
            await self._change()

    async def wait_queued(self, timeout: float | None = None) -> JobHandle:
        """Wait until a server has taken the job (``JOB_CREATED``).

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            The job's handle.

        Raises:
            JobError: no server has taken it: `JobRejected`, `JobNotSent` or `JobLost`.
            TimeoutError: the time has passed. The job is not cancelled, and can be waited for again.
        """
        with anyio.CancelScope(deadline=deadline(timeout, anyio.current_time())):
            while not self.taken_or_ended:
                await self._change()
        if not self.taken_or_ended:
            raise TimeoutError(f"{self} has not been taken by a server within {timeout:g} s; it has not been cancelled")
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

        The job is cancelled for all its clients, including submissions that the server has joined to this one. A worker
        that is running the job does not learn of it.

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
            TimeoutError: the time has passed. The job is not cancelled, and can be waited for again.
            LocalProtocolError: the job was submitted with ``stream=True``, and keeps no result.
            StreamBlocked: another job holds so much unread that the connection is not read.
        """
        self.check_keeps_result()
        if not await self.wait(timeout):
            raise TimeoutError(f"{self} has not ended within {timeout:g} s; it has not been cancelled")
        return self.result_data()

    def __aiter__(self) -> JobEvents:
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
        return JobEvents(self, timeout, deadline(timeout, anyio.current_time()))

    async def wait_for_event(self, cursor: Cursor) -> None:
        """Wait until a cursor has an event, or has come to the end."""
        while not cursor.fetch():
            await self._change()


class JobEvents(AsyncIterator[JobEvent]):
    """One iteration over the events. Not a generator, because event loops want those to be closed after a `break`.

    A job that streams drops an event when all its iterations have yielded it, and everything when its last iteration is
    left: by `aclose`, or because nothing refers to it any more. One that has ended in an exception of its own is not
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

    async def __anext__(self) -> JobEvent:
        """Return the next event, and wait for it if need be."""
        job, cursor = self._job, self._cursor
        if not cursor.fetch():
            try:
                # Something may come at each look, without end: past the time there is one look, only for the first.
                if not self._begun or anyio.current_time() < self._until:
                    with anyio.CancelScope(deadline=self._until):
                        await job.wait_for_event(cursor)
                if not cursor.fetch():
                    raise TimeoutError(f"{job} has not ended within {self._timeout:g} s; it has not been cancelled")
            except (TimeoutError, StreamBlocked):
                self._failed = True
                raise
        self._failed = False
        self._begun = True
        event = cursor.take()
        if event is None:  # the outcome has been taken
            raise StopAsyncIteration
        if job.streams:
            job._owner.on_event_taken()
        return event

    async def aclose(self) -> None:
        """Leave the iteration."""
        self._leave(discard=True)

    def __del__(self) -> None:
        self._leave(discard=not self._failed)

    def _leave(self, *, discard: bool) -> None:
        self._cursor.close(discard=discard)
        if self._job.streams:
            self._job._owner.on_iteration_left()
