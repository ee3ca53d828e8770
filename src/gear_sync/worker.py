"""The worker: runs functions for job servers, one job at a time or in a pool of threads."""

from __future__ import annotations

import _thread
import logging
import queue
import selectors
import signal
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from gear_net.connecting import Connect, Dial, Endpoint, close_with, open_socket, resolve
from gear_net.link import Link
from gear_net.signals import receiving_signals
from gear_net.standing import LoggedStanding
from gear_net.tls import TLS, ClientTLS
from gear_net.tunnel import TLSSocket
from gearproto import Completed, ConnectionLost, Failed, GearmanError, Raised, WorkerConnection
from gearproto.addresses import Address, ServerAddresses, parse_addresses
from gearproto.arguments import as_bytes, as_payload
from gearproto.connection import Limits
from gearproto.event import Event
from gearproto.events import Answered, ConnectionClosed, JobAssigned, ReportRefused
from gearproto.functions import Function
from gearproto.standing import DEFAULT_PAUSES
from gearproto.timeouts import setting
from gearproto.worker import Assignment, Grabber, jobs_at_once, server_timeout_ms, stopping, timed_out

from . import calling
from .pump import Pump

__all__ = ["Worker", "WorkerJob"]

_log = logging.getLogger(__name__)

_READ: Final = selectors.EVENT_READ
_NEVER: Final = float("inf")
_LAST_WORDS: Final = 5.0  # seconds in which servers have to read some more of the last reports of a worker that stops

Handler = Callable[["WorkerJob"], "bytes | Generator[bytes, None, bytes | None] | None"]
_H = TypeVar("_H", bound=Callable[..., Any])
_A = TypeVar("_A")
_R = TypeVar("_R")


class WorkerJob(Assignment):
    """A job in hand, as its function sees it.

    Attributes:
        limit: seconds that it may take; None for no limit.
        until: monotonic time in seconds at which its time limit ends; None if it has none.
    """

    __slots__ = ("_server", "limit", "until")

    def __init__(self, assigned: JobAssigned, server: _Server) -> None:
        """Make the job of an assignment."""
        super().__init__(assigned, server.conn)
        self.limit: float | None = None
        self.until: float | None = None
        self._server = server

    @property
    def connected(self) -> bool:
        """Whether the connection that assigned the job is still open."""
        return self._server.conn is self.conn and self._server.connected

    def progress(self, numerator: int, denominator: int) -> None:
        """Report how far the job has come (``WORK_STATUS``).

        Args:
            numerator: units of work done.
            denominator: units of work in all.

        Raises:
            ConnectionLost: the server is gone, and has given the job to another worker or will.
            TimeoutError: the time limit of the function has passed.
        """
        self._report(lambda conn: conn.work_status(self.handle, numerator, denominator))

    def send(self, data: bytes | bytearray) -> None:
        """Send a piece of the result (``WORK_DATA``), and wait until the socket takes it; raises as `progress`."""
        self._report(lambda conn: conn.work_data(self.handle, as_payload("a piece", data)))

    def warn(self, data: bytes | bytearray) -> None:
        """Send a warning (``WORK_WARNING``); raises as `progress`."""
        self._report(lambda conn: conn.work_warning(self.handle, as_payload("a warning", data)))

    def _report(self, call: Callable[[WorkerConnection], None]) -> None:
        server = self._server
        if server.pump.inherited:
            raise GearmanError(f"job {self.handle!r} belongs to the parent process: a forked child cannot report on it")
        server.abort_if_overdue()
        with server.pump.gate, server.pump.lock:
            self._check()
            call(self.conn)
            server.settle()
        server.wait_until_sent(_NEVER if self.until is None else self.until)
        with server.pump.gate, server.pump.lock:
            self._check()

    def _check(self) -> None:
        if not self.connected:
            raise ConnectionLost(f"{self._server.address}: the connection is gone, and job {self.handle!r} with it")
        if self.given_up or self.superseded or (self.until is not None and time.monotonic() >= self.until):
            raise TimeoutError(f"job {self.handle!r} has taken longer than its function may")


