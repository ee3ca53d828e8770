"""A submitted job, as the client sees it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from gearproto import StreamBlocked
from gearproto.client import JobEvent, JobHandle, JobRecord, JobView
from gearproto.events import StatusReceived
from gearproto.timeouts import checked_timeout, deadline

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

    __slots__ = ("_servers",)

    def __init__(
        self, servers: ClientServers, record: JobRecord, decode: Callable[[bytes], _R_co] | None = None
    ) -> None:
        """Show the record of a submission; clients do that."""
        super().__init__(record, decode)
        self._servers = servers

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended.

        Args:
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            Whether it has ended. If not, it is not cancelled, and can be waited for again.
        """
        return self._servers.wait(self._record, lambda: self._record.outcome is not None, checked_timeout(timeout))

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
        record = self._record
        if not self._servers.wait(record, lambda: record.taken_or_ended, checked_timeout(timeout)):
            raise TimeoutError(f"{self} has not been taken by a server within {timeout:g} s; it has not been cancelled")
        return record.taken()

    def status(self) -> StatusReceived:
        """Wait until a server has taken the job, then ask it for the job's status (``GET_STATUS``).

        The server does not know a job that has ended. The client's ``timeout`` applies to each of the two waits.

        Raises:
            JobError: no server has taken the job.
            ConnectionLost: the server could not be reached, or the connection ended before the answer.
            TimeoutError: the server has not answered in time.
        """
        servers = self._servers
        until = servers.until()
        handle = self.wait_queued(servers.settings.timeout)
        return servers.status(handle.server, lambda conn: conn.get_status(handle), until)

    def cancel(self) -> bool:
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
        return servers.cancel(self.wait_queued(servers.settings.timeout), until)

    def result(self, timeout: float | None = None) -> _R_co:
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
        self._record.check_keeps_result()
        if not self.wait(timeout):
            raise TimeoutError(f"{self} has not ended within {timeout:g} s; it has not been cancelled")
        return self._result()

    def __iter__(self) -> JobEvents:
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
        return JobEvents(self._servers, self._record, timeout, deadline(timeout, time.monotonic()))


class JobEvents(Iterator[JobEvent]):
    """One iteration over the events of a job.

    A job that streams drops an event when all its iterations have yielded it, and everything when its last iteration is
    left: by `close`, or because nothing refers to it any more. One that has ended in an exception of its own is not
    left: what it has not yielded is kept for the next.
    """

    def __init__(self, servers: ClientServers, record: JobRecord, timeout: float | None, until: float) -> None:
        """Begin an iteration; jobs do that."""
        self._cursor = record.cursor()
        self._failed = False
        self._servers = servers
        self._record = record
        self._timeout = timeout
        self._until = until
        self._begun = False

    def __next__(self) -> JobEvent:
        """Return the next event, and wait for it if need be."""
        record, cursor = self._record, self._cursor
        left = None if self._until == math.inf else self._until - time.monotonic()
        if left is not None and left < 0 and not self._begun:
            left = 0
        self._begun = True
        try:
            if not self._servers.wait(record, cursor.fetch, left):
                raise TimeoutError(f"{record} has not ended within {self._timeout:g} s; it has not been cancelled")
        except (TimeoutError, StreamBlocked):
            self._failed = True
            raise
        self._failed = False
        event = cursor.take()
        if event is None:  # the outcome has been taken
            raise StopIteration
        if record.streams:
            self._servers.on_event_taken()
        return event

    def close(self) -> None:
        """Leave the iteration."""
        self._leave(discard=True)

    def __del__(self) -> None:
        self._leave(discard=not self._failed)

    def _leave(self, *, discard: bool) -> None:
        self._cursor.close(discard=discard)
        if self._record.streams:
            self._servers.on_iteration_left()
