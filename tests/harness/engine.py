"""An engine under a virtual clock, its peers as objects that speak packets, and a check of its books."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from gearproto.codec import Packet, Route, decoders
from gearproto.event import Event
from gearproto.framing import Decoder
from gearproto.packets import CanDo, GrabJobUniq, JobAssignUniq, JobCreated, NoJob, PreSleep
from gearproto.server import Counters, Engine, PeerFailed, PeerId
from gearproto.server.costs import ABILITY, CANCELLED, FUNCTION, JOB, JOIN, PEER
from gearproto.server.jobs import FunctionQueue, Job, JobState
from gearproto.server.queue import JobQueue

_FROM_SERVER = decoders(Route.FROM_SERVER)


def nth_handle(number: int) -> bytes:
    """Return the handle of the job that was submitted as this one, counted from 1."""
    return b"H:%015d" % number


class Peer:
    """One connection to the engine, which may be a client, a worker and an administrator at once."""

    def __init__(self, bench: Bench, id_: PeerId) -> None:
        self.bench = bench
        self.id = id_
        self.pieces: list[bytes] = []  # output as it left, not yet looked at
        self._decoder = Decoder(_FROM_SERVER)

    def send(self, *messages: Packet | bytes) -> Peer:
        """Send packets and raw bytes in one piece, and settle."""
        data = b"".join(message if isinstance(message, bytes) else message.encode() for message in messages)
        self.bench.engine.receive_data(self.id, data, self.bench.now)
        self.bench.settle()
        return self

    def received(self) -> list[Event]:
        """Return the packets and lines that came since the last call."""
        self._decoder.feed(self.raw())
        return list(iter(self._decoder.next, None))

    def raw(self) -> bytes:
        """Return the bytes that came since the last call."""
        data = b"".join(self.pieces)
        self.pieces.clear()
        return data

    def ask(self, message: Packet | bytes) -> Event:
        """Send one message, and return its one answer."""
        assert self.received() == []
        (answer,) = self.send(message).received()
        return answer

    def command(self, line: bytes) -> bytes:
        """Send a line of text, and return the answer byte by byte."""
        assert not self.pieces
        return self.send(line + b"\n").raw()

    def submit(self, packet: Packet) -> bytes:
        """Submit a job, and return its handle."""
        answer = self.ask(packet)
        assert isinstance(answer, JobCreated), answer
        return answer.handle

    def grab(self) -> JobAssignUniq | None:
        """Ask for a job, and return it."""
        answer = self.ask(GrabJobUniq())
        if isinstance(answer, NoJob):
            return None
        assert isinstance(answer, JobAssignUniq), answer
        return answer

    def grabbed(self) -> bytes:
        """Ask for a job that is certainly there, and return its handle."""
        job = self.grab()
        assert job is not None
        return job.handle

    def fall_asleep(self) -> Peer:
        """Find no job, and sleep."""
        assert self.grab() is None
        assert self.send(PreSleep()).received() == []
        return self

    def leave(self) -> None:
        """Lose the connection."""
        self.bench.engine.disconnect(self.id, self.bench.now)
        del self.bench.peers[self.id]
        self.bench.settle()


class Bench:
    """An engine, its peers and its time."""

    def __init__(self, *, checked: bool = True, now: float = 1000.0, **options: Any) -> None:
        """Begin.

        Args:
            checked: whether to check the engine's books after every move.
            now: monotonic time in seconds to begin at.
            **options: arguments of the engine.
        """
        self.engine = Engine(**{"handle_prefix": b"H", "epoch_offset": 0.0, "work_limit": 10**9, **options})
        self.now = now
        self.peers: dict[PeerId, Peer] = {}
        self._checked = checked
        self._events: list[Event] = []

    def connect(self, **details: Any) -> Peer:
        """Connect somebody."""
        peer = Peer(self, self.engine.connect(self.now, **details))
        self.peers[peer.id] = peer
        return peer

    def worker(self, *functions: bytes) -> Peer:
        """Connect a worker that can run functions."""
        return self.connect().send(*map(CanDo, functions))

    def settle(self) -> None:
        """Take all events and all output."""
        while (event := self.engine.next_event()) is not None:
            self._events.append(event)
        while (transmit := self.engine.next_transmit()) is not None:
            peer, data = transmit
            assert data
            self.peers[peer].pieces.append(data)
        if self._checked:
            check_books(self.engine)

    def events(self) -> list[Event]:
        """Return the engine's events since the last call."""
        events, self._events = self._events, []
        return events

    def failure(self) -> str:
        """Return why a peer has just failed."""
        (event,) = self.events()
        assert isinstance(event, PeerFailed), event
        return event.reason

    def advance(self, seconds: float) -> None:
        """Let time pass, from deadline to deadline."""
        end = self.now + seconds
        while (deadline := self.engine.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.engine.handle_timeout(self.now)
            self.settle()
        self.now = end

    def counters(self) -> Counters:
        """Return what the engine counts."""
        return self.engine.counters()


def check_books(engine: Engine) -> None:
    """Check that everything the engine knows twice agrees, and that no worker sleeps beside a job for it."""
    _check_sizes(engine)
    queue = engine.queue
    peers = set(engine._peers.values())
    for name, function in queue.functions.items():
        assert function.name == name
        _check_function(queue, function)
        _check_sleepers(engine, function)
    for handle, job in queue.jobs.items():
        assert job.handle == handle
        _check_job(queue, job)
    _check_keys(queue)
    for peer in peers:
        for function in peer.abilities:
            assert queue.functions[function.name] is function
            assert peer in function.workers
        for job in peer.in_hand:
            assert job.worker is peer
            assert queue.jobs[job.handle] is job
        for job in peer.waiting:
            assert queue.jobs[job.handle] is job
            assert peer in (job.clients or ())
        _check_places(peer, queue.accepting)
        assert (peer in engine.waking.woken) <= (peer.woken_for is not None)
        assert not (peer.asleep and peer.woken_for)
    assert queue.table.kept == sum(function.kept for function in queue.functions.values())
    assert set(engine.waking.woken) <= peers
    assert set(engine._paused.values()) <= peers
    delayed = [job for job in queue.jobs.values() if job.state is JobState.DELAYED]
    assert len(queue._delayed) == sum(job.turn == 0 for job in delayed)
    assert len(queue._resting) == sum(job.turn > 0 for job in delayed)


def _check_sizes(engine: Engine) -> None:
    """Check what the engine counts for limits on memory."""
    queue, peers = engine.queue, engine._peers.values()
    jobs = queue.jobs.values()
    assert queue.size == sum(len(job.workload) + len(job.unique) + len(job.function.name) for job in jobs)
    functions = sum(len(name) + FUNCTION for name in queue.functions)
    leaving = sum(len(function.workers) for function in queue.functions.values())  # with workers that have just gone
    assert queue.kept_size == queue.size + len(jobs) * JOB + functions + leaving * ABILITY
    joins = sum(len(job.clients) - 1 for job in jobs if job.clients)
    cancelled = sum(peer.cancelled_most for peer in peers)
    assert engine.kept_size == queue.kept_size + len(peers) * PEER + joins * JOIN + cancelled * CANCELLED
    assert all(len(peer.cancelled) <= peer.cancelled_most for peer in peers)
    assert engine.under_way == sum(engine.under_way_of(peer.id) for peer in peers)
    assert all(peer.input_size == peer.decoder.buffered for peer in peers if not peer.failed)


def _check_function(queue: JobQueue, function: FunctionQueue) -> None:
    mine = [job for job in queue.jobs.values() if job.function is function]
    states = Counter(job.state for job in mine)
    assert function.running == states[JobState.RUNNING]
    for priority, count in enumerate(function.delayed):
        assert count == sum(job.state is JobState.DELAYED and job.priority == priority for job in mine)
    assert function.waiting == states[JobState.QUEUED]
    for priority, jobs in enumerate(function.queues):
        live = [job for job in jobs or deque() if job.state is JobState.QUEUED]
        assert function.removed[priority] == len(jobs or ()) - len(live)
        assert all(job.turn == 0 and job.deadline is None for job in live)
        live += [job for job in mine if job.turn and job.state is JobState.QUEUED and job.priority == priority]
        returned = function.returned.get(priority, ())
        assert len(returned) == sum(job.turn > 0 for job in live)
        assert (priority in function.returned) == (len(returned) > 0)
        assert len(set(live)) == len(live) == function.queued[priority]
        assert all(job.function is function and job.priority == priority for job in live)
        assert all(queue.jobs.get(job.handle) is job for job in live)
        assert not (live and function.unready[priority])  # they would not learn of it
        assert set(function.unready[priority]) <= set(function.workers)
    assert set(function.sleepers) <= set(function.workers)
    assert all(function in worker.abilities for worker in function.workers)
    idle = not (function.workers or function.kept or mine)
    assert idle == function.idle == (function in queue.table.idle)


def _check_sleepers(engine: Engine, function: FunctionQueue) -> None:
    asleep = sum(worker.asleep for worker in function.workers)
    woken = sum(worker.woken_for is function for worker in engine.waking.woken)
    if engine.queue.accepting and asleep and not engine.queue.scheduled:
        assert woken >= function.waiting, f"{asleep} sleep, {woken} woken, {function.waiting} jobs of {function.name!r}"


def _check_job(queue: JobQueue, job: Job) -> None:
    assert queue.functions[job.function.name] is job.function
    assert (job.worker is not None) == (job.state is JobState.RUNNING)
    if job.worker is not None:
        assert job in job.worker.in_hand
    else:
        assert job.wanted
        assert job.state in (JobState.QUEUED, JobState.DELAYED)
    for client in job.clients or ():
        assert job in client.waiting
    if job.key is not None:
        assert queue.find(job.function, job.key) is job


def _check_keys(queue: JobQueue) -> None:
    for key, found in queue._by_key.items():
        jobs = [found] if isinstance(found, Job) else list(found.values())
        assert jobs
        assert all(queue.jobs.get(job.handle) is job and job.key == key for job in jobs)


def _check_places(worker: Any, accepting: bool) -> None:
    """Check that a worker is in one place for each function and priority, and can be woken if it sleeps."""
    assert sum(map(len, worker.ready)) + sum(
        worker in unready for function in worker.abilities for unready in function.unready
    ) == 3 * len(worker.abilities)
    for function in worker.abilities:
        for priority, tier in enumerate(worker.ready):
            assert (function in tier) != (worker in function.unready[priority])
        if worker.asleep and accepting:
            assert worker in function.sleepers or all(worker in unready for unready in function.unready)
