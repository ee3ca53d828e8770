"""The client: submits jobs and waits for their results."""

from __future__ import annotations

import logging
import math
import ssl
import threading
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, Unpack

import anyio
import anyio.abc
import anyio.lowlevel

from gear_net.standing import LoggedStanding
from gear_net.tls import TLS, ClientTLS
from gearproto import (
    ClientConnection,
    GearmanError,
    JobError,
    JobNotSent,
    NotSent,
    Priority,
    ServerError,
    StreamBlocked,
)
from gearproto.addresses import Address, ServerAddress, ServerAddresses, parse_address, parse_addresses
from gearproto.admin import UNKNOWN_JOB, CancelJob, Command
from gearproto.arguments import as_bytes, as_payload
from gearproto.client import (
    DEFAULT_MAX_UNIQUE_SIZE,
    DEFAULT_MAX_UNREAD,
    DEFAULT_RESUBMIT_TIMEOUT,
    Candidates,
    Dispatch,
    JobHandle,
    JobRequest,
    OpenRequests,
    Policy,
    ServerChooser,
    Try,
    Unread,
    WaitUntil,
    as_query,
    check_max_unique_size,
    check_submissions,
    status_of_all,
    unreachable,
)
from gearproto.event import Event
from gearproto.events import RequestId, StatusReceived
from gearproto.functions import Function
from gearproto.options import ConnectionOptions, connection_options
from gearproto.standing import DEFAULT_PAUSES
from gearproto.timeouts import deadline, setting

from .admin import Admin
from .client_session import Answer, ClientSession
from .connecting import Connect
from .eventloop import TaskStarter, this_loop
from .job import Job

