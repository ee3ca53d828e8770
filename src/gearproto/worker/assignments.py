"""What a worker keeps of a job in hand, and how the job's end is reported."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

from gearproto.errors import LocalProtocolError
from gearproto.events import JobAssigned
from gearproto.outcomes import Completed, Failed, Raised
from gearproto.timeouts import setting

from .connection import WorkerConnection

__all__ = ["Assignment", "server_timeout_ms", "stopping"]

_MAX_TIMEOUT_MS: Final = 2**31 - 1
TIMEOUT_GRACE: Final = 1.0
"""Seconds by which a server waits longer for a job than its worker: the worker, if it can, tells what happened."""


_MOST_TOLD: Final = 5  # functions that a log message names


def server_timeout_ms(timeout: float | None) -> int | None:
    """Return the timeout to send to servers (``CAN_DO_TIMEOUT``) for a function with a timeout in the worker.

    Args:
        timeout: the worker's timeout in seconds; None for none.

    Returns:
        Milliseconds, including `TIMEOUT_GRACE`; None for no timeout. Timeouts of more than 24 days are only enforced by
        the worker, because servers such as gearmand count milliseconds in 32 bits.

    Raises:
        ValueError: the limit is not a number above 0.
    """
    seconds = math.inf if timeout is None else setting("the timeout of a function", timeout, above_0=True)
    milliseconds = (seconds + TIMEOUT_GRACE) * 1000
    return None if milliseconds > _MAX_TIMEOUT_MS else round(milliseconds)


def stopping(jobs: Iterable[Assignment], timeout: float | None) -> str:
    """Return a message about the jobs that a stopping worker waits for.

    Args:
        jobs: those in hand.
        timeout: seconds that they have to end in; None for no limit.
    """
    functions = Counter(job.function for job in jobs)
    count = functions.total()
    if not count:
        return "stopping"
    names = ", ".join(f"{number} of {function!r}" for function, number in functions.most_common(_MOST_TOLD))
    if len(functions) > _MOST_TOLD:
        names += ", ..."
    what = "job has ended" if count == 1 else "jobs have ended"
    limit = "" if timeout is None else f", or {timeout:g} s have passed"
    who = "it to another worker" if count == 1 else "them to other workers"
    return f"stopping once {count} {what}{limit} ({names}); a second signal leaves {who}"


class Assignment:
    """A job in hand.

    Attributes:
        handle: the server's name for it.
        function: name of the function.
        assigned: the rest of what the server has sent.
        timeout: seconds that it may take; None for no limit.
        until: monotonic time in seconds at which its timeout ends; None if it has none.
        given_up: whether nothing more is to be reported about it.
        conn: the connection that has assigned it.
    """

    __slots__ = ("_run", "assigned", "conn", "function", "given_up", "handle", "timeout", "until")

    def __init__(self, assigned: JobAssigned, conn: WorkerConnection) -> None:
        """Take a job that a connection has assigned."""
        self.assigned = assigned
        self.handle = assigned.handle
        self.function = assigned.function
        self.timeout: float | None = None
        self.until: float | None = None
        self.given_up = False
        self.conn = conn
        self._run = conn.begin_run(assigned.handle)

    def begin(self, timeout: float | None, now: float) -> None:
        """Record that the job's function is called.

        Args:
            timeout: seconds that it may take; None for no limit.
            now: monotonic time in seconds.
        """
        if timeout is not None:
            self.timeout = timeout
            self.until = now + timeout

    @property
    def superseded(self) -> bool:
        """Whether the server has taken the job away, and has assigned it to this connection again.

        Do not report on this run then: the server would take it for a report on the later one.
        """
        return not self.conn.is_newest(self.handle, self._run)

    def report_end(self, outcome: Completed | Failed | Raised) -> str | None:
        """Queue the job's end; its connection has to be open.

        A run that is superseded is only put down.

        Args:
            outcome: how it ended.

        Returns:
            None; or what breaks a rule, such as a result over the packet limit, which was reported in its place.
        """
        conn, handle = self.conn, self.handle
        if self.superseded:
            conn.give_up(handle)
            return None
        try:
            match outcome:
                case Completed(data):
                    conn.work_complete(handle, data)
                case Failed():
                    conn.work_fail(handle)
                case _:
                    conn.work_exception(handle, outcome.data)
        except LocalProtocolError as error:  # nothing was queued, so that the job has yet to be ended
            conn.work_exception(handle, str(error).encode())
            return str(error)
        return None
