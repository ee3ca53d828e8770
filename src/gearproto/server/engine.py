"""The job server's decisions: packets in, packets out, for many peers and one queue."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, KeysView, Mapping
from functools import partial
from typing import Any, Final

from gearproto.codec import MalformedPacket, Spec, UnexpectedPacket
from gearproto.errors import RemoteProtocolError
from gearproto.event import Event
from gearproto.framing import DEFAULT_MAX_LINE_SIZE, DEFAULT_MAX_SERVER_PACKET_SIZE, Decoder, Line

from .answering import Answering
from .chores import Chores, emptied
from .clients import ClientRequests
from .clock import Clock
from .commands import Commands, refuse_http, status_row
from .costs import PEER
from .events import Counters, PeerFailed, ShutdownRequested
from .jobs import Job, PeerId, Worker
from .lifecycle import Lifecycle
from .linked import LinkedList
from .observing import JobObserver, Tracer
from .output import Output
from .peers import Peer
from .queue import JobQueue, Scheduler
from .relay import Relay
from .reports import Report, Reports, server_decoders
from .waking import WakePolicy, Waking
from .workers import WorkerRequests

__all__ = ["Engine"]

_SPECS: Final = server_decoders()


class Engine:
    """A job server without any I/O.

    Report new connections (`connect`), data (`receive_data`), lost connections (`disconnect`), and the time
    (`handle_timeout` at `next_deadline`). After each of these calls, pull all events (`next_event`) and all output
    (`next_transmit`), and `resume` the `paused_peers` when others have had their turn. Nothing that a peer sends raises
    an exception or disturbs another peer.

    Attributes:
        events: what the driver has not been told yet; see `next_event`.
        clock: the time, as the driver has told it.
        output: what is to be sent to peers.
        queue: the jobs; for schedulers and observers.
        waking: the sleeping workers; for wake policies.
    """

    # With 30 attributes or more, finding one without slots takes so much longer that jobs cost 3 % more.
    __slots__ = (
        "_answering",
        "_chores",
        "_commands",
        "_exceptions",
        "_handlers",
        "_last_peer",
        "_lifecycle",
        "_line_hook",
        "_max_output",
        "_new_decoder",
        "_paused",
        "_peer_list",
        "_peers",
        "_request_hook",
        "_table",
        "_workers",
        "clock",
        "events",
        "output",
        "queue",
        "waking",
    )

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
        observer: JobObserver | None = None,
        scheduler: Scheduler | None = None,
        wake_policy: WakePolicy | None = None,
        on_request: Callable[[PeerId, Event], bool] | None = None,
        on_line: Callable[[PeerId, bytes], bool] | None = None,
        packets: Mapping[bytes, Spec] | None = None,
    ) -> None:
        """Begin without peers and jobs.

        Args:
            handle_prefix: start of every job handle, at most 40 bytes without spaces and control characters. A colon
                and the number of the job follow, with leading zeroes, so that no handle is the beginning of another.
                It has to be different at each start, so that an old handle never names a new job: let it end in a
                random part.
            epoch_offset: seconds to add to monotonic time to get seconds since 1970, for ``SUBMIT_JOB_EPOCH``; may be
                set at any time.
            job_retries: how often a job is given to another worker if its worker is lost or its timeout passes. After
                that it fails, and `next_event` returns `JobGivenUp`. -1 means no limit. From the third time on, the job
                waits first: 1, 2, 4 seconds, up to 60.
            worker_wakeup: number of sleeping workers that are woken for a job; 0 means all.
            wakeup_timeout: seconds after which other workers are woken if a woken worker has not asked for a job: twice
                as many each time, and all of them the fourth time.
            round_robin: whether the functions of a worker take turns within a priority. If not, the function that has
                had jobs for the longest time is served until it has none.
            exceptions: whether the option ``exceptions`` is set on every new connection.
            max_packet_size: limit in bytes for a packet without its header. A submission counts as 65 bytes more, the
                size of the ``JOB_ASSIGN_ALL`` that a worker with the same limit has to accept.
            max_line_size: limit in bytes for a text command including its line end.
            max_output_size: bytes of output queued for a peer above which its further requests wait.
            max_text_size: bytes of an answer to a text command that are held back until the answer is complete.
            max_functions: number of functions that one worker can register.
            max_jobs: number of jobs in the server; more are refused.
            max_queue_size: bytes of the workloads, names and uniques of all jobs; more are refused.
            max_idle_functions: number of functions without jobs and workers that are remembered.
            max_kept_functions: number of functions that administrators can create or limit; these are never forgotten.
            allow_shutdown: whether administrators may stop the server (``shutdown``); if not, the command is unknown.
            work_limit: number of requests of a peer that are handled before its further requests wait, so that others
                have their turn. Expensive requests count several times.
            version: answer to ``version``.
            pid: answer to ``getpid``.
            verbosity: answer to ``verbose``.
            trace: whether `next_event` returns `JobChanged` events.
            observer: sees what happens to jobs and workers.
            scheduler: decides which job a worker gets next; None for the highest priority, and the oldest job of each
                function. It may hold jobs back. With a scheduler, waking takes longer the more workers sleep, because
                it is asked for each of them.
            wake_policy: decides which workers are woken for a job; None for `Waking.wake_sleepers`. It may call
                `waking`, `queue` and `wake`.
            on_request: sees each packet before the engine does, and returns whether it has handled it. It may call
                `perform`, `take`, `send`, `fail` and `wake`. An exception that it raises leaves `receive_data`; the
                packets that follow are handled when the peer is resumed.
            on_line: the same for each line of text, which it gets without the line ending.
            packets: how to decode packets, instead of `server_decoders`, for packets that only `on_request` knows; see
                `gearproto.codec.decoders`.
        """
        if not 0 < len(handle_prefix) <= 40:
            raise ValueError(f"handle prefix of {len(handle_prefix)} bytes: 1 to 40 are allowed")
        if any(byte <= 32 or byte == 127 for byte in handle_prefix):
            raise ValueError(f"handle prefix {handle_prefix!r}: spaces and control characters are not allowed")
        self.clock = clock = Clock(epoch_offset)
        self.output = output = Output(work_limit)
        self.events: deque[Event] = deque()
        if trace:
            observer = Tracer(self.events, observer)
        self._exceptions = exceptions
        self._new_decoder = partial(
            Decoder,
            _SPECS if packets is None else packets,
            max_packet_size=max_packet_size,
            max_line_size=max_line_size,
        )
        self._max_output = max_output_size
        self._peers: dict[PeerId, Peer] = {}
        self._peer_list: LinkedList[Peer] = LinkedList()
        self._last_peer = 0
        self._paused: dict[PeerId, Peer] = {}
        self._chores = Chores(output, clock)
        self.queue = queue = JobQueue(
            job_retries=job_retries,
            max_jobs=max_jobs,
            max_queue_size=max_queue_size,
            max_idle_functions=max_idle_functions,
            max_kept_functions=max_kept_functions,
            round_robin=round_robin,
            scheduler=scheduler,
        )
        self.waking = Waking(
            queue,
            output,
            self._chores,
            clock,
            worker_wakeup=worker_wakeup,
            timeout=wakeup_timeout,
            policy=wake_policy,
            observer=observer,
        )
        relay = Relay(output)
        self._lifecycle = Lifecycle(
            queue,
            output,
            relay,
            self.waking,
            self.events,
            clock,
            handle_prefix=handle_prefix,
            observer=observer,
        )
        self._answering = Answering(output, max_output_size=max_output_size, max_text_size=max_text_size)
        self._workers = WorkerRequests(
            queue,
            output,
            self._lifecycle,
            self.waking,
            self._answering,
            max_functions=max_functions,
            observer=observer,
        )
        self._commands = Commands(
            queue,
            self._peers,
            self._peer_list,
            version=version,
            pid=pid,
            verbosity=verbosity,
            cancel=self._lifecycle.cancel,
            shut_down=self._shut_down if allow_shutdown else None,
        )
        self._table: dict[type[Event], Callable[[Peer, Any], None]] = {
            **ClientRequests(queue, output, self._lifecycle, clock).handlers,
            **self._workers.handlers,
            Report: Reports(queue, output, relay, self._lifecycle).on_report,
            Line: self._on_line,
            UnexpectedPacket: self._on_unexpected,
            MalformedPacket: self._on_malformed,
        }
        self._request_hook = on_request
        self._line_hook = on_line
        self._handlers = self._table
        if on_request is not None or on_line is not None or packets is not None:
            self._handlers = defaultdict(lambda: self._offer)

    # What a driver calls

    @property
    def epoch_offset(self) -> float:
        """Seconds to add to monotonic time to get seconds since 1970.

        Set it before each turn, because clocks are adjusted and systems are suspended. Delayed jobs follow it.
        """
        return self.clock.epoch_offset

    @epoch_offset.setter
    def epoch_offset(self, offset: float) -> None:
        self.clock.epoch_offset = offset

    @property
    def work_limit(self) -> int:
        """Number of requests of a peer that are handled before others have their turn; may be set at any time."""
        return self.output.work_limit

    @work_limit.setter
    def work_limit(self, limit: int) -> None:
        self.output.work_limit = limit

    def connect(self, now: float, *, address: bytes = b"-", descriptor: int = -1) -> PeerId:
        """Begin with a new connection.

        Args:
            now: monotonic time in seconds.
            address: the peer's address, which ``workers`` shows.
            descriptor: a number for the connection, which ``workers`` shows; -1 means the peer's id.
        """
        self.clock.now = now
        self._last_peer += 1
        id_ = PeerId(self._last_peer)
        decoder = self._new_decoder()
        peer = Peer(id_, decoder, address, descriptor if descriptor >= 0 else id_, self._exceptions)
        self._peers[id_] = peer
        self._peer_list.add(peer)
        return id_

    def receive_data(self, peer: PeerId, data: bytes, now: float) -> bool:
        """Handle data that a peer has sent. Does nothing if the peer has been disconnected.

        Args:
            peer: who sent it.
            data: what arrived.
            now: monotonic time in seconds.

        Returns:
            Whether the peer is one of `paused_peers` now.
        """
        self.clock.now = now
        try:
            sender = self._peers[peer]
        except KeyError:  # it is gone
            return False
        if sender.failed:
            return False
        sender.decoder.feed(data)
        if peer not in self._paused:
            return self._serve(sender)
        self._count_input(sender)
        return True

    def disconnect(self, peer: PeerId, now: float) -> None:
        """Handle the end of a connection. Does nothing the second time.

        Args:
            peer: whose connection it was.
            now: monotonic time in seconds.
        """
        self.clock.now = now
        gone = self._peers.pop(peer, None)
        if gone is None:
            return
        gone.failed = gone.gone = True
        gone.asleep = False
        self._peer_list.remove(gone)
        self._paused.pop(peer, None)
        self.output.drop(gone)
        self.output.under_way -= gone.input_size
        self._answering.forget(gone)
        self._lifecycle.forget_cancelled(gone)
        self._chores.begin(self._clear_up_behind(gone))
        self.waking.pass_on(gone, None)

    def _clear_up_behind(self, gone: Peer) -> Iterator[None]:
        """Give up the jobs that a peer waited for, give back those it had in hand, and forget what it could do."""
        for job in emptied(gone.waiting):
            self._lifecycle.leave(gone, job)
            yield
        for job in emptied(gone.in_hand):
            self._lifecycle.give_back(job)
            yield
        for function in emptied(gone.abilities):
            self._workers.unregister(gone, function)
            yield

    def next_event(self) -> Event | None:
        """Return one event for the driver, None if there is none.

        It is a `PeerFailed`, `ShutdownRequested`, `JobGivenUp` or `JobChanged`.
        """
        return self.events.popleft() if self.events else None

    def next_transmit(self) -> tuple[PeerId, bytes] | None:
        """Return a peer and bytes to send to it, in their order; None if there is nothing to send."""
        return self.output.next()

    def paused_peers(self) -> KeysView[PeerId]:
        """Return the peers whose requests are left unread for a while; see `resume`."""
        return self._paused.keys()

    def resume(self, peer: PeerId, now: float) -> None:
        """Continue with a paused peer, once its output has been sent, and others have had their turn.

        Args:
            peer: one of `paused_peers`.
            now: monotonic time in seconds.
        """
        self.clock.now = now
        sender = self._paused.pop(peer, None)
        if sender is not None and not sender.failed:
            self._serve(sender)

    def next_deadline(self) -> float | None:
        """Return when `handle_timeout` has to be called, or None; at most a second ahead if there are delayed jobs."""
        if self._chores.waiting:
            return self.clock.now
        woken, queue = self.waking.woken, self.queue
        due = queue.next_deadline(self.clock.epoch_offset) if queue.timed else None
        if woken:
            first = next(iter(woken.values()))
            return first if due is None else min(first, due)
        return due

    def handle_timeout(self, now: float) -> None:
        """Handle what is due: delayed jobs, timeouts of running jobs, and woken workers that have not reacted.

        If too much is due for one call, the rest is due again at once, so that others have their turn.

        Args:
            now: monotonic time in seconds.
        """
        self.clock.now = now
        chores, queue, lifecycle = self._chores, self.queue, self._lifecycle
        chores.new_turn()
        chores.do_some(self.waking.pass_overslept_on())
        chores.do_some(map(lifecycle.give_back, queue.overrun(now)))
        chores.do_some(map(lifecycle.queue_due, queue.queue_due(now, self.clock.epoch_offset)))
        chores.go_on()

    def refuse(self, full: bool) -> None:
        """Refuse everything that would be stored, such as jobs and functions, because of a limit on memory.

        Args:
            full: whether to refuse; False accepts again.
        """
        self.queue.full = full

    @property
    def kept_size(self) -> int:
        """Bytes that jobs, functions and connections take, as `gearproto.server.memory` counts them."""
        return self.queue.kept_size + len(self._peers) * PEER + self._lifecycle.kept_size

    def compact(self) -> None:
        """Shrink tables that are nearly empty; they do not shrink by themselves."""
        self.queue.compact()

    @property
    def under_way(self) -> int:
        """Bytes of input that waits, and of answers that are not complete."""
        return self.output.under_way

    def under_way_of(self, peer: PeerId) -> int:
        """Return how much of `under_way` belongs to a peer."""
        known = self._peers.get(peer)
        if known is None:
            return 0
        return known.input_size + (0 if known.answer is None else known.answer.size)

    def output_of(self, peer: PeerId) -> int:
        """Return how many bytes of output are queued for a peer."""
        known = self._peers.get(peer)
        return 0 if known is None else known.output_size

    def stop_accepting(self) -> None:
        """Accept no more submissions and assign no more jobs; running jobs may end."""
        self.queue.accepting = False

    @property
    def running_jobs(self) -> int:
        """Number of jobs that workers are running."""
        return sum(function.running for function in self.queue.functions.values())

    def counters(self) -> Counters:
        """Count what the server holds now."""
        functions = self.queue.functions.values()
        return Counters(
            peers=len(self._peers),
            queued=sum(function.waiting for function in functions),
            delayed=sum(sum(function.delayed) for function in functions),
            running=self.running_jobs,
            submitted=self._lifecycle.submitted,
            ended=self._lifecycle.ended,
            functions=tuple(map(status_row, functions)),
        )

    # What hooks and policies call

    @property
    def submitted(self) -> int:
        """Number of jobs since the start, without joined submissions."""
        return self._lifecycle.submitted

    def perform(self, peer: PeerId, request: Event) -> None:
        """Handle a packet or a `Line`, without asking `on_request` or `on_line`. Does nothing if the peer is gone.

        Args:
            peer: who asks.
            request: a packet as `server_decoders` decode it, or a `Line`; anything else is refused.
        """
        sender = self._peers.get(peer)
        if sender is not None:
            self._table.get(type(request), self._on_unknown)(sender, request)

    def worker(self, peer: PeerId) -> Worker | None:
        """Return a peer as the queue knows it; None if it is gone."""
        return self._peers.get(peer)

    def take(self, peer: PeerId) -> Job | None:
        """Give a worker its next job, which you have to `send`; None if there is none, or the peer is gone."""
        worker = self._peers.get(peer)
        return None if worker is None else self._lifecycle.take(worker)

    def cancel(self, handle: bytes) -> bool:
        """Cancel a job, as ``cancel job`` does; return False if there is none."""
        job = self.queue.jobs.get(handle)
        if job is not None:
            self._lifecycle.cancel(job)
        return job is not None

    def wake(self, peer: PeerId) -> None:
        """Wake a worker, if it sleeps and there is a job for it."""
        worker = self._peers.get(peer)
        if worker is not None and worker.asleep:
            self.waking.wake_if_wanted(worker)

    def waits(self, peer: PeerId) -> bool:
        """Tell whether a peer waits for the results of jobs."""
        known = self._peers.get(peer)
        return known is not None and bool(known.waiting)

    def send(self, peer: PeerId, data: bytes) -> None:
        """Queue bytes for a peer; nothing if it is gone."""
        receiver = self._peers.get(peer)
        if receiver is not None and data:
            self.output.send(receiver, data)

    def fail(self, peer: PeerId, reason: str) -> None:
        """Close a peer (`PeerFailed`) when its queued output has been sent. Does nothing if it is gone."""
        failed = self._peers.get(peer)
        if failed is not None and not failed.failed:
            self._fail(failed, reason)

    # Input and output

    def _serve(self, peer: Peer) -> bool:
        """Do what a peer's input asks for; return whether some is left, as its output or others have to come first."""
        handlers, decoder, output = self._handlers, peer.decoder, self.output
        next_packet = decoder.next
        limit, max_output = output.work_limit, self._max_output
        output.work = 0
        try:
            if peer.answer is not None:
                self._answering.go_on(peer)
            if peer.answer is None:
                for _ in range(limit):
                    if (packet := next_packet()) is None:
                        if decoder.holds_back:
                            self._count_input(peer)
                        return False
                    handlers[type(packet)](peer, packet)
                    if peer.output_size > max_output or output.work > limit:
                        break
            if not peer.failed:
                self._paused[peer.id] = peer
                self._count_input(peer)
                return True
        except RemoteProtocolError as error:  # the requests before it have been served
            if peer.failed:  # a hook has closed it
                return False
            if error.code is not None:
                self.output.send_error(peer, error.code, str(error).encode())
            self._fail(peer, str(error))
        except BaseException:  # of a hook; the following requests wait until the peer is resumed
            if not peer.failed:
                self._paused[peer.id] = peer
                self._count_input(peer)
            raise
        return False

    def _count_input(self, peer: Peer) -> None:
        """Count what a peer has sent, and has not been dealt with."""
        if peer.gone:  # a hook has closed it
            return
        size = peer.decoder.buffered
        peer.decoder.holds_back = size > 0
        self.output.under_way += size - peer.input_size
        peer.input_size = size

    def _fail(self, peer: Peer, reason: str) -> None:
        peer.failed = True
        self.events.append(PeerFailed(peer.id, reason))

    def _offer(self, peer: Peer, request: Event) -> None:
        """Let a hook deal with a request, or deal with it as usual."""
        if peer.failed:  # a hook has closed it: the rest of its input is dropped
            return
        if isinstance(request, Line):
            self._check_first_line(peer, request)
            handled = self._line_hook is not None and self._line_hook(peer.id, request.text)
        else:
            handled = self._request_hook is not None and self._request_hook(peer.id, request)
        if not handled and not peer.failed:
            self._table.get(type(request), self._on_unknown)(peer, request)

    def _on_line(self, peer: Peer, line: Line) -> None:
        self._check_first_line(peer, line)
        self._answering.begin(peer, self._commands.answer(line.text))

    def _check_first_line(self, peer: Peer, line: Line) -> None:
        if not peer.has_sent_line:
            peer.has_sent_line = True
            refuse_http(line.text)

    def _on_unexpected(self, peer: Peer, packet: UnexpectedPacket) -> None:
        if packet.response:
            self.output.send_error(peer, b"INVALID_MAGIC", b"Request magic expected")
        else:
            self._on_unknown(peer, packet)

    def _on_unknown(self, peer: Peer, _packet: Event) -> None:
        self.output.send_error(peer, b"INVALID_COMMAND", b"Command not expected")

    def _on_malformed(self, peer: Peer, packet: MalformedPacket) -> None:
        self.output.send_error(peer, b"INVALID_ARGUMENTS", f"{packet.packet}: {packet.reason}".encode())

    def _shut_down(self, graceful: bool) -> None:
        if graceful:
            self.stop_accepting()
        self.events.append(ShutdownRequested(graceful))
