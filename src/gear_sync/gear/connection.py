"""``gear.Connection``: one connection to a job server, on a socket of its own."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, ClassVar, Final

from gear_net.listening import Keepalive
from gear_net.tunnel import PeerCertificate
from gearproto import RemoteProtocolError
from gearproto.addresses import Address
from gearproto.events import Line

from . import constants
from .admin import AdminRequest
from .errors import ConnectionError, DisconnectError, GearmanError, InvalidDataError, TimeoutError
from .opening import BlockingOpening, Dialling, Opening
from .packet import MAX_ANSWER_SIZE, Packet, decoder
from .tasks import SubmitJobTask, Task
from .text import convert_to_bytes, decode
from .tls import client_context, names_host, wants_tls
from .tracking import JobTracker
from .transport import Transport

if TYPE_CHECKING:
    from .jobs import Job

__all__ = ["Connection"]

_UNHURRIED: Final = frozenset((constants.GRAB_JOB_UNIQ, constants.PRE_SLEEP))  # nobody waits until these have left


class Connection:
    """A connection to a job server. Any thread may send, one at a time may read.

    Attributes:
        check_hostname: class attribute: whether to refuse a server whose certificate does not name the host. Unless
            set, such a server is accepted, with one warning.
        connect_timeout: class attribute: seconds that connecting may take, a TLS handshake included.
        host: the server's host.
        port: the server's port.
        state: where the connection is in its life, such as ``INIT``.
        state_time: when it got there, as `time.time` tells it.
        connected: whether it is open.
        connect_time: when it was opened.
        pending_tasks: requests that await their answers, in the order of sending.
        admin_requests: text commands that await their answers, in the order of sending.
        options: the options that the server has set for the connection.
        send_lock: held while something is put into the stream.
    """

    check_hostname: ClassVar[bool] = False
    connect_timeout: ClassVar[float] = 10.0
    _log_name: ClassVar[str] = "Connection"
    _blocks: ClassVar[bool] = True
    _tokens: ClassVar = itertools.count(1)

    def __init__(
        self,
        host: str,
        port: int | str,
        ssl_key: str | None = None,
        ssl_cert: str | None = None,
        ssl_ca: str | None = None,
        client_id: str | bytes = "unknown",
        keepalive: bool = False,
        tcp_keepidle: int = 7200,
        tcp_keepintvl: int = 75,
        tcp_keepcnt: int = 9,
    ) -> None:
        """Make a connection that is not open yet.

        Args:
            host: name or address of the server.
            port: its port.
            ssl_key: file with the private key; with the two below it asks for TLS.
            ssl_cert: file with the certificate.
            ssl_ca: file with the certificates of the authorities.
            client_id: what loggers are named after.
            keepalive: whether TCP looks for a server that has gone without a word.
            tcp_keepidle: seconds without traffic after which it looks.
            tcp_keepintvl: seconds between two looks.
            tcp_keepcnt: looks without an answer after which the connection is given up.

        Raises:
            ConfigurationError: only some of the TLS files are given.
        """
        name = decode(convert_to_bytes(client_id) or b"")
        self.log = logging.getLogger(f"gear.{self._log_name}.{name}" if name else f"gear.{self._log_name}")
        self.host = host
        self.port = port
        self.ssl_key = ssl_key
        self.ssl_cert = ssl_cert
        self.ssl_ca = ssl_ca
        self.use_ssl = wants_tls(ssl_key, ssl_cert, ssl_ca)
        self.keepalive = keepalive
        self.tcp_keepidle = tcp_keepidle
        self.tcp_keepintvl = tcp_keepintvl
        self.tcp_keepcnt = tcp_keepcnt
        self.send_lock = threading.RLock()
        self.echo_lock = threading.Lock()
        self.echo_conditions: dict[bytes, Task] = {}
        self.reader: threading.Thread | None = None  # the thread that reads, if it is one of ours
        self._transport: Transport | None = None
        self._opening: Opening | None = None  # while connecting
        self._finished = False
        self._warned_of_name = False
        self._begin()

    def _begin(self) -> None:
        """Begin as at the start of a stream."""
        self.connected = False
        self.connect_time: float | None = None
        self.pending_tasks: list[Task] = []
        self.admin_requests: list[AdminRequest] = []
        self.options: set[bytes] = set()
        self.tracker = JobTracker()
        self.related_jobs: MutableMapping[bytes, Job] = self.tracker.known
        self._barriers: dict[bytes, Callable[[], None]] = {}
        self._decoder = decoder()
        self.changeState("INIT")

    def __repr__(self) -> str:
        return f"<gear.Connection 0x{id(self):x} host: {self.host} port: {self.port}>"

    @property
    def conn(self) -> socket.socket | None:
        """The socket; None while there is none. It blocks, unless a client or worker reads it, or it has TLS."""
        return None if self._transport is None else self._transport.sock

    @property
    def session(self) -> Transport | None:
        """What the connection is connected through; another object after each `connect`."""
        return self._transport

    def changeState(self, state: str) -> None:
        """Record the state that the connection is in now."""
        self.state = state
        self.state_time = time.time()

    # Opening and closing

    def connect(self) -> None:
        """Open the connection.

        Raises:
            ConnectionError: it cannot be opened; the cause is chained.
            OSError: the host has no address (``socket.gaierror``), or a TLS file cannot be read.
        """
        opening = self._opening_for(self.tls_context())
        with self.send_lock:
            self._opening = opening
            if self._finished:
                opening.abort()
        try:
            transport = opening.open()
            with self.send_lock:
                try:
                    opening.check()
                except ConnectionError:
                    transport.close()
                    raise
                self._use(transport)
        finally:
            with self.send_lock:
                self._opening = None
        if isinstance(opening, Dialling) and opening.certificate is not None:
            self._look_at_name(opening.certificate)

    def _opening_for(self, context: ssl.SSLContext | None) -> Opening:
        address = Address(self.host, int(self.port))
        if context is None and self.reader is None and self._blocks:
            return BlockingOpening(address, self.connect_timeout, self._tune)
        return Dialling(address, self.connect_timeout, self._tune, context)

    def _use(self, transport: Transport) -> None:
        """Begin on a connected socket."""
        self._begin()
        self._transport = transport
        self.connected = True
        self.connect_time = time.time()

    def tls_context(self) -> ssl.SSLContext | None:
        """Read the TLS files; return None if there are none.

        Raises:
            OSError: a file cannot be read.
            ConfigurationError: a file is not what it should be.
        """
        return client_context(self.ssl_key, self.ssl_cert, self.ssl_ca, check_hostname=self.check_hostname)

    def _look_at_name(self, certificate: PeerCertificate) -> None:
        """Warn once of a server whose certificate is good, but does not say that it is this server's."""
        if self._warned_of_name or names_host(certificate, self.host):
            return
        self._warned_of_name = True
        self.log.warning(
            "The certificate of %s:%s does not name this host as an alternative name: any server with a certificate of "
            "the same authority is accepted. Set gear.Connection.check_hostname = True to refuse them",
            self.host,
            self.port,
        )

    def _tune(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.keepalive:
            Keepalive(self.tcp_keepidle, self.tcp_keepintvl, self.tcp_keepcnt).apply(sock)

    def disconnect(self) -> None:
        """Close the connection, or stop opening it. Calls that wait for an answer end with an error."""
        self.drop("the connection was closed")

    def drop(self, reason: str) -> list[Job]:
        """Close the connection; return the jobs that belonged to it. Foreground jobs among them have failed with that.

        Args:
            reason: why, for the threads that wait for an answer.
        """
        with self.send_lock:
            transport, self._transport = self._transport, None
            if self._opening is not None:
                self._opening.abort()
            tasks, requests, jobs = self.pending_tasks, self.admin_requests, self.tracker.lose()
            self._begin()
        if transport is not None:
            transport.close()
        with self.echo_lock:
            echoes = list(self.echo_conditions.values())
        for task in (*tasks, *echoes):
            task.fail(reason)
        for request in requests:
            request.fail(reason)
        return jobs

    def finish(self, reason: str) -> None:
        """Close the connection for good: it cannot be opened again.

        Args:
            reason: why, for the threads that wait for an answer.
        """
        with self.send_lock:
            self._finished = True
        self.drop(reason)

    def reconnect(self) -> None:
        """Close the connection, and open it again.

        Raises:
            ConnectionError: it cannot be opened.
            OSError: as `connect`.
        """
        self.disconnect()
        self.connect()

    # Output

    def _open_transport(self) -> Transport:
        if self._transport is None:
            raise DisconnectError(f"{self.host}:{self.port}: the connection is down")
        return self._transport

    def sendRaw(self, data: bytes | bytearray) -> None:
        """Send bytes, all of them; they leave whole, after what was sent before.

        Raises:
            DisconnectError: the connection is down.
        """
        with self.send_lock:
            transport = self._open_transport()
            mark = transport.enqueue(data)
        if threading.current_thread() is not self.reader:  # which sends the rest by and by
            transport.drain(mark)

    def sendPacket(self, packet: Packet) -> None:
        """Send a packet.

        Raises:
            DisconnectError: the connection is down.
        """
        self.log.info("Sending packet to %s: %s", self, packet)
        if packet.task is not None:
            self._send_request(packet, packet.task)
        elif packet.ptype in _UNHURRIED and self.reader is not None:
            with self.send_lock:
                self._open_transport().enqueue(packet.toBinary())  # the thread that reads sends the rest
        else:
            self.sendRaw(packet.toBinary())

    def sendPacketIn(self, session: object, packet: Packet) -> None:
        """Send a packet, unless the connection has been opened again since.

        Args:
            session: the `session` of the connection that it is for.
            packet: the packet.

        Raises:
            DisconnectError: that connection is down.
        """
        with self.send_lock:
            transport = self._transport
            if transport is None or transport is not session:
                raise DisconnectError(f"{self.host}:{self.port}: the connection that the job came over is down")
            self.log.info("Sending packet to %s: %s", self, packet)
            mark = transport.enqueue(packet.toBinary())
        if threading.current_thread() is not self.reader:
            transport.drain(mark)

    def enqueue(self, packet: Packet) -> None:
        """Send a packet, but do not wait for the socket to take it; the thread that reads sees to that.

        Raises:
            DisconnectError: the connection is down.
        """
        self.log.info("Sending packet to %s: %s", self, packet)
        with self.send_lock:
            self._open_transport().enqueue(packet.toBinary())

    def _send_request(self, packet: Packet, task: Task) -> None:
        """Send a request; its task is completed by the answer, or by the end of the connection."""
        with self.send_lock:
            transport = self._open_transport()
            if transport.at_end():
                raise DisconnectError(f"{self.host}:{self.port}: the server has closed the connection")
            self.pending_tasks.append(task)
            task.sent = True
            if isinstance(task, SubmitJobTask) and not task.background:
                self.tracker.submitted()
            mark = transport.enqueue(packet.toBinary())
        transport.drain(mark)

    def sendBarrier(self, task: Task) -> None:
        """End a task once the server has answered all that was asked so far, unless it has answered this, too.

        Raises:
            DisconnectError: the connection is down.
        """
        with self.send_lock:
            self._send_barrier(lambda: self._pass_over(task))

    def _pass_over(self, task: Task) -> None:
        """End a task that the server has not answered, though it has answered what came behind it."""
        with contextlib.suppress(ValueError):  # it has been answered
            self.pending_tasks.remove(task)
            task.fail("the server does not answer OPTION_REQ")

    def _send_barrier(self, then: Callable[[], None]) -> None:
        """Do something once the server has answered all that was asked before.

        Servers answer in order, and every server answers ``GET_STATUS``, though not every one ``ECHO_REQ``.
        """
        handle = b"barrier:%d" % next(self._tokens)
        self._barriers[handle] = then
        self.enqueue(Packet(constants.REQ, constants.GET_STATUS, handle, self))

    def confirm(self) -> None:
        """Wait until the server answers, on a connection that is new and that nobody else reads.

        A client's TLS handshake is done before the server has looked at its certificate.

        Raises:
            OSError: the connection has broken.
            ConnectionError: the server has closed it, or does not answer in time.
        """
        answered = threading.Event()
        with self.send_lock:
            self._send_barrier(answered.set)
        transport = self._open_transport()
        deadline = time.monotonic() + self.connect_timeout
        while True:
            while (message := self.next_message()) is not None:
                self.log.error("%s: unasked for: %s", self, message)
            if answered.is_set():
                return
            if (data := transport.receive()) is None:
                if not transport.wait_readable(deadline - time.monotonic()):
                    raise ConnectionError(f"{self.host}:{self.port}: no answer within {self.connect_timeout:g} s")
            elif not data:
                raise ConnectionError(f"{self.host}:{self.port}: the server closed the connection")
            else:
                self.feed(data)

    def takeTask(self, kind: type[Task]) -> Task | None:
        """Return the request that an answer belongs to: the oldest one of its kind.

        Older ones of another kind have been passed over by the server, as it answers in order.

        Args:
            kind: class of the task; `Task` for the oldest of any kind.
        """
        with self.send_lock:
            if not any(isinstance(task, kind) for task in self.pending_tasks):
                return None
            while not isinstance(task := self._next_task(kind), kind):
                task.fail("the server answered a later request first")
            return task

    def _next_task(self, kind: type[Task]) -> Task:
        task = self.pending_tasks.pop(0)
        if isinstance(task, SubmitJobTask) and not task.background and kind is not SubmitJobTask:
            self.tracker.refused()
        return task

    # Input

    def readPacket(self) -> Packet | AdminRequest | None:
        """Wait for the next packet, or for the rest of the answer to a text command.

        Returns:
            The packet; or the request, with its `response`, which `setComplete` then hands to the waiting threads;
            or None at the end of the stream.

        Raises:
            OSError: the connection is down, or has broken.
            gearproto.RemoteProtocolError: what the server sends makes no sense.
        """
        transport = self._open_transport()
        while True:
            if (message := self.next_message()) is not None:
                return message
            if (data := transport.receive()) is None:
                self._wait(transport)
            elif not data:
                return None
            else:
                self._decoder.feed(data)

    def _wait(self, transport: Transport) -> None:
        transport.wait_readable()

    def feed(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        self._decoder.feed(data)

    def next_message(self) -> Packet | AdminRequest | None:
        """Return the next message that has arrived; None if there is no whole one.

        Raises:
            gearproto.RemoteProtocolError: what the server sends makes no sense.
        """
        while (event := self._decoder.next()) is not None:
            if isinstance(event, Packet):
                event.connection = self
                if event.ptype != constants.STATUS_RES or not self._barriers or not self._is_barrier(event):
                    return event
            elif isinstance(event, Line) and (request := self._line_received(event.text)) is not None:
                return request
        return None

    def _is_barrier(self, packet: Packet) -> bool:
        then = self._barriers.pop(bytes(packet.getArgument(0)), None)
        if then is None:
            return False
        with self.send_lock:
            then()
        return True

    def _line_received(self, line: bytes) -> AdminRequest | None:
        """Give a line to the oldest text command; return the command if that completes its answer."""
        if not self.admin_requests:
            raise RemoteProtocolError(f"text {line[:24]!r}, and no text command is open")
        request = self.admin_requests[0]
        if request.receive(line):
            self.admin_requests.pop(0)
            return request
        if request.received_size > MAX_ANSWER_SIZE:
            raise RemoteProtocolError(f"answer of over {MAX_ANSWER_SIZE} bytes to {request.command!r}")
        return None

    def hasPendingData(self) -> bool:
        """Tell whether bytes have arrived that are part of no message yet."""
        return self._decoder.buffered > 0

    # Requests that wait for their answers

    def check_not_reading(self, what: str) -> None:
        """Refuse a request that would wait for the very thread that makes it.

        Raises:
            GearmanError: this is the thread that reads: a hook called by it.
        """
        if self.reader is threading.current_thread():
            raise GearmanError(f"{what} waits for an answer, which a hook keeps from being read")

    def sendAdminRequest(self, request: AdminRequest, timeout: float | None = 90) -> None:
        """Send a text command and wait for its answer, which is then the request's `response`.

        Another thread has to read the connection: that of its client or worker, or one of your own.

        Args:
            request: the command.
            timeout: longest time to wait in seconds; None for no limit.

        Raises:
            TimeoutError: there was no answer in time.
            DisconnectError: the connection went down before it came.
            GearmanError: this is a hook, which must not wait.
        """
        self.check_not_reading("a text command")
        self.log.debug("Sending admin request %s to %s", request, self)
        with self.send_lock:
            transport = self._open_transport()
            self.admin_requests.append(request)
            mark = transport.enqueue(request.getCommand())
        transport.drain(mark)
        if not request.waitForResponse(timeout):
            with contextlib.suppress(DisconnectError):
                with self.send_lock:
                    self._send_barrier(lambda: self._give_up(request))
                transport.flush()
            raise TimeoutError(f"{self.host}:{self.port}: no answer to {request.command!r} within {timeout:g} s")
        if request.error is not None:
            raise DisconnectError(f"{self.host}:{self.port}: no answer to {request.command!r}: {request.error}")

    def _give_up(self, request: AdminRequest) -> None:
        """Take no more text for a request that the server has not answered, though it has answered a later one."""
        with contextlib.suppress(ValueError):  # its answer has come late
            self.admin_requests.remove(request)

    def echo(self, data: bytes | str | None = None, timeout: float | None = 30) -> bytes:
        """Ask the server to send data back, and wait for that.

        Another thread has to read the connection, and hand ``ECHO_RES`` to `handleEchoRes`; clients and workers do.

        Args:
            data: what to send; None for something that is sent by nobody else.
            timeout: longest time to wait in seconds; None for no limit.

        Returns:
            The data.

        Raises:
            TimeoutError: it did not come back in time.
            InvalidDataError: somebody else waits for the same data.
            DisconnectError: the connection is, or goes, down.
            GearmanError: this is a hook, which must not wait.
        """
        self.check_not_reading("ECHO_REQ")
        token = b"echo:%d" % next(self._tokens) if data is None else convert_to_bytes(data)
        assert isinstance(token, bytes)
        task = Task()
        with self.echo_lock:
            if token in self.echo_conditions:
                raise InvalidDataError(f"an echo of {token[:24]!r} is awaited already")
            self.echo_conditions[token] = task
        try:
            self.sendEchoReq(token)
            if not task.wait(timeout):
                raise TimeoutError(f"{self.host}:{self.port}: no answer to ECHO_REQ within {timeout:g} s")
        finally:
            with self.echo_lock:
                del self.echo_conditions[token]
        if task.error is not None:
            raise DisconnectError(f"{self.host}:{self.port}: no answer to ECHO_REQ: {task.error}")
        return token

    def sendEchoReq(self, data: bytes) -> None:
        """Send ``ECHO_REQ``.

        Raises:
            DisconnectError: the connection is down.
        """
        self.sendPacket(Packet(constants.REQ, constants.ECHO_REQ, data, self))

    def handleEchoRes(self, data: bytes) -> None:
        """Wake the thread that waits for this data to come back."""
        with self.echo_lock:
            task = self.echo_conditions.get(data)
        if task is None:
            self.log.debug("%s: an echo that nobody waits for: %r", self, data[:24])
        else:
            task.setComplete()

    def handleOptionRes(self, option: bytes) -> None:
        """Record an option that the server has set."""
        self.options.add(option)
