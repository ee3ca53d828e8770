"""``gear.Server``: a job server in a thread, made for tests."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import ClassVar, Final, TypeVar

import gearproto
from gear_net.listening import DEFAULT_BACKLOG, Keepalive, listen
from gearproto import Priority

from . import constants
from .acl import ACL
from .admin import ServerAdminRequest
from .connection import Connection
from .jobs import ServerJob
from .packet import Packet
from .serving.abilities import FunctionSet
from .serving.commands import ServerCommands
from .serving.engine import ServerEngine
from .serving.joblists import JobList
from .serving.peer import Peer, ServerConnection
from .serving.reactor import make_reactor
from .serving.statistics import Statistics, open_client
from .text import convert_to_bytes, encode
from .tls import server_context

__all__ = ["Server"]

_IDLE_FUNCTIONS: Final = 100  # how many functions without jobs and workers are remembered
_WAKEUP_TIMEOUT: Final = 0.1  # seconds; some programs sleep before they ask, so that others come first
_DENIED: Final = "Permission denied by ACL"

_T = TypeVar("_T")


class Server(ServerCommands):
    """A Gearman server that listens, and serves, as soon as it is made; in a thread of its own.

    It is the job server of `gearproto`, with hooks before it: each is called for the packets of its type, and what it
    does not hand on is not done. Subclasses set what their hooks need before they call this constructor. Lists and
    tables may be looked at from any thread.

    Attributes:
        host: where it listens; None for everywhere.
        port: the port that it listens on.
        socket: the listening socket.
        acl: who may do what; None if everybody may do everything.
        statsd: the client of statsd; None if nothing is reported.
        active_connections: the connections.
        inactive_connections: always empty; clients and workers have some.
        jobs: the jobs by handle.
    """

    _log_name: ClassVar[str] = "Server"

    def __init__(
        self,
        port: int | str = 4730,
        ssl_key: str | None = None,
        ssl_cert: str | None = None,
        ssl_ca: str | None = None,
        statsd_host: str | None = None,
        statsd_port: int = 8125,
        statsd_prefix: str | None = None,
        server_id: str | bytes | None = None,
        acl: ACL | None = None,
        host: str | None = None,
        keepalive: bool = False,
        tcp_keepidle: int = 7200,
        tcp_keepintvl: int = 75,
        tcp_keepcnt: int = 9,
    ) -> None:
        """Listen and serve.

        Args:
            port: the port; 0 lets the system choose.
            ssl_key: file with the private key; with the two below clients have to show certificates.
            ssl_cert: file with the certificate.
            ssl_ca: file with the certificates of the authorities.
            statsd_host: host of a statsd server to report to; None for none.
            statsd_port: its port.
            statsd_prefix: what the names of all reports begin with.
            server_id: what loggers are named after.
            acl: who may do what; None if everybody may do everything.
            host: name or address to listen on; None for all, IPv6 and IPv4.
            keepalive: whether TCP looks for peers that have gone without a word.
            tcp_keepidle: seconds without traffic after which it looks.
            tcp_keepintvl: seconds between two looks.
            tcp_keepcnt: looks without an answer after which a connection is given up.

        Raises:
            OSError: the address cannot be listened on, or a TLS file cannot be read.
            ConfigurationError: only some of the TLS files are given, or one cannot be used.
            ValueError: there is no such port.
        """
        super().__init__(server_id)
        context = server_context(ssl_key, ssl_cert, ssl_ca)
        self.ssl_key = ssl_key
        self.ssl_cert = ssl_cert
        self.ssl_ca = ssl_ca
        self.use_ssl = context is not None
        self.active_connections: list[ServerConnection] = []
        self.inactive_connections: list[ServerConnection] = []
        self.acl = acl
        self.host = host
        sockets = _listen(host, int(port))
        self.socket = sockets[0]
        self.port: int = self.socket.getsockname()[1]
        self.statsd = open_client(statsd_host, statsd_port, statsd_prefix)
        self._statistics = None if self.statsd is None else Statistics(self.statsd)
        self._engine = ServerEngine(
            self,
            self._call,
            handle_prefix=f"H:{socket.gethostname()[:24]}:{secrets.token_hex(4)}".encode(),
            version=gearproto.__version__.encode(),
            pid=os.getpid(),
            epoch_offset=time.time() - time.monotonic(),
            exceptions=True,
            max_idle_functions=_IDLE_FUNCTIONS,
            wakeup_timeout=_WAKEUP_TIMEOUT,
        )
        self.jobs = self._engine.jobs
        looks = Keepalive(tcp_keepidle, tcp_keepintvl, tcp_keepcnt) if keepalive else None
        self._reactor = make_reactor(self, self._engine, sockets, keepalive=looks, tls=context)
        self._calls: deque[Callable[[], object]] = deque()
        self.poll_thread = threading.Thread(target=self._poll_loop, name="Gearman client poll", daemon=True)
        self.poll_thread.start()

    # The thread

    def _poll_loop(self) -> None:
        reactor = self._reactor
        ran = False
        try:
            while self.running and not reactor.finished:
                reactor.turn(0 if ran else None)  # what calls have to say is sent at the end of a turn
                ran = self._run_calls()
        finally:
            self.running = False
            reactor.close()
            self._run_calls()
            if self.statsd is not None:
                self.statsd.close()

    def _run_calls(self) -> bool:
        ran = False
        while self._calls:
            self.call_hook(lambda call: call(), self._calls.popleft())
            ran = True
        return ran

    def _soon(self, call: Callable[[], object]) -> None:
        """Call something in the server's thread: now if this is that thread, soon otherwise."""
        if threading.current_thread() is self.poll_thread:
            call()
        else:
            self._calls.append(call)
            self._reactor.wake()

    def _call(self, call: Callable[[], _T]) -> _T:
        """Call something in the server's thread; return, or raise, what it does."""
        if threading.current_thread() is self.poll_thread:
            return call()
        outcome: Future[_T] = Future()

        def run() -> None:
            try:
                outcome.set_result(call())
            except Exception as error:
                outcome.set_exception(error)

        self._soon(run)
        while not wait([outcome], 0.1).done:
            if not self.poll_thread.is_alive():
                return call()
        return outcome.result()

    def shutdown(self) -> None:
        """Close all connections and end the thread. A second call does nothing."""
        self.running = False
        self._reactor.wake()
        if threading.current_thread() is not self.poll_thread:
            self.poll_thread.join()

    def call_hook(self, hook: Callable[[_T], object], argument: _T) -> None:
        """Call a hook of the program; what it raises is logged, and harms nothing else."""
        try:
            hook(argument)
        except Exception:
            self.log.exception("Error in a hook")

    # What the engine tells

    def peer_connected(self, connection: Peer) -> None:
        """Add a new connection."""
        with self.connections_condition:
            self.active_connections.append(connection)
            self.connections_condition.notify_all()

    def peer_gone(self, connection: Peer) -> None:
        """Remove a connection that has gone."""
        with self.connections_condition:
            self.active_connections.remove(connection)
            self.connections_condition.notify_all()
        self.jobs_changed()

    def jobs_changed(self) -> None:
        """Report how many jobs there are."""
        if self._statistics is not None:
            self._statistics.jobs(*self._engine.count())

    def change_abilities(self, connection: Peer, added: set[bytes], removed: set[bytes]) -> None:
        """Let a worker be able to run other functions. May be called from any thread."""
        self._call(lambda: self._engine.change_abilities(connection.peer, added, removed))

    def let_sleep(self, connection: Peer) -> None:
        """Let a worker sleep. May be called from any thread."""
        self._call(lambda: self._engine.let_sleep(connection.peer))

    def transmit(self, connection: Peer, data: bytes) -> None:
        """Send something to a peer. May be called from any thread."""
        self._soon(lambda: self._engine.engine.send(connection.peer, data))

    def close_peer(self, connection: Peer) -> None:
        """Close a connection. May be called from any thread."""
        self._soon(lambda: self._engine.engine.fail(connection.peer, "the server's program has closed the connection"))

    # What programs look at

    @property
    def high_queue(self) -> JobList:
        """The queued jobs of high precedence, in the order in which workers get them; you may change the list."""
        return self._engine.lists[Priority.HIGH]

    @high_queue.setter
    def high_queue(self, jobs: Iterable[ServerJob]) -> None:
        self.high_queue[:] = jobs

    @property
    def normal_queue(self) -> JobList:
        """The queued jobs of normal precedence, in the order in which workers get them; you may change the list."""
        return self._engine.lists[Priority.NORMAL]

    @normal_queue.setter
    def normal_queue(self, jobs: Iterable[ServerJob]) -> None:
        self.normal_queue[:] = jobs

    @property
    def low_queue(self) -> JobList:
        """The queued jobs of low precedence, in the order in which workers get them; you may change the list."""
        return self._engine.lists[Priority.LOW]

    @low_queue.setter
    def low_queue(self, jobs: Iterable[ServerJob]) -> None:
        self.low_queue[:] = jobs

    @property
    def functions(self) -> FunctionSet:
        """The names of the functions that jobs or workers have, and of some that they had.

        A name that you add is listed until you remove it.
        """
        return self._engine.function_names()

    @functions.setter
    def functions(self, names: Iterable[str | bytes]) -> None:
        self._engine.function_names().replace(names)

    @property
    def total_jobs(self) -> int:
        """How many jobs there are."""
        return self._engine.count()[0]

    @property
    def running_jobs(self) -> int:
        """How many jobs workers have."""
        return self._engine.count()[1]

    @property
    def waiting_jobs(self) -> int:
        """How many jobs wait for workers."""
        return self._engine.count()[2]

    @property
    def max_handle(self) -> int:
        """How many jobs have been submitted, which is the number in the last handle."""
        return self._engine.engine.submitted

    def getQueue(self) -> list[ServerJob]:
        """Return all queued jobs: those of high precedence, then normal, then low, the oldest first in each."""
        return self.high_queue + self.normal_queue + self.low_queue

    def reportTimingStats(self, ptype: int, duration: float) -> None:
        """Report a packet to statsd."""
        if self._statistics is not None:
            self._statistics.packet(ptype, duration)

    # Choosing jobs, and waking workers

    def choose(self, connection: ServerConnection, *, peek: bool) -> ServerJob | None:
        """Ask for the next job of a worker; what a program raises is logged, and means that there is none."""
        try:
            return self.getJobForConnection(connection, peek=peek)
        except Exception:
            self.log.exception("Error in getJobForConnection")
            return None

    def getJobForConnection(self, connection: ServerConnection, peek: bool = False) -> ServerJob | None:
        """Return the next job for a worker: override it to hold jobs back.

        Args:
            connection: the worker's connection.
            peek: whether this is only a look. Otherwise the worker gets the job that is returned.

        Returns:
            A queued job of a function that the worker can run; None for none.
        """
        del peek
        return self._engine.first_for(connection)

    def wakeConnections(self, job: ServerJob | None = None) -> None:
        """Wake workers.

        Args:
            job: the job for which one of them is wanted; None to wake every one that there is a job for.
        """
        if job is None:
            self._soon(self._engine.wake_all)
        else:
            name = job.binary_name
            self._soon(lambda: self._engine.wake_for(name))

    def wakeConnection(self, connection: ServerConnection) -> None:
        """Wake a worker, if it sleeps and there is a job for it."""
        self._soon(lambda: self._engine.wake_one(connection))

    # What is sent

    def sendError(self, connection: Connection, code: str | bytes | int, text: str | bytes) -> None:
        """Send ``ERROR``."""
        parts = (encode(str(code)) if isinstance(code, int) else convert_to_bytes(code), convert_to_bytes(text))
        connection.sendPacket(Packet(constants.RES, constants.ERROR, b"\0".join(parts), connection))

    def sendJobAssignUniq(self, connection: Connection, job: ServerJob) -> None:
        """Give a worker a job, if it has not got that yet, and send it (``JOB_ASSIGN_UNIQ``)."""
        self._soon(lambda: self._engine.assign(connection, job))

    def sendNoJob(self, connection: Connection) -> None:
        """Tell a worker that there is no job for it (``NO_JOB``)."""
        connection.sendPacket(Packet(constants.RES, constants.NO_JOB, b"", connection))

    def answer(self, request: ServerAdminRequest) -> None:
        """Answer a text command as the job server does."""
        self._engine.answer(request)

    def cancel(self, job: ServerJob) -> bool:
        """End a job; its clients get ``WORK_FAIL``."""
        return self._engine.engine.cancel(job.handle or b"")

    # Hooks

    def handlePassthrough(self, packet: Packet, finished: bool = False) -> None:
        """Pass a report on to the clients that wait for its job.

        Args:
            packet: the report.
            finished: whether it is the last one.
        """
        del finished
        self._engine.serve(packet)

    def _submit(self, packet: Packet) -> None:
        if self.acl is None or self.acl.canInvoke(_subject(packet), bytes(packet.getArgument(0))):
            self._engine.serve(packet)
        else:
            self.log.info("%s may not invoke %r", _subject(packet), packet.getArgument(0))
            assert packet.connection is not None
            self.sendError(packet.connection, 0, _DENIED)

    def _register(self, packet: Packet) -> None:
        if self.acl is None or self.acl.canRegister(_subject(packet), bytes(packet.getArgument(0))):
            self._engine.serve(packet)
        else:
            self.log.info("%s may not register %r", _subject(packet), packet.getArgument(0))

    def _unhandled(self, packet: Packet) -> None:
        super()._unhandled(packet)
        self._engine.serve(packet)  # which answers with an error, if it knows the type

    def handleSubmitJob(self, packet: Packet) -> None:
        """Queue a job, if the submitter may invoke its function (``SUBMIT_JOB``)."""
        self._submit(packet)

    def handleSubmitJobBg(self, packet: Packet) -> None:
        """Queue a job, if the submitter may invoke its function (``SUBMIT_JOB_BG``)."""
        self._submit(packet)

    def handleSubmitJobHigh(self, packet: Packet) -> None:
        """Queue a job, if the submitter may invoke its function (``SUBMIT_JOB_HIGH``)."""
        self._submit(packet)

    def handleSubmitJobHighBg(self, packet: Packet) -> None:
        """Queue a job, if the submitter may invoke its function (``SUBMIT_JOB_HIGH_BG``)."""
        self._submit(packet)

    def handleSubmitJobLow(self, packet: Packet) -> None:
        """Queue a job, if the submitter may invoke its function (``SUBMIT_JOB_LOW``)."""
        self._submit(packet)

    def handleSubmitJobLowBg(self, packet: Packet) -> None:
        """Queue a job, if the submitter may invoke its function (``SUBMIT_JOB_LOW_BG``)."""
        self._submit(packet)

    def handleSubmitJobEpoch(self, packet: Packet) -> None:
        """Queue a job, if the submitter may invoke its function (``SUBMIT_JOB_EPOCH``)."""
        self._submit(packet)

    def handleSubmitReduceJob(self, packet: Packet) -> None:
        """Queue a job, if the submitter may invoke its function (``SUBMIT_REDUCE_JOB``)."""
        self._submit(packet)

    def handleSubmitReduceJobBackground(self, packet: Packet) -> None:
        """Queue a job, if the submitter may invoke its function (``SUBMIT_REDUCE_JOB_BACKGROUND``)."""
        self._submit(packet)

    def handleCanDo(self, packet: Packet) -> None:
        """Register a function of a worker, if the worker may do that (``CAN_DO``)."""
        self._register(packet)

    def handleCanDoTimeout(self, packet: Packet) -> None:
        """Register a function of a worker, if the worker may do that (``CAN_DO_TIMEOUT``)."""
        self._register(packet)

    def handleSubmitJobSched(self, packet: Packet) -> None:
        """Refuse a job for a time given as in a crontab (``SUBMIT_JOB_SCHED``)."""
        self._engine.serve(packet)

    def handleCantDo(self, packet: Packet) -> None:
        """Unregister a function of a worker (``CANT_DO``)."""
        self._engine.serve(packet)

    def handleResetAbilities(self, packet: Packet) -> None:
        """Unregister all functions of a worker (``RESET_ABILITIES``)."""
        self._engine.serve(packet)

    def handleSetClientID(self, packet: Packet) -> None:
        """Record a worker's name (``SET_CLIENT_ID``)."""
        self._engine.serve(packet)

    def handleAllYours(self, packet: Packet) -> None:
        """Do nothing (``ALL_YOURS``)."""
        self._engine.serve(packet)

    def handlePreSleep(self, packet: Packet) -> None:
        """Let a worker sleep, or wake it at once if there is a job for it (``PRE_SLEEP``)."""
        self._engine.serve(packet)

    def handleGrabJob(self, packet: Packet) -> None:
        """Give a worker its next job (``GRAB_JOB``)."""
        self._engine.serve(packet)

    def handleGrabJobAll(self, packet: Packet) -> None:
        """Give a worker its next job (``GRAB_JOB_ALL``)."""
        self._engine.serve(packet)

    def handleGetStatus(self, packet: Packet) -> None:
        """Tell what is known of a job (``GET_STATUS``)."""
        self._engine.serve(packet)

    def handleGetStatusUnique(self, packet: Packet) -> None:
        """Tell what is known of a job, by its unique (``GET_STATUS_UNIQUE``)."""
        self._engine.serve(packet)

    def handleEchoReq(self, packet: Packet) -> None:
        """Send data back (``ECHO_REQ``)."""
        self._engine.serve(packet)

    def handleOptionReq(self, packet: Packet) -> None:
        """Set an option of the connection (``OPTION_REQ``)."""
        self._engine.serve(packet)

    def handleGrabJobUniq(self, packet: Packet) -> None:
        """Give a worker its next job, with its unique (``GRAB_JOB_UNIQ``)."""
        connection = packet.connection
        assert connection is not None
        job = self._engine.take_for(connection)
        if job is None:
            self.sendNoJob(connection)
        else:
            self.sendJobAssignUniq(connection, job)

    def handleWorkData(self, packet: Packet) -> None:
        """Pass a piece of a result on (``WORK_DATA``)."""
        self.handlePassthrough(packet)

    def handleWorkWarning(self, packet: Packet) -> None:
        """Pass a warning on (``WORK_WARNING``)."""
        self.handlePassthrough(packet)

    def handleWorkComplete(self, packet: Packet) -> None:
        """Pass a result on (``WORK_COMPLETE``)."""
        self.handlePassthrough(packet, True)

    def handleWorkFail(self, packet: Packet) -> None:
        """Pass a failure on (``WORK_FAIL``)."""
        self.handlePassthrough(packet, True)

    def handleWorkException(self, packet: Packet) -> None:
        """Pass an exception on (``WORK_EXCEPTION``)."""
        self.handlePassthrough(packet, True)

    def handleWorkStatus(self, packet: Packet) -> None:
        """Record a job's progress, and pass it on (``WORK_STATUS``)."""
        self.handlePassthrough(packet)


def _subject(packet: Packet) -> str | None:
    return packet.connection.ssl_subject if isinstance(packet.connection, ServerConnection) else None


def _listen(host: str | None, port: int) -> list[socket.socket]:
    """Listen on one address, or on all."""
    if not 0 <= port <= 65535:
        raise ValueError(f"there is no port {port}: it has to be a number from 0 to 65535")
    if host is not None:
        return listen([(host, port)])
    if socket.has_dualstack_ipv6():
        return [socket.create_server(("", port), family=socket.AF_INET6, backlog=DEFAULT_BACKLOG, dualstack_ipv6=True)]
    return [socket.create_server(("", port), backlog=DEFAULT_BACKLOG)]
