"""The worker: runs functions for job servers, one job at a time or in a pool of threads."""

from __future__ import annotations

import _thread
import logging
import math
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from gear_net.connecting import Connect
from gear_net.settings import WorkerSettings
from gear_net.signals import receiving_signals
from gear_net.tls import TLS
from gear_net.worker_jobs import BytesLike, End, call_blocking, iterate
from gearproto import AlreadyClosed, Failed
from gearproto.addresses import ServerAddresses
from gearproto.events import JobAssigned
from gearproto.functions import Function
from gearproto.options import ConnectionOptions, whole_number
from gearproto.standing import DEFAULT_PAUSES
from gearproto.worker import DEFAULT_GRAB_TIMEOUT, WorkerJobs, stopping, timed_out

from .calling import check
from .pump import Pump
from .thread_pool import ThreadPool
from .worker_job import HeldJob, WorkerJob
from .worker_session import WorkerSession

__all__ = ["Worker"]

_log = logging.getLogger(__name__)

_LAST_WORDS: Final = 5.0  # seconds in which servers have to read some more of the last reports of a worker that stops

_Handler = Callable[[WorkerJob], BytesLike | Iterator[BytesLike] | None]
_H = TypeVar("_H", bound=_Handler)
_A = TypeVar("_A")
_R = TypeVar("_R")


Serve = Callable[[Callable[[_A, WorkerJob], _R]], Callable[[_A, WorkerJob], _R]]
"""Registers a function, and returns it."""


_iterate: Callable[..., Any] = iterate  # type checkers cannot follow `Context.run`


