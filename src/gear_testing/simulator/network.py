"""The network of a simulation: connections that delay, split, stall, break and fall silent.

Theory of operation. A `Connection` has two directions, each a `Pipe`. What a party sends goes to the pipe's buffer, as
to that of a socket. From there pieces of any size leave, travel for a while, and come to the inbox of the receiver in
their order; connections overtake each other, pieces of one connection do not. A receiver that is paused leaves its
inbox alone; once the inbox is full nothing more leaves, so that the sender's buffer grows.

A connection ends in one of four ways: one direction is closed once everything has arrived (half close), both are; it is
reset, which destroys what is on its way and of which each side hears at its own time; or it falls silent, and nothing
arrives any more until a side gives up or is told by its system much later.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Protocol

from gear_testing.clock import VirtualClock

__all__ = ["Connection", "End", "Pipe"]

_WINDOW = 2000  # bytes that an inbox takes while its owner does not look
_SIZES = (1, 11, 12, 13, 50, 400)  # of pieces; a header has 12 bytes


class End(Protocol):
    """A party at one end of a connection."""

    def readable(self, pipe: Pipe) -> None:
        """Look into the inbox of a pipe, or do so when no longer paused."""
        ...

    def sent(self, pipe: Pipe, size: int) -> None:
        """Hear that bytes have left the buffer of a pipe; 0 if it has become empty."""
        ...


class Pipe:
    """One direction of a connection.

    Attributes:
        buffer: what the sender has given, and has not left yet.
        inbox: pieces that have arrived, in their order; None is the end.
        broken: whether nothing leaves or arrives any more.
    """

    __slots__ = (
        "_busy",
        "_clock",
        "_ending",
        "_inbox_size",
        "_latency",
        "_newest",
        "_random",
        "_receiver",
        "_sender",
        "broken",
        "buffer",
        "inbox",
        "name",
    )

    def __init__(self, name: str, clock: VirtualClock, random: Random, sender: End, receiver: End) -> None:
        self.name = name
        self.buffer = bytearray()
        self.inbox: deque[bytes | None] = deque()
        self.broken = False
        self._clock = clock
        self._random = random
        self._sender = sender
        self._receiver = receiver
        self._latency = random.choice((0.0, 0.001, 0.1))
        self._busy = False
        self._ending = False
        self._inbox_size = 0
        self._newest = 0.0

    def send(self, data: bytes) -> None:
        """Queue bytes."""
        self.buffer += data
        self._continue()

    def close(self) -> None:
        """Send what there is, and then the end."""
        self._ending = True
        self._continue()

    def take(self) -> bytes | None:
        """Return the oldest piece of the inbox, which must not be empty; None is the end."""
        piece = self.inbox.popleft()
        if piece is not None:
            self._inbox_size -= len(piece)
            self._continue()
        return piece

    def _continue(self) -> None:
        if not self._busy and not self.broken and self._inbox_size < _WINDOW and (self.buffer or self._ending):
            self._busy = True
            self._clock.after(0.0, self._leave)

    def _leave(self) -> None:
        """Let one piece leave."""
        self._busy = False
        if self.broken:
            return
        random, clock = self._random, self._clock
        self._newest = max(self._newest, clock.now + self._latency * random.random())
        if self.buffer:
            size = random.choice(_SIZES) if random.random() < 0.7 else len(self.buffer)
            piece = bytes(self.buffer[:size])
            del self.buffer[:size]
            self._sender.sent(self, len(piece))
            clock.at(self._newest, lambda: self._arrive(piece))
        if self.buffer:
            if self._inbox_size < _WINDOW:
                self._busy = True
                clock.after(self._latency * random.random() / 4, self._leave)
            return
        self._sender.sent(self, 0)
        if self._ending and not self.buffer:
            self._ending = False
            clock.at(self._newest, lambda: self._arrive(None))

    def _arrive(self, piece: bytes | None) -> None:
        if self.broken:
            return
        self._inbox_size += len(piece or b"")
        self.inbox.append(piece)
        self._receiver.readable(self)


class Connection:
    """A connection between a client or worker and a server.

    Attributes:
        up: what goes to the server.
        down: what comes from it.
    """

    __slots__ = ("down", "up")

    def __init__(self, name: str, clock: VirtualClock, random: Random, peer: End, server: End) -> None:
        self.up = Pipe(f"{name} up", clock, random, peer, server)
        self.down = Pipe(f"{name} down", clock, random, server, peer)

    @property
    def broken(self) -> bool:
        """Whether both directions are broken."""
        return self.up.broken

    def cut(self) -> None:
        """Destroy what is on its way, in both directions. Nobody is told."""
        for pipe in (self.up, self.down):
            pipe.broken = True
            pipe.buffer.clear()
