"""The client: submits jobs and waits for their results."""

from __future__ import annotations

import logging
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar, Unpack

from gear_net.connecting import Connect, open_socket, resolve
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
    Answer,
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
from .client_session import ClientSession
from .job import Job
from .pump import Pump
from .survey import Question

__all__ = ["Client"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_A = TypeVar("_A")
_R = TypeVar("_R")
_NEVER: Final = float("inf")


class Client:
    """A Gearman client. Threads may share it; it starts none of its own.

    A call that needs a server connects to it, if there is no connection. Looking up a server's name blocks as long as
    the system's resolver does.

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
            connect: opens a connected stream socket to a server, in place of TCP and TLS. If it raises anything,
                the server cannot be reached.
            connect_timeout: seconds for each attempt to connect to a server, TLS included.
            timeout: seconds that each call may take to find a server and get its answer; None for no limit.
                Results of jobs have no limit of their own.
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
        self._connect = connect
        self._connect_timeout = setting("connect_timeout", connect_timeout)
        self._timeout = None if timeout is None else setting("timeout", timeout)
        self._resubmit_timeout = setting("resubmit_timeout", resubmit_timeout)
        self._exceptions = exceptions
        self._max_unique_size = check_max_unique_size(max_unique_size)
        files = None if tls is None else ClientTLS(tls)
        self._sessions = [
            ClientSession(
                address,
                files,
                self._options,
                self._connect_timeout,
                LoggedStanding(address, _log, retry_pauses),
                self._introduce,
                self._on_retryable,
            )
            for address in self._addresses
        ]
        self._unread = Unread(max_unread)
        self._retryable: dict[Job, None] = {}
        self._chooser = ServerChooser(self._sessions, policy)
        self._pump = Pump(f"gear_sync.Client of {', '.join(map(str, self._addresses))}", self._read_on)
        for session in self._sessions:
            self._pump.add(session)
        self.admin = Admin(self._ask_admin)

    # Jobs

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
    ) -> Job:
        """Submit a job (``SUBMIT_JOB`` and its kin), without waiting for an answer.

        Returns once the submission has left for the server, or when the client's ``timeout`` is over; what is left of
        it then leaves while something else is waited for.

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
        return self._submit(job, self._until())

    def _submit(self, job: Job, until: float) -> Job:
        self._launch([job], until)
        self._send([job], until)
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
            value: what to work on.
            unique: as in `submit`.
            priority: which queue it goes to; a `Priority` or its name, as ``"high"``.
            timeout: longest time to wait for the result in seconds; None for no limit.

        Raises:
            CodecError: the value cannot be encoded, or the result cannot be decoded.
            JobError: the job ended without a result, as in `Job.result`; or it could not be submitted.
            TimeoutError: the job has not ended in time. It is not cancelled.
        """
        until = deadline(timeout, time.monotonic())
        job = self._job(JobRequest(function.name, function.workload(value), unique, priority))
        self._submit(job, min(until, self._until()))
        if not job.wait(_left(until)):
            raise TimeoutError(f"{job} has not ended within {timeout:g} s; it has not been cancelled")
        return function.result(job.result_data())

    def submit_many(self, requests: Iterable[JobRequest], *, resubmit: bool = False) -> list[Job]:
        """Submit many jobs, in one write for each server; returns when they have left, as `submit`.

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
        until = self._until()
        self._launch(jobs, until)
        self._send(jobs, until)
        return jobs

    def as_completed(self, jobs: Iterable[Job], timeout: float | None = None) -> Iterator[Job]:
        """Yield jobs as they end, whatever their outcome.

        Args:
            jobs: jobs of this client.
            timeout: longest time to wait in seconds, for all of them together; None for no limit.

        Raises:
            TimeoutError: the time has passed. The other jobs are not cancelled, and can be waited for again.
            ValueError: one is a job of another client. Raised at the call.
        """
        left: dict[Job, int] = Counter(iter(jobs))  # a mapping would be taken for counts
        for job in left:
            if job._owner is not self:
                raise ValueError(f"{job} belongs to another client, which alone can wait for it")
        return self._as_completed(left, deadline(timeout, time.monotonic()), timeout)

    def _as_completed(self, left: dict[Job, int], until: float, timeout: float | None) -> Iterator[Job]:
        ended: deque[Job] = deque()
        try:
            with self._pump.gate, self._pump.lock:
                for job in left:
                    job.watch(ended.append)
            while left:
                if not self._pump.wait(lambda: bool(ended or self._retryable or self._stuck(left)), _left(until)):
                    self._check_open()
                    raise TimeoutError(
                        f"{len(left)} jobs have not ended within {timeout:g} s; they have not been cancelled"
                    )
                while ended:  # first: a job that is submitted once more may have to wait for its server
                    job = ended.popleft()
                    yield from [job] * left.pop(job)
                with self._pump.gate, self._pump.lock:
                    for job in self._stuck(left):
                        job.check_progress()
                for job in list(self._retryable):
                    self._retry(job, until)
                if left and not ended and time.monotonic() >= until:
                    raise TimeoutError(
                        f"{len(left)} jobs have not ended within {timeout:g} s; they have not been cancelled"
                    )
        finally:
            for job in left:
                job.unwatch(ended.append)

    def _stuck(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the jobs that cannot end as others hold too much unread. With the lock held."""
        return [job for job in jobs if job.stuck] if any(session.paused for session in self._sessions) else []

    def submit_background(
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
        (result,) = self._taken([job])
        if isinstance(result, Exception):
            raise result
        return result

    def submit_background_many(
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
        return self._taken(self._jobs(requests, background=True))

    def _taken(self, jobs: list[Job]) -> list[JobHandle | JobError | TimeoutError | StreamBlocked]:
        """Submit background jobs, and wait until servers have taken them; return the handle of each, or the error."""
        until = self._until()
        self._launch(jobs, until)
        results: list[JobHandle | JobError | TimeoutError | StreamBlocked] = []
        in_time = True
        for job in jobs:
            try:
                in_time = in_time and self.wait_for_job(job, lambda job=job: job.resolved, _left(until))  # type: ignore[misc]
                results.append(job.taken() if job.resolved else self._no_answer(job.server))
            except (JobError, StreamBlocked) as error:
                results.append(error)
        return results

    def _no_answer(self, server: Address | None) -> TimeoutError:
        return TimeoutError(f"{server}: no answer within {self._timeout:g} s")

    def _until(self) -> float:
        """Return when a call that begins now has to be over."""
        return _NEVER if self._timeout is None else time.monotonic() + self._timeout

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

    def status_of_job(self, job: Job) -> StatusReceived:
        """Ask a job's server what it knows of the job; `Job.status` calls this."""
        until = self._until()
        handle = job.wait_queued(self._timeout)
        return self._status(handle.server, lambda conn: conn.get_status(handle), until)

    def cancel_job(self, job: Job) -> bool:
        """Cancel a job at its server; `Job.cancel` calls this."""
        until = self._until()
        handle = job.wait_queued(self._timeout)
        try:
            self._reply(self._only(handle.server), CancelJob(handle), until)
        except ServerError as error:
            if error.code != UNKNOWN_JOB:
                raise
            return False
        return True

    def status(self, handle: bytes | bytearray) -> StatusReceived:
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
            return self._status(handle.server, lambda conn: conn.get_status(name), self._until())
        return self._status_anywhere(lambda conn: conn.get_status(name))

    def status_unique(self, unique: str | bytes | bytearray) -> StatusReceived:
        """Ask all servers what they know of a job, by its unique (``GET_STATUS_UNIQUE``); raises as `status`."""
        name = as_bytes(unique)
        return self._status_anywhere(lambda conn: conn.get_status_unique(name))

    def _status_anywhere(self, request: Callable[[ClientConnection], RequestId]) -> StatusReceived:
        """Ask all servers at once: one that hangs holds no other up."""
        if len(self._sessions) == 1:
            return self._status(self._addresses[0], request, self._until())
        now = time.monotonic()
        until = self._until()
        late = "no answer in time"
        questions = left = [Question(session, request, now + self._connect_timeout) for session in self._sessions]
        while left and now < until:
            for question in left:
                question.advance(self._try, self._dial)
            left = [question for question in left if question.result is None]
            results = [question.result for question in questions if isinstance(question.result, StatusReceived)]
            if any(status.known for status in results):
                break
            if results and now + self._connect_timeout < until:
                until = now + self._connect_timeout
                late = f"no answer within {self._connect_timeout:g} s, in which another server has answered"
            self._wait_for_any(left, until)
            now = time.monotonic()
        return status_of_all([q.result or TimeoutError(f"{q.session.address}: {late}") for q in questions])

    def _wait_for_any(self, questions: list[Question], until: float) -> None:
        """Wait until one of some questions can be advanced."""
        wake_at = min([until, *(question.due_at for question in questions)])
        if questions:
            self._pump.wait(lambda: any(question.moved for question in questions), _left(wake_at))

    def _status(
        self, address: Address, request: Callable[[ClientConnection], RequestId], until: float
    ) -> StatusReceived:
        with as_query():
            records, event = self._ask(self._only(address), request, until)
            return records.status(event)

    def echo(self, data: bytes | bytearray) -> bytes:
        """Let the first server that can be reached send data back (``ECHO_REQ``); raises as `status`."""
        payload = as_payload("the data", data)
        with as_query():
            candidates = self._chooser.in_order()
            records, event = self._ask(candidates, lambda conn: conn.echo(payload), self._until())
            return records.echoed(event)

    def admin_of(self, server: ServerAddress) -> Admin:
        """Return the text protocol for administrators, with one of the client's servers.

        Raises:
            ValueError: it is none of the client's servers.
        """
        address = parse_address(server)
        self._only(address)
        return Admin(lambda command: self._reply(self._only(address), command, self._until()))

    def _ask_admin(self, command: Command[_T]) -> _T:
        return self._reply(self._chooser.in_order(), command, self._until())

    def _reply(self, candidates: Candidates, command: Command[_T], until: float) -> _T:
        with as_query():
            records, event = self._ask(candidates, lambda conn: conn.admin(command), until)
            return records.reply(command, event)

    def _only(self, address: Address) -> Candidates:
        if address not in self._addresses:
            raise ValueError(f"{address} is none of this client's servers")
        return self._chooser.only(self._addresses.index(address))

    # The end

    def close(self) -> None:
        """Close the connections. Jobs that somebody waits for end as `Lost` or `NotSent`. Can be called twice."""
        if self._pump.inherited:
            return
        self._pump.close("closed by the client")
        with self._pump.gate, self._pump.lock:
            for job in list(self._retryable):
                self._give_up(job)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    # Waiting, and placing

    def wait_for_job(self, job: Job, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is done that a job's events bring about; `Job` calls this.

        Args:
            job: the job, which is submitted again here if it is retryable.
            done: tells whether it is so; called with the lock held.
            timeout: longest time to wait in seconds; None for no limit. 0 and less as in `Pump.wait`.

        Returns:
            Whether it is done.

        Raises:
            StreamBlocked: other jobs hold so much unread that it cannot be done.
        """
        until = _NEVER if timeout is None else time.monotonic() + timeout
        is_done = False  # set by `look`: another thread may submit the job again before this one runs

        def look() -> bool:
            nonlocal is_done
            is_done = job.retryable is None and done()
            return is_done or job.retryable is not None or job.stuck

        left = timeout
        while self._pump.wait(look, left):
            if is_done:
                return True
            with self._pump.gate, self._pump.lock:
                job.check_progress()
            self._retry(job, until)
            if time.monotonic() >= until:
                return self._pump.wait(done, 0)
            left = _left(until)
        self._check_open()
        return False

    def _read_on(self) -> None:
        """Read connections again that can be. With the lock held."""
        for session in self._sessions:
            session.read_on()

    def on_event_taken(self) -> None:
        """Read on, if a job that streams has held that up and holds less now; `JobEvents` calls this."""
        if any(session.paused for session in self._sessions):
            with self._pump.gate, self._pump.lock:
                self._pump.changed(watch=any(session.paused and session.readable for session in self._sessions))

    def on_iteration_left(self) -> None:
        """Read on, as `on_event_taken`; without the lock, as the garbage collector may be the one that leaves."""
        if any(session.paused for session in self._sessions):
            self._pump.wake()

    def _check_open(self) -> None:
        if self._pump.closed:
            raise GearmanError("this client is closed")

    def _on_retryable(self, job: Job) -> None:
        """Keep a job until a thread that waits submits it again, or the client is closed. With the lock held."""
        self._retryable[job] = None  # first, as KeyboardInterrupt may come in between
        job.search(time.monotonic() + self._resubmit_timeout)
        if self._pump.closed:
            self._give_up(job)

    def _give_up(self, job: Job) -> None:
        del self._retryable[job]
        job.give_up()

    def _retry(self, job: Job, until: float) -> None:
        """Submit a retryable job again, unless another thread does; it ends if no server is left."""
        taken = False
        try:
            with self._pump.gate, self._pump.lock:
                if job.retryable is None:
                    return
                taken = True
                self._retryable.pop(job, None)  # KeyboardInterrupt may have kept it out
                job.prepare_retry(self._chooser)
            self._launch([job], until, again=True)
        except BaseException:
            with self._pump.gate, self._pump.lock:
                if taken and job.outcome is None and not any(job in session.records for session in self._sessions):
                    self._retryable.pop(job, None)
                    job.end(job.retryable or NotSent("interrupted"))
            raise

    def _launch(self, jobs: Sequence[Job], until: float, *, again: bool = False) -> None:
        """Submit jobs; those for which no server can be reached end.

        Args:
            jobs: the jobs, with their candidates.
            until: when the time is up.
            again: whether they are submitted again: then they stay retryable when the time is up.
        """
        if len(self._sessions) == 1 and self._try(self._sessions[0], lambda records: records.submit(jobs)):
            return  # the common case, without a plan
        for index in self._chooser.on_the_side(time.monotonic()):
            self._dial(self._sessions[index])
        dispatch = Dispatch(jobs, self._chooser, self._connect_timeout, self._known_failures())
        while dispatch.left:
            with self._pump.gate, self._pump.lock:
                groups = dispatch.plan(time.monotonic())
            self._place(dispatch, groups, until)
            if dispatch.left and time.monotonic() >= until:
                with self._pump.gate, self._pump.lock:
                    for job in dispatch.stop():
                        if again:
                            self._on_retryable(job)
                        else:
                            job.give_up()
            elif dispatch.left and not groups:
                self._sleep(min(dispatch.retry_at, until))
                self._check_open()

    def _place(self, dispatch: Dispatch[Job], groups: dict[int, list[Job]], until: float) -> None:
        """Submit jobs to their servers, to each as soon as it is reached: one that hangs holds only its own up.

        Args:
            dispatch: is told of the servers that could not be reached.
            groups: the jobs, by the index of their server.
            until: when the time is up.
        """

        def submit(session: ClientSession, jobs: list[Job]) -> bool:
            return self._try(session, lambda records: records.submit(jobs))

        waiting = [
            (session, jobs)
            for session, jobs in ((self._sessions[index], jobs) for index, jobs in groups.items())
            if not submit(session, jobs)
        ]
        for session, _jobs in waiting:
            self._dial(session)

        def reached_or_not() -> bool:
            return not all(session.dialing for session, _jobs in waiting)

        while waiting:
            in_time = self._pump.wait(reached_or_not, _left(until))
            still: list[tuple[ClientSession, list[Job]]] = []
            for session, jobs in waiting:
                if in_time and session.dialing:
                    still.append((session, jobs))
                elif not (session.connected and submit(session, jobs)):
                    late = TimeoutError("no answer in time") if session.dialing else None
                    dispatch.failed(session.address, late or session.failure, jobs)
            waiting = still

    def _send(self, jobs: Sequence[Job], until: float) -> None:
        """Pump until submissions have left, or it is time to leave off: the program may wait for none of them soon."""
        for session in self._sessions:
            if session.sending and any(job.server == session.address for job in jobs):
                with self._pump.gate, self._pump.lock:
                    sent = session.when_sent()
                self._pump.wait(sent, _left(until))

    def _use(self, session: ClientSession, call: Callable[[OpenRequests[Job, Answer]], object], until: float) -> bool:
        """Queue something for a server, connecting to it before if need be; return whether it could be reached.

        Args:
            session: the server.
            call: queues it; called with the lock held.
            until: when the time is up.
        """
        return self._try(session, call) or (self._reach(session, until) and self._try(session, call))

    def _try(self, session: ClientSession, call: Callable[[OpenRequests[Job, Answer]], object]) -> bool:
        """Queue something for a server, if there is a connection; return whether there is."""
        pump = self._pump
        pump.check_process()
        with pump.gate, pump.lock:
            self._check_open()
            try:
                pump.look()
                if not session.connected:
                    return False
                try:
                    call(session.records)
                finally:
                    pump.changed(watch=session.settle())
            except BaseException as error:
                pump.interrupted(error)
                raise
            return True

    def _reach(self, session: ClientSession, until: float) -> bool:
        """Connect to a server; return whether that went well, within the time."""
        self._dial(session)
        self._pump.wait(lambda: not session.dialing, _left(until))
        return session.connected

    def _dial(self, session: ClientSession) -> None:
        """Begin to connect to a server, unless that is being done."""
        if session.dialing:
            return
        began = time.monotonic()
        try:
            with self._pump.gate, self._pump.lock:
                self._pump.open()
            sock = None if self._connect is None else open_socket(self._connect, session.address)
            endpoints = resolve(session.address) if sock is None else []
        except OSError as error:
            with self._pump.gate, self._pump.lock:
                session.fail(error, began)
            return
        with self._pump.gate, self._pump.lock:
            if self._pump.closed:  # meanwhile
                if sock is not None:
                    sock.close()
                session.failure = ConnectionAbortedError("closed by the client")
                return
            try:
                if sock is not None:
                    session.use(sock)
                else:
                    session.dial(endpoints, began)
                self._pump.changed(watch=True)
            except BaseException as error:
                self._pump.interrupted(error)
                raise

    def _known_failures(self) -> list[tuple[Address, OSError]]:
        return [(session.address, session.failure) for session in self._sessions if session.failure]

    def _introduce(self, session: ClientSession) -> None:
        if self._exceptions:
            session.records.ask(lambda conn: conn.set_option(b"exceptions"), Answer())
            session.records.conn.set_option(b"reruns", optional=True)  # nobody needs to know the answer

    def _sleep(self, until: float) -> None:
        """Wait until a time, doing meanwhile what others wait for."""
        try:
            self._pump.wait(lambda: False, _left(until))
        except OSError:  # no descriptors for the pump: there is nothing to do meanwhile
            time.sleep(max(0.0, until - time.monotonic()))

    def _ask(
        self, candidates: Candidates, request: Callable[[ClientConnection], RequestId], until: float
    ) -> tuple[OpenRequests[Job, Answer], Event]:
        """Send a request to the first server that can be reached, and wait for its answer.

        Args:
            candidates: the servers.
            request: queues the request; called with the lock held.
            until: when the time is up.

        Raises:
            JobNotSent: no server could be reached.
            StreamBlocked: jobs hold so much unread that the answer is not read.
            TimeoutError: the time has passed.
        """
        failures: dict[Address, OSError] = {}
        answer = Answer()
        used: list[OpenRequests[Job, Answer]] = []
        address: Address | None = None

        def call(records: OpenRequests[Job, Answer]) -> None:
            records.ask(request, answer)
            used.append(records)

        while not used:
            now = time.monotonic()
            if now >= until:
                raise JobNotSent(unreachable(self._known_failures())) if address is None else self._no_answer(address)
            match candidates.next(now, now + self._connect_timeout):
                case Try(index):
                    session = self._sessions[index]
                    address = session.address
                    if not self._use(session, call, until) and session.failure is not None:
                        failures[address] = session.failure
                case WaitUntil(retry_at):
                    self._sleep(min(retry_at, until))
                case None:
                    raise JobNotSent(unreachable(failures.items() or self._known_failures()))
        (records,) = used
        while self._pump.wait(lambda: answer.event is not None or records.stopped, _left(until)):
            with self._pump.gate, self._pump.lock:
                if answer.event is not None:
                    return records, answer.event
                records.check_progress()
        self._check_open()
        raise self._no_answer(records.server)


def _left(until: float) -> float | None:
    """Return the seconds until a time; None if there are no end of them."""
    return None if until == _NEVER else max(0.0, until - time.monotonic())
