"""The servers of a client: where jobs are submitted, requests are asked, and threads wait."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from gear_net.client_servers import ClientServersBase
from gear_net.connecting import Connect, open_socket, resolve
from gear_net.settings import ClientSettings
from gearproto import (
    AlreadyClosed,
    ClientConnection,
    ConnectionLost,
    JobError,
    NotSent,
    ServerError,
    StreamBlocked,
)
from gearproto.addresses import Address
from gearproto.admin import UNKNOWN_JOB, CancelJob, Command
from gearproto.client import (
    Answer,
    Candidates,
    Dispatch,
    JobHandle,
    JobRecord,
    OpenRequests,
    Try,
    WaitUntil,
    status_of_all,
    unreachable,
)
from gearproto.event import Event
from gearproto.events import RequestId, StatusReceived

from .client_session import ClientSession
from .pump import Pump
from .survey import Question

__all__ = ["ClientServers", "seconds_left"]

_log = logging.getLogger("gear_sync.client")

_T = TypeVar("_T")


def seconds_left(until: float) -> float | None:
    """Return the seconds until a time; None if that is infinitely far."""
    return None if until == math.inf else max(0.0, until - time.monotonic())


class ClientServers(ClientServersBase[ClientSession, JobRecord]):
    """The servers of a client. Threads may share it.

    Attributes:
        pump: moves the bytes of all sessions, in a thread that waits; its lock guards sessions and jobs.
        retryable: jobs that a thread that waits for them submits again.
    """

    def __init__(self, settings: ClientSettings, connect: Connect | None) -> None:
        """Begin without connections.

        Args:
            settings: the options of the client.
            connect: opens a connected stream socket to a server, in place of TCP and TLS.
        """
        self._connect = connect
        super().__init__(
            settings,
            _log,
            lambda address, standing: ClientSession(address, standing, settings, self._on_retryable),
            JobRecord,
        )
        self.retryable: dict[JobRecord, None] = {}
        self.pump = Pump(f"gear_sync.Client of {', '.join(map(str, settings.addresses))}", self.read_on)
        for session in self.sessions:
            self.pump.add(session)

    def until(self) -> float:
        """Return when a call that begins now has to be over."""
        return math.inf if self.settings.timeout is None else time.monotonic() + self.settings.timeout

    # Waiting

    def wait(self, job: JobRecord, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is done that a job's events bring about.

        Args:
            job: the job, which is submitted again here if it is retryable.
            done: tells whether it is so; called with the lock held.
            timeout: longest time to wait in seconds; None for no limit. 0 and less as in `Pump.wait`.

        Returns:
            Whether it is done.

        Raises:
            StreamBlocked: other jobs hold so much unread that it cannot be done.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        is_done = False  # set by `look`: another thread may submit the job again before this one runs

        def look() -> bool:
            nonlocal is_done
            is_done = job.retryable is None and done()
            return is_done or job.retryable is not None or job.stuck

        left = timeout
        while self.pump.wait(look, left):
            if is_done:
                return True
            with self.pump.gate, self.pump.lock:
                job.check_progress()
            self.retry(job, until)
            if time.monotonic() >= until:
                return self.pump.wait(done, 0)
            left = seconds_left(until)
        self.check_open()
        return False

    def stuck(self, jobs: Iterable[JobRecord]) -> JobRecord | None:
        """Return a job that cannot end as others hold too much unread, if there is one. With the lock held."""
        return next((job for job in jobs if job.stuck), None) if self.paused else None

    def on_event_taken(self) -> None:
        """Read on, if a job that streams has held that up and holds less now."""
        if self.paused:
            with self.pump.gate, self.pump.lock:
                self.pump.changed(watch=any(session.paused and session.readable for session in self.sessions))

    def on_iteration_left(self) -> None:
        """Read on, as `on_event_taken`; without the lock, as the garbage collector may be the one that leaves."""
        if self.paused:
            self.pump.wake()

    def check_open(self) -> None:
        """Refuse to work for a client that is closed."""
        if self.pump.closed:
            raise AlreadyClosed("this client is closed: make another one")

    def close(self) -> None:
        """Close the connections. Foreground jobs that are open end as `Lost` or `NotSent`. Can be called twice."""
        if self.pump.inherited:
            return
        self.pump.close("closed by the client")
        with self.pump.gate, self.pump.lock:
            for job in list(self.retryable):
                self._give_up(job)

    # Placing

    def submit(self, jobs: Sequence[JobRecord], until: float) -> None:
        """Submit jobs, and wait until they have left; those for which no server can be reached end."""
        self.launch(jobs, until)
        self._send(jobs, until)

    def take(self, jobs: list[JobRecord]) -> list[JobHandle | JobError | TimeoutError | StreamBlocked]:
        """Submit background jobs, and wait until servers have taken them; return the handle of each, or the error."""
        until = self.until()
        self.launch(jobs, until)
        results: list[JobHandle | JobError | TimeoutError | StreamBlocked] = []
        in_time = True
        for job in jobs:
            try:
                in_time = in_time and self.wait(job, lambda job=job: job.resolved, seconds_left(until))  # type: ignore[misc]
                results.append(job.taken() if job.resolved else self.no_answer(job.server))
            except (JobError, StreamBlocked) as error:
                results.append(error)
        return results

    def _on_retryable(self, job: JobRecord) -> None:
        """Keep a job until a thread that waits submits it again, or the client is closed. With the lock held."""
        self.retryable[job] = None  # first, as KeyboardInterrupt may come in between
        job.search(time.monotonic() + self.settings.resubmit_timeout)
        if self.pump.closed:
            self._give_up(job)

    def _give_up(self, job: JobRecord) -> None:
        del self.retryable[job]
        job.give_up()

    def retry(self, job: JobRecord, until: float) -> None:
        """Submit a retryable job again, unless another thread does; it ends if no server is left."""
        taken = False
        try:
            with self.pump.gate, self.pump.lock:
                if job.retryable is None:
                    return
                taken = True
                self.retryable.pop(job, None)  # KeyboardInterrupt may have kept it out
                job.prepare_retry(self._chooser)
            self.launch([job], until, again=True)
        except BaseException:
            with self.pump.gate, self.pump.lock:
                if taken and job.outcome is None and not any(job in session.records for session in self.sessions):
                    self.retryable.pop(job, None)
                    job.end(job.retryable or NotSent("interrupted"))
            raise

    def launch(self, jobs: Sequence[JobRecord], until: float, *, again: bool = False) -> None:
        """Submit jobs; those for which no server can be reached end.

        Args:
            jobs: the jobs, with their candidates.
            until: when the time is up.
            again: whether they are submitted again: then they stay retryable when the time is up.
        """
        if len(self.sessions) == 1 and self._try(self.sessions[0], lambda records: records.submit(jobs)):
            return  # the common case, without a plan
        for index in self._chooser.on_the_side(time.monotonic()):
            self._dial(self.sessions[index])
        dispatch = Dispatch(jobs, self._chooser, self.settings.connect_timeout, self.known_failures())
        while dispatch.left:
            with self.pump.gate, self.pump.lock:
                groups = dispatch.plan(time.monotonic())
            self._place(dispatch, groups, until)
            if dispatch.left and time.monotonic() >= until:
                with self.pump.gate, self.pump.lock:
                    for job in dispatch.stop():
                        if again:
                            self._on_retryable(job)
                        else:
                            job.give_up()
            elif dispatch.left and not groups:
                self._sleep(min(dispatch.retry_at, until))
                self.check_open()

    def _place(self, dispatch: Dispatch[JobRecord], groups: dict[int, list[JobRecord]], until: float) -> None:
        """Submit jobs to their servers, to each as soon as it is reached: one that hangs holds only its own up.

        Args:
            dispatch: is told of the servers that could not be reached.
            groups: the jobs, by the index of their server.
            until: when the time is up.
        """

        def submit(session: ClientSession, jobs: list[JobRecord]) -> bool:
            return self._try(session, lambda records: records.submit(jobs))

        waiting = [
            (session, jobs)
            for session, jobs in ((self.sessions[index], jobs) for index, jobs in groups.items())
            if not submit(session, jobs)
        ]
        for session, _jobs in waiting:
            self._dial(session)

        def reached_or_not() -> bool:
            return not all(session.dialing for session, _jobs in waiting)

        while waiting:
            in_time = self.pump.wait(reached_or_not, seconds_left(until))
            still: list[tuple[ClientSession, list[JobRecord]]] = []
            for session, jobs in waiting:
                if in_time and session.dialing:
                    still.append((session, jobs))
                elif not (session.connected and submit(session, jobs)):
                    late = TimeoutError("no answer in time") if session.dialing else None
                    dispatch.failed(session.address, late or session.failure, jobs)
            waiting = still

    def _send(self, jobs: Sequence[JobRecord], until: float) -> None:
        """Pump until submissions have left, or it is time to leave off: the program may wait for none of them soon."""
        for session in self.sessions:
            if session.sending and any(job.server == session.address for job in jobs):
                with self.pump.gate, self.pump.lock:
                    sent = session.when_sent()
                self.pump.wait(sent, seconds_left(until))

    def _use(self, session: ClientSession, call: Callable[[OpenRequests[JobRecord]], object], until: float) -> bool:
        """Queue something for a server, connecting to it before if need be; return whether it could be reached.

        Args:
            session: the server.
            call: queues it; called with the lock held.
            until: when the time is up.
        """
        return self._try(session, call) or (self._reach(session, until) and self._try(session, call))

    def _try(self, session: ClientSession, call: Callable[[OpenRequests[JobRecord]], object]) -> bool:
        """Queue something for a server, if there is a connection; return whether there is."""
        pump = self.pump
        pump.check_process()
        with pump.gate, pump.lock:
            self.check_open()
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
        self.pump.wait(lambda: not session.dialing, seconds_left(until))
        return session.connected

    def _dial(self, session: ClientSession) -> None:
        """Begin to connect to a server, unless that is being done."""
        if session.dialing:
            return
        began = time.monotonic()
        try:
            with self.pump.gate, self.pump.lock:
                self.pump.open()
            sock = None if self._connect is None else open_socket(self._connect, session.address)
            endpoints = resolve(session.address) if sock is None else []
        except OSError as error:  # no job is on its way to it yet
            with self.pump.gate, self.pump.lock:
                session.fail(error, time.monotonic() - began)
            return
        with self.pump.gate, self.pump.lock:
            if self.pump.closed:  # meanwhile
                if sock is not None:
                    sock.close()
                session.failure = ConnectionAbortedError("closed by the client")
                return
            try:
                if sock is not None:
                    session.use(sock)
                else:
                    session.dial(endpoints, began)
                self.pump.changed(watch=True)
            except BaseException as error:
                self.pump.interrupted(error)
                raise

    def _sleep(self, until: float) -> None:
        """Wait until a time, doing meanwhile what others wait for."""
        try:
            self.pump.wait(lambda: False, seconds_left(until))
        except OSError:  # no descriptors for the pump: there is nothing to do meanwhile
            time.sleep(max(0.0, until - time.monotonic()))

    # Requests

    def status_anywhere(self, request: Callable[[ClientConnection], RequestId]) -> StatusReceived:
        """Ask all servers at once what they know of a job: one that hangs holds no other up."""
        if len(self.sessions) == 1:
            return self.status(self.settings.addresses[0], request, self.until())
        now = time.monotonic()
        until = self.until()
        late = "no answer in time"
        questions = left = [
            Question(session, request, now + self.settings.connect_timeout) for session in self.sessions
        ]
        while left and now < until:
            for question in left:
                question.advance(self._try, self._dial)
            left = [question for question in left if question.result is None]
            results = [question.result for question in questions if isinstance(question.result, StatusReceived)]
            if any(status.known for status in results):
                break
            if results and now + self.settings.connect_timeout < until:
                until = now + self.settings.connect_timeout
                late = f"no answer within {self.settings.connect_timeout:g} s, in which another server has answered"
            self._wait_for_any(left, until)
            now = time.monotonic()
        return status_of_all([q.result or TimeoutError(f"{q.session.address}: {late}") for q in questions])

    def _wait_for_any(self, questions: list[Question], until: float) -> None:
        """Wait until one of some questions can be advanced."""
        wake_at = min([until, *(question.due_at for question in questions)])
        if questions:
            self.pump.wait(lambda: any(question.moved for question in questions), seconds_left(wake_at))

    def status(
        self, address: Address, request: Callable[[ClientConnection], RequestId], until: float
    ) -> StatusReceived:
        """Ask one server what it knows of a job."""
        records, event = self._ask(self.only(address), request, until)
        return records.status(event)

    def reply(self, candidates: Candidates, command: Command[_T], until: float) -> _T:
        """Send a text command to the first of some servers that can be reached, and wait for its answer."""
        records, event = self._ask(candidates, lambda conn: conn.admin(command), until)
        return records.reply(command, event)

    def _ask(
        self, candidates: Candidates, request: Callable[[ClientConnection], RequestId], until: float
    ) -> tuple[OpenRequests[JobRecord], Event]:
        """Send a request to the first server that can be reached, and wait for its answer.

        Args:
            candidates: the servers.
            request: queues the request; called with the lock held.
            until: when the time is up.

        Raises:
            ConnectionLost: no server could be reached.
            StreamBlocked: jobs hold so much unread that the answer is not read.
            TimeoutError: the time has passed.
        """
        failures: dict[Address, OSError] = {}
        answer = Answer()
        address: Address | None = None

        def ask(records: OpenRequests[JobRecord]) -> None:
            records.ask(request, answer)

        while answer.records is None:
            now = time.monotonic()
            if now >= until:
                raise ConnectionLost(unreachable(self.known_failures())) if address is None else self.no_answer(address)
            match candidates.next(now, now + self.settings.connect_timeout):
                case Try(index):
                    session = self.sessions[index]
                    address = session.address
                    if not self._use(session, ask, until) and session.failure is not None:
                        failures[address] = session.failure
                case WaitUntil(retry_at):
                    self._sleep(min(retry_at, until))
                case None:
                    raise ConnectionLost(unreachable(failures.items() or self.known_failures()))
        records = answer.records
        while self.pump.wait(lambda: answer.event is not None or records.stopped, seconds_left(until)):
            with self.pump.gate, self.pump.lock:
                if answer.event is not None:
                    return records, answer.event
                records.check_progress()
        self.check_open()
        raise self.no_answer(records.server)

    def ask_first(self, command: Command[_T]) -> _T:
        """Send a text command to the first server that can be reached, and wait for its answer."""
        return self.reply(self.in_order(), command, self.until())

    def echo(self, data: bytes) -> bytes:
        """Let the first server that can be reached send data back."""
        records, event = self._ask(self.in_order(), lambda conn: conn.echo(data), self.until())
        return records.echoed(event)

    def cancel(self, handle: JobHandle, until: float) -> bool:
        """Cancel a job at its server; return False if it had ended already."""
        try:
            self.reply(self.only(handle.server), CancelJob(handle), until)
        except ServerError as error:
            if error.code != UNKNOWN_JOB:
                raise
            return False
        return True
