"""A network in memory: clients, workers and a job server over links that delay, cut and break, in virtual time.

`run_schedule` plays one schedule, in which everything that happens follows from its seed: first with faults, then
healed, until everything is drained. Then every promise to the clients has to be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

from gearproto import (
    ClientConnection,
    Completed,
    Failed,
    Lost,
    NotSent,
    Outcome,
    Priority,
    Raised,
    Rejected,
    WorkerConnection,
)
from gearproto.admin import CancelJob, Refused, Status
from gearproto.connection import Connection
from gearproto.event import Event
from gearproto.events import AdminReplied, ConnectionClosed, JobAssigned, JobEnded, JobQueued, ReportRefused, RequestId
from gearproto.packets import GrabJob, GrabJobAll, GrabJobUniq
from gearproto.server import Engine, JobChanged, JobGivenUp, PeerId
from gearproto.server.jobs import JobState

from .engine import check_books

FUNCTIONS = (b"f", b"g", b"h")
_FAULTS_END = 5.0  # seconds
_PATIENCE = 200.0  # seconds that a healed network has to drain
_ROUNDING = 1e-9


class Clock:
    """Virtual time, and what happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = count()
        self._actions: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Let something happen at a time; of two things at one time, the one that was asked for first."""
        heappush(self._actions, (max(when, self.now), next(self._numbers), action))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

    def next(self) -> float:
        """Return when something happens next; infinity if never."""
        return self._actions[0][0] if self._actions else float("inf")

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _number, action = heappop(self._actions)
        action()


class Pipe:
    """One direction of a link: bytes leave the sender's buffer in pieces of any size, and arrive later in order."""

    def __init__(self, clock: Clock, random: Random, deliver: Callable[[bytes], None], end: Callable[[], None]) -> None:
        self.buffer = bytearray()  # taken from the sender, and not left yet
        self.broken = False
        self.drained: Callable[[], None] = lambda: None
        self.left: Callable[[int], None] = lambda _size: None
        self._clock = clock
        self._random = random
        self._deliver = deliver
        self._end = end
        self._latency = random.choice([0.0, 0.001, 0.1])
        self._busy = False
        self._ending = False
        self._newest = 0.0

    def send(self, data: bytes) -> None:
        self.buffer += data
        self._go_on()

    def close(self) -> None:
        """Send what there is, and then the end."""
        self._ending = True
        self._go_on()

    def _go_on(self) -> None:
        if not self._busy and not self.broken:
            self._busy = True
            self._clock.after(0.0, self._leave)

    def _leave(self) -> None:
        """Let one piece leave."""
        if self.broken:
            return
        random = self._random
        size = random.choice([1, 11, 12, 13, 50, 400, len(self.buffer), len(self.buffer)])
        piece = bytes(self.buffer[:size])
        del self.buffer[:size]
        self._newest = max(self._newest, self._clock.now + self._latency * random.random())
        if piece:
            self.left(len(piece))
            self._clock.at(self._newest, lambda: self._arrive(piece))
        if self.buffer:
            self._clock.after(self._latency * random.random() / 4, self._leave)
            return
        self._busy = False
        self.drained()
        if self._ending:
            self._ending = False
            self._clock.at(self._newest, self._arrive_at_end)

    def _arrive(self, piece: bytes) -> None:
        if not self.broken:
            self._deliver(piece)

    def _arrive_at_end(self) -> None:
        if not self.broken:
            self._end()


class Link:
    """A connection between an endpoint and the server."""

    def __init__(self, world: World, owner: Endpoint, server: ServerProcess) -> None:
        self.world = world
        self.owner = owner
        self.server = server
        clock, random = world.clock, world.random
        self.peer = server.engine.connect(clock.now)
        self.up = Pipe(clock, random, self._to_server, self._server_hears_end)
        self.down = Pipe(clock, random, self._to_owner, self._owner_hears_end)
        self.down.drained = lambda: server.resume(self)
        self.up.left = lambda size: owner.sent(self, size)
        server.links[self.peer] = self

    def reset(self) -> None:
        """Break both directions; each side hears of it when it hears of it."""
        if not self.up.broken:
            self.up.broken = self.down.broken = True
            delays = [0.0, 0.0, 0.01, 0.5, 3.0]
            self.world.clock.after(self.world.random.choice(delays), self._server_hears_end)
            self.world.clock.after(self.world.random.choice(delays), self._owner_hears_end)

    def _to_server(self, data: bytes) -> None:
        self.server.receive(self, data)

    def _to_owner(self, data: bytes) -> None:
        self.owner.receive(self, data)

    def _server_hears_end(self) -> None:
        self.server.lost(self)
        if not self.down.broken:
            self.down.close()

    def _owner_hears_end(self) -> None:
        self.owner.lost(self)


