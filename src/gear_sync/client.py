"""The client: submits jobs and waits for their results."""

from __future__ import annotations

import ssl
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from gear_net.connecting import Connect
from gear_net.settings import ClientSettings
from gear_net.tls import TLS
from gearproto import JobError, JobNotSent, NotSent, Priority, StreamBlocked
from gearproto.addresses import ServerAddress, ServerAddresses
from gearproto.arguments import as_bytes, as_payload
from gearproto.client import (
    DEFAULT_MAX_UNIQUE_SIZE,
    DEFAULT_MAX_UNREAD,
    DEFAULT_RESUBMIT_TIMEOUT,
    JobHandle,
    JobRequest,
    Policy,
    earliest,
    record_of,
    requests_of,
    unpacked,
)
from gearproto.events import StatusReceived
from gearproto.functions import Function
from gearproto.options import ConnectionOptions
from gearproto.standing import DEFAULT_PAUSES
from gearproto.timeouts import deadline

from .admin import Admin
from .client_servers import ClientServers, seconds_left
from .completion import as_completed
from .job import Job

__all__ = ["Client"]

_A = TypeVar("_A")
_R = TypeVar("_R")


class Client:
    """A Gearman client. Threads may share it; it starts none of its own.

    A call that needs a server connects to it, if there is no connection. Looking up a server's name blocks as long as
    the system's resolver does. If a submission cannot be sent completely within the ``timeout``, the rest is sent while
    you wait for something else.

    Attributes:
        admin: the text protocol for administrators on the first server that can be reached; see `admin_of`.
    """

    def __init__(
        self,
        servers: ServerAddresses,
        *,
        policy: Policy | str = Policy.ORDERED,
        tls: TLS | ssl.SSLContext | None = None,
        connect: Connect | None = None,
        connect_timeout: float = 5.0,
        timeout: float | None = 30.0,
        retry_pauses: tuple[float, float] = DEFAULT_PAUSES,
        resubmit_timeout: float = DEFAULT_RESUBMIT_TIMEOUT,
        exceptions: bool = True,
        max_unique_size: int = DEFAULT_MAX_UNIQUE_SIZE,
        max_unread: int = DEFAULT_MAX_UNREAD,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        """Make a client; the first call that needs a server connects.

        Args:
            servers: one address or several: ``host``, ``host:port`` or ``unix:PATH``. The default port is 4730.
            policy: which of several servers a job goes to: ``ordered``, ``round_robin`` or ``unique_hash``.
            tls: the files for TLS, or a context; None for plain TCP.
            connect: opens the connection to a server, instead of TCP and TLS; see `Connect`. If it raises, the server
                counts as unreachable.
            connect_timeout: seconds for each attempt to connect to a server, including TLS.
            timeout: seconds that each call may take to find a server and get its answer; None for no limit. It does
                not limit how long you wait for results of jobs.
            retry_pauses: (initial, maximum) seconds before an unreachable server is retried; each pause is twice as
                long as the one before. After a permanent refusal, and while a server is silent, up to 30 seconds.
            resubmit_timeout: seconds for which a submission that was lost looks for a server, after each loss, before
                it ends as `Lost`; only with ``resubmit=True``. It tries at least once.
            exceptions: whether to ask servers for exceptions of workers (option ``exceptions``), which otherwise arrive
                as `JobFailed`, and for news about jobs that run again (option ``reruns``). gearmand knows the first
                option, our own server knows both; turn this off for servers that never answer such a request.
            max_unique_size: limit in bytes for uniques, up to 64. The default is 63, because gearmand 1.1.20 corrupts
                the workload of a job whose unique has 64 bytes, such as a SHA-256 in hexadecimal.
            max_unread: limit in bytes for the unread data of all jobs with ``stream=True`` together. Above it, a
                connection with such a job is not read, and waiting for anything else on this connection raises
                `StreamBlocked`.
            **options: options of the connections, as in `gearproto.connection.Connection`. By default, a silent server
                is probed after 30 seconds (``probe_interval``).

        Raises:
            ValueError: an address or the policy is not valid, or a file for TLS cannot be used.
        """
        settings = ClientSettings(
            servers,
            policy=policy,
            tls=tls,
            connect_timeout=connect_timeout,
            timeout=timeout,
            retry_pauses=retry_pauses,
            resubmit_timeout=resubmit_timeout,
            exceptions=exceptions,
            max_unique_size=max_unique_size,
            max_unread=max_unread,
            **options,
        )
        self._servers = ClientServers(settings, connect)
        self.admin = Admin(self._servers.ask_first)

    # Jobs

    @overload
    def submit(
        self,
        function: str | bytes | bytearray,
        workload: bytes | bytearray = b"",
        *,
        unique: str | bytes | bytearray = b"",
        priority: Priority | str = Priority.NORMAL,
        reducer: str | bytes | bytearray | None = None,
        resubmit: bool = False,
        stream: bool = False,
    ) -> Job: ...

    @overload
    def submit(
        self,
        function: Function[_A, _R],
        workload: _A,
        *,
        unique: str | bytes | bytearray = b"",
        priority: Priority | str = Priority.NORMAL,
        reducer: str | bytes | bytearray | None = None,
        resubmit: bool = False,
    ) -> Job[_R]: ...

    def submit(
        self,
        function: str | bytes | bytearray | Function[Any, Any],
        workload: Any = b"",
        *,
        unique: str | bytes | bytearray = b"",
        priority: Priority | str = Priority.NORMAL,
        reducer: str | bytes | bytearray | None = None,
        resubmit: bool = False,
        stream: bool = False,
    ) -> Job[Any]:
        """Submit a job (``SUBMIT_JOB`` and its variants), without waiting for an answer.

        Waits while the network takes less than is submitted, but not longer than the client's ``timeout``; the rest is
        sent later.

        Args:
            function: name of the function to run; or a typed function.
            workload: the data to work on; or the value, for a typed function.
            unique: your own name for the job, at most ``max_unique_size`` bytes; the server joins jobs with the same
                function and unique. Empty means never.
            priority: a `Priority` or its name, such as ``"high"``.
            reducer: name of a reducer for the worker.
            resubmit: whether to submit the job again if its connection is lost, to this server or another one, up to 5
                times. Each time, the client looks for a server for ``resubmit_timeout`` seconds. The job may then run
                twice, one run after the other or both at once. Needs a unique. Use it for functions that return their
                result in one piece: if the server joins the submission to a job that is already running, pieces that
                were sent before are missing in the result.
            stream: whether you read the pieces of the result from the job's events. Each piece is dropped when every
                iteration has yielded it, and the job has no result. Unread data of such jobs is limited by
                ``max_unread``. Use a separate client for a long stream.

        Raises:
            CodecError: the value of a typed function cannot be encoded.
            JobNotSent: no server could be reached.
            LocalProtocolError: an argument breaks a rule of the protocol.
        """
        name, data, decode = unpacked(function, workload)
        request = JobRequest(name, data, unique, priority, None, reducer)
        job = Job(self._servers, self._servers.record(request, resubmit=resubmit, stream=stream), decode)
        return self._submit(job, self._servers.until())

    def _submit(self, job: Job[_R], until: float) -> Job[_R]:
        self._servers.submit([record_of(job)], until)
        if isinstance(job.outcome, NotSent):
            raise JobNotSent(job.outcome.cause)
        return job

    def call(
        self,
        function: Function[_A, _R],
        value: _A,
        *,
        unique: str | bytes | bytearray = b"",
        priority: Priority | str = Priority.NORMAL,
        timeout: float | None = None,
    ) -> _R:
        """Submit a job of a typed function, and wait for its result.

        Args:
            function: the declaration that the worker serves.
            value: the value to work on.
            unique: as in `submit`.
            priority: a `Priority` or its name, such as ``"high"``.
            timeout: longest time to wait for the result in seconds; None for no limit.

        Raises:
            CodecError: the value cannot be encoded, or the result cannot be decoded.
            JobError: the job ended without a result, as in `Job.result`; or it could not be submitted.
            TimeoutError: the job has not ended in time. It is not cancelled.
        """
        until = deadline(timeout, time.monotonic())
        request = JobRequest(function.name, function.workload(value), unique, priority)
        job = Job(self._servers, self._servers.record(request), function.result)
        self._submit(job, min(until, self._servers.until()))
        if not job.wait(seconds_left(until)):
            raise TimeoutError(f"{job} has not ended within {timeout:g} s; it has not been cancelled")
        return job.result()

    @overload
    def submit_many(self, requests: Iterable[JobRequest], /, *, resubmit: bool = False) -> list[Job]: ...

    @overload
    def submit_many(
        self, function: Function[_A, _R], values: Iterable[_A], /, *, priority: Priority | str = Priority.NORMAL
    ) -> list[Job[_R]]: ...

    def submit_many(
        self,
        requests: Iterable[JobRequest] | Function[Any, Any],
        values: Iterable[Any] = (),
        /,
        *,
        priority: Priority | str = Priority.NORMAL,
        resubmit: bool = False,
    ) -> list[Job[Any]]:
        """Submit many jobs, in one write for each server; waits as `submit` does.

        Args:
            requests: the jobs; or a typed function.
            values: the values to work on, for a typed function; each is a job.
            priority: as in `submit`, for a typed function.
            resubmit: as in `submit`.

        Returns:
            The jobs, in the order of the requests. Jobs for which no server could be reached have the outcome
            `NotSent`. Pass the list to `as_completed` to get the jobs as they end.

        Raises:
            CodecError: a value cannot be encoded; none is submitted.
            LocalProtocolError: a request breaks a rule of the protocol; none is submitted.
        """
        jobs, decode = requests_of(requests, values, priority)
        records = self._servers.records(jobs, resubmit=resubmit)
        self._servers.submit(records, self._servers.until())
        return [Job(self._servers, record, decode) for record in records]

    def as_completed(self, jobs: Iterable[Job[_R]], timeout: float | None = None) -> Iterator[Job[_R]]:
        """Yield jobs as they end, whatever their outcome.

        Args:
            jobs: jobs of this client.
            timeout: longest time to wait in seconds, for all of them together; None for no limit.

        Raises:
            TimeoutError: the time has passed. The other jobs are not cancelled, and can be waited for again.
            ValueError: one is a job of another client. Raised at the call.
        """
        counts = Counter(iter(jobs))  # a mapping would be taken for counts
        for job in counts:
            if job._servers is not self._servers:
                raise ValueError(f"{job} belongs to another client; only that client can wait for it")
        return as_completed(self._servers, counts, deadline(timeout, time.monotonic()), timeout)

    @overload
    def submit_background(
        self,
        function: str | bytes | bytearray,
        workload: bytes | bytearray = b"",
        *,
        unique: str | bytes | bytearray = b"",
        priority: Priority | str = Priority.NORMAL,
        run_at: datetime | float | None = None,
        delay: float | None = None,
        reducer: str | bytes | bytearray | None = None,
    ) -> JobHandle: ...

    @overload
    def submit_background(
        self,
        function: Function[_A, Any],
        workload: _A,
        *,
        unique: str | bytes | bytearray = b"",
        priority: Priority | str = Priority.NORMAL,
        run_at: datetime | float | None = None,
        delay: float | None = None,
        reducer: str | bytes | bytearray | None = None,
    ) -> JobHandle: ...

    def submit_background(
        self,
        function: str | bytes | bytearray | Function[Any, Any],
        workload: Any = b"",
        *,
        unique: str | bytes | bytearray = b"",
        priority: Priority | str = Priority.NORMAL,
        run_at: datetime | float | None = None,
        delay: float | None = None,
        reducer: str | bytes | bytearray | None = None,
    ) -> JobHandle:
        """Submit a background job, and wait until a server has taken it (``JOB_CREATED``).

        Args:
            function: name of the function to run; or a typed function.
            workload: the data to work on; or the value, for a typed function.
            unique: as in `submit`.
            priority: a `Priority` or its name, such as ``"high"``.
            run_at: earliest time to run, as seconds since 1970 or a datetime with a time zone.
            delay: the same, as seconds from now. Servers only know whole seconds.
            reducer: name of a reducer for the worker.

        Returns:
            The job's handle.

        Raises:
            JobNotSent: no byte of it was sent to any server.
            JobRejected: the server refused it.
            JobLost: the connection ended before the answer; the server may have taken it.
            TimeoutError: the server has not answered in time; it may have taken the job.
            StreamBlocked: streaming jobs hold so much unread data that the answer is not read; it may have taken the
                job.
            CodecError: the value of a typed function cannot be encoded.
            LocalProtocolError: an argument breaks a rule of the protocol.
        """
        name, data, _decode = unpacked(function, workload)
        request = JobRequest(name, data, unique, priority, earliest(run_at, delay, time.time()), reducer)
        (result,) = self._servers.take([self._servers.record(request, background=True)])
        if isinstance(result, Exception):
            raise result
        return result

    @overload
    def submit_background_many(
        self, requests: Iterable[JobRequest], /
    ) -> list[JobHandle | JobError | TimeoutError | StreamBlocked]: ...

    @overload
    def submit_background_many(
        self, function: Function[_A, Any], values: Iterable[_A], /, *, priority: Priority | str = Priority.NORMAL
    ) -> list[JobHandle | JobError | TimeoutError | StreamBlocked]: ...

    def submit_background_many(
        self,
        requests: Iterable[JobRequest] | Function[Any, Any],
        values: Iterable[Any] = (),
        /,
        *,
        priority: Priority | str = Priority.NORMAL,
    ) -> list[JobHandle | JobError | TimeoutError | StreamBlocked]:
        """Submit many background jobs, in one write for each server, and wait until they are taken.

        Args:
            requests: the jobs; or a typed function.
            values: the values to work on, for a typed function; each is a job.
            priority: as in `submit`, for a typed function.

        Returns:
            For each request, in order, its handle, or the error that `submit_background` would have raised for it.

        Raises:
            CodecError: a value cannot be encoded; none is submitted.
            LocalProtocolError: a request breaks a rule of the protocol; none is submitted.
        """
        jobs, _decode = requests_of(requests, values, priority)
        return self._servers.take(self._servers.records(jobs, background=True))

    # Queries

    def status(self, handle: bytes | bytearray) -> StatusReceived:
        """Ask what is known of a job (``GET_STATUS``).

        Args:
            handle: the job's handle. A handle from this package knows its server, which is asked. For other handles,
                all servers are asked until one knows the job. When one has answered, the others have another
                ``connect_timeout`` seconds.

        Raises:
            ConnectionLost: a server could not be reached, or the connection ended before the answer, and no other
                server knows the job.
            TimeoutError: a server has not answered in time, and no other server knows the job.
        """
        name = as_bytes(handle)
        if isinstance(handle, JobHandle):
            return self._servers.status(handle.server, lambda conn: conn.get_status(name), self._servers.until())
        return self._servers.status_anywhere(lambda conn: conn.get_status(name))

    def status_unique(self, unique: str | bytes | bytearray) -> StatusReceived:
        """Ask all servers what they know of a job, by its unique (``GET_STATUS_UNIQUE``); raises as `status`."""
        name = as_bytes(unique)
        return self._servers.status_anywhere(lambda conn: conn.get_status_unique(name))

    def echo(self, data: bytes | bytearray) -> bytes:
        """Have the first server that can be reached send data back (``ECHO_REQ``); raises as `status`."""
        return self._servers.echo(as_payload("the data", data))

    def admin_of(self, server: ServerAddress) -> Admin:
        """Return the text protocol for administrators on one of the client's servers.

        Raises:
            ValueError: the client does not have this server.
        """
        servers = self._servers
        servers.only(server)
        return Admin(lambda command: servers.reply(servers.only(server), command, servers.until()))

    # The end

    def close(self) -> None:
        """Close the connections. Foreground jobs that are open end as `Lost` or `NotSent`. Can be called twice."""
        self._servers.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()
