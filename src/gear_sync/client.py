"""The client: submits jobs and waits for their results."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar, Unpack

from gearproto import ClientConnection, ConnectionLost, GearmanError, JobNotSent, Priority
from gearproto.addresses import Address, parse_addresses
from gearproto.admin import Command, Reply
from gearproto.connection import Limits
from gearproto.events import Echoed, Event, RequestId, StatusReceived

from .admin import Admin
from .job import Job
from .link import connect
from .names import as_bytes
from .session import Session, SessionEnded, Submission

__all__ = ["Client", "Task"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One job for `Client.submit_many`; the fields are the arguments of `Client.submit`."""

    function: str | bytes
    workload: bytes = b""
    unique: str | bytes = b""
    priority: Priority = Priority.NORMAL


class Client:
    """A Gearman client. Threads may share it; it starts none of its own.

    The first server of the list that can be reached is used, and stays in use until its connection is lost. Then the
    next call connects again.

    Attributes:
        admin: the text protocol for administrators.
    """

    def __init__(
        self,
        servers: str | tuple[str, int] | Iterable[str | tuple[str, int]],
        *,
        connect_timeout: float = 5.0,
        timeout: float | None = 30.0,
        exceptions: bool = True,
        **limits: Unpack[Limits],
    ) -> None:
        """Make a client; the first call that needs a server connects.

        Args:
            servers: one address or several, as ``host`` or ``host:port``; the port is 4730 unless given.
            connect_timeout: seconds for each attempt to connect.
            timeout: seconds in which a server has to answer a request; results of jobs have no limit of their own.
            exceptions: whether to ask for exceptions of workers (option ``exceptions``), which else arrive as
                `JobFailed`. gearmand and our own server know it; some others never answer, and must not be asked.
            **limits: limits of the connection, as in `gearproto.connection.Connection`.

        Raises:
            ValueError: an address makes no sense.
        """
        self._addresses = parse_addresses(servers)
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._exceptions = exceptions
        self._limits = limits
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._pid = os.getpid()
        self.admin = Admin(self._ask_admin)

    def submit(
        self,
        function: str | bytes,
        workload: bytes = b"",
        *,
        unique: str | bytes = b"",
        priority: Priority = Priority.NORMAL,
        reducer: str | bytes | None = None,
    ) -> Job:
        """Submit a job (``SUBMIT_JOB`` and its kin), without waiting for the server.

        Args:
            function: name of the function to run.
            workload: what to work on.
            unique: the caller's own name for the job, at most 64 bytes; the server joins jobs of one function and
                unique. Empty means never.
            priority: which queue it goes to.
            reducer: name of a reducer for the worker.

        Raises:
            JobNotSent: no server could be reached.
            LocalProtocolError: an argument breaks a rule of the protocol.
        """
        submission = _submission(function, workload, unique, priority)
        if reducer is not None:
            submission["reducer"] = as_bytes(reducer)
        return self._use(lambda session: session.submit([submission]))[0]

    def submit_many(self, tasks: Iterable[Task]) -> list[Job]:
        """Submit many jobs in one write.

        Args:
            tasks: the jobs.

        Returns:
            The jobs, in the order of the tasks.

        Raises:
            JobNotSent: no server could be reached.
            LocalProtocolError: an argument breaks a rule of the protocol; the tasks before it are submitted.
        """
        submissions = (_submission(task.function, task.workload, task.unique, task.priority) for task in tasks)
        return self._use(lambda session: session.submit(submissions))

    def submit_background(
        self,
        function: str | bytes,
        workload: bytes = b"",
        *,
        unique: str | bytes = b"",
        priority: Priority = Priority.NORMAL,
        run_at: datetime | float | None = None,
        reducer: str | bytes | None = None,
    ) -> bytes:
        """Submit a background job, and wait until the server has taken it (``JOB_CREATED``).

        Args:
            function: name of the function to run.
            workload: what to work on.
            unique: as in `submit`.
            priority: which queue it goes to.
            run_at: when it may run at the earliest, as seconds since 1970 or a datetime with a time zone.
            reducer: name of a reducer for the worker.

        Returns:
            The job's handle.

        Raises:
            JobNotSent: no byte of it left for any server.
            JobRejected: the server refused it.
            JobLost: the connection went before the answer; the server may have taken it.
            TimeoutError: the server has not answered in time; it may have taken the job.
            LocalProtocolError: an argument breaks a rule of the protocol.
        """
        submission = _submission(function, workload, unique, priority) | {"background": True}
        if run_at is not None:
            submission["run_at"] = _epoch(run_at)
        if reducer is not None:
            submission["reducer"] = as_bytes(reducer)
        return self._use(lambda session: session.submit_background(submission, self._timeout))

    def status(self, handle: bytes) -> StatusReceived:
        """Ask the server what it knows of a job (``GET_STATUS``).

        Raises:
            ConnectionLost: no server could be reached, or the connection went before the answer.
            TimeoutError: the server has not answered in time.
        """
        event = self._query(lambda conn: conn.get_status(handle))
        assert isinstance(event, StatusReceived)
        return event

    def status_unique(self, unique: str | bytes) -> StatusReceived:
        """Ask the server what it knows of a job, by its unique (``GET_STATUS_UNIQUE``); raises as `status`."""
        event = self._query(lambda conn: conn.get_status_unique(as_bytes(unique)))
        assert isinstance(event, StatusReceived)
        return event

    def echo(self, data: bytes) -> bytes:
        """Let the server send data back (``ECHO_REQ``); raises as `status`."""
        event = self._query(lambda conn: conn.echo(data))
        assert isinstance(event, Echoed)
        return event.data

    def close(self) -> None:
        """Close the connection. Jobs that somebody waits for end as `Lost` or `NotSent`. Can be called twice."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
        if session is not None and self._pid == os.getpid():
            session.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def _ask_admin(self, command: Command) -> Reply:
        with _as_query():
            return self._use(lambda session: session.admin(command, self._timeout))

    def _query(self, request: Callable[[ClientConnection], RequestId]) -> Event:
        with _as_query():
            return self._use(lambda session: session.ask(lambda: request(session.conn), self._timeout))

    def _use(self, call: Callable[[Session], _T]) -> _T:
        session = self._connected()
        with suppress(SessionEnded):  # another thread may have seen its end just now
            return call(session)
        return call(self._connected())

    def _connected(self) -> Session:
        """Return a session with the first server that can be reached."""
        if self._pid != os.getpid():
            raise GearmanError("this client belongs to the parent process: make one of your own after a fork")
        with self._lock:
            if self._closed:
                raise GearmanError("this client is closed")
            if self._session is None or self._session.ended():
                self._session = self._connect()
            return self._session

    def _connect(self) -> Session:
        failures: list[tuple[Address, OSError]] = []
        for address in self._addresses:
            try:
                sock = connect(address, self._connect_timeout)
                try:
                    session = Session(address, sock, self._limits)
                except OSError:
                    sock.close()
                    raise
            except OSError as error:
                failures.append((address, error))
                continue
            if self._exceptions:
                session.set_option(b"exceptions")
            return session
        text = "; ".join(f"{address}: {error.strerror or error}" for address, error in failures)
        raise JobNotSent(f"no server could be reached: {text}") from failures[-1][1]


@contextmanager
def _as_query() -> Iterator[None]:
    """Tell of a query that was not sent what is told of one that was lost: neither has done anything."""
    try:
        yield
    except JobNotSent as error:
        raise ConnectionLost(str(error)) from error.__cause__


def _submission(function: str | bytes, workload: bytes, unique: str | bytes, priority: Priority) -> Submission:
    return {
        "function": as_bytes(function),
        "workload": workload,
        "unique": as_bytes(unique),
        "priority": priority,
    }


def _epoch(when: datetime | float) -> int:
    if not isinstance(when, datetime):
        return int(when)
    if when.tzinfo is None:
        raise ValueError("run_at needs a time zone")
    return int(when.timestamp())
