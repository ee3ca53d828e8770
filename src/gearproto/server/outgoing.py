"""What is to be sent to the peers of an endpoint, and what their transports have left of it.

Theory of operation. Most output never waits: it is handed out as the engine made it, and the transport takes all of it.
What the transport has left, and what is much, becomes the `Backlog` of the connection; further output is queued behind
it. A backlog is *tried* in a turn if the connection stands in `_sending`: when the transport can take more, or when it
had its share of the last turn (`_later`). Backlogs and new output take turns, so that neither waits for the other.

What was handed out last counts as sent when the driver takes the next, unless it says otherwise (`Outgoing.sent`). What
is left is offered again first, byte for byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from .backlog import Backlogs
from .clock import Clock
from .connections import Connection
from .jobs import PeerId
from .output import BIG, Output

__all__ = ["BUFFER", "Outgoing"]

BUFFER: Final = 4 * 1024 * 1024
"""Bytes that a transport may hold if the driver does not know: the maximum of Linux."""

_MAX_SEND: Final = 1024 * 1024  # bytes after which other peers have their turn; a fast reader could take all the time
_NOTHING: Final = (PeerId(0), b"")


class Outgoing:
    """The output of all connections.

    Attributes:
        attention: whether there may be anything out of the ordinary, so that `end_turn` is called.
        bytes_sent: bytes sent since the start.
        cut_short: whether the driver has stopped before the end of what there was to send.
        later: connections whose backlog is tried in the next turn.
        sending: connections whose backlog is tried in this turn.
    """

    __slots__ = (
        "_backlogs",
        "_clock",
        "_connections",
        "_end_turn",
        "_give_up",
        "_handed",
        "_last",
        "_output",
        "_review",
        "attention",
        "bytes_sent",
        "cut_short",
        "later",
        "sending",
    )

    def __init__(
        self,
        output: Output,
        clock: Clock,
        connections: Mapping[PeerId, Connection],
        backlogs: Backlogs[Connection],
        *,
        review: Callable[[Connection], object],
        give_up: Callable[[Connection, str], object],
        end_turn: Callable[[], bool],
    ) -> None:
        """Begin with nothing to send.

        Args:
            output: what the engine has to send.
            clock: the time.
            connections: the connections that are open.
            backlogs: what their transports have not taken.
            review: called whenever the backlog of a connection has changed.
            give_up: called with a connection that has to go because of its backlog, and the reason.
            end_turn: called when all output has been handed out; returns whether there is more now.
        """
        self._output = output
        self._clock = clock
        self._connections = connections
        self._backlogs = backlogs
        self._review = review
        self._give_up = give_up
        self._end_turn = end_turn
        self.attention = False
        self.bytes_sent = 0
        self.cut_short = False
        self.sending: deque[Connection] = deque()
        self.later: list[Connection] = []
        self._handed: Connection | None = None  # whose backlog the last output was from
        self._last: tuple[PeerId, bytes | memoryview] = _NOTHING  # what it was

    def try_later_ones(self) -> None:
        """Begin a turn: try the backlogs that were put off."""
        self._count_handed()
        for connection in self.later:
            self.send_soon(connection)
        self.later.clear()

    def send_soon(self, connection: Connection) -> None:
        """Have a transport tried in this turn."""
        connection.queued = True
        connection.taken = 0
        self.sending.append(connection)

    def sends(self) -> Iterator[tuple[PeerId, bytes | memoryview]]:
        """Yield what there is to send in this turn; see `Endpoint.sends`."""
        dirty, sending, behind = self._output.dirty, self.sending, self._backlogs.open
        self.cut_short = True
        if self._handed is not None:
            self._count_handed()
        while True:
            if sending and (kept := self._next_kept()) is not None:
                yield kept
                self._count_handed()
            if not dirty:
                if sending or (self.attention and self._end_turn()):
                    continue
                self.cut_short = False
                return
            peer = dirty.popleft()
            if peer.gone:
                self._output.drop(peer)
                continue
            output, size = peer.output, peer.output_size
            peer.output_size = 0
            if len(output) == 1:
                data = output.pop()
            elif size <= BIG:
                data = b"".join(output)
                output.clear()
            else:
                peer.output = []
                self._keep(self._connections[peer.id], output, size)
                continue
            if behind and (connection := self._connections[peer.id]).backlog is not None:
                self._keep(connection, [data], size)
            else:
                self._last = last = peer.id, data
                self.bytes_sent += size
                yield last

    def sent(self, peer: PeerId, count: int, now: float, *, full: bool, buffer_size: int) -> None:
        """Report how much the transport has taken; see `Endpoint.sent`."""
        id_, data = self._last
        missing = len(data) - count
        connection = self._connections.get(peer)
        if id_ != peer or missing <= 0 or connection is None:
            return
        self._last = _NOTHING
        self.bytes_sent -= missing
        if self._handed is connection:
            self._handed = None
            self.sending.popleft()
            connection.queued = False
            self._count(connection, count)
        else:
            connection.backlog = self._backlogs.begin(connection, (), missing)
        connection.rest = memoryview(data)[count:]
        self._rest(connection, now, buffer_size, full=full)

    def _next_kept(self) -> tuple[PeerId, bytes | memoryview] | None:
        """Return the next bytes of a backlog that is to be tried; None if there is none."""
        sending = self.sending
        while sending:
            connection = sending[0]
            backlog = connection.backlog
            if backlog is not None and connection.taken < _MAX_SEND:
                data = connection.rest or backlog.take()
                if data:
                    connection.rest = data
                    self._handed = connection
                    self._last = connection.id, data
                    self.bytes_sent += len(data)
                    return self._last
            sending.popleft()
            connection.queued = False
            if backlog is None:  # it has been closed
                continue
            if connection.taken < _MAX_SEND:
                self._end_backlog(connection)
            else:
                self._rest(connection, self._clock.now, BUFFER, full=False)
        return None

    def _count_handed(self) -> None:
        """Count what was handed out last of a backlog: the transport has taken all of it."""
        handed, self._handed = self._handed, None
        if handed is not None:
            self._count(handed, len(self._last[1]))

    def _count(self, connection: Connection, count: int) -> None:
        """Count bytes of a backlog that the transport has taken."""
        connection.rest = b""
        if count and connection.backlog is not None:
            connection.taken += count
            self._backlogs.sent(connection, connection.backlog, count, self._clock.now)

    def _keep(self, connection: Connection, pieces: list[bytes], size: int) -> None:
        """Queue output behind what the transport has not taken; or as a backlog, as it is much."""
        backlog = connection.backlog
        if backlog is None:
            connection.backlog = self._backlogs.begin(connection, pieces, size)
            self.send_soon(connection)
        elif connection.pending is not None:
            connection.pending += pieces
        elif self._backlogs.may_be_stuck(backlog) and not connection.queued:
            connection.pending = pieces
            self.send_soon(connection)
        else:
            self._add(connection, pieces, size)

    def _add(self, connection: Connection, pieces: list[bytes], size: int) -> None:
        assert connection.backlog is not None
        why = self._backlogs.add(connection, connection.backlog, pieces, size, self._clock.now)
        if why is None:
            self._review(connection)
        else:
            self._give_up(connection, why)

    def _rest(self, connection: Connection, now: float, buffer_size: int, *, full: bool) -> None:
        """Leave a backlog until the transport takes more, or until the next turn."""
        assert connection.backlog is not None
        why = self._backlogs.rest(connection, connection.backlog, buffer_size, now, full=full)
        if why is not None:
            self._give_up(connection, why)
            return
        if not full:
            connection.queued = True
            self.later.append(connection)
        pending, connection.pending = connection.pending, None
        if pending is None:
            self._review(connection)
        else:
            self._add(connection, pending, sum(map(len, pending)))

    def _end_backlog(self, connection: Connection) -> None:
        """Forget a backlog all of which the transport has taken."""
        self._backlogs.end(connection)
        connection.backlog = None
        pending, connection.pending = connection.pending, None
        if pending is not None:
            self._keep(connection, pending, sum(map(len, pending)))
        self._review(connection)