class Worker:
    """A Gearman worker: connects to all its servers and runs jobs.

    Register functions with `function`. A function takes a `WorkerJob` and returns the result as bytes, or None for an
    empty one. A generator yields pieces of the result, and each is sent at once. A function raises `JobFailed` to
    report a failure (``WORK_FAIL``); every other exception is logged and reported (``WORK_EXCEPTION``).

    Without ``threads`` the thread that calls `run` runs one job after the other, and nothing else happens meanwhile:
    the end of a job whose timeout has passed is reported when its function returns. With ``threads``, up to this many
    jobs run at once, in threads of their own.

    A second signal raises KeyboardInterrupt from `run`. A worker belongs to the process that uses it first; in a forked
    child every call raises `GearmanError`.
    """

    def __init__(
        self,
        servers: ServerAddresses,
        *,
        client_id: str | bytes | bytearray | None = None,
        threads: int = 0,
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
            threads: how many jobs to run at once, each in a thread; 0 for one, in the thread that calls `run`.
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
        whole_number("threads", threads, 0)
        settings = WorkerSettings(
            servers,
            client_id=client_id,
            jobs_at_once=max(1, threads),
            tls=tls,
            connect_timeout=connect_timeout,
            grab_timeout=grab_timeout,
            retry_pauses=retry_pauses,
            stop_timeout=stop_timeout,
            **options,
        )
        self._jobs: WorkerJobs[HeldJob, _Handler] = WorkerJobs(settings.grabber)
        self._grabber = settings.grabber
        self._pump = Pump(f"gear_sync.Worker of {', '.join(map(str, settings.addresses))}")
        self._sessions = [
            WorkerSession(address, settings, connect, self, self._jobs.lost) for address in settings.addresses
        ]
        for session in self._sessions:
            self._pump.add(session)
        self._threads = threads
        self._stop_timeout = settings.stop_timeout
        self._running: dict[HeldJob, None] = {}  # those that have a timeout
        self._stopping = False
        self._aborting = False
        self._interrupt: BaseException | None = None  # that a function has raised in the main thread
        self._abort_at = math.inf
        self._wake_at = math.inf  # when `run` means to wake by itself
        self._runner: threading.Thread | None = None
        self._at_work: set[int] = set()  # the identifiers of threads that run a function
        self._fault: BaseException | None = None  # of this module, in a thread of the pool
        self._ended = threading.Event()  # run() is not running
        self._ended.set()

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
        check(handler)
        self._pump.check_process()
        with self._pump.gate, self._pump.lock:
            self._jobs.register(name, handler, timeout)
            self._settle_all()
        self._pump.wake()  # `run` has to know until when it waits for answers

    def serve(self, function: Function[_A, _R]) -> Serve[_A, _R]:
        """Register the decorated function as a typed one: it takes the value and the job, and returns the result.

        Args:
            function: the declaration that clients call.

        Raises:
            LocalProtocolError: the name breaks a rule of the protocol.
            TypeError: this worker cannot run this kind of function.
            ValueError: the timeout is not a number of seconds above 0.
        """

        def register(handler: Callable[[_A, WorkerJob], _R]) -> Callable[[_A, WorkerJob], _R]:
            check(handler)

            def run(job: WorkerJob) -> bytes:
                return function.result_data(handler(function.value(job.workload), job))

            self.register(function.name, run, timeout=function.timeout)
            return handler

        return register

    def unregister(self, name: str | bytes | bytearray) -> None:
        """Accept no more jobs of a function (``CANT_DO``). Running jobs are not affected.

        On ``CANT_DO``, gearmand takes running jobs back and runs them again. So a server with such jobs learns of this
        when they have ended, and is not asked for jobs until then. May be called from any thread, at any time.

        Raises:
            LocalProtocolError: it is not registered.
        """
        self._pump.check_process()
        with self._pump.gate, self._pump.lock:
            self._jobs.unregister(name)
            self._settle_all()
            self._jobs.forget_retired()

    def run(self, *, handle_signals: bool = True) -> None:
        """Run jobs until `stop` is called; then finish the jobs in hand, send their results, and disconnect.

        Reconnects to lost servers with growing pauses, see ``retry_pauses``.

        Args:
            handle_signals: whether SIGTERM and SIGINT act as `stop`, and a second one as `abort`; in the main thread
                only. Handlers that the application has installed are called as well, and are back when this returns.

        Raises:
            KeyboardInterrupt: a function has raised it in the main thread; its job was reported first.
            AlreadyClosed: the worker has run before, or was closed.
            RuntimeError: it is running.
        """
        self._pump.check_process()
        with self._pump.gate, self._pump.lock:
            if self._pump.closed or (self._runner is not None and self._ended.is_set()):
                raise AlreadyClosed("this worker is closed: make another one")
            if self._runner is not None:
                raise RuntimeError("this worker is running already")
            self._runner = threading.current_thread()
            self._ended.clear()
        try:
            signals = receiving_signals(self._on_signal) if handle_signals else nullcontext()
            with signals, ThreadPool(self._threads, self._work, self._fail) as start:
                while not self._is_over():
                    self._connect_due()
                    self._pump.wait(self._has_work, self._pause())
                    self._turn(start)
                if self._fault is not None:
                    raise self._fault
                self._send_rest()
                if self._interrupt is not None:
                    raise KeyboardInterrupt from self._interrupt
        finally:
            self._aborting = self._stopping = True  # what still runs in a thread is left alone
            with self._pump.gate, self._pump.lock:
                for session in self._sessions:
                    session.close("closed by the worker")
            self._ended.set()

    def stop(self) -> None:
        """Make `run` return when the running jobs have ended. Can be called from any thread and any signal handler."""
        if not self._stopping:
            if self._stop_timeout is not None:
                self._abort_at = time.monotonic() + self._stop_timeout
            self._stopping = True
        self._pump.wake()

    def abort(self) -> None:
        """Stop without regard to the jobs in hand: cut the connections, so that servers give them to other workers.

        From then on their reports raise ConnectionLost. From any thread, from functions and signal handlers.
        """
        self._pump.check_process()  # the connections are the parent's, too
        self._aborting = self._stopping = True
        for session in self._sessions:
            if (link := session.link) is not None:
                link.cut()
        self._pump.wake()

    def close(self) -> None:
        """Stop the worker, wait until the running jobs have ended, and release all resources. Can be called twice.

        Raises:
            RuntimeError: a function of this worker calls it; call `stop` there.
        """
        if self._pump.inherited:
            return  # its parent, which has used it, closes it
        at_work = threading.current_thread() is self._runner or threading.get_ident() in self._at_work
        if at_work and not self._ended.is_set():
            raise RuntimeError("a worker cannot wait for the job that closes it: call stop() instead")
        self.stop()
        self._ended.wait()
        self._pump.close("closed by the worker")

    def __enter__(self) -> Self:
        """Return the worker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the worker: see `close`."""
        self.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._stopping:
            self.abort()
            raise KeyboardInterrupt
        self.stop()
        # Logging needs locks, which this thread may hold just now. So another thread logs; and as starting a thread of
        # `threading` takes a lock too, `_thread` starts it.
        telling = threading.Thread(target=self._tell_stop, args=(number,), name="gear worker stops", daemon=True)
        with suppress(RuntimeError):  # the system cannot start another thread
            _thread.start_new_thread(telling.start, ())

    def _tell_stop(self, number: int) -> None:
        with self._pump.gate, self._pump.lock:
            jobs = list(self._jobs.in_hand)
        level = logging.WARNING if jobs and number == signal.SIGINT else logging.INFO  # somebody waits at a terminal
        _log.log(level, stopping(jobs, self._stop_timeout))

    # One turn of `run`

    def _is_over(self) -> bool:
        if self._aborting or self._interrupt is not None or self._fault is not None:
            return True
        if not self._stopping:
            return False
        with self._pump.gate, self._pump.lock:
            return self._grabber.stopping and self._grabber.drained

    def _send_rest(self) -> None:
        """Send the last reports: threads of the pool may have some on their way."""
        size = 0

        def some_has_left() -> bool:
            return self._aborting or self._unsent_size() < size

        while not self._aborting and (size := self._unsent_size()):
            if not self._pump.wait(some_has_left, min(_LAST_WORDS, self._abort_at - time.monotonic())):
                return

    def _unsent_size(self) -> int:
        return sum(session.link.unsent_size for session in self._sessions if session.link is not None)

    def _connect_due(self) -> None:
        if self._stopping:
            return
        now = time.monotonic()
        for session in self._sessions:
            if session.link is None and session.due_at <= now:
                session.connect()

    def _has_work(self) -> bool:
        """Tell whether `run` has to do something that a pump does not. With the lock held."""
        if (
            self._jobs.waiting
            or self._aborting
            or self._fault is not None
            or self._stopping is not self._grabber.stopping
        ):
            return True
        if self._stopping and self._grabber.drained:
            return True
        return self._due_at() < self._wake_at  # a server was lost meanwhile

    def _pause(self) -> float | None:
        """Return the longest time to wait, in seconds."""
        with self._pump.lock:
            when = self._wake_at = self._due_at()
        return None if when == math.inf else max(0.0, when - time.monotonic())

    def _due_at(self) -> float:
        """Return when `run` has to do something even if nothing happens."""
        when = self._abort_at
        due = self._grabber.next_deadline()
        if due is not None and due < when:
            when = due
        if not self._stopping:
            for session in self._sessions:
                if session.link is None and session.due_at < when:
                    when = session.due_at
        for job in self._running:
            if job.until is not None and job.until < when and not job.given_up:
                when = job.until
        return when

    def _turn(self, start: Callable[[HeldJob], None]) -> None:
        now = time.monotonic()
        if now >= self._wake_at or self._stopping is not self._grabber.stopping:
            with self._pump.gate, self._pump.lock:
                self._advance()
                for job in [job for job in self._running if job.until is not None and job.until <= now]:
                    self._give_up(job)
        if self._abort_if_overdue(now):
            return
        while self._jobs.waiting and not self._aborting and self._interrupt is None:
            start(self._jobs.waiting.popleft())
            if self._jobs.waiting:  # the job may have taken long, and the server of the next one be gone
                with self._pump.gate, self._pump.lock:
                    for session in self._sessions:
                        session.look()

    def _abort_if_overdue(self, now: float) -> bool:
        """Abort if jobs have not ended in the time to stop; return whether that is so. Without the lock."""
        if now < self._abort_at:
            return False
        if not self._aborting:
            _log.warning("jobs have not ended within %g s: aborting", self._stop_timeout)
            self.abort()
        return True

    def _settle_all(self) -> None:
        """Send what has been queued on any connection."""
        self._advance()
        for session in self._sessions:
            session.settle()

    # What servers tell; with the lock held

    def _advance(self) -> None:
        """Ask servers for jobs, up to as many as can run, and none once the worker is to stop."""
        for conn in self._jobs.advance(time.monotonic(), stopping=self._stopping):
            for session in self._sessions:
                if session.conn is conn:
                    session.settle()
                    break

    def _on_moved(self) -> None:
        """Ask for jobs after the events of a connection, unless `run` does so when it has done the job that came."""
        if not self._jobs.waiting or self._threads:
            self._advance()

    def _on_assigned(self, event: JobAssigned, session: WorkerSession) -> None:
        """Take a job."""
        self._jobs.assigned(HeldJob(event, session))

    # Jobs

    def _fail(self, error: BaseException) -> None:
        """Let `run` raise what should not have been raised in a thread of the pool: that thread is lost."""
        self._fault = error
        self._pump.wake()

    def _give_up(self, job: HeldJob) -> None:
        """Report a job whose time is over as ended by an exception."""
        if job.given_up:
            return
        job.given_up = True
        assert job.timeout is not None
        _log.warning("job %r of %r has taken longer than %g s", job.handle, job.function, job.timeout)
        if job.connected:
            job.report_end(timed_out(job.timeout))
            job.session.settle()

    def _work(self, job: HeldJob) -> None:
        """Run a job, and send its end and the next GRAB_JOB in one write."""
        if self._aborting:
            return
        if not job.connected:  # it is for another worker; it was on its way to a thread, so nobody else has put it down
            with self._pump.gate, self._pump.lock:
                self._jobs.put_down(job)
                self._advance()
            self._pump.wake()
            return
        handler, timeout = self._jobs.functions.get(job.function, (None, None))
        if timeout is not None:
            with self._pump.gate, self._pump.lock:
                self._running[job] = None
                job.begin(timeout, now := time.monotonic())
                if now + timeout < self._wake_at:
                    self._pump.wake()
        self._at_work.add(thread := threading.get_ident())
        try:
            end = self._run(job, handler)
        finally:
            self._at_work.discard(thread)
        with self._pump.gate, self._pump.lock:
            self._running.pop(job, None)
            self._jobs.put_down(job)
            if job.given_up:
                pass
            elif job.connected:
                if (wrong := job.report_end(end)) is not None:
                    _log.error("%s: job %r: %s", job.session.address, job.handle, wrong)
            else:
                level = logging.INFO if self._stopping else logging.WARNING
                address = job.session.address
                _log.log(level, "%s: job %r: the connection is gone, and its end was not reported", address, job.handle)
            self._advance()
            if job.conn.output_size:  # otherwise it has left with the next GRAB_JOB
                job.session.settle()
        if self._interrupt is None:  # otherwise `run` waits, and not for long
            job.session.wait_until_sent()
        if self._threads:
            self._pump.wake()

    def _run(self, job: HeldJob, handler: _Handler | None) -> End:
        """Call a job's function; return how the job ended."""
        if handler is None:
            _log.error("job %r is for %r, which is not registered", job.handle, job.function)
            return Failed()
        context, view = copy_context(), WorkerJob(job)  # the next job does not see what this one sets in its context
        end, interrupt = call_blocking(_log, job, lambda: context.run(_iterate, handler, view))
        if interrupt is not None:
            if self._aborting:
                raise KeyboardInterrupt from interrupt  # a second signal: the job is for another worker
            self._interrupt = interrupt
            self._stopping = True
        return end