class ServerProcess:
    """An engine and its links. Every change of a job is judged."""

    def __init__(self, world: World, generation: int, options: dict[str, Any]) -> None:
        self.world = world
        self.generation = generation
        self.retries: int = options.get("job_retries", -1)
        self.engine = Engine(handle_prefix=b"H%d" % generation, epoch_offset=0.0, trace=True, **options)
        self.links: dict[PeerId, Link] = {}
        self.alive = True
        self._started: dict[bytes, tuple[PeerId, float]] = {}
        self.losses: dict[bytes, int] = {}
        self.used_up: set[bytes] = set()  # jobs that were lost once more than is allowed

    def receive(self, link: Link, data: bytes) -> None:
        if self.alive and link.peer in self.links:
            self.engine.receive_data(link.peer, data, self.world.clock.now)
            self.settle(link)

    def resume(self, link: Link) -> None:
        if self.alive and link.peer in self.engine.paused_peers():
            self.engine.resume(link.peer, self.world.clock.now)
            self.settle(link)

    def lost(self, link: Link) -> None:
        if self.alive and self.links.pop(link.peer, None) is not None:
            self.engine.disconnect(link.peer, self.world.clock.now)
            self.settle(link)

    def next_deadline(self) -> float | None:
        return self.engine.next_deadline()

    def handle_timeout(self) -> None:
        self.engine.handle_timeout(self.world.clock.now)
        self.settle(None)

    def settle(self, cause: Link | None) -> None:
        """Take all events and all output.

        Args:
            cause: the link of which the server has heard; None where time has passed.
        """
        while (event := self.engine.next_event()) is not None:
            if isinstance(event, JobGivenUp):
                assert event.losses > self.retries >= 0
            else:
                assert isinstance(event, JobChanged), event
                self._judge(event, cause)
        while (transmit := self.engine.next_transmit()) is not None:
            peer, data = transmit
            self.links[peer].down.send(data)
        if self.world.checked:
            check_books(self.engine)

    def _judge(self, event: JobChanged, cause: Link | None) -> None:
        """Check that a job is taken from a worker for a reason, and runs in one place at a time."""
        now, handle = self.world.clock.now, event.handle
        if event.state is JobState.RUNNING:
            assert event.peer is not None
            assert handle not in self._started, "it runs already"
            self._started[handle] = event.peer, now
            return
        started = self._started.pop(handle, None)
        if started is None or event.peer is not None:
            return  # it did not run, or its worker has ended it
        peer, since = started
        if event.state is JobState.ENDED and handle in self.world.cancelled:
            return
        if cause is None:
            assert now - since >= 1.0 - _ROUNDING, "taken away before its time limit"
        else:
            assert cause.peer == peer, "taken away because of somebody else"
            assert peer not in self.links, "taken away from a worker that is there"
        if event.state in (JobState.QUEUED, JobState.DELAYED):
            self.losses[handle] = self.losses.get(handle, 0) + 1
            assert self.retries < 0 or self.losses[handle] <= self.retries, "it runs more often than allowed"
        elif self.losses.get(handle, 0) == self.retries:
            self.used_up.add(handle)


@dataclass(eq=False)
class Submission:
    """What a client wants, and what came of it."""

    function: bytes
    unique: bytes
    workload: bytes
    background: bool
    handle: bytes | None = None
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass(eq=False)
class Run:
    """One run of a job by a worker."""

    handle: bytes
    function: bytes
    workload: bytes
    outcome: Outcome | None = None


