"""A submitted job, as the client sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from gearproto import StreamBlocked
from gearproto.client import JobEvent, JobHandle, JobView
from gearproto.events import StatusReceived
from gearproto.timeouts import checked_timeout, deadline

from .waiting import WaitingRecord

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from .client_servers import ClientServers

    _R_co = TypeVar("_R_co", covariant=True, default=bytes)
else:
    from typing import TypeVar

    _R_co = TypeVar("_R_co", covariant=True)

__all__ = ["Job", "JobEvents"]


class Job(JobView[_R_co]):
    """A submitted job. It runs whether you wait for it or not.

    ``Job`` is ``Job[bytes]``; a job of a typed function has the type of its result in the brackets.
    """

    __slots__ = ("_servers", "_waiting")

    def __init__(
        self, servers: ClientServers, record: WaitingRecord, decode: Callable[[bytes], _R_co] | None = None
    ) -> None:
        """Show the record of a submission; clients do that."""
        super().__init__(record, decode)
        self._servers = servers
        self._waiting = record

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            Whether it has ended. If not, it is not cancelled, and can be waited for again.
        """
        seconds = checked_timeout(timeout)
        record = self._waiting
        if seconds is not None:
            with anyio.move_on_after(seconds):
                await self.wait()
        elif record.outcome is not None:
            await anyio.lowlevel.checkpoint()
        else:
            await self._servers.wait(record, lambda: record.outcome is not None)
        return record.outcome is not None

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
        record = self._waiting
        with anyio.CancelScope(deadline=deadline(timeout, anyio.current_time())):
            await self._servers.wait(record, lambda: record.taken_or_ended)
        if not record.taken_or_ended:
            raise TimeoutError(f"{self} has not been taken by a server within {timeout:g} s; it has not been cancelled")
        return record.taken()

    async def status(self) -> StatusReceived:
        """Wait until a server has taken the job, then ask it for the job's status (``GET_STATUS``).

        The server does not know a job that has ended. The client's ``timeout`` applies to each of the two waits.

        Raises:
            JobError: no server has taken the job.
            ConnectionLost: the server could not be reached, or the connection ended before the answer.
            TimeoutError: the server has not answered in time.
        """
        servers = self._servers
        until = servers.until()
        handle = await self.wait_queued(servers.settings.timeout)
        return await servers.status(handle.server, lambda conn: conn.get_status(handle), until)

    async def cancel(self) -> bool:
        """Wait until a server has taken the job, then cancel it there (``cancel job``). It ends as `Failed`.

        The job is cancelled for all its clients, including submissions that the server has joined to this one. A worker
        that is running the job does not learn of it.

        Returns:
            Whether the server has cancelled the job. If not, it had already ended.

        Raises:
            JobError, ConnectionLost, TimeoutError: as for `status`.
            ServerError: the server refuses.
        """
        servers = self._servers
        until = servers.until()
        return await servers.cancel(await self.wait_queued(servers.settings.timeout), until)

    async def result(self, timeout: float | None = None) -> _R_co:
        """Wait for the job's result.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            The pieces that the worker has sent (``WORK_DATA``) and the end of the result (``WORK_COMPLETE``), joined.

        Raises:
            JobError: the job has no result: `JobFailed`, `JobRaised`, `JobRejected`, `JobNotSent` or `JobLost`.
            TimeoutError: the time has passed. The job is not cancelled, and can be waited for again.
            LocalProtocolError: the job was submitted with ``stream=True``, and keeps no result.
            StreamBlocked: another job holds so much unread data that the connection is not read.
        """
        self._waiting.check_keeps_result()
        if not await self.wait(timeout):
            raise TimeoutError(f"{self} has not ended within {timeout:g} s; it has not been cancelled")
        return self._result()

    def __aiter__(self) -> JobEvents:
        """Yield the events of the job, without a timeout; see `events`."""
        return self.events()

    def events(self, timeout: float | None = None) -> JobEvents:
        """Yield the events of the job, from the oldest one that is kept; the outcome comes last.

        Every iteration yields all pieces of the result and all warnings, even if it begins late, unless the job
        streams. Progress that an iteration has not yielded is dropped when newer progress arrives.
        `Restarted` says that the job's worker was lost and another begins from the beginning, and
        `Resubmitted`, only with ``resubmit``, that the job was sent again: events before this one
        are not part of the result, and are not kept.

        Args:
            timeout: longest time to wait in seconds, for all events together; None for no limit.

        Raises:
            TimeoutError: the time has passed. The job is not cancelled, and its events can be asked for again.
            StreamBlocked: another job holds so much unread data that the connection is not read.
        """
        return JobEvents(self._servers, self._waiting, timeout, deadline(timeout, anyio.current_time()))


class JobEvents(AsyncIterator[JobEvent]):
    """One iteration over the events. Not a generator, because event loops want those to be closed after a `break`.

    A job that streams drops an event when all its iterations have yielded it, and everything when its last iteration is
    left: by `aclose`, or because nothing refers to it any more. One that has ended in an exception of its own is not
    left: what it has not yielded is kept for the next.
    """

    def __init__(self, servers: ClientServers, record: WaitingRecord, timeout: float | None, until: float) -> None:
        """Begin an iteration; jobs do that."""
        self._cursor = record.cursor()
        self._failed = False
        self._servers = servers
        self._record = record
        self._timeout = timeout
        self._until = until
        self._begun = False

    async def __anext__(self) -> JobEvent:
        """Return the next event, and wait for it if need be."""
        record, cursor = self._record, self._cursor
        if not cursor.fetch():
            try:
                # Something may come at each look, without end: past the time there is one look, only for the first.
                if not self._begun or anyio.current_time() < self._until:
                    with anyio.CancelScope(deadline=self._until):
                        await self._servers.wait(record, cursor.fetch)
                if not cursor.fetch():
                    raise TimeoutError(f"{record} has not ended within {self._timeout:g} s; it has not been cancelled")
            except (TimeoutError, StreamBlocked):
                self._failed = True
                raise
        self._failed = False
        self._begun = True
        event = cursor.take()
        if event is None:  # the outcome has been taken
            raise StopAsyncIteration
        if record.streams:
            self._servers.on_event_taken()
        return event

    async def aclose(self) -> None:
        """Leave the iteration."""
        self._leave(discard=True)

    def __del__(self) -> None:
        self._leave(discard=not self._failed)

    def _leave(self, *, discard: bool) -> None:
        self._cursor.close(discard=discard)
        if self._record.streams:
            self._servers.on_iteration_left()
