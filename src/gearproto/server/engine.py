"""The job server's decisions: packets in, packets out, for many peers and one queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, KeysView, Mapping
from functools import partial
from typing import Any, ClassVar, Final, TypedDict

from gearproto.codec import MAX_HANDLE_SIZE, MAX_NAME_SIZE, MAX_UNIQUE_SIZE, RESPONSE, Packet, Spec
from gearproto.errors import RemoteProtocolError
from gearproto.event import Event
from gearproto.events import Line, MalformedPacket, UnexpectedPacket
from gearproto.framing import DEFAULT_MAX_LINE_SIZE, DEFAULT_MAX_SERVER_PACKET_SIZE, Decoder
from gearproto.packets import (
    SUBMISSIONS,
    AllYours,
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    GetStatus,
    GetStatusUnique,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    ResetAbilities,
    SetClientId,
    StatusRes,
    StatusResUnique,
    SubmitJobEpoch,
    SubmitJobSched,
    SubmitReduceJob,
    SubmitReduceJobBackground,
)

from .answers import Answer
from .chores import Chores, emptied
from .commands import Commands, refuse_http, status_row
from .costs import CANCELLED, JOB, JOIN, PEER
from .events import Counters, JobChanged, JobGivenUp, PeerFailed, ShutdownRequested
from .jobs import QUEUED, RUNNING, FunctionQueue, Job, Worker
from .linked import LinkedList
from .output import BIG, Output
from .peers import Peer, PeerId
from .queue import JobQueue, QueueFull
from .reports import Report, Reports, server_decoders

__all__ = ["Engine", "EngineOptions"]

_MIN_TIME_LIMIT: Final = 1.0  # seconds; gearmand raises shorter limits to this
_MAX_CLIENT_ID_SIZE: Final = 127
_MAX_CLIENTS: Final = 100_000  # submissions that may be joined to one job
_MAX_MISSES: Final = 3  # once more workers have been woken in vain, one after the other, all are
_MAX_CANCELLED: Final = 1000  # jobs whose late ends a worker is forgiven

# libgearman 2.0 takes a handle for that of its task if it only begins as that does. At 100,000 jobs a second, 15 digits
# last for 300 years.
_HANDLE_NUMBER: Final = b":%013d"  # then two digits more
_DIGITS: Final = tuple(b"%02d" % number for number in range(100))  # a format for each handle would take 4 times as long

_NUL: Final = b"\0"
_NOOP: Final = Noop().encode()
_NO_JOB: Final = NoJob().encode()
_CREATED: Final = RESPONSE + JobCreated.spec.number.to_bytes(4, "big")
_ASSIGN: Final = RESPONSE + JobAssign.spec.number.to_bytes(4, "big")
_ASSIGN_UNIQ: Final = RESPONSE + JobAssignUniq.spec.number.to_bytes(4, "big")
_ASSIGN_ALL: Final = RESPONSE + JobAssignAll.spec.number.to_bytes(4, "big")


class EngineOptions(TypedDict, total=False):
    """The options of `Engine` that a server may pass on; their meaning stands there."""

    job_retries: int
    worker_wakeup: int
    wakeup_timeout: float
    round_robin: bool
    exceptions: bool
    max_packet_size: int
    max_line_size: int
    max_output_size: int
    max_text_size: int
    max_functions: int
    max_jobs: int
    max_queue_size: int
    max_idle_functions: int
    max_kept_functions: int
    allow_shutdown: bool
    verbosity: bytes


class Engine:
    """A job server without any I/O.

    Tell it who connects (`connect`), what arrives (`receive_data`), who is gone (`disconnect`), and the time
    (`handle_timeout` at `next_deadline`); after each of these pull events (`next_event`) and output (`next_transmit`)
    until there is none, and `resume` the `paused_peers` when others have had their turn. Nothing that a peer sends
    raises out of the engine or disturbs another peer. A subclass may bring a table of packets, and a queue, of its own.

    Attributes:
        epoch_offset: as given. Set it before each turn: clocks are put right, and a system may have slept. Delayed jobs
            follow.
        work_limit: as given; may be set at any time.
        under_way: bytes that peers have sent and that wait, and of answers that are not whole yet.
    """

    # With 30 attributes or more, finding one without slots takes so much longer that jobs cost 3 % more.
    __slots__ = (
        "_cancelled",
        "_chores",
        "_commands",
        "_created",
        "_created_size",
        "_ended",
        "_events",
        "_exceptions",
        "_handle_format",
        "_handle_head",
        "_handlers",
        "_hundred",
        "_joins",
        "_last_job",
        "_last_peer",
        "_max_functions",
        "_max_output",
        "_max_text_size",
        "_new_decoder",
        "_now",
        "_output",
        "_paused",
        "_peer_list",
        "_peers",
        "_queue",
        "_reports",
        "_send",
        "_send_error",
        "_trace",
        "_worker_wakeup",
        "epoch_offset",
        "under_way",
        "work_limit",
    )

    _specs: ClassVar[Mapping[bytes, Spec]] = server_decoders()
    _queue_type: ClassVar[type[JobQueue]] = JobQueue

    def __init__(
        self,
        *,
        handle_prefix: bytes,
        epoch_offset: float,
        job_retries: int = 20,
        worker_wakeup: int = 1,
        wakeup_timeout: float = 1.0,
        round_robin: bool = True,
        exceptions: bool = False,
        max_packet_size: int = DEFAULT_MAX_SERVER_PACKET_SIZE,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
        max_output_size: int = 1024 * 1024,
        max_text_size: int = 64 * 1024 * 1024,
        max_functions: int = 20_000,
        max_jobs: int = 10_000_000,
        max_queue_size: int = 4 * 1024**3,
        max_idle_functions: int = 1000,
        max_kept_functions: int = 10_000,
        allow_shutdown: bool = False,
        work_limit: int = 10_000,
        version: bytes = b"gearproto",
        pid: int = 0,
        verbosity: bytes = b"ERROR",
        trace: bool = False,
    ) -> None:
        """Begin without peers and jobs.

        Args:
            handle_prefix: what job handles begin with, at most 40 bytes without blanks and control characters, as
                handles stand in lines of text that people read; the job's number follows behind a colon, with
                zeroes in front, so that no handle is the beginning of another. Has to differ from start to start, so
                that an old handle never names a new job: let it end in a random part.
            epoch_offset: what to add to monotonic time to get seconds since 1970, for ``SUBMIT_JOB_EPOCH``; may be set
                at any time.
            job_retries: how often a job is given to another worker when its worker is lost or its time limit passes;
                then it fails, and `next_event` says so (`JobGivenUp`). -1 means without limit. From the third time on
                it waits first: 1, 2, 4 seconds, up to 60.
            worker_wakeup: how many sleeping workers are woken for a job; 0 means all.
            wakeup_timeout: seconds after which others are woken if a woken worker has not asked for a job: twice as
                many each time, and all the fourth time.
            round_robin: whether a worker's functions take turns within a priority; else the one that has had jobs
                longest is served until it has none.
            exceptions: whether every connection begins with the option ``exceptions`` set.
            max_packet_size: limit in bytes for what stands behind a packet's header. A submission counts as 65 bytes
                more: as the ``JOB_ASSIGN_ALL`` that a worker with this limit has to take.
            max_line_size: limit in bytes for a text command with its ending.
            max_output_size: bytes of output queued for a peer from which on its requests are left unread.
            max_text_size: bytes of an answer to a text command that are held back until it is whole.
            max_functions: how many functions one worker may register.
            max_jobs: how many jobs the server holds; more are refused.
            max_queue_size: bytes of the workloads, names and uniques of jobs that the server holds; more are refused.
            max_idle_functions: how many functions without jobs and workers are remembered.
            max_kept_functions: how many functions administrators may create or limit, which are never forgotten.
            allow_shutdown: whether administrators may stop the server (``shutdown``); else it has no such command.
            work_limit: how many requests of a peer are dealt with before its further ones are left unread, so that
                others have their turn; those that make much work count for several.
            version: answer to ``version``.
            pid: answer to ``getpid``.
            verbosity: answer to ``verbose``.
            trace: whether `next_event` returns `JobChanged` events.
        """
        if not 0 < len(handle_prefix) <= 40:
            raise ValueError(f"handle prefix of {len(handle_prefix)} bytes: 1 to 40 are allowed")
        if any(byte <= 32 or byte == 127 for byte in handle_prefix):
            raise ValueError(f"handle prefix {handle_prefix!r}: blanks and control characters are not allowed")
        self.epoch_offset = epoch_offset
        self.work_limit = work_limit
        self._handle_format = handle_prefix.replace(b"%", b"%%") + _HANDLE_NUMBER
        self._hundred = 0  # which hundred of jobs is being numbered, and what their handles begin with
        self._handle_head = self._handle_format % 0
        self._created = _CREATED + (len(self._handle_head) + 2).to_bytes(4, "big")  # what stands before any handle
        self._created_size = len(self._created + self._handle_head) + 2
        self._worker_wakeup = worker_wakeup
        self._exceptions = exceptions
        self._new_decoder = partial(Decoder, self._specs, max_packet_size=max_packet_size, max_line_size=max_line_size)
        self._max_output = max_output_size
        self._max_text_size = max_text_size
        self._max_functions = max_functions
        self._trace = trace
        self._queue = self._queue_type(
            job_retries=job_retries,
            max_jobs=max_jobs,
            max_queue_size=max_queue_size,
            max_idle_functions=max_idle_functions,
            max_kept_functions=max_kept_functions,
            round_robin=round_robin,
            wakeup_timeout=wakeup_timeout,
        )
        self._peers: dict[PeerId, Peer] = {}
        self._peer_list: LinkedList[Peer] = LinkedList()
        self._last_peer = 0
        self._last_job = 0
        self._ended = 0
        self._output = Output()
        self._send = self._output.send
        self._send_error = self._output.send_error
        self._reports = Reports(self._queue, self._output, self._end)
        self.under_way = 0
        self._joins = 0  # clients of jobs, but for the first of each
        self._cancelled = 0
        self._paused: dict[PeerId, Peer] = {}
        self._chores = Chores(self._output)
        self._events: deque[Event] = deque()
        self._now = 0.0
        self._handlers: dict[type[Event], Callable[[Peer, Any], None]] = {
            Report: self._reports.on_report,
            CanDo: self._on_can_do,
            CanDoTimeout: self._on_can_do,
            CantDo: self._on_cant_do,
            ResetAbilities: self._on_reset_abilities,
            PreSleep: self._on_pre_sleep,
            GrabJob: self._on_grab_job,
            GrabJobUniq: self._on_grab_job_uniq,
            GrabJobAll: self._on_grab_job_all,
            SetClientId: self._on_set_client_id,
            AllYours: self._on_all_yours,
            GetStatus: self._on_get_status,
            GetStatusUnique: self._on_get_status_unique,
            EchoReq: self._on_echo_req,
            OptionReq: self._on_option_req,
            SubmitJobSched: self._on_submit_job_sched,
            Line: self._on_line,
            UnexpectedPacket: self._on_unexpected,
            MalformedPacket: self._on_malformed,
            **dict.fromkeys(SUBMISSIONS, self._on_submit),
        }
        self._commands = Commands(
            self._queue,
            self._peers,
            self._peer_list,
            version=version,
            pid=pid,
            verbosity=verbosity,
            cancel=self._cancel,
            shut_down=self._shut_down if allow_shutdown else None,
        )

    # What a driver calls

    def connect(self, now: float, *, address: bytes = b"-", descriptor: int = -1) -> PeerId:
        """Take note of a new connection.

        Args:
            now: monotonic time in seconds.
            address: the peer's address, which ``workers`` shows.
            descriptor: a number for the connection, which ``workers`` shows; -1 means the peer's id.
        """
        self._now = now
        self._last_peer += 1
        id_ = PeerId(self._last_peer)
        decoder = self._new_decoder()
        peer = Peer(id_, decoder, address, descriptor if descriptor >= 0 else id_, self._exceptions)
        self._peers[id_] = peer
        self._peer_list.add(peer)
        return id_

    def receive_data(self, peer: PeerId, data: bytes, now: float) -> None:
        """Take what a peer has sent, and do what it asks; nothing once it has been disconnected.

        Args:
            peer: who sent it.
            data: what arrived.
            now: monotonic time in seconds.
        """
        self._now = now
        try:
            sender = self._peers[peer]
        except KeyError:  # it is gone
            return
        if not sender.failed:
            sender.decoder.feed(data)
            if peer not in self._paused:
                self._serve(sender)
            else:
                self._count_input(sender)

    def disconnect(self, peer: PeerId, now: float) -> None:
        """Take note that a connection has gone, and do what follows from it; nothing the second time.

        Args:
            peer: whose connection it was.
            now: monotonic time in seconds.
        """
        self._now = now
        gone = self._peers.pop(peer, None)
        if gone is None:
            return
        gone.failed = gone.gone = True
        self._peer_list.remove(gone)
        self._output.drop(gone)
        self.under_way -= gone.input_size
        if gone.answer is not None:
            self.under_way -= gone.answer.size
            gone.answer = None
        self._cancelled -= gone.cancelled_most
        gone.asleep = False
        self._paused.pop(peer, None)
        self._chores.begin(self._clear_up_behind(gone), now)
        self._pass_wakeup_on(gone, None)

    def _clear_up_behind(self, gone: Peer) -> Iterator[None]:
        """Give up the jobs that a peer waited for, give back those it had in hand, and forget what it could do."""
        for job in emptied(gone.waiting):
            self._leave(gone, job)
            yield
        for job in emptied(gone.in_hand):
            self._give_back(job)
            yield
        for function in emptied(gone.abilities):
            self._queue.unregister(gone, function)
            yield

    def _leave(self, gone: Peer, job: Job) -> None:
        """Let a job have a client less."""
        del gone.waiting[job]
        assert job.clients is not None
        self._output.work += len(job.clients) >> 6
        count = len(job.clients)
        job.clients = [client for client in job.clients if client is not gone]
        self._joins -= count - (len(job.clients) or 1)
        if not job.wanted and job.state is not RUNNING:
            self._end(job, gone)

    def next_event(self) -> Event | None:
        """Return one event for the driver, None if there is none.

        It is a `PeerFailed`, `ShutdownRequested`, `JobGivenUp` or `JobChanged`.
        """
        return self._events.popleft() if self._events else None

    def next_transmit(self) -> tuple[PeerId, bytes] | None:
        """Return a peer and bytes to send to it, in their order; None if there is nothing to send."""
        return self._output.next()

    def next_output(self) -> tuple[PeerId, bytes | list[bytes]] | None:
        """Return a peer and all that is queued for it, in pieces if it is much; None if there is nothing to send.

        It is `next_transmit` for drivers that keep what a peer does not take: many peers may share a piece.
        """
        return self._output.take()

    def paused_peers(self) -> KeysView[PeerId]:
        """Return the peers whose requests are left unread for a while; see `resume`."""
        return self._paused.keys()

    def resume(self, peer: PeerId, now: float) -> None:
        """Go on with a paused peer, once its output has been sent, and others have had their turn.

        Args:
            peer: one of `paused_peers`.
            now: monotonic time in seconds.
        """
        self._now = now
        sender = self._paused.pop(peer, None)
        if sender is not None and not sender.failed:
            self._serve(sender)

    def next_deadline(self) -> float | None:
        """Return when `handle_timeout` has to be called, or None; at most a second ahead if there are delayed jobs."""
        return self._now if self._chores.waiting else self._queue.next_deadline(self.epoch_offset)

    def handle_timeout(self, now: float) -> None:
        """Do what is due: delayed jobs, time limits of running ones, wake-ups that nobody has followed.

        What is too much to be done at once is due again at once, so that others have their turn.

        Args:
            now: monotonic time in seconds.
        """
        self._now = now
        chores = self._chores
        chores.new_turn(now)
        chores.do_some(map(self._on_overslept, self._queue.overslept(now)))
        chores.do_some(map(self._give_back, self._queue.overrun(now)))
        chores.do_some(map(self._on_queued, self._queue.queue_due(now, self.epoch_offset)))
        chores.go_on()

    def _on_overslept(self, overslept: tuple[FunctionQueue, int]) -> None:
        """Wake others where a woken worker has not asked for a job in time."""
        function, misses = overslept
        if function.waiting:
            self._wake(function, misses + 1)

    def _on_queued(self, job: Job) -> None:
        """Wake somebody for a job whose time has come."""
        if self._trace:
            self._changed(job, None)
        if job.function.sleepers:
            self._wake(job.function)

    def refuse(self, full: bool) -> None:
        """Take nothing more that would be kept, such as jobs and functions, because of a limit on memory.

        Args:
            full: whether to refuse it; False takes it again.
        """
        self._queue.full = full

    @property
    def kept_size(self) -> int:
        """Bytes that jobs, functions and connections take, as `gearproto.server.memory` counts them."""
        own = len(self._peers) * PEER + self._joins * JOIN + self._cancelled * CANCELLED
        return self._queue.kept_size + own

    @property
    def queue_size(self) -> int:
        """Bytes that jobs take."""
        return self._queue.size + len(self._queue.jobs) * JOB

    def compact(self) -> None:
        """Make tables small that are nearly empty, as they keep the size that they have had."""
        self._queue.compact()

    def under_way_of(self, peer: PeerId) -> int:
        """Return how much of `under_way` is a peer's."""
        known = self._peers[peer]
        return known.input_size + (0 if known.answer is None else known.answer.size)

    def stop_accepting(self) -> None:
        """Take no more submissions and hand out no more jobs; running ones may end."""
        self._queue.accepting = False

    @property
    def running_jobs(self) -> int:
        """How many jobs workers have."""
        return sum(function.running for function in self._queue.functions.values())

    def counters(self) -> Counters:
        """Count what the server holds now."""
        functions = self._queue.functions.values()
        return Counters(
            peers=len(self._peers),
            queued=sum(function.waiting for function in functions),
            delayed=sum(sum(function.delayed) for function in functions),
            running=self.running_jobs,
            submitted=self._last_job,
            ended=self._ended,
            functions=tuple(map(status_row, functions)),
        )

    # Input and output

    def _serve(self, peer: Peer) -> None:
        """Do what a peer's input asks for, until there is none, or its output or others have to come first."""
        handlers, decoder, output = self._handlers, peer.decoder, self._output
        next_packet = decoder.next
        limit, max_output = self.work_limit, self._max_output
        output.work = 0
        try:
            if peer.answer is not None:
                self._go_on_answering(peer)
            if peer.answer is None:
                for _ in range(limit):
                    if (packet := next_packet()) is None:
                        if decoder.holds_back:
                            self._count_input(peer)
                        return
                    handlers[type(packet)](peer, packet)
                    if peer.output_size > max_output or output.work > limit:
                        break
            self._paused[peer.id] = peer
            self._count_input(peer)
        except RemoteProtocolError as error:
            if error.code is not None:
                self._send_error(peer, error.code, str(error).encode())
            self._fail(peer, str(error))

    def _count_input(self, peer: Peer) -> None:
        """Count what a peer has sent, and has not been dealt with."""
        size = peer.decoder.buffered
        peer.decoder.holds_back = size > 0
        self.under_way += size - peer.input_size
        peer.input_size = size

    def _fail(self, peer: Peer, reason: str) -> None:
        peer.failed = True
        self._events.append(PeerFailed(peer.id, reason))

    def _on_unexpected(self, peer: Peer, packet: UnexpectedPacket) -> None:
        if packet.response:
            self._send_error(peer, b"INVALID_MAGIC", b"Request magic expected")
        else:
            self._send_error(peer, b"INVALID_COMMAND", b"Command not expected")

    def _on_malformed(self, peer: Peer, packet: MalformedPacket) -> None:
        self._send_error(peer, b"INVALID_ARGUMENTS", f"{packet.packet}: {packet.reason}".encode())

    def _check_name(self, peer: Peer, packet: Packet, name: bytes) -> bool:
        """Refuse a function name that is empty or too long."""
        if not name:
            self._send_error(peer, b"INVALID_ARGUMENTS", f"{packet.spec.name}: empty function name".encode())
        elif len(name) > MAX_NAME_SIZE:
            text = f"{packet.spec.name}: function name of {len(name)} bytes, limit {MAX_NAME_SIZE}"
            self._send_error(peer, b"ARGUMENT_TOO_LARGE", text.encode())
        else:
            return True
        return False

    # Requests of clients and workers

    def _on_echo_req(self, peer: Peer, packet: EchoReq) -> None:
        self._send(peer, EchoRes(packet.data).encode())

    def _on_option_req(self, peer: Peer, packet: OptionReq) -> None:
        option = packet.option.lower()
        if option == b"exceptions":
            peer.exceptions = True
        elif option == b"reruns":
            peer.reruns = True
        else:
            self._send_error(peer, b"UNKNOWN_OPTION", b"Server does not recognize given option")
            return
        self._send(peer, OptionRes(packet.option).encode())

    # Requests of clients

    def _on_submit(self, peer: Peer, packet: Any) -> None:
        priority, background, plain = _SUBMISSIONS[type(packet)]
        name, unique, workload = packet.function, packet.unique, packet.workload
        if not name or len(name) > MAX_NAME_SIZE:
            self._check_name(peer, packet, name)
            return
        reducer, due = b"", None
        if not plain:
            if type(packet) is SubmitJobEpoch:
                due = self._due(packet.run_at)
            else:
                reducer = packet.reducer
        if (unique and len(unique) > MAX_UNIQUE_SIZE) or (reducer and len(reducer) > MAX_UNIQUE_SIZE):
            self._send_error(peer, b"ARGUMENT_TOO_LARGE", b"Unique value too large")
            return
        queue = self._queue
        function = queue.functions.get(name)
        if function is None or queue.idle:
            function = queue.function(name)
        key: object = None
        job = None
        if unique:
            key = unique
            if unique == b"-":  # the workload stands for the unique, and must not meet a unique of the same bytes
                key = (workload,) if workload else None
            job = queue.find(function, key)
        if job is None:
            number = self._last_job + 1
            if number // 100 != self._hundred:
                self._hundred = number // 100
                self._handle_head = self._handle_format % self._hundred
            handle = self._handle_head + _DIGITS[number % 100]
            try:
                job = queue.new_job(handle, function, unique, key, workload, priority, background, reducer, due)
            except QueueFull as error:
                self._send_error(peer, b"QUEUE_ERROR", str(error).encode())
                return
            self._last_job = number
            if self._trace:
                self._changed(job, peer)
            if function.sleepers and due is None:
                self._wake(function)
        elif background:
            job.background = True
        elif job.clients is not None and (len(job.clients) >= _MAX_CLIENTS or queue.full):
            text = b"Server is at its memory limit" if queue.full else b"Job queue is full"
            self._send_error(peer, b"QUEUE_ERROR", text)
            return
        if not background:
            if not job.clients:
                job.clients = [peer]
            else:
                job.clients.append(peer)
                self._joins += 1
            peer.waiting[job] = None
        output = peer.output
        if not output:
            self._output.dirty.append(peer)
        output.append(self._created + job.handle)
        peer.output_size += self._created_size

    def _due(self, run_at: int) -> float | None:
        """Return when a job is to be run, in seconds since 1970; None if that has passed."""
        return run_at if run_at - self.epoch_offset > self._now else None

    def _on_submit_job_sched(self, peer: Peer, _packet: SubmitJobSched) -> None:
        self._send_error(peer, b"INVALID_COMMAND", b"Command not expected")

    def _on_get_status(self, peer: Peer, packet: GetStatus) -> None:
        handle = packet.handle
        if len(handle) > MAX_HANDLE_SIZE:
            text = f"GET_STATUS: handle of {len(handle)} bytes, limit {MAX_HANDLE_SIZE}"
            self._send_error(peer, b"ARGUMENT_TOO_LARGE", text.encode())
            return
        status = _status(self._queue.jobs.get(handle))
        self._send(peer, StatusRes(handle, *status).encode())

    def _on_get_status_unique(self, peer: Peer, packet: GetStatusUnique) -> None:
        unique = packet.unique
        if len(unique) > MAX_UNIQUE_SIZE:
            text = f"GET_STATUS_UNIQUE: unique of {len(unique)} bytes, limit {MAX_UNIQUE_SIZE}"
            self._send_error(peer, b"ARGUMENT_TOO_LARGE", text.encode())
            return
        job = self._queue.find_unique(unique) if unique else None
        clients = len(job.clients) if job is not None and job.clients else 0
        self._send(peer, StatusResUnique(unique, *_status(job), clients).encode())

    # Requests of workers

    def _on_can_do(self, peer: Peer, packet: CanDo | CanDoTimeout) -> None:
        if not self._check_name(peer, packet, packet.function):
            return
        limit = None
        if isinstance(packet, CanDoTimeout) and packet.timeout > 0:
            limit = max(_MIN_TIME_LIMIT, packet.timeout / 1000)
        full = self._queue.full
        if (full or len(peer.abilities) >= self._max_functions) and self._ability(peer, packet.function) is None:
            why = "memory limit of the server" if full else f"limit of {self._max_functions} functions per worker"
            self._send_error(peer, b"TOO_MANY_FUNCTIONS", f"{packet.spec.name}: {why}".encode())
            return
        function = self._queue.function(packet.function)
        if self._queue.register(peer, function, limit):
            self._wake_up(peer, function)

    def _ability(self, peer: Peer, name: bytes) -> FunctionQueue | None:
        """Return a function if a worker can run it."""
        function = self._queue.functions.get(name)
        return function if function in peer.abilities else None

    def _on_cant_do(self, peer: Peer, packet: CantDo) -> None:
        if (function := self._ability(peer, packet.function)) is not None:
            self._lose_ability(peer, function)

    def _on_reset_abilities(self, peer: Peer, _packet: ResetAbilities) -> None:
        peer.answer = Answer(self._lose_all_abilities(peer))
        self._go_on_answering(peer)

    def _lose_all_abilities(self, peer: Peer) -> Iterator[bytes]:
        """Forget all abilities step by step, as there may be very many; the steps answer nothing."""
        for function in emptied(peer.abilities):
            self._lose_ability(peer, function)
            yield b""

    def _lose_ability(self, peer: Peer, function: FunctionQueue) -> None:
        """Forget an ability. Jobs in hand stay with the worker: it may well end them, and none runs twice for that."""
        self._queue.unregister(peer, function)
        if peer.woken_for is function:
            self._pass_wakeup_on(peer, None)

    def _on_set_client_id(self, peer: Peer, packet: SetClientId) -> None:
        peer.client_id = packet.client_id[:_MAX_CLIENT_ID_SIZE]

    def _on_all_yours(self, peer: Peer, packet: AllYours) -> None:
        """Do nothing: it would spare the wake-up of a worker that has no other server."""

    def _on_pre_sleep(self, peer: Peer, _packet: PreSleep) -> None:
        if peer.woken_for is not None:
            self._pass_wakeup_on(peer, None)
        function = self._queue.function_for(peer)
        if function is None:
            self._queue.sleep(peer)
        else:
            self._wake_up(peer, function)

    def _take(self, peer: Peer) -> Job | None:
        """Give a worker its next job."""
        job = self._queue.take(peer, self._now)
        if peer.woken_for is not None:
            self._pass_wakeup_on(peer, job)
        if job is not None and self._trace:
            self._changed(job, peer)
        return job

    def _on_grab_job(self, peer: Peer, _packet: GrabJob) -> None:
        job = self._take(peer)
        if job is None:
            self._send(peer, _NO_JOB)
        else:
            self._assign(peer, _ASSIGN, (job.handle, job.function.name, b""), job.workload)

    def _on_grab_job_uniq(self, peer: Peer, _packet: GrabJobUniq) -> None:
        job = self._take(peer)
        if job is None:
            self._send(peer, _NO_JOB)
        else:
            self._assign(peer, _ASSIGN_UNIQ, (job.handle, job.function.name, job.unique, b""), job.workload)

    def _on_grab_job_all(self, peer: Peer, _packet: GrabJobAll) -> None:
        job = self._take(peer)
        if job is None:
            self._send(peer, _NO_JOB)
        elif job.reducer:
            head = (job.handle, job.function.name, job.unique, job.reducer, b"")
            self._assign(peer, _ASSIGN_ALL, head, job.workload)
        else:
            self._assign(peer, _ASSIGN_UNIQ, (job.handle, job.function.name, job.unique, b""), job.workload)

    def _assign(self, peer: Peer, kind: bytes, arguments: tuple[bytes, ...], workload: bytes) -> None:
        head = _NUL.join(arguments)  # ends in a NUL, as its last argument is empty
        size = (len(head) + len(workload)).to_bytes(4, "big")
        if len(workload) < BIG:
            self._send(peer, kind + size + head + workload)
        else:
            self._send(peer, kind + size + head)
            self._send(peer, workload)

    # The life of jobs

    def _changed(self, job: Job, peer: Peer | None) -> None:
        id_ = None if peer is None else peer.id
        self._events.append(JobChanged(job.handle, job.function.name, job.state, id_))

    def _end(self, job: Job, peer: Peer | None) -> None:
        """Forget a job."""
        self._queue.end(job)
        self._ended += 1
        if clients := job.clients:
            if len(clients) > 1:
                self._joins -= len(clients) - 1
            for client in clients:
                client.waiting.pop(job, None)
        if self._trace:
            self._changed(job, peer)

    def _fail_job(self, job: Job, peer: Peer | None) -> None:
        """End a job for which no worker has sent an end."""
        self._reports.fail(job)
        self._end(job, peer)

    def _give_back(self, job: Job) -> None:
        """Take a running job from its worker, and queue it again or end it."""
        if self._queue.give_back(job, self._now):
            self._reports.requeued(job)
            if self._trace:
                self._changed(job, None)
            if job.state is QUEUED:
                self._wake(job.function)
        else:
            if job.wanted:
                self._events.append(JobGivenUp(job.handle, job.function.name, job.losses))
            self._fail_job(job, None)

    def _wake(self, function: FunctionQueue, misses: int = 0) -> None:
        """Wake as many sleeping workers as one more job of a function is worth.

        Args:
            function: the function.
            misses: how many have been woken for the job in vain, one after the other.
        """
        if not self._queue.accepting:
            return  # they would find nothing
        count = self._wakeups(misses)
        if count is None:
            if not function.waking_all:
                function.waking_all = True
                self._chores.begin(self._wake_all(function, misses), self._now)
            return
        while count and (worker := self._queue.pop_sleeper(function)) is not None:
            self._wake_up(worker, function, misses)
            count -= 1

    def _wakeups(self, misses: int) -> int | None:
        """Return how many workers to wake; None means all.

        Each one that does not come is replaced by two. So twice as many are woken each time, and soon all.
        """
        if not self._worker_wakeup or misses > _MAX_MISSES:
            return None
        return 2 if misses else self._worker_wakeup

    def _wake_all(self, function: FunctionQueue, misses: int) -> Iterator[None]:
        while function.waiting and (worker := self._queue.pop_sleeper(function)) is not None:
            self._wake_up(worker, function, misses)
            yield
        function.waking_all = False

    def _wake_up(self, worker: Worker, function: FunctionQueue, misses: int = 0) -> None:
        assert isinstance(worker, Peer)
        self._queue.wake(worker, function, self._now, misses)
        self._send(worker, _NOOP)

    def _pass_wakeup_on(self, worker: Peer, job: Job | None) -> None:
        """Wake somebody else if a woken worker does not take a job of the function that it was woken for."""
        function = self._queue.stop_waiting_for(worker)
        if function is not None and function.waiting and (job is None or job.function is not function):
            self._wake(function)

    # Text commands

    def _on_line(self, peer: Peer, line: Line) -> None:
        self._check_first_line(peer, line)
        peer.answer = Answer(self._commands.answer(line.text))
        self._go_on_answering(peer)

    def _check_first_line(self, peer: Peer, line: Line) -> None:
        if not peer.has_sent_line:
            peer.has_sent_line = True
            refuse_http(line.text)

    def _go_on_answering(self, peer: Peer) -> None:
        """Make as much of an answer as may be made at once, and send it once it is whole, or as long as may be."""
        answer, output = peer.answer, self._output
        assert answer is not None
        while output.work <= self.work_limit and peer.output_size <= self._max_output:
            size = answer.size
            output.work += answer.make(self.work_limit - output.work, self._max_text_size)
            self.under_way += answer.size - size
            if answer.ended or answer.size >= self._max_text_size:
                self.under_way -= answer.size
                for chunk in answer.take():
                    self._send(peer, chunk)
            if answer.ended:
                peer.answer = None
                return

    def _cancel(self, job: Job) -> None:
        worker = job.worker
        if isinstance(worker, Peer) and not worker.gone:
            cancelled = worker.cancelled
            cancelled[job.handle] = None
            if len(cancelled) > _MAX_CANCELLED:
                del cancelled[next(iter(cancelled))]
            elif len(cancelled) > worker.cancelled_most:
                worker.cancelled_most += 1
                self._cancelled += 1
        self._fail_job(job, None)

    def _shut_down(self, graceful: bool) -> None:
        if graceful:
            self.stop_accepting()
        self._events.append(ShutdownRequested(graceful))


# What a submission comes to: its priority as a plain int, which indexes lists faster than an enum; whether it is a
# background job; and whether it has no arguments but function, unique and workload.
_SUBMISSIONS: Final = {
    cls: (int(priority), background, cls not in (SubmitJobEpoch, SubmitReduceJob, SubmitReduceJobBackground))
    for cls, (priority, background) in SUBMISSIONS.items()
}


def _status(job: Job | None) -> tuple[bool, bool, int, int]:
    """Return what a status query tells of a job: known, running, numerator, denominator."""
    if job is None:
        return False, False, 0, 0
    return True, job.state is RUNNING, *job.progress