class Endpoint:
    """A client or worker that connects again when its connection is lost."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self.link: Link | None = None
        self.connection: Connection | None = None

    def new_connection(self) -> Connection:
        raise NotImplementedError

    def on_event(self, event: Event) -> None:
        raise NotImplementedError

    def connect(self) -> None:
        assert self.link is None
        self.connection = self.new_connection()
        self.link = Link(self.world, self, self.world.server)
        self.settle()

    def settle(self) -> None:
        """Take all events and all output."""
        connection, link = self.connection, self.link
        assert connection is not None
        while (event := connection.next_event()) is not None:
            if isinstance(event, ConnectionClosed):
                continue
            self.on_event(event)
        if link is not None and self.link is link and (data := connection.data_to_send()):
            link.up.send(data)
        if connection.closed and self.link is link:
            self.hang_up()

    def receive(self, link: Link, data: bytes) -> None:
        if link is self.link and self.connection is not None:
            self.connection.receive_data(data, self.world.clock.now)
            self.settle()

    def sent(self, link: Link, size: int) -> None:
        if link is self.link and self.connection is not None:
            self.connection.data_sent(size, self.world.clock.now)

    def lost(self, link: Link) -> None:
        """Hear that the connection is gone."""
        if link is self.link and self.connection is not None:
            self.connection.receive_eof()
            if link.up.broken:
                self.connection.connection_lost("reset")
            self.settle()

    def leave(self) -> None:
        """Close the connection, whatever is open."""
        if self.link is not None and self.connection is not None:
            self.connection.connection_lost("closed here")
            self.settle()

    def hang_up(self) -> None:
        assert self.link is not None
        self.link.up.buffer.clear()
        self.link.up.close()
        self.link = None
        self.connection = None
        self.world.clock.after(self.random.choice([0.0, 0.1, 2.0]), self.connect)

    def next_deadline(self) -> float | None:
        return None if self.connection is None else self.connection.next_deadline()

    def handle_timeout(self) -> None:
        assert self.connection is not None
        self.connection.handle_timeout(self.world.clock.now)
        self.settle()


class Client(Endpoint):
    """Submits jobs of all kinds, and notes what comes of them."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.open: dict[RequestId, Submission] = {}

    def new_connection(self) -> Connection:
        self.open = {}
        return ClientConnection(
            probe_interval=self.random.choice([None, 1.0]), probe_timeout=0.5, now=self.world.clock.now
        )

    def act(self) -> None:
        """Do one thing, if connected."""
        client, world, random = self.connection, self.world, self.random
        if not isinstance(client, ClientConnection) or client.closed:
            return
        action = random.random()
        known = [submission.handle for submission in world.submissions if submission.handle]
        if action < 0.06 and known and world.cancelling:
            handle = random.choice(known)
            world.cancelled.add(handle)
            client.admin(CancelJob(handle))
        elif action < 0.1:
            client.admin(Status())
        elif action < 0.14 and known:
            client.get_status(random.choice(known))
        elif action < 0.18:
            client.set_option(b"exceptions")
        else:
            for _ in range(random.choice([1, 1, 3])):
                self._submit(client)
        self.settle()

    def _submit(self, client: ClientConnection) -> None:
        random, world = self.random, self.world
        background = random.random() < 0.5
        delayed = background and random.random() < 0.3
        submission = Submission(
            random.choice(FUNCTIONS),
            random.choice([b"", b"", b"u", b"v"]),
            b"%d." % len(world.submissions) + b"w" * random.choice([0, 5, 300]),
            background,
        )
        world.submissions.append(submission)
        request = client.submit_job(
            submission.function,
            submission.workload,
            unique=submission.unique,
            priority=Priority.NORMAL if delayed else random.choice(list(Priority)),
            background=background,
            run_at=int(world.clock.now) + random.randrange(4) if delayed else None,
        )
        self.open[request] = submission

    def on_event(self, event: Event) -> None:
        if isinstance(event, JobQueued):
            submission = self.open[event.request]
            assert submission.handle is None
            assert submission.outcomes == []
            submission.handle = event.handle
        elif isinstance(event, JobEnded):
            submission = self.open[event.request]
            assert event.handle in (None, submission.handle)
            submission.outcomes.append(event.outcome)
        elif isinstance(event, AdminReplied):
            assert not (isinstance(event.reply, Refused) and event.reply.code == b"MALFORMED_REPLY")


