"""A job server of a simulation: an engine, its connections, and the judge that watches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gearproto.server import Engine, PeerId

from .judge import Judge
from .network import Connection, Pipe
from .parties import Party, Timer, World

__all__ = ["Server"]

_WAKEUP_TIMEOUT = 1.0  # seconds


class Server(Party):
    """One run of a job server, from its start to its crash.

    Attributes:
        generation: part of its handles, which no other run has.
        engine: the server.
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
        self._peers: dict[Pipe, PeerId] = {}
        self._resuming: set[PeerId] = set()
        self._check = check
        self._timer = Timer(self, self.engine.next_deadline, self._on_time)

    def accept(self, connection: Connection) -> None:
        """Take a new connection, which its system has opened: a paused server accepts it later."""
        self.when_awake(lambda: self._accept(connection))

    def _accept(self, connection: Connection) -> None:
        peer = self.engine.connect(self.clock.now)
        self.note(f"accepts peer {peer}: {connection.up.name}")
        self.judge.connected(peer)
        self.connections[peer] = connection
        self._peers[connection.up] = self._peers[connection.down] = peer
        self._read(connection.up)

    def hears_of_loss(self, connection: Connection) -> None:
        """Be told by the system that a connection is gone."""
        self.when_awake(lambda: self._lose(connection.up))

    def jump(self, seconds: float) -> None:
        """Have the wall clock put forward or back."""
        if self.alive:
            self.note(f"has its clock put by {seconds:g} s")
            self.engine.epoch_offset += seconds
            self._timer.set()

    def _read(self, pipe: Pipe) -> None:
        if pipe in self._peers:  # else it is not accepted yet, or lost
            super()._read(pipe)

    def _take(self, pipe: Pipe, data: bytes | None) -> None:
        peer = self._peers.get(pipe)
        if peer is None:
            return
        if data is None:
            self._lose(pipe)
            return
        self.note(f"receives {len(data)} bytes of peer {peer}")
        self.engine.receive_data(peer, data, self.clock.now)
        self._settle()

    def sent(self, pipe: Pipe, size: int) -> None:
        """Resume a paused peer once its output has been sent."""
        if not size and self.alive and (peer := self._peers.get(pipe)) in self.engine.paused_peers():
            assert peer is not None
            self._resume_soon(peer)

    def _resume_soon(self, peer: PeerId) -> None:
        if peer not in self._resuming:
            self._resuming.add(peer)
            self.clock.after(0.0, lambda: self.when_awake(lambda: self._resume(peer)))

    def _resume(self, peer: PeerId) -> None:
        self._resuming.discard(peer)
        if peer in self.engine.paused_peers() and not self.connections[peer].down.buffer:
            self.note(f"resumes peer {peer}")
            self.engine.resume(peer, self.clock.now)
            self._settle()

    def _lose(self, pipe: Pipe) -> None:
        peer = self._peers.pop(pipe, None)
        if peer is None:
            return
        connection = self.connections.pop(peer)
        self._peers.pop(connection.down, None)
        self.note(f"loses peer {peer}")
        now = self.clock.now
        self.engine.disconnect(peer, now)
        connection.down.close()
        self._take_output()
        self.judge.disconnected(peer, now)
        self._judge()

    def _on_time(self) -> None:
        now, offset = self.clock.now, self.engine.epoch_offset
        self.note("does what is due")
        self.engine.handle_timeout(now)
        self._take_output()
        self.judge.timed_out(now, offset)
        self._judge()

    def _settle(self) -> None:
        self._take_output()
        self._judge()

    def _take_output(self) -> None:
        engine, judge = self.engine, self.judge
        while (event := engine.next_event()) is not None:
            judge.on_event(event)
        while (transmit := engine.next_transmit()) is not None:
            peer, data = transmit
            judge.on_output(peer, data)
            self.connections[peer].down.send(data)

    def _judge(self) -> None:
        engine, now = self.engine, self.clock.now
        self.judge.settle(now, engine.epoch_offset)
        for peer in engine.paused_peers():
            if not self.connections[peer].down.buffer:
                self._resume_soon(peer)
        if (due := engine.next_deadline()) is None or due > now:
            self.judge.check(engine)
        if self._check is not None:
            self._check(engine)
        self._timer.set()
