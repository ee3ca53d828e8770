"""The functions of a worker, and the jobs that it has: assigned, running, or to be reported yet."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from gearproto.arguments import as_bytes

from .assignments import Assignment, server_timeout_ms
from .connection import WorkerConnection
from .grabbing import Grabber

__all__ = ["WorkerJobs"]

_J = TypeVar("_J", bound=Assignment)
_F = TypeVar("_F")


class WorkerJobs(Generic[_J, _F]):
    """The functions of a worker and its jobs, in whatever way they run.

    A job is *waiting* once it is assigned, *in hand* until its end is reported, and *running* in between.

    Attributes:
        grabber: asks servers for jobs.
        functions: what runs the jobs of each function, and its timeout in seconds; None for no limit.
        in_hand: the jobs that have not ended.
        waiting: those of them that have not begun.
    """

    def __init__(self, grabber: Grabber) -> None:
        """Begin without functions and jobs."""
        self.grabber = grabber
        self.functions: dict[bytes, tuple[_F, float | None]] = {}
        self.in_hand: dict[_J, None] = {}
        self.waiting: deque[_J] = deque()
        self._retired: set[bytes] = set()  # those of the functions that are not offered any more

    def register(self, name: str | bytes | bytearray, handler: _F, timeout: float | None) -> None:
        """Offer a function to all servers, also under a name that has been offered already.

        Args:
            name: what clients call it.
            handler: what runs it.
            timeout: seconds that a job of it may take; None for no limit.

        Raises:
            LocalProtocolError: the name breaks a rule of the protocol.
            ValueError: the timeout is not a number of seconds above 0.
        """
        function = as_bytes(name)
        self.grabber.can_do(function, server_timeout_ms(timeout))
        self.functions[function] = (handler, timeout)
        self._retired.discard(function)

    def unregister(self, name: str | bytes | bytearray) -> None:
        """Stop offering a function. Its handler is kept for the jobs that may have been assigned by now.

        Raises:
            LocalProtocolError: it is not registered.
        """
        function = as_bytes(name)
        self.grabber.cant_do(function)
        self._retired.add(function)

    def assigned(self, job: _J) -> None:
        """Take a job that a server has just assigned."""
        self.grabber.running += 1
        self.in_hand[job] = None
        self.waiting.append(job)

    def put_down(self, job: _J) -> None:
        """Let go of a job that has ended, or that is for another worker."""
        del self.in_hand[job]
        self.grabber.running -= 1

    def lost(self, conn: WorkerConnection) -> None:
        """Forget a connection that has ended, and its jobs that have not begun: the server gives them to others."""
        self.grabber.detach(conn)
        for job in [job for job in self.waiting if job.conn is conn]:
            self.waiting.remove(job)
            self.put_down(job)

    def advance(self, now: float, *, stopping: bool) -> list[WorkerConnection]:
        """Ask servers for jobs, up to as many as can run, and none once the worker is to stop.

        Args:
            now: monotonic time in seconds.
            stopping: whether the worker is to stop.

        Returns:
            The connections that have something to send because of it.
        """
        if stopping and not self.grabber.stopping:
            self.grabber.stop()
        told = self.grabber.advance(now)
        if self._retired:
            self.forget_retired()
        return told

    def forget_retired(self) -> None:
        """Forget the functions of which no job can come any more."""
        for function in [function for function in self._retired if not self.grabber.may_assign(function)]:
            self._retired.remove(function)
            del self.functions[function]
