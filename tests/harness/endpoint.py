"""An endpoint under a virtual clock, with transports that hold a few bytes and peers that read when they are told."""

from __future__ import annotations

import itertools
from typing import Any

from gearproto.codec import Packet
from gearproto.server import (
    Change,
    Close,
    CloseWrite,
    Endpoint,
    Engine,
    PauseReading,
    PeerId,
    ResumeReading,
)

_CLOCK_AHEAD = 1e9  # what wall time is ahead of the virtual clock


class Wire:
    """One connection: what the peer has sent and the driver has not read, and the other way round.

    Attributes:
        id: what the endpoint calls the peer.
        incoming: pieces that the driver reads, each in a turn of its own.
        capacity: bytes that the transport holds; None for no limit.
        held: bytes that it holds, and that the peer has not read.
        got: what the peer has read.
        ended: whether the peer sends no more, and whether the driver has seen it.
        reading: whether the driver reads.
        full: whether the driver waits until it can write.
        write_closed: whether the driver has shut down its side.
        closed: how the connection was closed; None if it is open.
        broken: whether the transport fails at the next use.
    """

    def __init__(self, id_: PeerId, capacity: int | None) -> None:
        self.id = id_
        self.incoming: list[bytes] = []
        self.capacity = capacity
        self.held = b""
        self.got = b""
        self.ended = False
        self.end_seen = False
        self.reading = True
        self.full = False
        self.write_closed = False
        self.closed: Close | None = None
        self.broken = False

    def send(self, *messages: Packet | bytes) -> Wire:
        """Send packets and raw bytes in one piece."""
        self.incoming.append(b"".join(m if isinstance(m, bytes) else m.encode() for m in messages))
        return self

    def read(self, size: int | None = None) -> bytes:
        """Read what the transport holds, or this many bytes of it; return that."""
        data = self.held if size is None else self.held[:size]
        self.held = self.held[len(data) :]
        self.got += data
        return data

    def room(self, size: int) -> int:
        """Return how many bytes of these the transport takes."""
        return size if self.capacity is None else max(0, min(size, self.capacity - len(self.held)))

    @property
    def sent(self) -> bytes:
        """All that the driver has sent."""
        return self.got + self.held


class Driven:
    """An endpoint, and a driver that does what it says.

    Attributes:
        endpoint: the endpoint.
        now: the time.
        wires: the connections that there have been.
        changes: all changes so far.
        reports_all: whether the driver reports even what a transport has taken as a whole.
        sends_a_turn: how much the driver sends in a turn at the most; None for everything.
        may_try_full_ones: whether it may try transports that take no more, as it does before it gives up a peer.
    """

    def __init__(self, *, engine: dict[str, Any] | None = None, **options: Any) -> None:
        self.endpoint = Endpoint(Engine(**{"handle_prefix": b"H", "epoch_offset": 0.0, **(engine or {})}), **options)
        self.now = 1000.0
        self.wires: dict[PeerId, Wire] = {}
        self.changes: list[Change] = []
        self.sends_a_turn: int | None = None
        self.may_try_full_ones = False
        self.reports_all = True

    @property
    def wall(self) -> float:
        """The time in seconds since 1970."""
        return self.now + _CLOCK_AHEAD

    def connect(self, capacity: int | None = None, **details: Any) -> Wire:
        """Accept a connection."""
        peer = self.endpoint.accepted(self.now, **details)
        self.wires[peer] = Wire(peer, capacity)
        return self.wires[peer]

    @property
    def open(self) -> list[Wire]:
        """The connections that are open."""
        return [wire for wire in self.wires.values() if wire.closed is None]

    def turn(self) -> list[Change]:
        """Take one turn; return its changes."""
        endpoint, seen = self.endpoint, len(self.changes)
        readable = [wire for wire in self.open if wire.reading and (wire.incoming or wire.ended)]
        writable = [wire for wire in self.open if wire.full and wire.room(1)]
        endpoint.begin_turn(self.now, self.wall, len({*readable, *writable}))
        for wire in writable:
            wire.full = False
            endpoint.writable(wire.id)
        for wire in readable:
            self._read(wire)
        endpoint.settle(self.now)
        self._apply()
        for peer, data in itertools.islice(endpoint.sends(), self.sends_a_turn):
            self._send(self.wires[peer], bytes(data))
        self._apply()
        return self.changes[seen:]

    def _read(self, wire: Wire) -> None:
        if wire.broken:
            self.endpoint.lost(wire.id, self.now, "reset")
        elif wire.incoming:
            self.endpoint.received(wire.id, wire.incoming.pop(0), self.now)
        elif not wire.end_seen:
            wire.end_seen = True
            self.endpoint.ended(wire.id, self.now)

    def _send(self, wire: Wire, data: bytes) -> None:
        assert data
        assert wire.closed is None
        assert not wire.write_closed
        assert not wire.full or self.may_try_full_ones
        taken = 0 if wire.broken else wire.room(len(data))
        wire.held += data[:taken]
        wire.full = taken < len(data)
        if taken < len(data) or self.reports_all:
            self.endpoint.sent(wire.id, taken, self.now, buffer_size=wire.capacity or 0)
        if wire.broken:
            self.endpoint.lost(wire.id, self.now, "reset")

    def _apply(self) -> None:
        while self.endpoint.changes:
            change = self.endpoint.changes.popleft()
            self.changes.append(change)
            if isinstance(change, PauseReading | ResumeReading):
                wire = self.wires[change.peer]
                assert wire.closed is None
                assert wire.reading is isinstance(change, PauseReading)
                wire.reading = not wire.reading
            elif isinstance(change, CloseWrite):
                self.wires[change.peer].write_closed = True
            elif isinstance(change, Close):
                assert self.wires[change.peer].closed is None
                self.wires[change.peer].closed = change

    def settle(self, most: int = 1000) -> list[Change]:
        """Take turns as long as there is a reason for one; return all changes."""
        seen = len(self.changes)
        for _ in range(most):
            self.turn()
            deadline = self.endpoint.next_deadline()
            ready = any(
                (wire.reading and (wire.incoming or (wire.ended and not wire.end_seen))) or (wire.full and wire.room(1))
                for wire in self.open
            )
            if not ready and (deadline is None or deadline > self.now):
                return self.changes[seen:]
        raise AssertionError(f"not at rest after {most} turns")

    def wait(self, seconds: float) -> list[Change]:
        """Let time pass, deadline by deadline; return all changes."""
        seen, end = len(self.changes), self.now + seconds
        while True:
            self.settle()
            deadline = self.endpoint.next_deadline()
            if deadline is None or deadline > end:
                break
            self.now = deadline
        self.now = end
        self.settle()
        return self.changes[seen:]
