"""What clients and workers of a simulation share: connections to servers, which they open again when they are lost."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from gearproto.connection import Connection as ProtocolConnection
from gearproto.event import Event
from gearproto.events import ConnectionClosed

from .network import Connection, Pipe
from .parties import Party, Timer, World
from .server import Server

__all__ = ["Peer", "PeerWorld", "Session"]

_C = TypeVar("_C", bound=ProtocolConnection)


class PeerWorld(World, Protocol):
    """The simulation as clients and workers see it."""

    @property
    def faults_end(self) -> float:
        """When the faults end, in seconds."""
        ...

    def server(self, number: int) -> Server:
        """Return the run of a server that takes connections now."""
        ...


class Session(Generic[_C]):
    """One server of a client or worker, and the connection to it while there is one.

    Attributes:
        number: which server.
        conn: the protocol's side of the connection; None while there is none.
        network: the network's side.
    """

    def __init__(self, owner: Peer[_C], number: int) -> None:
        self.number = number
        self.conn: _C | None = None
        self.network: Connection | None = None
        self._owner = owner
        self._connections = 0
        self._timer = Timer(owner, self._next_deadline, self._on_time)

    @property
    def open(self) -> _C | None:
        """The connection, if it can be used."""
        return None if self.conn is None or self.conn.closed else self.conn

    def connect(self) -> None:
        """Open a connection."""
        owner = self._owner
        if self.conn is not None or self not in owner.sessions:
            return  # it is open already, or belongs to a life before a crash
        self._connections += 1
        server = owner.world.server(self.number)
        name = f"{owner.name}-{server.name}.{self._connections}"
        owner.note(f"connects as {name}")
        self.network = Connection(name, owner.clock, owner.random, owner, server)
        owner.sessions_by_pipe[self.network.up] = owner.sessions_by_pipe[self.network.down] = self
        server.accept(self.network)
        self.conn = owner.new_connection(self)
        self.settle()

    def receive(self, data: bytes | None) -> None:
        """Take what has arrived; None is the end."""
        if self.conn is None:
            return
        if data is None:
            self.conn.receive_eof()
        else:
            self.conn.receive_data(data, self._owner.clock.now)
        self.settle()

    def lost(self, network: Connection) -> None:
        """Be told by the system that a connection is gone."""
        if self.conn is not None and self.network is network:
            self.conn.connection_lost("reset")
            self.settle()

    def leave(self) -> None:
        """Close the connection, whatever is open."""
        if self.conn is not None:
            self._owner.note(f"leaves {self.number}")
            self.conn.connection_lost("closed here")
            self.settle()

    def settle(self) -> None:
        """Take all events and all output."""
        conn, network, owner = self.conn, self.network, self._owner
        if conn is None or network is None:
            return
        while (event := conn.next_event()) is not None:
            if not isinstance(event, ConnectionClosed):
                owner.on_event(self, event)
        if conn.closed:
            self._hang_up(network)
            return
        owner.settled(self)
        self.flush()
        self._timer.set()

    def flush(self) -> None:
        """Send what the connection has queued."""
        if self.conn is not None and self.network is not None and (data := self.conn.data_to_send()):
            self.network.up.send(data)

    def _hang_up(self, network: Connection) -> None:
        owner = self._owner
        network.up.buffer.clear()
        network.up.close()
        del owner.sessions_by_pipe[network.up], owner.sessions_by_pipe[network.down]
        conn, self.conn, self.network = self.conn, None, None
        assert conn is not None
        owner.on_closed(self, conn)
        owner.clock.after(owner.random.choice((0.0, 0.1, 2.0)), lambda: owner.when_awake(self.connect))

    def _next_deadline(self) -> float | None:
        return None if self.conn is None else self.conn.next_deadline()

    def _on_time(self) -> None:
        if self.conn is not None:
            self.conn.handle_timeout(self._owner.clock.now)
            self.settle()


class Peer(Party, Generic[_C]):
    """A client or a worker.

    Attributes:
        world: the simulation.
        sessions: its servers.
        sessions_by_pipe: the same by the pipes of their connections.
    """

    def __init__(self, name: str, world: PeerWorld, servers: list[int]) -> None:
        super().__init__(name, world)
        self.alive = False
        self.world = world
        self.sessions_by_pipe: dict[Pipe, Session[_C]] = {}
        self.sessions = [Session(self, number) for number in servers]

    def start(self) -> None:
        """Begin, or begin again after a crash: connect to all servers."""
        self.alive = True
        for session in self.sessions:
            session.connect()

    def crash(self) -> list[Connection]:
        """Be gone, with all that only this party knows; return the connections that are left without an end."""
        self.stop()
        left = [session.network for session in self.sessions if session.network is not None]
        self.sessions_by_pipe.clear()
        for session in self.sessions:
            session.conn = session.network = None
        self.sessions = [Session(self, session.number) for session in self.sessions]
        return left

    def hears_of_loss(self, connection: Connection) -> None:
        """Be told by the system that a connection is gone."""
        session = self.sessions_by_pipe.get(connection.up)
        if session is not None:
            self.when_awake(lambda: session.lost(connection))

    def _take(self, pipe: Pipe, data: bytes | None) -> None:
        session = self.sessions_by_pipe.get(pipe)
        if session is not None:
            self.note(f"receives {'the end' if data is None else f'{len(data)} bytes'} of {pipe.name}")
            session.receive(data)

    def sent(self, pipe: Pipe, size: int) -> None:
        """Tell a connection that its output has left."""
        session = self.sessions_by_pipe.get(pipe)
        if size and session is not None and session.conn is not None:
            session.conn.data_sent(size, self.clock.now)

    def new_connection(self, session: Session[_C]) -> _C:
        """Return a connection on which the peer has introduced itself."""
        raise NotImplementedError

    def on_event(self, session: Session[_C], event: Event) -> None:
        """Take an event of a connection."""
        raise NotImplementedError

    def settled(self, session: Session[_C]) -> None:
        """Say what follows from the events of a connection."""

    def on_closed(self, session: Session[_C], conn: _C) -> None:
        """Record that a connection is gone."""
