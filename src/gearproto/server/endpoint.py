"""The job server without its sockets: an engine, and all that is decided about its connections.

Theory of operation. The driver owns the transports: it accepts, reads, sends and closes. The endpoint owns every
decision. A turn of the driver's loop has three parts:

1. `begin_turn`, then `received`, `ended`, `lost` and `writable` for the peers that are ready;
2. `settle`, which does what is due, resumes peers that had to wait, and takes the engine's events;
3. output (`sends`), then `changes`, then `next_deadline`.

A connection is *open* until `Close` is among the changes; the endpoint has forgotten it then. Meanwhile it may be

- *paused* (`PauseReading`): its output or others come first. A peer that has read enough is resumed in one of the
  next turns (`_resumable`), and is a reason for a deadline. One that does not read is none.
- *behind*: the transport has not taken all of its output (`Outgoing`). The rest is a `Backlog`, which says when the
  peer has to go. It is tried again when the driver calls `writable`, or in the next turn if it had its share of this.
- *ended*: the peer sends no more. It is closed once it has been sent the answers to all that it has sent.
- *leaving*: it has broken the protocol. It is sent what is queued for it (then `CloseWrite`), what it sends is thrown
  away, and it is closed when it ends, or `linger` seconds later.

What is out of the ordinary sets `attention` of `Outgoing`; as long as it is not set, a turn looks at none of it.

The last two move on in `_advance`, which looks at a connection when one of the reasons to wait may be gone (`_check`).
No other part closes a connection because of its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, TypedDict

from gearproto.connection import TOO_MANY_CONNECTIONS
from gearproto.event import Event
from gearproto.packets import Error

from .backlog import Backlogs
from .changes import (
    Change,
    Close,
    CloseWrite,
    MemoryLimitReached,
    PauseReading,
    PeerGivenUp,
    ResumeReading,
    Stopped,
    TrimMemory,
)
from .connections import Connection
from .engine import Engine
from .events import JobChanged, JobGivenUp, PeerFailed, ShutdownRequested
from .jobs import PeerId
from .memory import MemoryLimit
from .outgoing import BUFFER, Outgoing
from .trimming import Trimming
from .turns import CLOSES, READ_TIME, SEND_TIME, Turns

__all__ = ["TURNED_AWAY", "Endpoint", "EndpointOptions"]

TURNED_AWAY: Final = Error(TOO_MANY_CONNECTIONS, b"too many connections").encode()
"""What to send a peer that is not accepted, before its connection is closed."""


class EndpointOptions(TypedDict, total=False):
    """The options of `Endpoint` that a server may pass on; see there for their meaning."""

    max_connections: int
    pause_at: int
    max_unsent: int
    max_behind: int


class Endpoint:
    """A job server without any I/O: an `Engine`, and everything that is decided about its connections.

    The driver owns the sockets. A turn of its loop makes these calls, in this order:

    1. `begin_turn`;
    2. for each peer that is ready, `received`, `ended`, `lost` or `writable`;
    3. `settle`;
    4. for each piece of `sends`, pass it to the peer's transport, and call `sent` if that takes less than all of it;
    5. for each of `changes`, remove it and do what it says;
    6. `next_deadline`: begin the next turn then, or as soon as a peer is ready.

    `accepted`, `lost`, `drain`, `stop` and the calls of the engine may come between turns too; take a turn soon after
    them. If a hook raises, the exception leaves the call that has led to it. Begin the next turn as usual then.

    Attributes:
        engine: the job server's logic.
        changes: what the driver has to do, the oldest first; remove each one.
        stopped: whether the server has stopped; call `close_all` then, and do what `changes` say once more.
        bytes_received: bytes received since the start.
        max_read: bytes to read from one peer in this turn.
        tunnels: number of connections with TLS; set by the driver, because their memory counts.
        on_half_close: as given.
    """

    __slots__ = (
        "_backlogs",
        "_began",
        "_check",
        "_clock",
        "_connections",
        "_draining",
        "_due",
        "_events",
        "_finish_at",
        "_half_closed",
        "_last_words",
        "_leaving",
        "_linger",
        "_max_connections",
        "_memory",
        "_outgoing",
        "_output",
        "_paused",
        "_queue",
        "_receive",
        "_resumable",
        "_stopping",
        "_timeout_at",
        "_trimming",
        "_turns",
        "bytes_received",
        "changes",
        "engine",
        "max_read",
        "on_half_close",
        "stopped",
        "tunnels",
    )

    def __init__(
        self,
        engine: Engine,
        *,
        max_connections: int = 100_000,
        pause_at: int = 1024 * 1024,
        max_unsent: int = 64 * 1024 * 1024,
        max_behind: int = 1024 * 1024 * 1024,
        max_memory: int = 1024 * 1024 * 1024,
        trim_step: int | None = None,
        linger: float = 1.0,
        last_words: float = 5.0,
        on_half_close: Callable[[PeerId], bool] | None = None,
    ) -> None:
        """Begin without connections.

        Args:
            engine: the job server's logic.
            max_connections: how many connections are served.
            pause_at: bytes of output that a peer has not read above which its requests wait.
            max_unsent: bytes of output above which a peer is closed that reads nothing.
            max_behind: bytes of output above which a peer is closed that reads too slowly.
            max_memory: bytes that peers may make the server keep, estimated.
            trim_step: bytes by which jobs and unread output have to shrink before `TrimMemory`; None for never.
            linger: seconds that a peer which has broken the protocol may take to read why.
            last_words: seconds that peers may take to read what is for them when a server that drains ends.
            on_half_close: called when a peer sends no more, has been sent all that was for it, but waits for the
                results of jobs. Returns whether to keep it until it waits for nothing any more; report it as `lost` if
                its connection fails meanwhile. It may raise, and the peer is closed then. None closes all such peers.
        """
        self.engine = engine
        self.changes: deque[Change] = deque()
        self.stopped = False
        self.bytes_received = 0
        self.tunnels = 0
        self.on_half_close = on_half_close
        self._max_connections = max_connections
        self._linger = linger
        self._last_words = last_words
        self._backlogs: Backlogs[Connection] = Backlogs(pause_at=pause_at, max_unsent=max_unsent, max_behind=max_behind)
        self._memory = MemoryLimit(max_memory)
        self._trimming = None if trim_step is None else Trimming(step=trim_step)
        self._turns = Turns()
        self._clock = engine.clock
        self._events = engine.events
        self._output = engine.output
        self._queue = engine.queue
        self._receive = engine.receive_data
        self._paused = engine.paused_peers()
        self._output.work_limit = self._turns.work_limit
        self.max_read = self._turns.max_read
        self._connections: dict[PeerId, Connection] = {}
        self._outgoing = Outgoing(
            self._output,
            self._clock,
            self._connections,
            self._backlogs,
            review=self._review,
            give_up=self._give_up,
            end_turn=self._end_turn,
        )
        self._resumable: dict[PeerId, Connection] = {}  # paused, and not because of their output
        self._due: list[Connection] = []  # those of them that are resumed in this turn
        self._check: dict[Connection, None] = {}  # whose end may have come
        self._leaving: dict[Connection, None] = {}  # in the order of their leave_at
        self._half_closed: dict[Connection, None] = {}
        self._draining = False
        self._stopping = False
        self._finish_at: float | None = None  # set once a server that drains has no running jobs any more
        self._timeout_at: float | None = None  # when the engine wants to be called
        self._began = 0.0

    # Connections

    @property
    def bytes_sent(self) -> int:
        """Bytes sent since the start."""
        return self._outgoing.bytes_sent

    @property
    def unread(self) -> int:
        """Bytes of output that peers have not read yet."""
        return self._backlogs.size

    def refusal(self, pending: int = 0) -> str | None:
        """Return why no further connection may be accepted; None if it may.

        Send a peer that you turn away `TURNED_AWAY`, so that it tries another server.

        Args:
            pending: how many connections there are of which the endpoint does not know yet.
        """
        if len(self._connections) + pending >= self._max_connections:
            return f"limit {self._max_connections}"
        return f"memory limit {self._memory.limit}" if self._memory.full else None

    def accepted(self, now: float, *, address: bytes = b"-", descriptor: int = -1) -> PeerId:
        """Begin with a new connection; see `Engine.connect`."""
        peer = self.engine.connect(now, address=address, descriptor=descriptor)
        self._connections[peer] = Connection(peer)
        return peer

    def lost(self, peer: PeerId, now: float, reason: str = "lost") -> None:
        """Handle a connection that has failed; `Close` follows. Does nothing if it is not known.

        If a piece of `sends` has failed, call ``sent(peer, 0, now)`` first, or it counts as sent.

        Args:
            peer: whose connection it was.
            now: monotonic time in seconds.
            reason: why, as text for `Close`.
        """
        self._clock.now = now
        connection = self._connections.get(peer)
        if connection is not None:
            self._close(connection, reason)

    def close_all(self, now: float, reason: str = "the server stops") -> None:
        """Close every connection: a `Close` for each follows."""
        self._clock.now = now
        for connection in list(self._connections.values()):
            self._close(connection, reason)

    # A turn

    def begin_turn(self, now: float, wall: float, ready: int = 1) -> None:
        """Begin a turn.

        Args:
            now: monotonic time in seconds.
            wall: seconds since 1970, read after ``now``, so that no job is early.
            ready: how many peers are ready, which share the turn.
        """
        self._began = now
        clock = self._clock
        clock.now, clock.epoch_offset = now, wall - now
        turns = self._turns
        busy = ready + len(self._resumable)
        if busy != turns.busy:
            turns.begin(busy)
            self._output.work_limit = turns.work_limit
            self.max_read = turns.max_read
        if self._outgoing.attention:
            self._due = [*islice(self._resumable.values(), turns.resumes)]
            self._outgoing.try_later_ones()

    def may_read(self, now: float) -> bool:
        """Return whether this turn has time to read from further peers; those left over come first in the next."""
        return now <= self._began + READ_TIME

    def may_send(self, now: float) -> bool:
        """Return whether this turn has time to send more; what is left over comes first in the next."""
        return now <= self._began + SEND_TIME or self._stopping

    def received(self, peer: PeerId, data: bytes, now: float) -> None:
        """Handle data that a peer has sent. Does nothing if it is not known.

        Args:
            peer: who sent it.
            data: what arrived.
            now: monotonic time in seconds.
        """
        self.bytes_received += len(data)
        paused = True
        try:
            paused = self._receive(peer, data, now)
        finally:  # a hook may have raised
            if paused and (connection := self._connections.get(peer)) is not None:
                self._review(connection)

    def ended(self, peer: PeerId, now: float) -> None:
        """Handle the end of what a peer sends; it is closed once it has been sent all answers.

        Do nothing else about it before `Close`: the peer may still read.
        """
        self._clock.now = now
        connection = self._connections.get(peer)
        if connection is not None and not connection.ended:
            connection.ended = True
            self._review(connection)

    def writable(self, peer: PeerId) -> None:
        """Try to send to a peer again, whose transport has taken less than all of its output before."""
        connection = self._connections.get(peer)
        if connection is not None and connection.backlog is not None and not connection.queued:
            self._outgoing.send_soon(connection)

    def settle(self, now: float) -> None:
        """Handle what is due, resume peers that had to wait, and take the engine's events."""
        engine = self.engine
        if self._timeout_at is not None and self._timeout_at <= now:
            self._timeout_at = None
            engine.handle_timeout(now)
        if self._outgoing.attention:
            self._settle_rest(now)
        if self._events:
            self._take_events(now)
        memory = self._memory
        if self.bytes_received >= memory.look_at or self._output.under_way + self._backlogs.size > memory.mark:
            self._look_at_memory(now)

    def _settle_rest(self, now: float) -> None:
        """Do what is seldom due."""
        if self._due:
            self._resume(now)
        if self._leaving or self._backlogs.far:
            self._close_overdue(now)
        if self._check or self._half_closed:
            self._end_some()
        if self._trimming is not None:
            self._trim(self._trimming, now)
        if self._draining and not self.stopped and not self.engine.running_jobs:
            self._finish(now)

    def next_deadline(self) -> float | None:
        """Return the monotonic time of the next turn if nothing happens before; None if there need be none.

        Call it once in each turn, at the end.
        """
        if self._output.dirty or self._outgoing.sending or self._events:
            self._timeout_at = self._clock.now
            return self._timeout_at
        self._timeout_at = deadline = self.engine.next_deadline()
        if not self._outgoing.attention:
            return deadline
        if self._resumable or self._outgoing.later or self._outgoing.cut_short or self._check or self._ends_now():
            self._timeout_at = self._clock.now
            return self._timeout_at
        times = [deadline, self._finish_at, self._backlogs.next_deadline()]
        times.append(None if self._trimming is None else self._trimming.due)
        if self._leaving:
            times.append(next(iter(self._leaving)).leave_at)
        known = [when for when in times if when is not None]
        lasting = self._check or self._half_closed or self._backlogs.open or self._draining
        self._outgoing.attention = bool(lasting) or len(known) > (deadline is not None)
        return min(known, default=None)

    # Requests that wait

    def _resume(self, now: float) -> None:
        """Resume peers that had to wait for others; those that are paused again come last."""
        due, self._due = self._due, []
        for connection in due:
            peer = connection.id
            if self._resumable.pop(peer, None) is None or self._backlogs.keeps_waiting(connection):
                continue
            try:
                self.engine.resume(peer, now)
            finally:  # a hook may have raised
                self._review(connection)

    def _review(self, connection: Connection) -> None:
        """Decide whether a peer is read, and whether it may be resumed; look at its end again."""
        if connection.id not in self._connections:  # a hook has had it closed
            return
        self._outgoing.attention = True
        behind = connection.backlog
        waits = behind is not None and behind.size > self._backlogs.pause_at
        paused = connection.id in self._paused
        if paused and not waits:
            self._resumable.setdefault(connection.id, connection)
        if behind is None and not paused and (connection.ended or connection.leave_at is not None):
            self._check[connection] = None
        reading = not (waits or paused or connection.ended)
        if reading is not connection.reading:
            connection.reading = reading
            self.changes.append(ResumeReading(connection.id) if reading else PauseReading(connection.id))

    # Output

    def sends(self) -> Iterator[tuple[PeerId, bytes | memoryview]]:
        """Yield what there is to send in this turn: a peer, and bytes to send to it now.

        They count as sent unless you call `sent` before you take the next. You may stop before the end: the rest is
        yielded in the next turn, for which `next_deadline` is now.
        """
        return self._outgoing.sends()

    def sent(self, peer: PeerId, count: int, now: float, *, full: bool = True, buffer_size: int = BUFFER) -> None:
        """Report how much of the last of `sends` the transport has taken; you may leave this out if it is all.

        The rest is offered again once you call `writable`; and before that, if the peer would be given up because of
        more output, in case there is room by now.

        Args:
            peer: whose it was.
            count: how many bytes.
            now: monotonic time in seconds.
            full: whether the transport takes no more now. If not, the rest is offered again in the next turn.
            buffer_size: bytes that the transport's buffer may hold.
        """
        self._outgoing.sent(peer, count, now, full=full, buffer_size=buffer_size)

    def _end_turn(self) -> bool:
        """Do what has to wait until all output has been handed out; return whether there is more of it then."""
        self._end_some()
        self._take_events(self._clock.now)
        if self._output.dirty or self._outgoing.sending:
            return True
        if not self.stopped and self._has_ended():
            self.stopped = True
            self._finish_at = None
            self.changes.append(Stopped())
        return False

    # The end of connections

    def _take_events(self, now: float) -> None:
        """Handle the engine's events, and pass them on."""
        while self._events:
            self._on_event(self._events.popleft(), now)

    def _on_event(self, event: Event, now: float) -> None:
        assert isinstance(event, PeerFailed | ShutdownRequested | JobGivenUp | JobChanged)
        if isinstance(event, PeerFailed):
            connection = self._connections.get(event.peer)
            if connection is None:
                return
            connection.leave_at = now + self._linger
            self._leaving[connection] = None
            self._review(connection)
        elif isinstance(event, ShutdownRequested):
            if event.graceful:
                self.drain()
            else:
                self.stop()
        self.changes.append(event)

    def _end_some(self) -> None:
        """Take the next step with each connection that may have come to its end."""
        check, self._check = self._check, {}
        try:
            for connection in list(check):
                del check[connection]
                self._advance(connection)
        finally:  # the hook may have raised
            self._check.update(check)
        for connection in list(self._half_closed):
            self._end_half_closed(connection)

    def _advance(self, connection: Connection) -> None:
        """Take the next step to the end of a connection, if nothing is left to be sent to it."""
        peer = connection.id
        if connection.backlog is not None:
            return  # `_review` has it looked at again
        if self.engine.output_of(peer):
            self._check[connection] = None
        elif connection.leave_at is not None:
            if connection.ended:
                self._close(connection, "it broke the protocol")
            else:
                self.changes.append(CloseWrite(peer))
                self.engine.disconnect(peer, self._clock.now)  # nothing can be sent to it any more
        elif connection not in self._half_closed:
            self._ask_whether_to_keep(connection)

    def _ask_whether_to_keep(self, connection: Connection) -> None:
        """Close a connection whose peer sends no more, unless it waits for results and the driver wants it kept."""
        peer, keep = connection.id, False
        try:
            keep = self.on_half_close is not None and self.engine.waits(peer) and self.on_half_close(peer)
        finally:  # a hook that raises wants nothing kept
            if not keep:
                self._close(connection, "by the peer")
        if keep and peer in self._connections:  # else the hook has had it closed
            self._half_closed[connection] = None

    def _end_half_closed(self, connection: Connection) -> None:
        """Close a connection whose peer sends no more once it has been sent its results."""
        engine, peer = self.engine, connection.id
        if connection.backlog is None and not engine.waits(peer) and not engine.output_of(peer):
            self._close(connection, "by the peer")

    def _close_overdue(self, now: float) -> None:
        """Close those whose time is over; not all at once, if there are many."""
        for connection in list(islice(self._leaving, CLOSES)):
            assert connection.leave_at is not None
            if now < connection.leave_at:
                break
            self._close(connection, "it broke the protocol")
        for connection, why in self._backlogs.overdue(now):
            self._give_up(connection, why)

    def _give_up(self, connection: Connection, why: str) -> None:
        self.changes.append(PeerGivenUp(connection.id, why))
        self._close(connection, "it does not read")

    def _close(self, connection: Connection, reason: str) -> None:
        """Forget a connection, and have it closed."""
        peer = connection.id
        if self._connections.pop(peer, None) is None:  # a hook has had it closed
            return
        for table in (self._leaving, self._half_closed, self._check):
            table.pop(connection, None)
        self._resumable.pop(peer, None)
        unread = self.engine.output_of(peer) + sum(map(len, connection.pending or ()))
        if connection.backlog is not None:
            unread += connection.backlog.size
            self._backlogs.end(connection)
            connection.backlog = None
        connection.pending = None
        self.changes.append(Close(peer, reason, unread))
        self.engine.disconnect(peer, self._clock.now)

    # What is kept

    def _look_at_memory(self, now: float) -> None:
        """Close peers that keep too much under way, if there is too much of everything."""
        memory, was_full = self._memory, self._memory.full
        for connection, why in memory.look(
            self.engine, self._backlogs, self._connections, self.bytes_received, self.tunnels
        ):
            self._give_up(connection, why)
        if memory.full is not was_full:
            self.changes.append(MemoryLimitReached(memory.full, memory.limit))
        if self._trimming is not None:
            self._trim(self._trimming, now)

    def _trim(self, trimming: Trimming, now: float) -> None:
        """Have memory given back to the system if it is time for that."""
        held = self._queue.jobs_size + self._backlogs.size
        if trimming.note(held, self.bytes_received, now):
            self.engine.compact()
            self.changes.append(TrimMemory())
        self._outgoing.attention = self._outgoing.attention or trimming.due is not None

    # The end of the server

    def drain(self) -> None:
        """Accept no new jobs; `Stopped` follows when no job is running and all output is sent.

        Stop accepting connections. The endpoint waits a few seconds for peers that do not read their output.
        """
        self.engine.stop_accepting()
        self._draining = self._outgoing.attention = True

    def stop(self) -> None:
        """Stop without waiting for jobs: `Stopped` follows when transports have all output, or take no more of it.

        Stop accepting connections. The endpoint waits a few seconds at most.
        """
        self._stopping = self._outgoing.attention = True

    def _has_ended(self) -> bool:
        """Return whether nothing is left to wait for, once all output of a turn has been handed out."""
        if not self._stopping:
            return self._finish_at is not None and not self._backlogs.open
        if self._finish_at is None:
            self._finish_at = self._clock.now + self._last_words
        return not self._outgoing.later or self._clock.now >= self._finish_at

    def _finish(self, now: float) -> None:
        """Let peers read the last results of a server that drains, but not for ever."""
        if self._finish_at is None:
            self._finish_at = now + self._last_words
        elif now >= self._finish_at:
            self._stopping = True

    def _ends_now(self) -> bool:
        """Return whether a turn has to see that the end has come."""
        if self.stopped or not (self._draining or self._stopping):
            return False
        return self._stopping or (self._finish_at is None and not self.engine.running_jobs)
