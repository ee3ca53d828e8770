"""Jobs in hand as functions see them, and how functions are called and their ends are logged."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Generic, Protocol, TypeVar

from gearproto import Completed, ConnectionLost, Failed, Raised, WorkerConnection
from gearproto.addresses import Address
from gearproto.arguments import as_payload
from gearproto.events import JobAssigned
from gearproto.worker import Assignment, completed, described, ended_by, is_failure, is_interrupt, piece

from .forks import FORKS
from .signals import end_child

__all__ = [
    "BlockingJob",
    "BytesLike",
    "End",
    "HeldJob",
    "JobView",
    "call_blocking",
    "ended",
    "is_kind",
    "iterate",
    "raised",
]

End = Completed | Failed | Raised

BytesLike = bytes | bytearray | memoryview
"""What functions return, and yield."""


class _Session(Protocol):
    """The server of a job; see `gear_net.sessions.WorkerSessionBase`."""

    address: Address
    conn: WorkerConnection

    @property
    def link(self) -> object | None: ...


_S = TypeVar("_S", bound=_Session)


class HeldJob(Assignment, Generic[_S]):
    """A job in hand, as its worker sees it.

    Attributes:
        session: where it comes from.
    """

    __slots__ = ("session",)

    def __init__(self, assigned: JobAssigned, session: _S) -> None:
        """Take a job that a server has assigned."""
        super().__init__(assigned, session.conn)
        self.session = session

    @property
    def connected(self) -> bool:
        """Whether the connection that assigned the job is still open."""
        session = self.session
        return session.conn is self.conn and session.link is not None

    def check(self) -> None:
        """Make sure that the job can be reported on: it may have been assigned to this worker again meanwhile.

        Raises:
            ConnectionLost: the server is gone.
            TimeoutError: the job has ended.
        """
        if not self.connected:
            raise ConnectionLost(f"{self.session.address}: the connection is gone, and job {self.handle!r} with it")
        if self.given_up or self.superseded:
            raise TimeoutError(f"job {self.handle!r} has ended, or has exceeded its timeout")


_H = TypeVar("_H", bound=Assignment)


class JobView(Generic[_H]):
    """What a function sees of its job."""

    __slots__ = ("_held",)

    def __init__(self, held: _H) -> None:
        """Show a job; workers do that."""
        self._held = held

    @property
    def handle(self) -> bytes:
        """The server's name for the job."""
        return self._held.handle

    @property
    def function(self) -> bytes:
        """Name of the function."""
        return self._held.function

    @property
    def unique(self) -> bytes:
        """The client's own name for the job; may be empty."""
        return self._held.assigned.unique

    @property
    def reducer(self) -> bytes:
        """Name of the reducer; empty if there is none."""
        return self._held.assigned.reducer

    @property
    def workload(self) -> bytes:
        """What to work on."""
        return self._held.assigned.workload

    @property
    def timeout(self) -> float | None:
        """Seconds that the job may take; None for no limit."""
        return self._held.timeout

    @property
    def time_left(self) -> float | None:
        """Seconds that the job may take from now on; None for no limit."""
        until = self._held.until
        return None if until is None else max(0.0, until - time.monotonic())


class BlockingJob(JobView[_H]):
    """A job in hand, for functions that block."""

    __slots__ = ()

    def progress(self, numerator: int, denominator: int) -> None:
        """Report how far the job has come (``WORK_STATUS``).

        Args:
            numerator: units of work done.
            denominator: units of work in all.

        Raises:
            ConnectionLost: the server is gone, and has given the job to another worker or will.
            TimeoutError: the timeout of the function has passed.
        """
        self._report(lambda conn: conn.work_status(self.handle, numerator, denominator))

    def send(self, data: bytes | bytearray) -> None:
        """Send a piece of the result (``WORK_DATA``), and wait while much is still to be sent; raises as `progress`."""
        self._report(lambda conn: conn.work_data(self.handle, as_payload("a piece", data)))

    def warn(self, data: bytes | bytearray) -> None:
        """Send a warning (``WORK_WARNING``); raises as `progress`."""
        self._report(lambda conn: conn.work_warning(self.handle, as_payload("a warning", data)))

    def _report(self, call: Callable[[WorkerConnection], None]) -> None:
        """Make a call to the connection, and send what it has queued."""
        raise NotImplementedError


def is_kind(handler: Callable[..., Any], *kinds: Callable[[Any], bool]) -> bool:
    """Tell whether a function is of a kind that `inspect` knows, be it a partial or an object that can be called."""
    function: Any = handler
    while isinstance(function, functools.partial):
        function = function.func
    called = function if inspect.isroutine(function) else type(function).__call__
    return any(kind(function) or kind(called) for kind in kinds)


def iterate(handler: Callable[[Any], Any], job: BlockingJob[Any]) -> Any:
    """Call a function that blocks; send the pieces that it yields, if it is a generator; return its result."""
    result = handler(job)
    if not isinstance(result, Generator):
        return result
    with contextlib.closing(result):
        while True:
            try:
                data = next(result)
            except StopIteration as end:
                return end.value
            job.send(piece(job.function, data))


def call_blocking(log: logging.Logger, job: HeldJob[Any], call: Callable[[], Any]) -> tuple[End, BaseException | None]:
    """Call a job's function. Whatever it raises ends the job, and nothing else.

    Args:
        log: where to log how the job ended.
        job: the job.
        call: calls the function, and returns its result.

    Returns:
        As `raised`.
    """
    began = time.monotonic()
    forks = FORKS.count
    try:
        end = completed(job.function, call())
    except BaseException as error:  # it ends the job, and is logged
        if FORKS.count != forks:
            end_child(error)
        return raised(log, job, error, began)
    if FORKS.count != forks:
        end_child(None)
    return ended(log, job, end, began)


def ended(log: logging.Logger, job: HeldJob[Any], end: End, began: float) -> tuple[End, None]:
    """Log that a job's function has returned; return how the job ends, as `raised`."""
    if log.isEnabledFor(logging.INFO):
        late = ", after it was given up" if job.given_up else ""
        log.info("job %r of %r done in %.3f s%s", job.handle, job.function, time.monotonic() - began, late)
    return end, None


def raised(
    log: logging.Logger, job: HeldJob[Any], error: BaseException, began: float
) -> tuple[End, BaseException | None]:
    """Log that a job's function has raised.

    Args:
        log: where to log it.
        job: the job.
        error: what it has raised.
        began: monotonic time in seconds at which it was called.

    Returns:
        How the job ends; and KeyboardInterrupt, or a group with it, if the function has raised it in the main thread,
        where it is meant for the whole program.
    """
    handle, function, seconds = job.handle, job.function, time.monotonic() - began
    interrupt = is_interrupt(error) and threading.current_thread() is threading.main_thread()
    if interrupt:
        log.warning("job %r of %r interrupted after %.3f s", handle, function, seconds)
    elif is_failure(error):
        log.info("job %r of %r failed after %.3f s: %s", handle, function, seconds, described(error))
    elif job.given_up or (isinstance(error, ConnectionLost) and not job.connected):
        log.info("job %r of %r given up after %.3f s: %s", handle, function, seconds, described(error))
    else:
        log.error("job %r of %r raised after %.3f s", handle, function, seconds, exc_info=error)
    return ended_by(error), error if interrupt else None