class Worker(Endpoint):
    """Runs jobs, some of them badly, and notes every run."""

    def __init__(self, world: World, functions: list[bytes]) -> None:
        super().__init__(world)
        self.functions = functions

    def new_connection(self) -> Connection:
        grab: Any = self.random.choice([GrabJob, GrabJobUniq, GrabJobAll])
        worker = WorkerConnection(
            grab=grab, probe_interval=self.random.choice([None, 1.0]), probe_timeout=0.5, now=self.world.clock.now
        )
        for function in self.functions:
            self._can_do(worker, function)
        worker.grab_job()
        return worker

    def _can_do(self, worker: WorkerConnection, function: bytes) -> None:
        limited = self.world.limits and self.random.random() < 0.5
        worker.can_do(function, timeout_ms=self.random.choice([1, 2000]) if limited else None)

    def act(self) -> None:
        """Change what this worker can do."""
        worker = self.connection
        if not isinstance(worker, WorkerConnection) or worker.closed:
            return
        function = self.random.choice(FUNCTIONS)
        action = self.random.random()
        if action < 0.6:
            self._can_do(worker, function)
        elif action < 0.8:
            worker.cant_do(function)
        elif action < 0.9:
            worker.reset_abilities()
            worker.can_do(function)
        else:
            worker.grab_job()
        self.settle()

    def learn_all(self) -> None:
        """Be able to run everything from now on, as fast as it comes."""
        self.functions = list(FUNCTIONS)
        if isinstance(self.connection, WorkerConnection) and not self.connection.closed:
            for function in FUNCTIONS:
                self.connection.can_do(function)
            self.settle()

    def on_event(self, event: Event) -> None:
        worker = self.connection
        assert isinstance(worker, WorkerConnection)
        if isinstance(event, JobAssigned):
            run = Run(event.handle, event.function, event.workload)
            self.world.runs.append(run)
            faulty = self.world.clock.now < _FAULTS_END
            delay = self.random.choice([0.0, 0.01, 0.3, 2.5] if faulty else [0.0, 0.01])
            self.world.clock.after(delay, lambda: self._finish(worker, run))
            if self.random.random() < 0.3:
                worker.grab_job()
        else:
            assert isinstance(event, ReportRefused), event

    def _finish(self, worker: WorkerConnection, run: Run) -> None:
        if worker is not self.connection or worker.closed or run.handle not in worker.in_hand:
            return
        number = self.world.runs.index(run)
        result = b"run %d of " % number + run.workload
        if self.random.random() < 0.3:
            worker.work_status(run.handle, 1, 2)
            worker.work_data(run.handle, result)
        kind = self.random.choice([Completed, Completed, Completed, Failed, Raised])
        if kind is Completed:
            run.outcome = Completed(result)
            worker.work_complete(run.handle, result)
        elif kind is Raised:
            run.outcome = Raised(result)
            worker.work_exception(run.handle, result)
        else:
            run.outcome = Failed()
            worker.work_fail(run.handle)
        worker.grab_job()
        self.settle()


