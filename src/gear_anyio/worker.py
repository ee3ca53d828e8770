"""The worker: runs functions for job servers, several jobs at once."""

from __future__ import annotations

import inspect
import logging
import math
import signal
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import nullcontext
from types import FrameType
from typing import Any, Final, Protocol, TypeVar, Unpack, overload

import anyio
import anyio.abc

from gear_net.forks import FORKS
from gear_net.settings import WorkerSettings
from gear_net.signals import receiving_signals
from gear_net.tls import TLS
from gear_net.worker_jobs import BytesLike, End, is_kind
from gearproto import AlreadyClosed, Failed, GearmanError, WorkerConnection
from gearproto.addresses import ServerAddresses
from gearproto.events import JobAssigned
from gearproto.functions import Function
from gearproto.options import ConnectionOptions, whole_number
from gearproto.standing import DEFAULT_PAUSES
from gearproto.worker import DEFAULT_GRAB_TIMEOUT, WorkerJobs, stopping, timed_out

from .calling import Call, call_of, is_blocking
from .connecting import Connect
from .eventloop import clock
from .task_pool import TaskPool
from .threadsafe import ClosedError, ThreadsafeCalls
from .worker_job import HeldJob, ThreadJob, WorkerJob
from .worker_session import WorkerSession

__all__ = ["Worker"]

_log = logging.getLogger(__name__)

_LAST_WORDS: Final = 5.0  # seconds in which servers have to read some more of the last reports of a worker that stops

_Handler = (
    Callable[[WorkerJob], Awaitable[BytesLike | None]]
    | Callable[[WorkerJob], AsyncIterator[BytesLike]]
    | Callable[[ThreadJob], BytesLike | Iterator[BytesLike] | None]
)
_H = TypeVar("_H", bound=_Handler)
_A = TypeVar("_A")
_R = TypeVar("_R")


class Serve(Protocol[_A, _R]):
    """Registers a function, and returns it."""

    @overload
    def __call__(
        self, handler: Callable[[_A, WorkerJob], Awaitable[_R]], /
    ) -> Callable[[_A, WorkerJob], Awaitable[_R]]: ...

    @overload
    def __call__(self, handler: Callable[[_A, ThreadJob], _R], /) -> Callable[[_A, ThreadJob], _R]: ...


