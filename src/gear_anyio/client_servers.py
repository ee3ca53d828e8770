"""The servers of a client: where jobs are submitted, requests are asked, and tasks wait."""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel

from gear_net.client_servers import ClientServersBase
from gear_net.settings import ClientSettings
from gearproto import (
    AlreadyClosed,
    ClientConnection,
    ConnectionLost,
    GearmanError,
    JobError,
    NotSent,
    ServerError,
    StreamBlocked,
)
from gearproto.addresses import Address
from gearproto.admin import UNKNOWN_JOB, CancelJob, Command
from gearproto.client import (
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
from .connecting import Connect
from .eventloop import TaskStarter, this_loop
from .waiting import WaitingAnswer, WaitingRecord

__all__ = ["ClientServers"]

_log = logging.getLogger("gear_anyio.client")

_T = TypeVar("_T")


class Iteration(Protocol):
    """One iteration over jobs as they end."""

    def look_again(self) -> None:
        """Wake the task that waits, as some jobs may not end."""
        ...


class ClientServers(ClientServersBase[ClientSession, WaitingRecord]):
    """The servers of a client, while its block lasts. Tasks may share it.

    Attributes:
        iterations: iterations over jobs as they end, with a task that waits in each.
    """

    def __init__(self, settings: ClientSettings, connect: Connect | None) -> None:
        """Begin without connections; `open` next.

        Args:
            settings: the options of the client.
            connect: opens the byte stream to a server, in place of TCP and TLS.
        """
        super().__init__(
            settings,
            _log,
            lambda address, standing: ClientSession(
                address, standing, settings, connect, self._on_retryable, self._on_paused
            ),
            WaitingRecord,
        )
        self.iterations: weakref.WeakSet[Iteration] = weakref.WeakSet()
        self._group: anyio.abc.TaskGroup | None = None
        self._starter: TaskStarter | None = None
        self._loop: object = None
        self._thread = 0
        self._closed = False
        self._scopes: dict[anyio.CancelScope, None] = {}  # of all that runs for the client
        self._unfinished: dict[WaitingRecord, None] = {}  # retryable, and on their way to another server

    async def open(self) -> None:
        """Begin: from now on the servers can be used."""
        if self._group is not None:
            raise AlreadyClosed("this client has been used already: make another one")
        self._loop, self._thread = this_loop(), threading.get_ident()
        self._group = await anyio.create_task_group().__aenter__()
        self._starter = TaskStarter(self._group)

    async def wait_closed(self) -> None:
        """Wait until the connections are closed, after `close`."""
        assert self._group is not None
        # The group is not told of an error: it would wrap it, and the caller's own tasks did not run in it.
        await self._group.__aexit__(None, None, None)

    def close(self) -> None:
        """Close the connections; see `gear_anyio.Client.close`."""
        if self._closed:
            return
        self._closed = True
        for session in self.sessions:
            session.close("closed by the client")
        for job in self._unfinished:
            self._give_up(job, "closed by the client")
        if self._starter is not None:
            self._starter.stop()
        for scope in self._scopes:  # not the group's, which is around the caller's block too
            scope.cancel()

    def check_open(self) -> None:
        """Refuse to work for a client that is closed, or in another event loop than that of its block."""
        if self._group is None:
            raise GearmanError("this client is not open: use it in its async with block")
        self.check_loop()
        if self._closed:
            raise AlreadyClosed("this client is closed: make another one")

    def check_loop(self) -> None:
        """Refuse to run in another event loop than that of the client's block.

        Raises:
            GearmanError: another one runs.
        """
        if self._loop is not this_loop():
            raise GearmanError("this client belongs to another event loop: use it where its async with block began")

    def until(self) -> float:
        """Return when a call that begins now has to be over."""
        return math.inf if self.settings.timeout is None else anyio.current_time() + self.settings.timeout

    # Waiting

    async def wait(self, job: WaitingRecord, done: Callable[[], bool]) -> None:
        """Wait until something is done that a job's events bring about.

        Raises:
            StreamBlocked: other jobs hold so much unread that it cannot be done.
        """
        while not done():
            self.before_wait()
            job.check_progress()
            await job.change()

    def before_wait(self) -> None:
        """Refuse to wait in another event loop than the client's, and read all connections that can be read."""
        self.check_loop()
        self.on_event_taken()

    def check_progress(self, jobs: Iterable[JobRecord]) -> None:
        """Make sure that jobs can end; see `JobRecord.check_progress`."""
        if self.paused:
            for job in jobs:
                job.check_progress()

    def on_event_taken(self) -> None:
        """Read on, if a job that streams has held that up and holds less now."""
        for session in self.sessions:
            session.read_on()

    def on_iteration_left(self) -> None:
        """Read on, as `on_event_taken`; in a task, as the garbage collector may be the one that leaves.

        In another thread than the client's, this is left to the next call that waits.
        """
        if self.paused and threading.get_ident() == self._thread:
            assert self._starter is not None
            self._starter.start_soon(self._read_on)

    async def _read_on(self) -> None:
        self.on_event_taken()

    def _on_paused(self) -> None:
        """Wake the tasks that wait for jobs to end: some may not."""
        for iteration in list(self.iterations):
            iteration.look_again()

    # Placing

    async def submit(self, jobs: Sequence[WaitingRecord], until: float | None = None) -> None:
        """Submit jobs; those for which no server can be reached end. Then wait while much output waits to be sent.

        Args:
            jobs: the jobs, with their candidates.
            until: when to stop. Jobs that are not submitted by then end. None means after the client's timeout, whose
                end is computed only if something has to be waited for.
        """
        only = self.sessions[0] if len(self.sessions) == 1 else None
        submitted = only is not None and await self._try(only, lambda records: records.submit(jobs))
        if submitted and only is not None and not only.full:
            return
        until = self.until() if until is None else until
        if not submitted:
            self.check_open()
            with anyio.CancelScope(deadline=until):
                await self._dispatch(jobs)
            for job in jobs:
                if job.server is None and job.outcome is None:
                    job.end(NotSent(unreachable(self.known_failures())))
        for session in self.sessions:
            if session.full and any(job.server == session.address for job in jobs):
                with anyio.CancelScope(deadline=until):
                    await session.wait_while_full()

    async def take(self, jobs: Sequence[WaitingRecord]) -> list[JobHandle | JobError | TimeoutError | StreamBlocked]:
        """Submit background jobs, and wait until servers have taken them; return the handle of each, or the error."""
        until = self.until()
        await self.submit(jobs, until)
        blocked: dict[WaitingRecord, StreamBlocked] = {}
        with anyio.CancelScope(deadline=until):  # one for all: 7 us less a job in batches than one for each
            for job in jobs:
                if not job.resolved:
                    try:
                        await self.wait(job, lambda job=job: job.resolved)  # type: ignore[misc]
                    except StreamBlocked as error:
                        blocked[job] = error
        return [blocked[job] if job in blocked else self._taken(job) for job in jobs]

    def _taken(self, job: WaitingRecord) -> JobHandle | JobError | TimeoutError:
        """Return what became of the submission of a background job, once the wait for it is over."""
        if not job.resolved:
            return self.no_answer(job.server)
        try:
            return job.taken()
        except JobError as error:
            return error

    async def _dispatch(self, jobs: Sequence[WaitingRecord]) -> None:
        """Submit jobs, each to the first of its servers that can be reached."""
        for index in self._chooser.on_the_side(anyio.current_time()):
            self.sessions[index].begin_to_reach(self._start)
        dispatch = Dispatch(jobs, self._chooser, self.settings.connect_timeout, self.known_failures())
        while dispatch.left:
            groups = dispatch.plan(anyio.current_time())
            if len(groups) == 1:
                (placing,) = groups.items()
                await self._place(dispatch, *placing)
            elif groups:
                await self._place_all(dispatch, groups)
            if not groups and dispatch.left:
                await anyio.sleep_until(dispatch.retry_at)

    async def _place(self, dispatch: Dispatch[WaitingRecord], index: int, jobs: list[WaitingRecord]) -> None:
        session = self.sessions[index]
        if not await self._use(session, lambda records: records.submit(jobs)):
            dispatch.failed(session.address, session.failure, jobs)

    async def _place_all(self, dispatch: Dispatch[WaitingRecord], groups: dict[int, list[WaitingRecord]]) -> None:
        """Submit jobs to their servers side by side: one that hangs holds only its own up."""
        errors: list[GearmanError] = []

        async def place(index: int, jobs: list[WaitingRecord]) -> None:
            try:
                await self._place(dispatch, index, jobs)
            except GearmanError as error:  # so that it does not leave the group as one of many
                errors.append(error)

        async with anyio.create_task_group() as group:
            for placing in groups.items():
                group.start_soon(place, *placing)
        if errors:
            raise errors[0]

    def _on_retryable(self, job: WaitingRecord) -> None:
        """Submit a job again after its submission has failed."""
        if self._closed or self._starter is None:
            job.give_up()
        elif job not in self._unfinished:  # otherwise its task looks again
            self._unfinished[job] = None
            self._starter.start_soon(self._run, partial(self._retry, job))  # a callback may have brought it here

    async def _retry(self, job: WaitingRecord) -> None:
        """Submit a retryable job again, until it is submitted or has ended."""
        try:
            while job.retryable is not None:
                job.search(anyio.current_time() + self.settings.resubmit_timeout)
                job.prepare_retry(self._chooser)
                await self.submit([job], math.inf)
        except GearmanError as error:  # it is over a limit, or the client is closed
            self._give_up(job, str(error))
        except BaseException:
            self._give_up(job, "closed by the client")
            raise
        finally:
            del self._unfinished[job]

    def _give_up(self, job: WaitingRecord, cause: str) -> None:
        """End a job that is submitted nowhere, as no task takes it up any more."""
        if job.outcome is None and not any(job in session.records for session in self.sessions):
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
                _log.exception("a connection has failed unexpectedly")
            finally:
                del self._scopes[scope]

    async def _use(self, session: ClientSession, call: Callable[[OpenRequests[WaitingRecord]], object]) -> bool:
        """Queue something for a server, connecting to it before if need be; return whether it could be reached."""
        return await self._try(session, call) or (
            await session.reach(self._start) and not self._closed and await self._try(session, call)
        )

    async def _try(self, session: ClientSession, call: Callable[[OpenRequests[WaitingRecord]], object]) -> bool:
        """Queue something for a server, if there is a connection; return whether there is."""
        self.check_open()
        await anyio.lowlevel.checkpoint_if_cancelled()
        session.look()
        if not session.connected:
            return False
        call(session.records)
        session.settle()
        return True

    # Requests

    async def status_anywhere(self, request: Callable[[ClientConnection], RequestId]) -> StatusReceived:
        """Ask all servers at once what they know of a job: one that hangs holds no other up."""
        self.check_open()
        answers: dict[Address, StatusReceived | Exception] = {}
        until = self.until()

        async def ask(address: Address) -> None:
            try:
                answers[address] = status = await self.status(address, request, until)
            except (GearmanError, TimeoutError) as error:  # so that it does not leave the group as one of many
                answers[address] = error
            else:
                give_up_at = -math.inf if status.known else anyio.current_time() + self.settings.connect_timeout
                group.cancel_scope.deadline = min(group.cancel_scope.deadline, give_up_at)

        async with anyio.create_task_group() as group:
            for address in self.settings.addresses:
                group.start_soon(ask, address)
        late = f"no answer within {self.settings.connect_timeout:g} s, in which another server has answered"
        return status_of_all([answers.get(at) or TimeoutError(f"{at}: {late}") for at in self.settings.addresses])

    async def status(
        self, address: Address, request: Callable[[ClientConnection], RequestId], until: float
    ) -> StatusReceived:
        """Ask one server what it knows of a job."""
        records, event = await self._ask(self.only(address), request, until)
        return records.status(event)

    async def reply(self, candidates: Candidates, command: Command[_T], until: float) -> _T:
        """Send a text command to the first of some servers that can be reached, and wait for its answer."""
        records, event = await self._ask(candidates, lambda conn: conn.admin(command), until)
        return records.reply(command, event)

    async def _ask(
        self, candidates: Candidates, request: Callable[[ClientConnection], RequestId], until: float
    ) -> tuple[OpenRequests[WaitingRecord], Event]:
        """Send a request to the first server that can be reached, and wait for its answer.

        Args:
            candidates: the servers.
            request: queues the request.
            until: when to leave off.

        Raises:
            ConnectionLost: no server could be reached.
            StreamBlocked: jobs hold so much unread that the answer is not read.
            TimeoutError: the time has passed.
        """
        self.check_open()
        failures: dict[Address, OSError] = {}
        answer = WaitingAnswer()
        session: ClientSession | None = None

        def ask(records: OpenRequests[WaitingRecord]) -> None:
            records.ask(request, answer)

        def check() -> None:
            self.before_wait()
            if answer.records is not None:
                answer.records.check_progress()

        with anyio.CancelScope(deadline=until):
            while answer.records is None:
                now = anyio.current_time()
                match candidates.next(now, now + self.settings.connect_timeout):
                    case Try(index):
                        session = self.sessions[index]
                        if not await self._use(session, ask) and session.failure is not None:
                            failures[session.address] = session.failure
                    case WaitUntil(retry_at):
                        await anyio.sleep_until(retry_at)
                    case None:
                        raise ConnectionLost(unreachable(failures.items() or self.known_failures()))
            return answer.records, await answer.wait(check)
        if session is None:
            raise ConnectionLost(unreachable(self.known_failures()))
        raise self.no_answer(session.address)

    def ask_first(self, command: Command[_T]) -> Awaitable[_T]:
        """Send a text command to the first server that can be reached, and wait for its answer."""
        return self.reply(self.in_order(), command, self.until())

    async def echo(self, data: bytes) -> bytes:
        """Let the first server that can be reached send data back."""
        records, event = await self._ask(self.in_order(), lambda conn: conn.echo(data), self.until())
        return records.echoed(event)

    async def cancel(self, handle: JobHandle, until: float) -> bool:
        """Cancel a job at its server; return False if it had ended already."""
        try:
            await self.reply(self.only(handle.server), CancelJob(handle), until)
        except ServerError as error:
            if error.code != UNKNOWN_JOB:
                raise
            return False
        return True