class _Server:
    """One job server of a worker, and what a `Pump` moves for it. Hold the pump's lock in every call."""

    def __init__(
        self, address: Address, worker: Worker, pump: Pump, standing: LoggedStanding, connect_timeout: float
    ) -> None:
        self.address = address
        self.conn = WorkerConnection()
        self.pump = pump
        self.standing = standing
        self._connect_timeout = connect_timeout
        self.link: Link | None = None
        self._dial: Dial | None = None
        self._blocked = 0.0  # seconds that all servers had to wait for the last attempt to connect to this one
        self._worker = worker

    @property
    def connected(self) -> bool:
        return self.link is not None

    @property
    def due_at(self) -> float:
        """When to begin to connect: never while that is being done, or is done."""
        return self.standing.retry_at if self.link is None and self._dial is None else _NEVER

    def connect(self, connect: Connect | None, tls: ClientTLS | None) -> None:
        """Begin to connect. Looking up the name blocks, so that this is done without the lock."""
        began = time.monotonic()
        try:
            with self.pump.gate, self.pump.lock:
                self.pump.open()
            try:
                sock = None if connect is None else open_socket(connect, self.address)
                endpoints = resolve(self.address) if sock is None else []
            finally:
                self._blocked = time.monotonic() - began
        except OSError as error:
            self._failed(error)
            return
        with self.pump.gate, self.pump.lock:
            if sock is not None:
                self._on_connected(sock)
            else:
                self._dial = Dial(self.address, self.standing.order(endpoints), self._connect_timeout, tls)
                self._on_dialed()
            self.pump.settled(watch=True)  # a thread that sends a report may be pumping

    def _failed(self, error: OSError) -> None:
        self._dial = None
        self.standing.unreachable(error, time.monotonic(), self._blocked)

    def _on_dialed(self) -> None:
        dial = self._dial
        assert dial is not None
        if dial.error is not None:
            self._failed(dial.error)
        elif dial.sock is not None:
            self._dial = None
            self._on_connected(dial.sock, dial.endpoint)

    def _on_connected(self, sock: socket.socket | TLSSocket, endpoint: Endpoint | None = None) -> None:
        self.standing.connected(time.monotonic(), endpoint)
        self.conn = self._worker.new_connection(self._connect_timeout if self.standing.suspect else None)
        self.link = link = Link(sock, self.conn, self._on_event)
        close_with(link, link.sock)
        self._worker.advance()
        link.start()
        self.pump.settled(watch=link.sending or link.closed)

    def settle(self) -> None:
        """Hand out all events, send as much as the socket takes, and let others know if that is not all."""
        if (link := self.link) is not None:
            link.settle()
            self.pump.settled(watch=link.sending or link.closed)

    def abort_if_overdue(self) -> None:
        """Abort if the time to stop is over: `run` cannot see to it while a function runs in its thread."""
        self._worker.abort_if_overdue(time.monotonic())

    def wait_until_sent(self, until: float = _NEVER) -> None:
        """Wait until the socket has taken the output that there is by now. Without the lock.

        A server that does not read is found by probes.

        Args:
            until: monotonic time in seconds at which to leave off.
        """
        link, worker = self.link, self._worker
        if link is None or not link.sending:
            return
        sent = link.when_sent()
        limit = _NEVER

        def changed() -> bool:
            return sent() or worker.abort_at < limit

        while not (sent() or time.monotonic() >= until):
            limit = min(until, worker.abort_at)
            self.pump.wait(changed, None if limit == _NEVER else max(0.0, limit - time.monotonic()))
            self.abort_if_overdue()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, JobAssigned):
            self._worker.on_assigned(WorkerJob(event, self))
        elif isinstance(event, ConnectionClosed):
            link, self.link = self.link, None
            assert link is not None
            self._worker.on_closed(self, event, link.error)
        elif isinstance(event, Answered):
            self.standing.answered()
        elif isinstance(event, ReportRefused):
            _log.warning("%s: a report was refused: %r", self.address, event.text)
        else:
            _log.warning("%s: %r", self.address, event)

    # What a Pump moves

    @property
    def sock(self) -> socket.socket | None:
        if self.link is not None:
            return self.link.sock
        return None if self._dial is None else self._dial.trying

    @property
    def wants(self) -> int:
        if self.link is not None:
            return self.link.wants
        return _READ if self._dial is None else self._dial.wants

    def on_ready(self, events: int) -> None:
        if self.link is not None:
            self.link.on_ready(events)
            self._worker.on_moved()
        elif self._dial is not None:
            self._dial.advance(time.monotonic(), events)
            self._on_dialed()

    def next_deadline(self) -> float | None:
        if self.link is not None:
            return self.conn.next_deadline()
        return None if self._dial is None else self._dial.deadline

    def on_deadline(self, now: float) -> None:
        if self.link is not None:
            self.conn.handle_timeout(now)
            self.settle()
        elif self._dial is not None:
            self._dial.advance(now, 0)
            self._on_dialed()

    def look(self) -> None:
        if self.link is not None:
            self.link.look()

    def close(self, reason: str) -> None:
        if self._dial is not None:
            self._dial.close()
            self._dial = None
        if self.link is not None:
            self.link.close(reason)