__all__ = ["Client"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_A = TypeVar("_A")
_R = TypeVar("_R")


class Client:
    """A Gearman client, for as long as its ``async with`` block lasts. Tasks may share it.

    A call that needs a server connects to it, if there is no connection. If you cancel a call that waits, no packet is
    truncated and no job is cancelled.

    Attributes:
        admin: the text protocol for administrators, with the first server that can be reached; see `admin_of`.
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
            servers: one address or several, as ``host``, ``host:port`` or ``unix:PATH``; the port is 4730 unless given.
            policy: which of several servers a job goes to: ``ordered``, ``round_robin`` or ``unique_hash``.
            tls: the files for TLS, or a context of your own; None for plain TCP.
            connect: opens the byte stream to a server, in place of TCP and TLS. If it raises anything,
                the server cannot be reached.
            connect_timeout: seconds for each attempt to connect to a server, TLS included.
            timeout: seconds that each call may take to find a server and get its answer; None for no limit. A
                submission waits while much output waits to be sent; after this time, sending continues in the
                background. Results of jobs have no limit of their own.
            retry_pauses: (initial, maximum) seconds before an unreachable server is retried; each pause is twice as
                long as the one before. After a refusal that stays, and while a server is silent, up to 30 seconds.
            resubmit_timeout: seconds for which a submission that was lost looks for a server, after each loss, before
                it ends as `Lost`; only with ``resubmit=True``. It tries at least once.
            exceptions: whether to ask for exceptions of workers (option ``exceptions``), which otherwise
                arrive as `JobFailed`, and for news of a job that runs again (option ``reruns``). gearmand knows the
                first option, our own server both; some other servers never answer, and must not be asked.
            max_unique_size: limit in bytes for uniques, up to 64. It is 63 as gearmand 1.1.20 corrupts the workload
                of a job whose unique has 64, as a SHA-256 in hexadecimal has.
            max_unread: bytes that jobs with ``stream=True`` may hold unread, all together. While they hold more, a
                connection that has such a job open is not read, and waiting for anything else that comes over it
                raises `StreamBlocked`.
            **options: options of the connections, as in `gearproto.connection.Connection`. A silent server is probed
                after 30 seconds unless ``probe_interval`` says otherwise.

        Raises:
            ValueError: an address makes no sense, there is no such policy, or a file for TLS cannot be used.
        """
        self._options = connection_options(**options)
        self._addresses = parse_addresses(servers)
        self._connect_timeout = connect_timeout = setting("connect_timeout", connect_timeout)
        self._timeout = None if timeout is None else setting("timeout", timeout)
        self._resubmit_timeout = setting("resubmit_timeout", resubmit_timeout)
        self._exceptions = exceptions
        self._max_unique_size = check_max_unique_size(max_unique_size)
        files = None if tls is None else ClientTLS(tls)
        self._sessions = [
            ClientSession(
                address,
                tls=files,
                connect=connect,
                connect_timeout=connect_timeout,
                options=self._options,
                standing=LoggedStanding(address, _log, retry_pauses),
                introduce=self._introduce,
                on_retryable=self._on_retryable,
                on_paused=self._on_paused,
            )
            for address in self._addresses
        ]
        self._unread = Unread(max_unread)
        self._chooser = ServerChooser(self._sessions, policy)
        self._iterations: weakref.WeakSet[_AsCompleted] = weakref.WeakSet()
        self._group: anyio.abc.TaskGroup | None = None
        self._starter: TaskStarter | None = None
        self._loop: object = None
        self._thread = 0
        self._closed = False
        self._scopes: dict[anyio.CancelScope, None] = {}  # of all that runs for the client
        self._unfinished: dict[Job, None] = {}  # retryable, and on their way to another server
        self.admin = Admin(self._ask_admin)

    async def __aenter__(self) -> Self:
        """Begin: from now on the client can be used."""
        if self._group is not None:
            raise GearmanError("this client has been used already: make another one")
        self._loop, self._thread = this_loop(), threading.get_ident()
        self._group = await anyio.create_task_group().__aenter__()
        self._starter = TaskStarter(self._group)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client, and wait until its connections are closed."""
        self.close()
        assert self._group is not None
        # The group is not told of the error: it would wrap it, and the caller's own tasks did not run in it.
        await self._group.__aexit__(None, None, None)

    def close(self) -> None:
        """Close the connections. Jobs that somebody waits for end as `Lost` or `NotSent`. Can be called twice."""
        if self._closed:
            return
        self._closed = True
        for session in self._sessions:
            session.close("closed by the client")
        for job in self._unfinished:
            self._give_up(job, "closed by the client")
        if self._starter is not None:
            self._starter.stop()
        for scope in self._scopes:  # not the group's, which is around the caller's block too
            scope.cancel()

    # Jobs

    async def submit(
        self,
        function: str | bytes | bytearray,
        workload: bytes | bytearray = b"",
        *,
        unique: str | bytes | bytearray = b"",
        priority: Priority | str = Priority.NORMAL,
        reducer: str | bytes | bytearray | None = None,
        resubmit: bool = False,
        stream: bool = False,
    ) -> Job:
        """Submit a job (``SUBMIT_JOB`` and its kin), without waiting for the server.

        Args:
            function: name of the function to run.
            workload: what to work on.
            unique: the caller's own name for the job, at most ``max_unique_size`` bytes; the server joins jobs of one
                function and unique. Empty means never.
            priority: which queue it goes to; a `Priority` or its name, as ``"high"``.
            reducer: name of a reducer for the worker.
            resubmit: whether a submission whose connection is lost is sent once more, to this server or another, after
                each of the first 5 losses. The client looks for a server for ``resubmit_timeout`` seconds. The job
                may then run twice, one run after the other or both at once. Needs a unique. For functions that return
                their result whole: if the server joins the submission to a job that is already running, pieces that
                were sent before are missing in the result.
            stream: whether the pieces of the result are taken from the job's events as they come, and each is dropped
                once every iteration has yielded it; the job has no result then. What such jobs hold unread is limited
                by ``max_unread``. Use a client of its own for a long stream.

        Raises:
            JobNotSent: no server could be reached.
            LocalProtocolError: an argument breaks a rule of the protocol.
        """
        request = JobRequest(function, workload, unique, priority, None, reducer)
        job = self._job(request, resubmit=resubmit, unread=self._unread if stream else None)
        return await self._submit(job)

    async def _submit(self, job: Job, until: float | None = None) -> Job:
        await self._launch([job], until)
        if isinstance(job.outcome, NotSent):
            raise JobNotSent(job.outcome.cause)
        return job

    async def call(
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
            value: what to work on.
            unique: as in `submit`.
            priority: which queue it goes to; a `Priority` or its name, as ``"high"``.
            timeout: longest time to wait for the result in seconds; None for no limit.

        Raises:
            CodecError: the value cannot be encoded, or the result cannot be decoded.
            JobError: the job ended without a result, as in `Job.result`; or it could not be submitted.
            TimeoutError: the job has not ended in time. It is not cancelled.
        """
        until = deadline(timeout, anyio.current_time())
        job = self._job(JobRequest(function.name, function.workload(value), unique, priority))
        await self._submit(job, min(until, self._until()))
        with anyio.CancelScope(deadline=until):
            await job.wait()
        if job.outcome is None:
            raise TimeoutError(f"{job} has not ended within {timeout:g} s; it has not been cancelled")
        return function.result(job.result_data())

    async def submit_many(self, requests: Iterable[JobRequest], *, resubmit: bool = False) -> list[Job]:
        """Submit many jobs, in one write for each server.

        Args:
            requests: the jobs.
            resubmit: as in `submit`.

        Returns:
            The jobs, in the order of the requests; those for which no server could be reached have the outcome
            `NotSent`. `as_completed` gives them as they end.

        Raises:
            LocalProtocolError: a request breaks a rule of the protocol; none is submitted.
        """
        jobs = self._jobs(requests, resubmit=resubmit)
        await self._launch(jobs)
        return jobs

    def as_completed(self, jobs: Iterable[Job], timeout: float | None = None) -> AsyncIterator[Job]:
        """Yield jobs as they end, whatever their outcome.

        Args:
            jobs: jobs of this client.
            timeout: longest time to wait in seconds, for all of them together; None for no limit.

        Raises:
            TimeoutError: the time has passed. The other jobs are not cancelled, and can be waited for again.
            ValueError: one is a job of another client. Raised at the call.
        """
        self.check_loop()
        left = Counter(iter(jobs))  # a mapping would be taken for counts
        for job in left:
            if job._owner is not self:
                raise ValueError(f"{job} belongs to another client, which alone can wait for it")
        iteration = _AsCompleted(self, left, deadline(timeout, anyio.current_time()), timeout)
        self._iterations.add(iteration)
        return iteration

    async def submit_background(
        self,
        function: str | bytes | bytearray,
        workload: bytes | bytearray = b"",
        *,
        unique: str | bytes | bytearray = b"",
        priority: Priority | str = Priority.NORMAL,
        run_at: datetime | float | None = None,
        reducer: str | bytes | bytearray | None = None,
    ) -> JobHandle:
        """Submit a background job, and wait until a server has taken it (``JOB_CREATED``).

        Args:
            function: name of the function to run.
            workload: what to work on.
            unique: as in `submit`.
            priority: which queue it goes to; a `Priority` or its name, as ``"high"``.
            run_at: when it may run at the earliest, as seconds since 1970 or a datetime with a time zone.
            reducer: name of a reducer for the worker.

        Returns:
            The job's handle.

        Raises:
            JobNotSent: no byte of it left for any server.
            JobRejected: the server refused it.
            JobLost: the connection went before the answer; the server may have taken it.
            TimeoutError: the server has not answered in time; it may have taken the job.
            StreamBlocked: jobs that stream hold so much unread that the answer is not read; likewise.
            LocalProtocolError: an argument breaks a rule of the protocol.
        """
        job = self._job(JobRequest(function, workload, unique, priority, run_at, reducer), background=True)
        until = self._until()
        await self._launch([job], until)
        return await self._taken(job, until)

    async def submit_background_many(
        self, requests: Iterable[JobRequest]
    ) -> list[JobHandle | JobError | TimeoutError | StreamBlocked]:
        """Submit many background jobs, in one write for each server, and wait until they are taken.

        Args:
            requests: the jobs.

        Returns:
            For each request, in order, its handle, or the error that `submit_background` would have raised for it.

        Raises:
            LocalProtocolError: a request breaks a rule of the protocol; none is submitted.
        """
        jobs = self._jobs(requests, background=True)
        until = self._until()
        await self._launch(jobs, until)
        results: list[JobHandle | JobError | TimeoutError | StreamBlocked] = []
        for job in jobs:
            try:
                results.append(await self._taken(job, until))
            except (JobError, TimeoutError, StreamBlocked) as error:
                results.append(error)
        return results

    async def _taken(self, job: Job, until: float) -> JobHandle:
        """Wait until a server has taken a background job, and return its handle.

        Raises:
            JobError: no server has taken it.
            StreamBlocked: the server's answer is not read.
            TimeoutError: the server has not answered in time.
        """
        with anyio.CancelScope(deadline=until):
            await job.wait_until_resolved()
        if not job.resolved:
            raise self._no_answer(job.server)
        return job.taken()

    def _no_answer(self, server: Address | None) -> TimeoutError:
        return TimeoutError(f"{server}: no answer within {self._timeout:g} s")

    def _until(self) -> float:
        """Return when a call that begins now has to be over."""
        return math.inf if self._timeout is None else anyio.current_time() + self._timeout

    def _job(
        self, request: JobRequest, *, background: bool = False, resubmit: bool = False, unread: Unread | None = None
    ) -> Job:
        prepared = request.prepared(self._max_unique_size)
        candidates = self._chooser.candidates(as_bytes(prepared.unique))
        return Job(self, prepared, candidates, background=background, resubmit=resubmit, unread=unread)

    def _jobs(self, requests: Iterable[JobRequest], *, background: bool = False, resubmit: bool = False) -> list[Job]:
        """Make the jobs of requests.

        Raises:
            LocalProtocolError: one breaks a rule.
        """
        jobs = [self._job(request, background=background, resubmit=resubmit) for request in requests]
        if len(self._sessions) > 1:  # else the one session submits all or none
            check_submissions(jobs, self._options)
        return jobs

    # Queries

    async def status_of_job(self, job: Job) -> StatusReceived:
        """Ask a job's server what it knows of the job; `Job.status` calls this."""
        until = self._until()
        handle = await job.wait_queued(self._timeout)
        return await self._status(handle.server, lambda conn: conn.get_status(handle), until)

    async def cancel_job(self, job: Job) -> bool:
        """Cancel a job at its server; `Job.cancel` calls this."""
        until = self._until()
        handle = await job.wait_queued(self._timeout)
        try:
            await self._reply(self._only(handle.server), CancelJob(handle), until)
        except ServerError as error:
            if error.code != UNKNOWN_JOB:
                raise
            return False
        return True

    async def status(self, handle: bytes | bytearray) -> StatusReceived:
        """Ask what is known of a job (``GET_STATUS``).

        Args:
            handle: the job's handle. One from `submit_background` is asked of its server; any other is asked of all
                servers until one knows it. Once one has answered, the others have ``connect_timeout`` seconds to.

        Raises:
            ConnectionLost: a server could not be reached, or the connection went before the answer, and no other
                server knows the job.
            TimeoutError: likewise, a server has not answered in time.
        """
        name = as_bytes(handle)
        if isinstance(handle, JobHandle):
            return await self._status(handle.server, lambda conn: conn.get_status(name), self._until())
        return await self._status_anywhere(lambda conn: conn.get_status(name))

    async def status_unique(self, unique: str | bytes | bytearray) -> StatusReceived:
        """Ask all servers what they know of a job, by its unique (``GET_STATUS_UNIQUE``); raises as `status`."""
        name = as_bytes(unique)
        return await self._status_anywhere(lambda conn: conn.get_status_unique(name))

    async def _status_anywhere(self, request: Callable[[ClientConnection], RequestId]) -> StatusReceived:
        self._check_open()
        answers: dict[Address, StatusReceived | Exception] = {}
        until = self._until()

        async def ask(address: Address) -> None:
            try:
                answers[address] = status = await self._status(address, request, until)
            except (GearmanError, TimeoutError) as error:  # not to come out of the group as one of many
                answers[address] = error
            else:
                give_up_at = -math.inf if status.known else anyio.current_time() + self._connect_timeout
                group.cancel_scope.deadline = min(group.cancel_scope.deadline, give_up_at)

        async with anyio.create_task_group() as group:
            for address in self._addresses:
                group.start_soon(ask, address)
        late = f"no answer within {self._connect_timeout:g} s, in which another server has answered"
        return status_of_all([answers.get(at) or TimeoutError(f"{at}: {late}") for at in self._addresses])

    async def _status(
        self, address: Address, request: Callable[[ClientConnection], RequestId], until: float
    ) -> StatusReceived:
        with as_query():
            records, event = await self._ask(self._only(address), request, until)
            return records.status(event)

    async def echo(self, data: bytes | bytearray) -> bytes:
        """Let the first server that can be reached send data back (``ECHO_REQ``); raises as `status`."""
        payload = as_payload("the data", data)
        with as_query():
            records, event = await self._ask(self._chooser.in_order(), lambda conn: conn.echo(payload), self._until())
            return records.echoed(event)

    def admin_of(self, server: ServerAddress) -> Admin:
        """Return the text protocol for administrators, with one of the client's servers.

        Raises:
            ValueError: it is none of the client's servers.
        """
        address = parse_address(server)
        self._only(address)

        def ask(command: Command[_T]) -> Awaitable[_T]:
            return self._reply(self._only(address), command, self._until())

        return Admin(ask)

    def _ask_admin(self, command: Command[_T]) -> Awaitable[_T]:
        return self._reply(self._chooser.in_order(), command, self._until())

    async def _reply(self, candidates: Candidates, command: Command[_T], until: float) -> _T:
        with as_query():
            records, event = await self._ask(candidates, lambda conn: conn.admin(command), until)
            return records.reply(command, event)

    def _only(self, address: Address) -> Candidates:
        if address not in self._addresses:
            raise ValueError(f"{address} is none of this client's servers")
        return self._chooser.only(self._addresses.index(address))

    # Placing

    async def _launch(self, jobs: Sequence[Job], until: float | None = None) -> None:
        """Submit jobs; those for which no server can be reached end. Then wait while much output waits to be sent.

        Args:
            jobs: the jobs, with their candidates.
            until: when to stop. Jobs that are not submitted by then end. None means after the client's timeout, whose
                end is computed only if something has to be waited for.
        """
        only = self._sessions[0] if len(self._sessions) == 1 else None
        submitted = only is not None and await self._try(only, lambda records: records.submit(jobs))
        if submitted and only is not None and not only.full:
            return
        until = self._until() if until is None else until
        if not submitted:
            self._check_open()
            with anyio.CancelScope(deadline=until):
                await self._dispatch(jobs)
            for job in jobs:
                if job.server is None and job.outcome is None:
                    job.end(NotSent(unreachable(self._known_failures())))
        for session in self._sessions:
            if session.full and any(job.server == session.address for job in jobs):
                with anyio.CancelScope(deadline=until):
                    await session.wait_while_full()

    async def _dispatch(self, jobs: Sequence[Job]) -> None:
        """Submit jobs, each to the first of its servers that can be reached."""
        for index in self._chooser.on_the_side(anyio.current_time()):
            self._sessions[index].begin_to_reach(self._start)
        dispatch = Dispatch(jobs, self._chooser, self._connect_timeout, self._known_failures())
        while dispatch.left:
            groups = dispatch.plan(anyio.current_time())
            if len(groups) == 1:
                (placing,) = groups.items()
                await self._place(dispatch, *placing)
            elif groups:
                await self._place_all(dispatch, groups)
            if not groups and dispatch.left:
                await anyio.sleep_until(dispatch.retry_at)

    async def _place(self, dispatch: Dispatch[Job], index: int, jobs: list[Job]) -> None:
        session = self._sessions[index]
        if not await self._use(session, lambda records: records.submit(jobs)):
            dispatch.failed(session.address, session.failure, jobs)

    async def _place_all(self, dispatch: Dispatch[Job], groups: dict[int, list[Job]]) -> None:
        """Submit jobs to their servers side by side: one that hangs holds only its own up."""
        errors: list[GearmanError] = []

        async def place(index: int, jobs: list[Job]) -> None:
            try:
                await self._place(dispatch, index, jobs)
            except GearmanError as error:  # not to come out of the group as one of many
                errors.append(error)

        async with anyio.create_task_group() as group:
            for placing in groups.items():
                group.start_soon(place, *placing)
        if errors:
            raise errors[0]

    def _on_retryable(self, job: Job) -> None:
        """Submit a job once more whose submission came to nothing."""
        if self._closed or self._starter is None:
            job.give_up()
        elif job not in self._unfinished:  # else its task looks again
            self._unfinished[job] = None
            self._starter.start_soon(self._run, partial(self._retry, job))  # a callback may have brought it here

    async def _retry(self, job: Job) -> None:
        """Submit a retryable job again, until it is submitted or has ended."""
        try:
            while job.retryable is not None:
                job.search(anyio.current_time() + self._resubmit_timeout)
                job.prepare_retry(self._chooser)
                await self._launch([job], math.inf)
        except GearmanError as error:  # it is over a limit, or the client is closed
            self._give_up(job, str(error))
        except BaseException:
            self._give_up(job, "closed by the client")
            raise
        finally:
            del self._unfinished[job]

    def _give_up(self, job: Job, cause: str) -> None:
        """End a job that is submitted nowhere, as no task takes it up any more."""
        if job.outcome is None and not any(job in session.records for session in self._sessions):
            job.end(job.retryable or NotSent(cause))

    def _start(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run something in a task, until the client is closed at the latest."""
        assert self._group is not None
        self._group.start_soon(self._run, run)

    async def _run(self, run: Callable[[], Awaitable[None]]) -> None:
        with anyio.CancelScope() as scope:
            self._scopes[scope] = None
            if self._closed:
                scope.cancel()
            try:
                await run()
            except Exception:  # it would end the caller's block; the jobs that it concerns end with their connection
                _log.exception("a connection has failed in a way that it should not")
            finally:
                del self._scopes[scope]

    async def _use(self, session: ClientSession, call: Callable[[OpenRequests[Job, Answer]], object]) -> bool:
        """Queue something for a server, connecting to it before if need be; return whether it could be reached."""
        return await self._try(session, call) or (
            await session.reach(self._start) and not self._closed and await self._try(session, call)
        )

    async def _try(self, session: ClientSession, call: Callable[[OpenRequests[Job, Answer]], object]) -> bool:
        """Queue something for a server, if there is a connection; return whether there is."""
        self._check_open()
        await anyio.lowlevel.checkpoint_if_cancelled()
        session.look()
        if not session.connected:
            return False
        call(session.records)
        session.settle()
        return True

    def _check_open(self) -> None:
        if self._group is None:
            raise GearmanError("this client is not open: use it in its async with block")
        self.check_loop()
        if self._closed:
            raise GearmanError("this client is closed")

    def check_loop(self) -> None:
        """Refuse to run in another event loop than that of the client's block.

        Raises:
            GearmanError: another one runs.
        """
        if self._loop is not this_loop():
            raise GearmanError("this client belongs to another event loop: use it where its async with block began")

    # Jobs that stream

    def before_wait(self) -> None:
        """Refuse to wait in another event loop than the client's, and read all connections that can be read."""
        self.check_loop()
        self.on_event_taken()

    def check_progress(self, jobs: Iterable[Job]) -> None:
        """Make sure that jobs can end; see `JobRecord.check_progress`."""
        if any(session.paused for session in self._sessions):
            for job in jobs:
                job.check_progress()

    def on_event_taken(self) -> None:
        """Read on, if a job that streams has held that up and holds less now."""
        for session in self._sessions:
            session.read_on()

    def on_iteration_left(self) -> None:
        """Read on, as `on_event_taken`; in a task, as the garbage collector may be the one that leaves.

        In another thread than the client's, this is left to the next call that waits.
        """
        if any(session.paused for session in self._sessions) and threading.get_ident() == self._thread:
            assert self._starter is not None
            self._starter.start_soon(self._read_on)

    async def _read_on(self) -> None:
        self.on_event_taken()

    def _on_paused(self) -> None:
        """Wake the tasks that wait for jobs to end: some may not."""
        for iteration in list(self._iterations):
            iteration.look_again()

    def _known_failures(self) -> list[tuple[Address, OSError]]:
        late = TimeoutError("no answer in time")
        failures = [(session.address, late if session.dialing else session.failure) for session in self._sessions]
        return [(address, failure) for address, failure in failures if failure is not None]

    def _introduce(self, session: ClientSession) -> None:
        if self._exceptions:
            session.records.ask(lambda conn: conn.set_option(b"exceptions"), Answer())
            session.records.conn.set_option(b"reruns", optional=True)  # nobody needs to know the answer

    async def _ask(
        self, candidates: Candidates, request: Callable[[ClientConnection], RequestId], until: float
    ) -> tuple[OpenRequests[Job, Answer], Event]:
        """Send a request to the first server that can be reached, and wait for its answer.

        Args:
            candidates: the servers.
            request: queues the request.
            until: when to leave off.

        Raises:
            JobNotSent: no server could be reached.
            StreamBlocked: jobs hold so much unread that the answer is not read.
            TimeoutError: the time has passed.
        """
        self._check_open()
        failures: dict[Address, OSError] = {}
        answer = Answer()
        used: list[OpenRequests[Job, Answer]] = []
        session: ClientSession | None = None

        def call(records: OpenRequests[Job, Answer]) -> None:
            records.ask(request, answer)
            used.append(records)

        def check() -> None:
            self.before_wait()
            used[0].check_progress()

        with anyio.CancelScope(deadline=until):
            while not used:
                now = anyio.current_time()
                match candidates.next(now, now + self._connect_timeout):
                    case Try(index):
                        session = self._sessions[index]
                        if not await self._use(session, call) and session.failure is not None:
                            failures[session.address] = session.failure
                    case WaitUntil(retry_at):
                        await anyio.sleep_until(retry_at)
                    case None:
                        raise JobNotSent(unreachable(failures.items() or self._known_failures()))
            return used[0], await answer.wait(check)
        if session is None:
            raise JobNotSent(unreachable(self._known_failures()))
        raise self._no_answer(session.address)


class _AsCompleted(AsyncIterator[Job]):
    """Jobs as they end. Not a generator, because event loops want those to be closed after a `break`."""

    def __init__(self, client: Client, jobs: dict[Job, int], until: float, timeout: float | None) -> None:
        self._client = client
        self._left = jobs
        self._timeout = timeout
        self._until = until
        self._came = anyio.Event()
        self._ended: deque[Job] = deque()
        # Jobs may run for long after the loop has been left: they must not keep this object alive.
        on_resolved = weakref.WeakMethod(self._on_resolved)

        def watcher(job: Job) -> None:
            if (call := on_resolved()) is not None:
                call(job)

        self._watcher = watcher
        for job in self._left:
            job.watch(watcher)

    def __del__(self) -> None:
        for job in self._left:
            job.unwatch(self._watcher)

    def _on_resolved(self, job: Job) -> None:
        self._ended.extend([job] * self._left.get(job, 0))
        self._came.set()

    def look_again(self) -> None:
        """Wake the task that waits."""
        self._came.set()

    async def __anext__(self) -> Job:
        if not self._left:
            raise StopAsyncIteration
        while not self._ended:
            self._client.before_wait()
            self._client.check_progress(self._left)
            self._came = anyio.Event()
            with anyio.CancelScope(deadline=self._until) as scope:
                await self._came.wait()
            if scope.cancelled_caught and not self._ended:
                left = sum(self._left.values())
                raise TimeoutError(
                    f"{left} jobs have not ended within {self._timeout:g} s; they have not been cancelled"
                )
        job = self._ended.popleft()
        if self._left[job] > 1:
            self._left[job] -= 1
        else:
            del self._left[job]
        return job