class World:
    """Everything that one schedule needs."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.clock = Clock()
        self.checked = seed % 4 == 0  # it takes as long as all the rest
        self.submissions: list[Submission] = []
        self.runs: list[Run] = []
        self.cancelled: set[bytes] = set()
        self.cancelling = random.random() < 0.3
        self.limits = random.random() < 0.5
        self.restarts = random.random() < 0.2
        self._options = {
            "job_retries": random.choice([-1, -1, 0, 1]),
            "worker_wakeup": random.choice([1, 1, 1, 0]),
            "max_output_size": random.choice([10**6, 200]),
            "max_idle_functions": random.choice([0, 1000]),
            "round_robin": random.random() < 0.5,
        }
        self.servers = [ServerProcess(self, 0, self._options)]
        self.clients = [Client(self) for _ in range(random.choice([1, 2, 3]))]
        self.workers = [
            Worker(self, random.sample(FUNCTIONS, random.randrange(1, 4))) for _ in range(random.choice([1, 2, 4]))
        ]
        self.endpoints: list[Endpoint] = [*self.clients, *self.workers]
        for endpoint in self.endpoints:
            self.clock.after(random.random(), endpoint.connect)
        for client in self.clients:
            self._often(client.act, 0.6)
        for worker in self.workers:
            self._often(worker.act, 4.0)
        self._often(self._fault, random.choice([0.7, 3.0, 100.0]))
        self.clock.at(_FAULTS_END, self._heal)

    @property
    def server(self) -> ServerProcess:
        """The server that runs now."""
        return self.servers[-1]

    def _often(self, action: Callable[[], None], mean: float) -> None:
        """Do something at random times until the faults end."""

        def once() -> None:
            if self.clock.now < _FAULTS_END:
                action()
                self.clock.after(self.random.expovariate(1 / mean), once)

        self.clock.after(self.random.expovariate(1 / mean), once)

    def _fault(self) -> None:
        if self.restarts and self.random.random() < 0.2:
            self._restart()
            return
        endpoint = self.random.choice(self.endpoints)
        if endpoint.link is not None:
            link = endpoint.link
            self.random.choice([endpoint.leave, link.reset, link.down.close, link.up.close])()

    def _restart(self) -> None:
        """Let the server crash, and another begin in its place."""
        old = self.server
        old.alive = False
        self.servers.append(ServerProcess(self, old.generation + 1, self._options))
        for link in list(old.links.values()):
            link.reset()

    def _heal(self) -> None:
        for worker in self.workers:
            worker.learn_all()

    def run(self, until: float) -> None:
        """Let time pass until nothing more happens, or to a time."""
        while True:
            when, action = self.clock.next(), self.clock.step
            timed: list[ServerProcess | Endpoint] = [self.server, *self.endpoints]
            for process in timed:
                deadline = process.next_deadline()
                if deadline is not None and deadline < when:
                    when, action = deadline, process.handle_timeout
            if when > until:
                return
            self.clock.now = max(self.clock.now, when)
            action()

    def drained(self) -> bool:
        """Whether every client knows all that there is to know, and the server has nothing left."""
        waiting = any(not (job.outcomes or (job.background and job.handle)) for job in self.submissions)
        return not waiting and not self.server.engine.queue.jobs


def run_schedule(seed: int) -> World:
    """Play a schedule, and check what came of it."""
    world = World(seed)
    world.run(_FAULTS_END)
    while not world.drained():
        assert world.clock.now < _PATIENCE, "it does not drain"
        world.run(world.clock.now + 5.0)
    world.run(world.clock.now + 5.0)  # nothing may come behind the end
    for submission in world.submissions:
        _check_submission(world, submission)
    return world


def _check_submission(world: World, submission: Submission) -> None:
    runs = [run for run in world.runs if run.handle == submission.handle]
    own = [run for run in world.runs if run.workload == submission.workload]
    for run in own:
        assert run.function == submission.function
    for run in runs:
        assert run.function == submission.function
        if run.workload != submission.workload:
            shared = next(other for other in world.submissions if other.workload == run.workload)
            assert (shared.unique, submission.unique != b"") == (submission.unique, True)
    handle = submission.handle
    gone = handle in world.cancelled.union(*(server.used_up for server in world.servers))
    if submission.background and submission.outcomes == []:
        assert handle is not None
        if handle.startswith(b"H%d:" % world.server.generation):
            assert gone or any(run.outcome for run in runs), "an acknowledged job is lost"
        return
    (outcome,) = submission.outcomes
    if isinstance(outcome, NotSent | Rejected):
        assert handle is None
        assert own == [], "it ran, but was called not sent"
    elif isinstance(outcome, Completed | Raised):
        assert outcome in [run.outcome for run in runs], "nobody has produced this result"
    elif isinstance(outcome, Failed):
        assert gone or any(isinstance(run.outcome, Failed | Raised) for run in runs), "nobody has failed"
    else:
        assert isinstance(outcome, Lost)
