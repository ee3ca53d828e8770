"""What is fuzzed. A target takes any bytes, and raises only if there is a fault.

The bytes are a script: some of them say how the rest is split, who sends it, and what happens meanwhile. So every input
means something, and an input that is found once stays what it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from gearproto import (
    ClientConnection,
    LocalProtocolError,
    Priority,
    RemoteProtocolError,
    ServerError,
    WorkerConnection,
    admin,
)
from gearproto.admin import ReplyReader
from gearproto.codec import HEADER, Route, decoders
from gearproto.connection import Connection
from gearproto.event import Event
from gearproto.events import (
    AdminReplied,
    ConnectionClosed,
    Echoed,
    JobAssigned,
    JobEnded,
    JobQueued,
    OptionSet,
    RequestFailed,
    RequestId,
    RequestLost,
    StatusReceived,
)
from gearproto.framing import Decoder
from gearproto.server import Engine, JobGivenUp, PeerFailed, PeerId, ShutdownRequested

__all__ = ["TARGETS", "Target"]

Target = Callable[[bytes], None]

_LIMIT: Final = 300  # bytes of a packet, or of a line
_TABLES: Final = (decoders(Route.TO_SERVER), decoders(Route.FROM_SERVER))
_COMMANDS: Final[tuple[admin.Command[Any], ...]] = (
    *(admin.Status(), admin.PriorityStatus(), admin.Workers(), admin.ShowJobs(), admin.ShowUniqueJobs()),
    *(admin.Version(), admin.GetPid(), admin.CancelJob(b"H:1"), admin.MaxQueue(b"f", (1, 2, 3))),
)


def _chunks(script: bytes) -> Iterator[bytes]:
    """Split a script into chunks: each begins with its size, and the last takes what is left."""
    at = 0
    while at < len(script):
        size = script[at] % 64
        yield script[at + 1 : at + 1 + size]
        at += 1 + size


# The decoder


def decoder(data: bytes) -> None:
    """Read a stream in one piece and in chunks: both give the same events, and nothing over the limits is kept."""
    table = _TABLES[bool(data[:1]) and data[0] & 1]
    chunks = list(_chunks(data[1:]))
    whole = _decode(table, [b"".join(chunks)])
    assert whole == _decode(table, chunks)


def _decode(table: Any, chunks: list[bytes]) -> tuple[list[Event], str]:
    reader = Decoder(table, max_packet_size=_LIMIT, max_line_size=_LIMIT)
    events: list[Event] = []
    for chunk in chunks:
        reader.feed(chunk)
        try:
            events += iter(reader.next, None)
        except RemoteProtocolError as error:
            return events, str(error)
        assert reader.buffered <= _LIMIT + HEADER.size
    return events, ""


# The text protocol


def text(data: bytes) -> None:
    """Read a line as a command, and lines as the answer to each command; what was understood can be said again."""
    line, *lines = data.split(b"\n")
    try:
        command = admin.parse_command(line)
    except RemoteProtocolError:
        pass
    else:
        if isinstance(command, admin.Command):
            _say_again(command)
    for asked in _COMMANDS:
        reader = ReplyReader(asked, _LIMIT)
        try:
            for text_line in lines:
                if (reply := reader.feed(text_line)) is not None:
                    _read_again(asked, reply)
                    break
        except RemoteProtocolError:
            pass


def _say_again(command: admin.Command[Any]) -> None:
    try:
        line = command.encode()
    except LocalProtocolError:
        return  # a server understands more than a client says
    assert admin.parse_command(line.removesuffix(b"\r\n")) == command


def _read_again(command: admin.Command[Any], reply: admin.Reply) -> None:
    if isinstance(reply, admin.Rows):
        for row in reply.rows:
            assert type(row).decode(row.encode()) == row
    with suppress(ServerError):
        command.result(reply)


# The job server

_ENGINE: Final[dict[str, Any]] = {
    "handle_prefix": b"H",
    "epoch_offset": 0.0,
    "job_retries": 1,
    "max_packet_size": _LIMIT,
    "max_line_size": _LIMIT,
    "max_output_size": 200,
    "max_functions": 4,
    "max_jobs": 8,
    "max_queue_size": 2000,
    "max_idle_functions": 2,
    "max_kept_functions": 2,
    "allow_shutdown": True,
    "work_limit": 20,
}
_FROM_SERVER: Final = decoders(Route.FROM_SERVER)


class _Server:
    """An engine with four peers, which come again when they are gone."""

    def __init__(self) -> None:
        self.engine = Engine(**_ENGINE)
        self.now = 0.0
        self.peers = [self.engine.connect(0.0) for _ in range(4)]
        self.decoders = {peer: Decoder(_FROM_SERVER) for peer in self.peers}

    def step(self, number: int, action: int, chunk: bytes) -> None:
        engine, peer = self.engine, self.peers[number]
        if action == 0:
            self.leave(peer)
        elif action == 1:
            self.now += len(chunk) / 4
            deadline = engine.next_deadline()
            if deadline is not None and deadline <= self.now:
                engine.handle_timeout(self.now)
        else:
            engine.receive_data(peer, chunk, self.now)
        self.settle()
        for paused in list(engine.paused_peers()):
            engine.resume(paused, self.now)
            self.settle()

    def leave(self, peer: PeerId) -> None:
        self.engine.disconnect(peer, self.now)
        del self.decoders[peer]
        new = self.engine.connect(self.now)
        self.peers[self.peers.index(peer)] = new
        self.decoders[new] = Decoder(_FROM_SERVER)

    def settle(self) -> None:
        """Take everything: output has to make sense, and a peer that has failed is closed."""
        while (transmit := self.engine.next_transmit()) is not None:
            peer, data = transmit
            reader = self.decoders[peer]
            reader.feed(data)
            for _message in iter(reader.next, None):
                pass
            assert reader.buffered == 0
        while (event := self.engine.next_event()) is not None:
            assert isinstance(event, JobGivenUp | PeerFailed | ShutdownRequested)
            if isinstance(event, PeerFailed):
                self.leave(event.peer)


def engine(data: bytes) -> None:
    """Let four peers send anything, leave and come again, while time passes; the server's books stay right."""
    server = _Server()
    for number, chunk in enumerate(_chunks(data)):
        if number > 200:
            break
        if chunk:
            server.step(chunk[0] & 3, chunk[0] >> 2 & 3, chunk[1:])
    counters = server.engine.counters()
    assert counters.peers == 4
    assert counters.submitted - counters.ended == counters.queued + counters.delayed + counters.running
    assert len(server.engine.queue.jobs) == counters.submitted - counters.ended <= _ENGINE["max_jobs"]
    for peer in list(server.peers):
        server.leave(peer)
        server.settle()
    left = server.engine.counters()
    assert left.running == 0
    assert all(job.background for job in server.engine.queue.jobs.values())


