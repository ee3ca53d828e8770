"""A job server of a simulation: an endpoint and the driver that it needs, its connections, and the judge.

The driver is that of any program which embeds the server: it takes a turn whenever something has arrived or a deadline
has come. Now and then a transport takes a part of what it is given; what is left is offered again in a further turn, so
that the judge has seen all output of a step before it looks at the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gearproto.server import (
    Change,
    Close,
    CloseWrite,
    Endpoint,
    Engine,
    JobGivenUp,
    PauseReading,
    PeerId,
    ResumeReading,
)

from .invariants import Invariant, Violation
from .judge import Judge
from .network import Connection, Pipe
from .parties import Party, Timer, World

__all__ = ["Server"]

_WAKEUP_TIMEOUT: Final = 1.0  # seconds
_PARTLY: Final = 0.1  # how often a transport takes a part of what it is given


class Server(Party):
    """One run of a job server, from its start to its crash.

    Attributes:
        generation: part of its handles, which no other run has.
        engine: the server's logic.
        judge: compares it with the model.
        connections: those that it has not lost yet.
    """

    def __init__(
        self,
        name: str,
        world: World,
        generation: int,
        options: dict[str, Any],
        *,
        pause_at: int,
        on_arrival: Callable[[bytes], object],
        make: Callable[..., Engine] = Engine,
        check: Callable[[Engine], object] | None = None,
    ) -> None:
        """Start.

        Args:
            name: what the trace calls it.
            world: the simulation.
            generation: part of its handles.
            options: those of the engine.
            pause_at: as in `Endpoint`.
            on_arrival: is called with the workload of each submission that arrives.
            make: makes the engine; for tests of the simulator.
            check: looks at the engine after every step.
        """
        super().__init__(name, world)
        self.generation = generation
        prefix = b"H%d" % generation
        retries: int = options["job_retries"]
        self.judge = Judge(
            handle_prefix=prefix, job_retries=retries, wakeup_timeout=_WAKEUP_TIMEOUT, on_arrival=on_arrival
        )
        self.engine = make(
            handle_prefix=prefix,
            epoch_offset=0.0,
            wakeup_timeout=_WAKEUP_TIMEOUT,
            on_request=self.judge.on_request,
            on_line=self.judge.on_line,
            **options,
        )
        self.connections: dict[PeerId, Connection] = {}
        self._endpoint = Endpoint(self.engine, pause_at=pause_at)
        self._peers: dict[Pipe, PeerId] = {}
        self._left: dict[PeerId, bytes] = {}  # what transports have not taken, and are offered again
        self._resting: set[PeerId] = set()  # those that are not read
        self._offset = 0.0
        self._deadline: float | None = None
        self._engine_is_called_at: float | None = None
        self._check = check
        self._timer = Timer(self, lambda: self._deadline, lambda: self._turn(lambda: None))

    def accept(self, connection: Connection) -> None:
        """Take a new connection, which its system has opened: a paused server accepts it later."""
        self.when_awake(lambda: self._accept(connection))

    def _accept(self, connection: Connection) -> None:
        peer = self._endpoint.accepted(self.clock.now)
        self.note(f"accepts peer {peer}: {connection.up.name}")
        self.judge.connected(peer)
        self.connections[peer] = connection
        self._peers[connection.up] = self._peers[connection.down] = peer
        self._read(connection.up)

    def hears_of_loss(self, connection: Connection) -> None:
        """Be told by the system that a connection is gone."""
        self.when_awake(lambda: self._lose(connection))

    def _lose(self, connection: Connection) -> None:
        peer = self._peers.get(connection.up)
        if peer is not None:
            self._turn(lambda: self._endpoint.lost(peer, self.clock.now))

    def jump(self, seconds: float) -> None:
        """Have the wall clock put forward or back."""
        if self.alive:
            self.note(f"has its clock put by {seconds:g} s")
            self._offset += seconds

    def set_clock(self) -> None:
        """Have the wall clock put right."""
        self.jump(-self._offset)

    # Input

    def _read(self, pipe: Pipe) -> None:
        while pipe.inbox and (peer := self._peers.get(pipe)) is not None and peer not in self._resting:
            self._take(pipe, pipe.take())

    def _take(self, pipe: Pipe, data: bytes | None) -> None:
        peer, now = self._peers[pipe], self.clock.now
        if data is None:
            self.note(f"has the end of peer {peer}")
            self._turn(lambda: self._endpoint.ended(peer, now))
        else:
            self.note(f"receives {len(data)} bytes of peer {peer}")
            self._turn(lambda: self._endpoint.received(peer, data, now))

    def sent(self, pipe: Pipe, size: int) -> None:
        """Do nothing: a transport that has taken a part is asked again at once."""

    # A turn

    def _turn(self, what: Callable[[], object]) -> None:
        """Tell the endpoint what has happened, do what it says, and have it judged."""
        self._take_turn(what)
        while self._left:
            self._take_turn(self._offer_again)
        now = self.clock.now
        self.judge.settle(now, self.engine.epoch_offset)
        if (due := self.engine.next_deadline()) is None or due > now:
            self.judge.check(self.engine)
        if self._check is not None:
            self._check(self.engine)
        self._timer.set()

    def _offer_again(self) -> None:
        for peer in self._left:
            self._endpoint.writable(peer)

    def _take_turn(self, what: Callable[[], object]) -> None:
        endpoint, judge, now = self._endpoint, self.judge, self.clock.now
        endpoint.begin_turn(now, now + self._offset)
        what()
        self._apply()
        if self._engine_is_called_at is not None and self._engine_is_called_at <= now:
            judge.timed_out()
        endpoint.settle(now)
        self._apply()
        for peer, data in endpoint.sends():
            self._send(peer, bytes(data))
        self._apply()
        self._deadline = endpoint.next_deadline()
        self._engine_is_called_at = now if self._deadline == now else self.engine.next_deadline()

    def _send(self, peer: PeerId, data: bytes) -> None:
        """Give a transport all that it is offered, or a part of it."""
        left = self._left.pop(peer, b"")
        if not data.startswith(left):
            raise Violation(Invariant.ANSWERS, f"peer {peer} is offered {data!r}, and not {left!r}, which is left")
        self.judge.on_output(peer, data[len(left) :])
        taken = len(data)
        if self.random.random() < _PARTLY:
            taken = self.random.randrange(taken)
            self._left[peer] = data[taken:]
        self.connections[peer].down.send(data[:taken])
        self._endpoint.sent(peer, taken, self.clock.now)

    def _apply(self) -> None:
        changes = self._endpoint.changes
        while changes:
            self._change(changes.popleft())

    def _change(self, change: Change) -> None:
        match change:
            case Close():
                self._close(change.peer)
            case PauseReading():
                self._resting.add(change.peer)
            case ResumeReading():
                self._resting.discard(change.peer)
                pipe = self.connections[change.peer].up
                self.clock.after(0.0, lambda: self.readable(pipe))
            case JobGivenUp():
                self.judge.given_up(change.handle)
            case CloseWrite():
                self.connections[change.peer].down.close()
            case _:
                raise Violation(Invariant.NO_FAULT, f"the server tells {change}")

    def _close(self, peer: PeerId) -> None:
        self.note(f"closes peer {peer}")
        connection = self.connections.pop(peer)
        del self._peers[connection.up], self._peers[connection.down]
        self._resting.discard(peer)
        self._left.pop(peer, None)
        connection.down.close()
        self.judge.disconnected(peer)
