"""The worker: runs functions for job servers, one job at a time."""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from gearproto import ConnectionLost, Grab, JobFailed, LocalProtocolError, WorkerConnection
from gearproto.addresses import Address, parse_addresses
from gearproto.connection import Limits
from gearproto.events import ConnectionClosed, Event, JobAssigned, ReportRefused

from .link import Link, connect
from .names import as_bytes

__all__ = ["Worker", "WorkerJob"]

_log = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_DRAIN: Final = 2.0  # seconds; how long a server may take to answer a last GRAB_JOB
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0

Handler = Callable[["WorkerJob"], "bytes | Generator[bytes, None, bytes | None] | None"]
_H = TypeVar("_H", bound=Callable[..., Any])


class WorkerJob:
    """A job in hand, as its function sees it.

    Attributes:
        handle: the server's name for it.
        function: name of the function.
        unique: the client's own name for it; may be empty.
        reducer: name of the reducer; empty if there is none.
        workload: what to work on.
    """

    def __init__(self, assigned: JobAssigned, server: _Server) -> None:
        """Make the job of an assignment."""
        self.handle = assigned.handle
        self.function = assigned.function
        self.unique = assigned.unique
        self.reducer = assigned.reducer
        self.workload = assigned.workload
        self._server = server

    def progress(self, numerator: int, denominator: int) -> None:
        """Report how far the job has come (``WORK_STATUS``).

        Args:
            numerator: units of work done.
            denominator: units of work in all.

        Raises:
            ConnectionLost: the server is gone, and has given the job to another worker or will.
        """
        self._report(lambda conn: conn.work_status(self.handle, numerator, denominator))

    def send(self, data: bytes) -> None:
        """Send a piece of the result (``WORK_DATA``); raises as `progress`."""
        self._report(lambda conn: conn.work_data(self.handle, data))

    def warn(self, data: bytes) -> None:
        """Send a warning (``WORK_WARNING``); raises as `progress`."""
        self._report(lambda conn: conn.work_warning(self.handle, data))

    def _report(self, call: Callable[[WorkerConnection], None]) -> None:
        link = self._server.link
        if link is not None and not link.closed:
            call(self._server.conn)
            link.settle()
            self._server.send_all()
        if not self._server.connected:
            raise ConnectionLost(f"{self._server.address}: the connection is gone, and job {self.handle!r} with it")