# Clients and workers


def _receive(connection: Connection, chunks: Iterator[bytes], on_event: Callable[[Event], None]) -> None:
    """Let a connection receive chunks, and then its end; the last event says that it is closed."""
    events: list[Event] = []
    for number, chunk in enumerate(chunks):
        connection.receive_data(chunk, float(number))
        for event in connection.events():
            events.append(event)
            on_event(event)
        connection.data_to_send()
    connection.connection_lost("the end")
    for event in connection.events():
        events.append(event)
        on_event(event)
    assert connection.closed
    assert connection.next_event() is None
    assert isinstance(events[-1], ConnectionClosed)
    assert sum(isinstance(event, ConnectionClosed) for event in events) == 1


_ANSWERS: Final = (AdminReplied, Echoed, JobEnded, OptionSet, RequestFailed, RequestLost, StatusReceived)


def client(data: bytes) -> None:
    """Make requests, and let a server send anything: every request ends exactly once, whatever comes."""
    conn = ClientConnection(max_packet_size=_LIMIT, max_line_size=_LIMIT)
    asked: dict[RequestId, bool] = {}
    for kind in data[:1].ljust(1) + data[1:2]:
        for bit in range(8):
            if kind >> bit & 1:
                asked[_ask(conn, bit)] = bit == 1
    taken: set[RequestId] = set()
    ends: Counter[RequestId] = Counter()

    def on_event(event: Event) -> None:
        if isinstance(event, JobQueued):
            assert event.request not in taken
            taken.add(event.request)
        elif isinstance(event, _ANSWERS):
            ends[event.request] += 1

    _receive(conn, _chunks(data[2:]), on_event)
    for request, background in asked.items():
        expected = 0 if background and request in taken else 1
        assert ends[request] == expected, f"request {request} has {ends[request]} ends"


def _ask(conn: ClientConnection, which: int) -> RequestId:
    match which:
        case 0:
            return conn.submit_job(b"f", b"w")
        case 1:
            return conn.submit_job(b"f", b"w", background=True, priority=Priority.HIGH)
        case 2:
            return conn.submit_job(b"f", b"w", unique=b"u")
        case 3:
            return conn.get_status(b"H:1")
        case 4:
            return conn.get_status_unique(b"u")
        case 5:
            return conn.set_option(b"exceptions", optional=True)
        case 6:
            return conn.echo(b"e")
        case _:
            return conn.admin(admin.Status())


def worker(data: bytes) -> None:
    """Work on whatever a server assigns: each job is reported on once, and the cycle of grabbing never breaks."""
    head = data[0] if data else 0
    conn = WorkerConnection(asks_when_woken=head & 1 == 0, max_packet_size=_LIMIT, max_line_size=_LIMIT)
    conn.can_do(b"f", timeout_ms=1000 if head & 2 else None)
    conn.grab_job()
    assigned: Counter[bytes] = Counter()

    def on_event(event: Event) -> None:
        if isinstance(event, JobAssigned):
            assigned[event.handle] += 1
            assert conn.in_hand[event.handle] <= assigned[event.handle]
            if head & 4 and not conn.closed:
                _end(conn, event, head)

    _receive(conn, _chunks(data[1:]), on_event)


def _end(conn: WorkerConnection, job: JobAssigned, how: int) -> None:
    try:
        conn.work_status(job.handle, 1, 2)
        conn.work_data(job.handle, job.workload)
        if how & 8:
            conn.work_exception(job.handle, b"")
        else:
            conn.work_complete(job.handle, job.workload)
        conn.grab_job()
    except LocalProtocolError:
        pass  # the packet is over the limit, or the connection has just ended


TARGETS: Final[dict[str, Target]] = {
    "decoder": decoder,
    "engine": engine,
    "admin": text,
    "client": client,
    "worker": worker,
}
"""Every target by its name."""