class Worker:
    """A Gearman worker: connects to all its servers and runs jobs, several at once.

    Register functions with `function`. A coroutine function takes a `WorkerJob` and returns the result as bytes, or
    None for an empty one. An asynchronous generator yields pieces of the result, and each is sent at once. Plain
    functions and generators take a `ThreadJob`, and run in a thread. A function raises `JobFailed` to report a failure
    (``WORK_FAIL``); every other exception is logged and reported (``WORK_EXCEPTION``).

    A function in a task is cancelled when its timeout has passed, or when the worker aborts; a function in a thread
    cannot be cancelled. If you cancel `run`, the worker aborts.
    """

    def __init__(
        self,
        servers: ServerAddresses,
        *,
        client_id: str | bytes | bytearray | None = None,
        concurrency: int = 1,
        tls: TLS | ssl.SSLContext | None = None,
        connect: Connect | None = None,
        connect_timeout: float = 5.0,
        grab_timeout: float = DEFAULT_GRAB_TIMEOUT,
        retry_pauses: tuple[float, float] = DEFAULT_PAUSES,
        stop_timeout: float | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        """Make a worker; `run` connects.

        Args:
            servers: one address or several: ``host``, ``host:port`` or ``unix:PATH``. The default port is 4730.
            client_id: the worker's name, which administrators see.
            concurrency: how many jobs to run at once.
            tls: the files for TLS, or a context; None for plain TCP.
            connect: opens the connection to a server, instead of TCP and TLS; see `Connect`. If it raises, the server
                counts as unreachable.
            connect_timeout: seconds for each attempt to connect to a server, including TLS.
            grab_timeout: seconds that a server may take to say whether it has a job; after that, other servers are
                asked in its place.
            retry_pauses: (initial, maximum) seconds before an unreachable server is retried; each pause is twice as
                long as the one before. After a permanent refusal, and while a server is silent, up to 30 seconds.
            stop_timeout: seconds that running jobs may take to end after `stop` or a signal; then the worker aborts.
                None means no limit.
            **options: options of the connections, as in `gearproto.connection.Connection`. By default, a silent server
                is probed after 30 seconds (``probe_interval``).

        Raises:
            ValueError: an address or a number is not valid, or a file for TLS cannot be used.
        """
        self._concurrency = whole_number("concurrency", concurrency)
        settings = WorkerSettings(
            servers,
            client_id=client_id,
            jobs_at_once=concurrency,
            tls=tls,
            connect_timeout=connect_timeout,
            grab_timeout=grab_timeout,
            retry_pauses=retry_pauses,
            stop_timeout=stop_timeout,
            **options,
        )
        self._jobs: WorkerJobs[HeldJob, Call] = WorkerJobs(settings.grabber)
        self._grabber = settings.grabber
        lost = self._jobs.lost
        self._sessions = [WorkerSession(address, settings, connect, self, lost) for address in settings.addresses]
        self._by_conn: dict[WorkerConnection, WorkerSession] = {}
        self._stop_timeout = settings.stop_timeout
        self._pool: TaskPool[HeldJob] | None = None
        self._calls: ThreadsafeCalls | None = None
        self._thread: int | None = None  # that of `run`
        self._forks = 0
        self._signals = 0  # that the event loop has not taken yet
        self._interrupting = False  # a function that blocks the event loop
        self._running = 0
        self._now: Callable[[], float] = anyio.current_time  # from `run` on, what callbacks may call
        self._stopping = False
        self._aborting = False
        self._interrupt: BaseException | None = None  # that a function has raised in the main thread
        self._changed = anyio.Event()
        self._abort_at = math.inf  # when jobs and their reports have had their time to end
        self._due_at = math.inf  # until when `_keep_time` means to sleep

    def function(self, name: str | bytes | bytearray, *, timeout: float | None = None) -> Callable[[_H], _H]:
        """Register the decorated function. May be called from any thread, at any time.

        Args:
            name: what clients call it.
            timeout: seconds that a job may take; then it ends with an exception, and its reports raise TimeoutError. A
                second later, servers give it to another worker. None means no limit.

        Raises:
            LocalProtocolError: the name breaks a rule of the protocol.
            TypeError: this worker cannot run this kind of function.
            ValueError: the timeout is not a number of seconds above 0.
        """
        if not isinstance(name, str | bytes | bytearray):
            raise TypeError(f'{name!r} is not a name: write @worker.function("name")')

        def register(handler: _H) -> _H:
            self.register(name, handler, timeout=timeout)
            return handler

        return register

    def register(self, name: str | bytes | bytearray, handler: _Handler, *, timeout: float | None = None) -> None:
        """Register a function; see `function`."""
        call = call_of(handler)

        def register() -> None:
            self._jobs.register(name, call, timeout)
            self._settle_all()

        self._in_loop(register)

    def serve(self, function: Function[_A, _R]) -> Serve[_A, _R]:
        """Register the decorated function as a typed one: it takes the value and the job, and returns the result.

        Args:
            function: the declaration that clients call.

        Raises:
            LocalProtocolError: the name breaks a rule of the protocol.
            TypeError: this worker cannot run this kind of function.
            ValueError: the timeout is not a number of seconds above 0.
        """

        def register(handler: Callable[[_A, Any], Any]) -> Callable[[_A, Any], Any]:
            async def run(job: WorkerJob) -> bytes:
                return function.result_data(await handler(function.value(job.workload), job))

            def run_in_thread(job: ThreadJob) -> bytes:
                return function.result_data(handler(function.value(job.workload), job))

            in_task = is_kind(handler, inspect.iscoroutinefunction)
            self.register(function.name, run if in_task else run_in_thread, timeout=function.timeout)
            return handler

        return register

    def unregister(self, name: str | bytes | bytearray) -> None:
        """Accept no more jobs of a function (``CANT_DO``). Running jobs are not affected.

        On ``CANT_DO``, gearmand takes running jobs back and runs them again. So a server with such jobs learns of this
        when they have ended, and is not asked for jobs until then. May be called from any thread, at any time.

        Raises:
            LocalProtocolError: it is not registered.
        """

        def unregister() -> None:
            self._jobs.unregister(name)
            self._settle_all()
            self._jobs.forget_retired()

        self._in_loop(unregister)

    async def run(
        self,
        *,
        handle_signals: bool = True,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run jobs until `stop` is called; then finish the jobs in hand, send their results, and disconnect.

        Reconnects to lost servers with growing pauses, see ``retry_pauses``.

        Args:
            handle_signals: whether SIGTERM and SIGINT act as `stop`, and a second one as `abort`; in the main thread
                only. Handlers that the application has installed are called as well, and are back when this returns.
            task_status: `started` is called when the worker is ready to be used.

        Raises:
            KeyboardInterrupt: a function has raised it in the main thread; its job was reported first.
            AlreadyClosed: the worker has run before, or was closed.
            RuntimeError: it is running.
        """
        if self._pool is not None and self._thread is None:
            raise AlreadyClosed("this worker is closed: make another one")
        if self._thread is not None:
            raise RuntimeError("this worker is running already")
        self._now = clock()
        self._thread, self._forks = threading.get_ident(), FORKS.count
        self._calls = ThreadsafeCalls()
        try:
            with receiving_signals(self._receive) if handle_signals else nullcontext():
                async with anyio.create_task_group() as group:
                    self._pool = TaskPool(group, self._work)
                    group.start_soon(self._calls.run, group)
                    for session in self._sessions:
                        group.start_soon(session.run)
                    task_status.started()
                    await self._keep_time()
                    if not self._aborting:
                        await self._leave()
                    group.cancel_scope.cancel()
            if self._interrupt is not None:
                raise KeyboardInterrupt from self._interrupt
        finally:
            self._aborting = self._stopping = True
            self._thread = None
            self._calls.close()
            for session in self._sessions:
                session.close("closed by the worker")

    def _is_elsewhere(self) -> bool:
        """Tell whether this is another thread than that of `run`.

        Raises:
            GearmanError: this is a child that a function has forked. It shares the event loop's descriptors.
        """
        if self._thread is None:
            return False
        if FORKS.count != self._forks:
            raise GearmanError("this worker belongs to the parent process: make another one after a fork")
        return self._thread != threading.get_ident()

    def _in_loop(self, call: Callable[[], None]) -> None:
        """Make a call in the thread of `run`; in this one before `run` and after it."""
        if not self._is_elsewhere():
            call()
            return
        assert self._calls is not None
        try:
            self._calls.wait(call)
        except ClosedError:
            call()

    def stop(self) -> None:
        """Make `run` return when the running jobs have ended. Can be called from any thread and any signal handler."""
        self._is_elsewhere()  # which refuses a forked child
        self._stopping = True
        self._soon(self._stop)

    def _stop(self) -> None:
        self._stopping = True
        for session in self._sessions:
            session.leaving = True
        self._grabber.stop()
        self._changed.set()

    def abort(self) -> None:
        """Stop without regard to the jobs in hand: cut the connections, so that servers give them to other workers.

        From then on their reports raise ConnectionLost. From any thread, from functions and signal handlers.
        """
        self.stop()
        self._aborting = True
        self._soon(self._abort)

    def _abort(self) -> None:
        self._stop()
        self._aborting = True
        for session in self._sessions:
            session.close("closed by the worker")
        self._changed.set()

    def _soon(self, call: Callable[[], None]) -> None:
        """Make a call where it interrupts nothing, as one in a signal handler would: in the event loop, if one runs."""
        if self._calls is None:
            call()
        else:
            self._calls.soon(call)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        assert self._calls is not None
        self._calls.soon(lambda: self._on_signal(number))
        self._signals += 1
        if self._signals > 1 and is_blocking(frame):
            self._interrupting = True
            raise KeyboardInterrupt

    def _on_signal(self, number: int) -> None:
        self._signals -= 1
        if self._stopping:
            self._abort()
            return
        self._stop()
        level = (
            logging.WARNING if number == signal.SIGINT and self._jobs.in_hand else logging.INFO
        )  # at a terminal, say
        _log.log(level, stopping(self._jobs.in_hand, self._stop_timeout))

    async def _keep_time(self) -> None:
        """Do what is due, until the worker has stopped."""
        while not self._aborting and self._interrupt is None:
            if self._stopping and self._abort_at == math.inf and self._stop_timeout is not None:
                self._abort_at = self._now() + self._stop_timeout
            if self._grabber.stopping and self._grabber.drained:
                return
            self._changed = anyio.Event()
            due_at = self._grabber.next_deadline()
            self._due_at = min(self._abort_at, math.inf if due_at is None else due_at)
            with anyio.CancelScope(deadline=self._due_at):
                await self._changed.wait()
            if self._now() >= self._abort_at:
                _log.warning("jobs have not ended within %g s: aborting", self._stop_timeout)
                self._abort()
            self._advance()

    async def _leave(self) -> None:
        """Send the last reports."""
        with anyio.CancelScope(deadline=self._abort_at):
            async with anyio.create_task_group() as leaving:
                for session in self._sessions:
                    leaving.start_soon(session.leave, _LAST_WORDS)

    # What servers tell

    def _on_connected(self, session: WorkerSession) -> None:
        self._by_conn[session.conn] = session
        self._advance()

    def _on_assigned(self, event: JobAssigned, session: WorkerSession) -> None:
        """Run a job, or let it wait: servers may assign more than can run at once."""
        assert self._calls is not None
        self._jobs.assigned(HeldJob(event, session, self._calls))
        self._start_jobs()

    def _on_closed(self, conn: WorkerConnection) -> None:
        self._by_conn.pop(conn, None)
        self._changed.set()

    def _advance(self) -> None:
        """Ask servers for jobs, up to as many as can run, and none once the worker is to stop."""
        for conn in self._jobs.advance(self._now(), stopping=self._stopping):
            self._by_conn[conn].settle()
        due_at = self._grabber.next_deadline()
        if self._stopping or (due_at is not None and due_at < self._due_at):
            self._changed.set()

    def _settle_all(self) -> None:
        """Send what has been queued on any connection."""
        if self._by_conn:
            self._advance()
            for session in self._sessions:
                session.settle()

    # Jobs

    def _start_jobs(self) -> None:
        assert self._pool is not None
        while self._jobs.waiting and self._running < self._concurrency:
            self._running += 1
            self._pool.give(self._jobs.waiting.popleft())

    async def _work(self, job: HeldJob) -> None:
        """Run a job, and send its end and the next GRAB_JOB in one write."""
        end = None
        try:
            if not self._aborting and job.connected:  # otherwise it is for another worker
                end = await self._run(job)
        finally:
            job.given_up = True
            self._running -= 1
            self._jobs.put_down(job)
            self._start_jobs()
        if end is None:
            self._changed.set()
            return
        if not job.connected:
            level = logging.INFO if job.session.leaving else logging.WARNING
            address = job.session.address
            _log.log(level, "%s: job %r: the connection is gone, and its end was not reported", address, job.handle)
        elif (wrong := job.report_end(end)) is not None:
            _log.error("%s: job %r: %s", job.session.address, job.handle, wrong)
        if self._interrupt is not None:
            job.session.settle()
            self._changed.set()  # `run` waits until the report is sent, and leaves
            return
        self._advance()
        await job.session.send(job.conn)

    async def _run(self, job: HeldJob) -> End:
        """Call a job's function; return how the job ended."""
        call, timeout = self._jobs.functions.get(job.function, (None, None))
        if call is None:
            _log.error("job %r is for %r, which is not registered", job.handle, job.function)
            return Failed()
        if timeout is None:
            end, interrupt = await call(job)
        else:
            end, interrupt = timed_out(timeout), None
            job.begin(timeout, time.monotonic())
            with anyio.move_on_after(timeout) as scope:
                end, interrupt = await call(job)
            if scope.cancelled_caught:
                _log.warning("job %r of %r has taken longer than %g s", job.handle, job.function, timeout)
        if interrupt is not None:
            if self._interrupting:  # by a second signal
                self._abort()
            else:
                self._interrupt = interrupt
                self._stop()
        return end