class _Server:
    """One job server: its connection while there is one, and when to try again otherwise."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.link: Link | None = None
        self.conn = WorkerConnection()
        self.assigned: deque[JobAssigned] = deque()
        self.connected_at = 0.0
        self.retry_at = 0.0
        self.pause = _FIRST_PAUSE
        self.leaving = False
        self.watched: Link | None = None
        self.watched_for = 0

    @property
    def connected(self) -> bool:
        link = self.link
        return link is not None and not link.closed

    def connect(self, timeout: float, limits: Limits) -> None:
        sock = connect(self.address, timeout)
        options: Limits = {"now": time.monotonic(), **limits}
        self.conn = WorkerConnection(**options)
        self.link = Link(sock, self.conn, self._on_event)
        self.assigned.clear()
        self.connected_at = time.monotonic()

    def disconnect(self) -> None:
        self.leaving = True
        if self.link is not None:
            self.link.close("closed by the worker")

    def wait_to_retry(self) -> None:
        self.retry_at = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, _LONGEST_PAUSE)

    def send_all(self) -> None:
        """Wait until the socket has taken all output, reading meanwhile."""
        link = self.link
        assert link is not None
        while link.sending:
            with selectors.DefaultSelector() as selector:
                selector.register(link, link.wants)
                for _key, events in selector.select():
                    link.on_ready(events)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, JobAssigned):
            self.assigned.append(event)
        elif isinstance(event, ConnectionClosed):
            _log.log(logging.INFO if self.leaving else logging.WARNING, "%s: %s", self.address, event.reason)
            if time.monotonic() - self.connected_at > _LONGEST_PAUSE:  # else it may be one that is closed at once
                self.pause = _FIRST_PAUSE
            self.wait_to_retry()
        elif isinstance(event, ReportRefused):
            _log.warning("%s: a report was refused: %r", self.address, event.text)
        else:
            _log.warning("%s: %r", self.address, event)


class Worker:
    """A Gearman worker: connects to all its servers and runs one job after the other, in the thread that calls `run`.

    Functions are registered with `function`. A function takes a `WorkerJob` and returns the result as bytes (or None
    for none); or it is a generator and yields pieces of the result, each sent as it comes. It raises `JobFailed` for a
    job that has failed (``WORK_FAIL``); every other exception is logged and reported (``WORK_EXCEPTION``).
    """

    def __init__(
        self,
        servers: str | tuple[str, int] | Iterable[str | tuple[str, int]],
        *,
        client_id: str | bytes | None = None,
        connect_timeout: float = 5.0,
        **limits: Unpack[Limits],
    ) -> None:
        """Make a worker; `run` connects.

        Args:
            servers: one address or several, as ``host`` or ``host:port``; the port is 4730 unless given.
            client_id: the name that administrators see.
            connect_timeout: seconds for each attempt to connect.
            **limits: limits of the connection, as in `gearproto.connection.Connection`.

        Raises:
            ValueError: an address makes no sense.
        """
        self._servers = [_Server(address) for address in parse_addresses(servers)]
        self._client_id = None if client_id is None else as_bytes(client_id)
        self._connect_timeout = connect_timeout
        self._limits = limits
        self._functions: dict[bytes, tuple[Handler, int | None]] = {}
        self._stopping = False
        self._runner: threading.Thread | None = None
        self._ended = threading.Event()  # run() is not running
        self._ended.set()
        self._selector = selectors.DefaultSelector()
        self._waker, self._wakes = socket.socketpair()
        self._waker.setblocking(False)
        self._wakes.setblocking(False)
        self._selector.register(self._wakes, selectors.EVENT_READ)

    def function(self, name: str | bytes, *, timeout: float | None = None) -> Callable[[_H], _H]:
        """Register the decorated function; before `run`.

        Args:
            name: what clients call it.
            timeout: seconds after which the server gives the job to another worker; servers take 1 at the least.
                None means no limit.
        """

        def register(handler: _H) -> _H:
            self.register(name, handler, timeout=timeout)
            return handler

        return register

    def register(self, name: str | bytes, handler: Callable[..., Any], *, timeout: float | None = None) -> None:
        """Register a function; see `function`."""
        self._functions[as_bytes(name)] = (handler, None if timeout is None else max(1, round(timeout * 1000)))

    def run(self) -> None:
        """Run jobs until `stop` is called; then finish the job in hand, send its result, and close the connections.

        Reconnects to lost servers with growing pauses. In the main thread SIGTERM and SIGINT act as `stop`; a second
        one raises KeyboardInterrupt.
        """
        self._runner = threading.current_thread()
        self._ended.clear()
        try:
            with self._handling_signals():
                while not self._stopping:
                    self._connect_due()
                    self._work_or_wait()
                self._drain()
        finally:
            for server in self._servers:
                server.disconnect()
            self._ended.set()

    def stop(self) -> None:
        """Make `run` return once the job in hand has ended. May be called from any thread, and from functions."""
        self._stopping = True
        with suppress(OSError):
            self._waker.send(b"w")

    def abort(self) -> None:
        """Stop without regard to the job in hand: cut the connections, so that servers give it to other workers.

        `run` returns once the function in hand has returned; its reports raise ConnectionLost. May be called from any
        thread, and from functions.
        """
        for server in self._servers:
            server.leaving = True
            if (link := server.link) is not None:
                link.cut()
        self.stop()

    def close(self) -> None:
        """Stop the worker, wait until the job in hand has ended, and give back all that it holds. Can be called twice.

        Raises:
            RuntimeError: a function of this worker calls it; call `stop` there.
        """
        if self._runner is threading.current_thread() and not self._ended.is_set():
            raise RuntimeError("a worker cannot wait for the job that closes it: call stop() instead")
        self.stop()
        self._ended.wait()
        self._selector.close()
        self._waker.close()
        self._wakes.close()

    def __enter__(self) -> Self:
        """Return the worker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the worker: see `close`."""
        self.close()

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(_number: int, _frame: object) -> None:
            if self._stopping:
                raise KeyboardInterrupt
            self.stop()

        previous = {number: signal.signal(number, on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _connect_due(self) -> None:
        now = time.monotonic()
        for server in self._servers:
            if server.connected or server.retry_at > now:
                continue
            try:
                server.connect(self._connect_timeout, self._limits)
            except OSError as error:
                _log.warning("%s: %s", server.address, error.strerror or error)
                server.wait_to_retry()
                continue
            _log.info("%s: connected", server.address)
            self._introduce(server)

    def _introduce(self, server: _Server) -> None:
        """Tell a server who this is, what it can do, and that it wants a job."""
        conn = server.conn
        if self._client_id is not None:
            conn.set_client_id(self._client_id)
        for name, (_handler, timeout_ms) in self._functions.items():
            conn.can_do(name, timeout_ms=timeout_ms)
        conn.grab_job()
        assert server.link is not None
        server.link.settle()

    def _work_or_wait(self) -> None:
        """Run a job that was assigned, or wait until something happens."""
        for server in self._servers:
            if server.connected and server.assigned:
                self._work(server, server.assigned.popleft())
                return
        self._wait(None)

    def _wait(self, until: float | None) -> None:
        """Wait for a server, a wake-up, or the time to connect again."""
        self._watch()
        deadlines = [] if until is None else [until]
        for server in self._servers:
            if server.connected:
                deadline = server.conn.next_deadline()
                if deadline is not None:
                    deadlines.append(deadline)
            elif until is None:
                deadlines.append(server.retry_at)
        timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        for key, events in self._selector.select(timeout):
            if key.data is None:
                self._wakes.recv(4096)
            elif not any(server.assigned for server in self._servers):
                key.data.link.on_ready(events)
        if not any(server.assigned for server in self._servers):  # else what other servers have sent is yet to be read
            self._probe()

    def _watch(self) -> None:
        """Tell the selector what to look at; gone connections first, as a new one may have the same descriptor."""
        for server in self._servers:
            if server.watched is not None and server.watched.closed:
                self._selector.unregister(server.watched)
                server.watched = None
        for server in self._servers:
            link = server.link
            if link is None or link.closed:
                continue
            if server.watched is None:
                self._selector.register(link, link.wants, server)
            elif server.watched_for != link.wants:
                self._selector.modify(link, link.wants, server)
            server.watched, server.watched_for = link, link.wants

    def _probe(self) -> None:
        now = time.monotonic()
        for server in self._servers:
            deadline = server.conn.next_deadline() if server.connected else None
            if deadline is not None and deadline <= now:
                server.conn.handle_timeout(now)
                assert server.link is not None
                server.link.settle()

    def _work(self, server: _Server, assigned: JobAssigned) -> None:
        """Run a job, and send its end and the next GRAB_JOB in one write."""
        job = WorkerJob(assigned, server)
        end = self._run(job)
        if not server.connected:
            level = logging.INFO if server.leaving else logging.WARNING
            _log.log(level, "%s: job %r: the connection is gone, its end goes unreported", server.address, job.handle)
            return
        try:
            end(server.conn)
        except LocalProtocolError as error:  # a result over the packet limit, say
            _log.error("%s: job %r: %s", server.address, job.handle, error)
            server.conn.work_exception(job.handle, str(error).encode())
        if not self._stopping and not server.assigned:
            server.conn.grab_job()
        assert server.link is not None
        server.link.settle()
        server.send_all()

    def _run(self, job: WorkerJob) -> Callable[[WorkerConnection], None]:
        """Call a job's function; return how to report its end."""
        handle = job.handle
        known = self._functions.get(job.function)
        if known is None:
            _log.error("job %r is for %r, which is not registered", handle, job.function)
            return lambda conn: conn.work_fail(handle)
        try:
            result = known[0](job)
            if isinstance(result, Generator):
                result = self._run_generator(job, result)
            data = b"" if result is None else bytes(memoryview(result))
        except JobFailed as error:
            _log.info("job %r of %r failed: %s", handle, job.function, error)
            return lambda conn: conn.work_fail(handle)
        except Exception as error:
            if isinstance(error, ConnectionLost) and not job._server.connected:
                _log.info("job %r of %r given up: %s", handle, job.function, error)
                return lambda conn: conn.work_fail(handle)
            _log.exception("job %r of %r raised", handle, job.function)
            text = f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace")
            return lambda conn: conn.work_exception(handle, text)
        return lambda conn: conn.work_complete(handle, data)

    def _run_generator(self, job: WorkerJob, pieces: Generator[bytes, None, bytes | None]) -> bytes | None:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                result: bytes | None = end.value
                return result
            job.send(piece)

    def _drain(self) -> None:
        """Want no more jobs, but run those that the servers are just assigning."""
        until = time.monotonic() + _DRAIN
        for server in self._servers:
            if server.connected:
                server.conn.stop_grabbing()
        while True:
            for server in self._servers:
                while server.connected and server.assigned:
                    self._work(server, server.assigned.popleft())
            asked = [server for server in self._servers if server.connected and server.conn.state is Grab.ASKED]
            if not asked or time.monotonic() >= until:
                return
            self._wait(until)