class Worker:
    """A Gearman worker: connects to all its servers and runs jobs.

    Functions are registered with `function`. A function takes a `WorkerJob` and returns the result as bytes (or None
    for none); or it is a generator and yields pieces of the result, each sent as it comes. It raises `JobFailed` for a
    job that has failed (``WORK_FAIL``); every other exception is logged and reported (``WORK_EXCEPTION``).

    Without ``threads`` the thread that calls `run` runs one job after the other, and nothing else happens meanwhile.
    With ``threads`` so many jobs run at once, in threads of their own.
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
        retry_pauses: tuple[float, float] = DEFAULT_PAUSES,
        stop_timeout: float | None = None,
        **limits: Unpack[Limits],
    ) -> None:
        """Make a worker; `run` connects.

        Args:
            servers: one address or several, as ``host``, ``host:port`` or ``unix:PATH``; the port is 4730 unless given.
            client_id: the name that administrators see.
            threads: how many jobs to run at once, each in a thread; 0 for one, in the thread that calls `run`.
            tls: the files for TLS, or a context of your own; None for plain TCP.
            connect: opens a connected stream socket to a server, in place of TCP and TLS. If it raises anything,
                the server cannot be reached.
            connect_timeout: seconds for each attempt to connect to a server, TLS included.
            retry_pauses: (initial, maximum) seconds before an unreachable server is retried; each pause is twice as
                long as the one before. After a refusal that stays, and while a server is silent, up to 30 seconds.
            stop_timeout: seconds that jobs have to end in once `stop` is called or a signal asks for it; then the
                worker aborts. None for no limit.
            **limits: limits of the connections, as in `gearproto.connection.Connection`. A silent server is probed
                after 30 seconds unless ``probe_interval`` says otherwise.

        Raises:
            ValueError: an address or a number makes no sense, or a file for TLS cannot be used.
        """
        jobs_at_once("threads", threads, 0)
        self._limits: Limits = {"probe_interval": 30.0, **limits}
        WorkerConnection(**self._limits)  # which refuses what makes no sense
        addresses = parse_addresses(servers)
        files = None if tls is None else ClientTLS(tls)
        connect_timeout = setting("connect_timeout", connect_timeout)
        standings = [LoggedStanding(address, _log, retry_pauses) for address in addresses]
        self._grabber = Grabber(max(1, threads), client_id=None if client_id is None else as_bytes(client_id))
        self._pump = Pump(f"gear_sync.Worker of {', '.join(map(str, addresses))}")
        self._servers = [
            _Server(address, self, self._pump, standing, connect_timeout)
            for address, standing in zip(addresses, standings, strict=True)
        ]
        for server in self._servers:
            self._pump.add(server)
        self._threads = threads
        self._tls = files
        self._connect = connect
        self._stop_timeout = None if stop_timeout is None else setting("stop_timeout", stop_timeout)
        self._functions: dict[bytes, tuple[Handler, float | None]] = {}
        self._assigned: deque[WorkerJob] = deque()
        self._retired: set[bytes] = set()  # those of the functions that are not offered any more
        self._in_hand: dict[WorkerJob, None] = {}
        self._running: dict[WorkerJob, None] = {}  # those that have a time limit
        self._stopping = False
        self._aborting = False
        self._interrupt: BaseException | None = None  # that a function has raised in the main thread
        self.abort_at = _NEVER
        self._wake_at = _NEVER  # when `run` means to wake by itself
        self._runner: threading.Thread | None = None
        self._at_work: set[threading.Thread] = set()  # those that run a function
        self._fault: BaseException | None = None  # of this module, in a thread of the pool
        self._ended = threading.Event()  # run() is not running
        self._ended.set()

    def function(self, name: str | bytes | bytearray, *, timeout: float | None = None) -> Callable[[_H], _H]:
        """Register the decorated function. May be called from any thread, at any time.

        Args:
            name: what clients call it.
            timeout: seconds that a job of it may take; then its reports raise TimeoutError, and with ``threads`` it
                ends with an exception, whatever its thread still does. Servers are told of a second more, after which
                they give the job to another worker. None means no limit.

        Raises:
            LocalProtocolError: the name breaks a rule of the protocol.
            ValueError: the time limit is not a number of seconds above 0.
            TypeError: the function is a coroutine function, which only `gear_anyio.Worker` runs.
        """
        if not isinstance(name, str | bytes | bytearray):
            raise TypeError(f'{name!r} is not a name: write @worker.function("name")')

        def register(handler: _H) -> _H:
            self.register(name, handler, timeout=timeout)
            return handler

        return register

    def register(
        self, name: str | bytes | bytearray, handler: Callable[..., Any], *, timeout: float | None = None
    ) -> None:
        """Register a function; see `function`."""
        calling.check(handler)
        function = as_bytes(name)
        self._pump.check_process()
        with self._pump.gate, self._pump.lock:
            self._grabber.can_do(function, server_timeout_ms(timeout))
            self._functions[function] = (handler, timeout)
            self._retired.discard(function)
            self._settle_all()
        self._pump.wake()  # `run` has to know until when it waits for answers

    def serve(
        self, function: Function[_A, _R]
    ) -> Callable[[Callable[[_A, WorkerJob], _R]], Callable[[_A, WorkerJob], _R]]:
        """Register the decorated function as a typed one: it takes the value and the job, and returns the result.

        Args:
            function: the declaration that clients call.

        Raises:
            LocalProtocolError: the name breaks a rule of the protocol.
            ValueError: the time limit is not a number of seconds above 0.
            TypeError: the function is a coroutine function, which only `gear_anyio.Worker` runs.
        """

        def register(handler: Callable[[_A, WorkerJob], _R]) -> Callable[[_A, WorkerJob], _R]:
            calling.check(handler)

            def run(job: WorkerJob) -> bytes:
                return function.result_data(handler(function.value(job.workload), job))

            self.register(function.name, run, timeout=function.timeout)
            return handler

        return register

    def unregister(self, name: str | bytes | bytearray) -> None:
        """Take no further jobs of a function (``CANT_DO``); those in hand end as they would.

        gearmand takes running jobs back at ``CANT_DO``, and runs them again. So a server with such jobs is told once
        they have ended, and asked for no job until then.

        May be called from any thread, at any time.

        Raises:
            LocalProtocolError: it is not registered.
        """
        function = as_bytes(name)
        self._pump.check_process()
        with self._pump.gate, self._pump.lock:
            self._grabber.cant_do(function)
            self._retired.add(function)  # a job may have been assigned just now
            self._settle_all()
            self._forget_functions()

    def run(self) -> None:
        """Run jobs until `stop` is called; then finish the jobs in hand, send their results, and disconnect.

        Reconnects to lost servers with growing pauses, see ``retry_pauses``. In the main thread SIGTERM and SIGINT
        act as `stop`; a second one acts as `abort`, and raises KeyboardInterrupt.

        Raises:
            KeyboardInterrupt: as above; or a function has raised it in the main thread, and its job is reported.
            GearmanError: this process has inherited the worker from its parent, which has used it.
        """
        self._pump.check_process()
        with self._pump.gate, self._pump.lock:
            if self._runner is not None:
                raise RuntimeError("this worker runs already, or has run: make another one")
            self._runner = threading.current_thread()
        self._ended.clear()
        try:
            with receiving_signals(self._on_signal), _Pool(self._threads, self._work, self._fail) as start:
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
            self._aborting = self._stopping = True  # whatever still runs in a thread is on its own
            with self._pump.gate, self._pump.lock:
                for server in self._servers:
                    server.close("closed by the worker")
            self._ended.set()

    def stop(self) -> None:
        """Make `run` return once the jobs in hand have ended. From any thread, from functions and signal handlers."""
        if not self._stopping:
            if self._stop_timeout is not None:
                self.abort_at = time.monotonic() + self._stop_timeout
            self._stopping = True
        self._pump.wake()

    def abort(self) -> None:
        """Stop without regard to the jobs in hand: cut the connections, so that servers give them to other workers.

        `run` returns once the function in hand has returned, if it runs in the same thread; reports raise
        ConnectionLost. May be called from any thread, and from functions.
        """
        self._pump.check_process()  # the connections are the parent's, too
        self._aborting = self._stopping = True
        for server in self._servers:
            if (link := server.link) is not None:
                link.cut()
        self._pump.wake()

    def close(self) -> None:
        """Stop the worker, wait until the jobs in hand have ended, and give back all that it holds. May be repeated.

        Raises:
            RuntimeError: a function of this worker calls it; call `stop` there.
        """
        if self._pump.inherited:
            return  # its parent, which has used it, closes it
        thread = threading.current_thread()
        if (thread is self._runner or thread in self._at_work) and not self._ended.is_set():
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
        # Logging needs locks, which this thread may hold just now. So another one logs; and as to start a thread of
        # `threading` takes a lock, too, one without a lock does that.
        telling = threading.Thread(target=self._tell_stop, args=(number,), name="gear worker stops", daemon=True)
        with suppress(RuntimeError):  # no more threads can be started
            _thread.start_new_thread(telling.start, ())

    def _tell_stop(self, number: int) -> None:
        with self._pump.gate, self._pump.lock:
            jobs = list(self._in_hand)
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
            if not self._pump.wait(some_has_left, min(_LAST_WORDS, self.abort_at - time.monotonic())):
                return

    def _unsent_size(self) -> int:
        return sum(server.link.unsent_size for server in self._servers if server.link is not None)

    def _connect_due(self) -> None:
        if self._stopping:
            return
        now = time.monotonic()
        for server in self._servers:
            if server.link is None and server.due_at <= now:
                server.connect(self._connect, self._tls)

    def _has_work(self) -> bool:
        """Tell whether `run` has to do something that a pump does not. With the lock held."""
        if self._assigned or self._aborting or self._fault is not None or self._stopping is not self._grabber.stopping:
            return True
        if self._stopping and self._grabber.drained:
            return True
        return self._due_at() < self._wake_at  # a server was lost meanwhile

    def _pause(self) -> float | None:
        """Return how many seconds to wait at the most."""
        with self._pump.gate, self._pump.lock:
            when = self._wake_at = self._due_at()
        return None if when == _NEVER else max(0.0, when - time.monotonic())

    def _due_at(self) -> float:
        """Return when `run` has to do something even if nothing happens."""
        when = self.abort_at
        patience = self._grabber.next_deadline()
        if patience is not None and patience < when:
            when = patience
        if not self._stopping:
            for server in self._servers:
                if server.link is None and server.due_at < when:
                    when = server.due_at
        for job in self._running:
            if job.until is not None and job.until < when and not job.given_up:
                when = job.until
        return when

    def _turn(self, start: Callable[[WorkerJob], None]) -> None:
        now = time.monotonic()
        if now >= self._wake_at or self._stopping is not self._grabber.stopping:
            with self._pump.gate, self._pump.lock:
                self.advance()
                for job in [job for job in self._running if job.until is not None and job.until <= now]:
                    self._give_up(job)
        if self.abort_if_overdue(now):
            return
        while self._assigned and not self._aborting and self._interrupt is None:
            start(self._assigned.popleft())
            if self._assigned:  # the job may have taken long, and the server of the next one be gone
                with self._pump.gate, self._pump.lock:
                    for server in self._servers:
                        server.look()

    def abort_if_overdue(self, now: float) -> bool:
        """Abort if jobs have not ended in the time to stop; return whether that is so. Without the lock."""
        if now < self.abort_at:
            return False
        if not self._aborting:
            _log.warning("jobs have not ended within %g s: aborting", self._stop_timeout)
            self.abort()
        return True

    def _settle_all(self) -> None:
        """Send what has been queued on any connection."""
        self.advance()
        for server in self._servers:
            server.settle()

    # What servers tell; with the lock held

    def new_connection(self, answer_timeout: float | None) -> WorkerConnection:
        """Return a connection to a server that has just been reached, on which the worker has introduced itself.

        Args:
            answer_timeout: seconds in which the server has to answer; None if it need not.
        """
        now = time.monotonic()
        options: Limits = {"now": now, **self._limits}
        conn = WorkerConnection(asks_when_woken=False, **options)
        if answer_timeout is not None:
            conn.require_answer(now, answer_timeout)
        self._grabber.attach(conn)
        return conn

    def advance(self) -> None:
        """Ask servers for jobs, as far as there is room, and none once the worker is to stop."""
        if self._stopping and not self._grabber.stopping:
            self._grabber.stop()
        for conn in self._grabber.advance(time.monotonic()):
            for server in self._servers:
                if server.conn is conn:
                    server.settle()
                    break
        if self._retired:
            self._forget_functions()

    def _forget_functions(self) -> None:
        """Forget the functions of which no job can come any more."""
        for function in [function for function in self._retired if not self._grabber.may_assign(function)]:
            self._retired.remove(function)
            del self._functions[function]

    def on_moved(self) -> None:
        """Ask for jobs after the events of a connection, unless `run` does so when it has done the job that came."""
        if not self._assigned or self._threads:
            self.advance()

    def on_assigned(self, job: WorkerJob) -> None:
        """Take a job."""
        self._grabber.assigned()
        self._in_hand[job] = None
        self._assigned.append(job)

    def _put_down(self, job: WorkerJob) -> None:
        del self._in_hand[job]
        self._grabber.ended()

    def on_closed(self, server: _Server, event: ConnectionClosed, error: Exception | None) -> None:
        """Record that a connection was lost, and drop the jobs of it that have not begun."""
        if self._stopping:
            _log.info("%s: %s", server.address, event.reason)
        else:
            server.standing.lost(event, error, time.monotonic())
        self._grabber.detach(server.conn)
        for job in [job for job in self._assigned if job.conn is server.conn]:
            self._assigned.remove(job)
            self._put_down(job)

    # Jobs

    def _fail(self, error: BaseException) -> None:
        """Let `run` raise what should not have been raised in a thread of the pool: that thread is lost."""
        self._fault = error
        self._pump.wake()

    def _give_up(self, job: WorkerJob) -> None:
        """Report a job whose time is over as ended by an exception."""
        if job.given_up:
            return
        job.given_up = True
        assert job.limit is not None
        _log.warning("job %r of %r has taken longer than %g s", job.handle, job.function, job.limit)
        if job.connected:
            job.report_end(timed_out(job.limit))
            job._server.settle()

    def _work(self, job: WorkerJob) -> None:
        """Run a job, and send its end and the next GRAB_JOB in one write."""
        if self._aborting:
            return
        if not job.connected:  # it is for another worker; nobody else has told of it, as it was on its way to a thread
            with self._pump.gate, self._pump.lock:
                self._put_down(job)
                self.advance()
            self._pump.wake()
            return
        handler, timeout = self._functions.get(job.function, (None, None))
        if timeout is not None:
            with self._pump.gate, self._pump.lock:
                self._running[job] = None
                job.limit = timeout
                job.until = time.monotonic() + timeout
                if job.until < self._wake_at:
                    self._pump.wake()
        self._at_work.add(thread := threading.current_thread())
        try:
            end = self._run(job, handler)
        finally:
            self._at_work.discard(thread)
        with self._pump.gate, self._pump.lock:
            self._running.pop(job, None)
            self._put_down(job)
            if job.given_up:
                pass
            elif job.connected:
                if (wrong := job.report_end(end)) is not None:
                    _log.error("%s: job %r: %s", job._server.address, job.handle, wrong)
            else:
                level = logging.INFO if self._stopping else logging.WARNING
                address = job._server.address
                _log.log(level, "%s: job %r: the connection is gone, its end goes unreported", address, job.handle)
            self.advance()
            if job.conn.output_size:  # else it has left with the next GRAB_JOB
                job._server.settle()
        if self._interrupt is None:  # else `run` waits, and not for long
            job._server.wait_until_sent()
        if self._threads:
            self._pump.wake()

    def _run(self, job: WorkerJob, handler: Handler | None) -> Completed | Failed | Raised:
        """Call a job's function; return how the job ended."""
        if handler is None:
            _log.error("job %r is for %r, which is not registered", job.handle, job.function)
            return Failed()
        end, interrupt = calling.run(job, handler)
        if interrupt is not None:
            if self._aborting:
                raise KeyboardInterrupt from interrupt  # a second signal: the job is for another worker
            self._interrupt = interrupt
            self._stopping = True
        return end


class _Pool:
    """Threads that run jobs; none for a worker that runs them in its own thread."""

    def __init__(
        self, threads: int, work: Callable[[WorkerJob], None], on_error: Callable[[BaseException], None]
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._count = threads
        self._jobs: queue.SimpleQueue[WorkerJob | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Callable[[WorkerJob], None]:
        """Start the threads, and return what hands a job over."""
        for number in range(self._count):
            thread = threading.Thread(target=self._run, name=f"gear worker {number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there is no room for so many
                self.__exit__(None, None, None)
                raise
            self._threads.append(thread)
        return self._jobs.put if self._count else self._work

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let each thread end with the job that it has; one that hangs is left behind, as no thread can be ended."""
        for _ in self._threads:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._work(job)
            except BaseException as error:
                self._on_error(error)
                return
