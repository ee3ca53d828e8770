"""A simulation: parties and a network that follow from a seed, faults that end, and a network that heals."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from gear_testing.clock import VirtualClock
from gearproto import Completed, Failed, Lost, NotSent, Outcome, Raised, Rejected
from gearproto.server import Engine

from .client import FUNCTIONS, Client, Submission
from .invariants import Invariant, Violation
from .network import Connection
from .peers import Peer
from .server import Server
from .worker import Run, Worker

__all__ = ["FAULTS_END", "Simulation", "run_schedule"]

FAULTS_END: Final = 5.0
"""Seconds after which no more faults happen."""

_PATIENCE: Final = 200.0  # seconds that a healed network has to drain


class Simulation:
    """Everything that one schedule needs. The seed decides all that happens.

    Attributes:
        seed: the seed.
        clock: virtual time.
        trace: what has happened: when, to whom, what.
        submissions: what clients have submitted.
        runs: what workers have run.
    """

    faults_end = FAULTS_END

    def __init__(
        self,
        seed: int,
        *,
        make_engine: Callable[..., Engine] = Engine,
        check: Callable[[Engine], object] | None = None,
    ) -> None:
        """Set the scene.

        Args:
            seed: decides everything.
            make_engine: makes the engines; for tests of the simulator.
            check: looks at an engine after each of its steps, and raises if something is wrong.
        """
        self.seed = seed
        self.random = random = Random(seed)
        self.clock = VirtualClock()
        self.trace: list[tuple[float, str, str]] = []
        self.submissions: list[Submission] = []
        self.runs: list[Run] = []
        self.runs_of: dict[bytes, list[Run]] = {}
        self._arrived: set[int] = set()
        self.cancelled: set[bytes] = set()
        self.cancelling = random.random() < 0.3
        self.limits = random.random() < 0.5
        self._make_engine = make_engine
        self._check = check
        self._options: dict[str, Any] = {
            "job_retries": random.choice((-1, -1, 0, 1)),
            "worker_wakeup": random.choice((1, 1, 1, 0)),
            "max_output_size": random.choice((10**6, 200)),
            "max_idle_functions": random.choice((0, 1000)),
            "round_robin": random.random() < 0.5,
        }
        self._pause_at = random.choice((10**6, 10**6, 500))
        numbers = list(range(random.choice((1, 1, 2))))
        self.runs_of_servers: list[Server] = []
        self._servers = [self._new_server(number) for number in numbers]
        self.clients = [Client(f"client {n}", self, numbers, self) for n in range(random.choice((1, 2, 3)))]
        self.workers = [
            Worker(f"worker {n}", self, numbers, random.sample(FUNCTIONS, random.randrange(1, 4)), self)
            for n in range(random.choice((1, 2, 4)))
        ]
        self._peers: list[Peer[Any]] = [*self.clients, *self.workers]
        for peer in self._peers:
            self.clock.after(random.random(), peer.start)
        for client in self.clients:
            self._often(client, client.act, 0.6)
        for worker in self.workers:
            self._often(worker, worker.act, 4.0)
        self._faults: list[Callable[[], None]] = [self._break, self._break, self._break]
        for fault in (self._crash_peer, self._restart_server, self._pause, self._pause_all, self._jump):
            if random.random() < 0.3:
                self._faults.append(fault)
        self._fault_later(random.choice((0.7, 3.0, 100.0)))
        self.clock.at(FAULTS_END, self._heal)

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append((self.clock.now, who, what))

    def server(self, number: int) -> Server:
        """Return the run of a server that takes connections now."""
        return self._servers[number]

    def _new_server(self, number: int) -> Server:
        generation = len(self.runs_of_servers)
        server = Server(
            f"server {number}",
            self,
            generation,
            self._options,
            pause_at=self._pause_at,
            on_arrival=self._on_arrival,
            make=self._make_engine,
            check=self._check,
        )
        self.runs_of_servers.append(server)
        return server

    def _often(self, peer: Peer[Any], action: Callable[[], None], mean: float) -> None:
        """Let a peer do something at random times until the faults end."""

        def once() -> None:
            if self.clock.now < FAULTS_END:
                peer.when_awake(action)
                self.clock.after(self.random.expovariate(1 / mean), once)

        self.clock.after(self.random.expovariate(1 / mean), once)

    # Faults

    def _fault_later(self, mean: float) -> None:
        def once() -> None:
            if self.clock.now < FAULTS_END:
                self.random.choice(self._faults)()
                self._fault_later(mean)

        self.clock.after(self.random.expovariate(1 / mean), once)

    def _break(self) -> None:
        """Break one connection, in one of the ways in which connections break."""
        peer = self.random.choice(self._peers)
        session = self.random.choice(peer.sessions)
        network = session.network
        if network is None:
            return
        way = self.random.randrange(5)
        if way == 0:
            peer.when_awake(session.leave)
        elif way == 1:
            self.note("network", f"half closes {network.up.name}")
            network.up.close()
        elif way == 2:
            self.note("network", f"half closes {network.down.name}")
            network.down.close()
        else:
            self.note("network", f"{'resets' if way == 3 else 'silences'} {network.up.name}")
            self._cut(network, peer, (0.0, 0.01, 0.5, 3.0) if way == 3 else (5.0, 20.0))

    def _cut(self, network: Connection, peer: Peer[Any] | None, delays: tuple[float, ...]) -> None:
        """Cut a connection; each side is told at its own time."""
        if network.broken:
            return
        network.cut()
        for server in self.runs_of_servers:
            if network in server.connections.values() or server.alive:
                self.clock.after(self.random.choice(delays), lambda server=server: server.hears_of_loss(network))  # type: ignore[misc]
        if peer is not None:
            self.clock.after(self.random.choice(delays), lambda: peer.hears_of_loss(network))

    def _crash_peer(self) -> None:
        peer = self.random.choice(self._peers)
        if not peer.alive:
            return
        delays = self.random.choice(((0.0, 0.01), (5.0, 20.0)))  # its process is killed, or its machine
        for network in peer.crash():
            self._cut(network, None, delays)
        self.clock.after(self.random.choice((0.0, 0.5, 2.0)), peer.start)

    def _restart_server(self) -> None:
        """Let a server crash, and another run of it begin in its place."""
        number = self.random.randrange(len(self._servers))
        old = self._servers[number]
        old.stop()
        self._servers[number] = self._new_server(number)
        for peer in self._peers:
            for session in peer.sessions:
                if session.number == number and session.network is not None:
                    self._cut(session.network, peer, (0.0, 0.01, 0.5))

    def _pause(self) -> None:
        party = self.random.choice([*self._peers, *self._servers])
        party.pause()
        self.clock.after(self.random.choice((0.2, 1.5, 4.0)), party.resume)

    def _pause_all(self) -> None:
        """Stop everything for a while, as when a machine is suspended: monotonic clocks jump."""
        seconds = self.random.choice((0.2, 1.5, 4.0))
        for party in (*self._peers, *self._servers):
            party.pause()
            self.clock.after(seconds, party.resume)

    def _jump(self) -> None:
        self.random.choice(self._servers).jump(self.random.uniform(-3.0, 3.0))

    def _heal(self) -> None:
        self.note("network", "heals")
        for party in (*self._peers, *self._servers):
            party.resume()
        for server in self._servers:
            server.set_clock()
        for worker in self.workers:
            worker.learn_all()

    # The course of things

    def run(self) -> None:
        """Play the schedule to its end.

        Raises:
            Violation: a promise is broken.
        """
        self._run_until(FAULTS_END)
        while not self._drained():
            if self.clock.now > _PATIENCE:
                left = [submission.number for submission in self.submissions if not submission.done]
                jobs = [list(server.engine.queue.jobs) for server in self._servers]
                raise Violation(Invariant.DRAINS, f"after {_PATIENCE:g} s submissions {left} and jobs {jobs} are left")
            self._run_until(self.clock.now + 5.0)
        self._run_until(self.clock.now + 5.0)  # nothing may come behind the end
        for submission in self.submissions:
            self._check_background(submission)

    def _run_until(self, end: float) -> None:
        clock = self.clock
        while clock.next() <= end:
            clock.step()
        clock.now = end

    def _drained(self) -> bool:
        """Whether every client knows all that there is to know, and the servers have nothing left."""
        if any(server.engine.queue.jobs for server in self._servers):
            return False
        return all(submission.done for submission in self.submissions)

    # What clients are told

    def _on_arrival(self, workload: bytes) -> None:
        """Record that a submission has reached a server, and check that it may have."""
        number = int(workload.partition(b".")[0])
        self._arrived.add(number)
        if any(isinstance(outcome, NotSent) for outcome in self.submissions[number].outcomes):
            raise Violation(Invariant.NOT_SENT, f"submission {number} arrives, and its client was told otherwise")

    def judge_outcome(self, submission: Submission, outcome: Outcome) -> None:
        """Check that an outcome is true."""
        handle = submission.handle
        runs = self.runs_of.get(handle or b"", [])
        for run in runs:
            self._check_run(submission, run)
        if isinstance(outcome, NotSent):
            if submission.number in self._arrived:
                raise Violation(
                    Invariant.NOT_SENT, f"submission {submission.number} has arrived, and ends as {outcome}"
                )
        elif isinstance(outcome, Rejected):
            raise Violation(Invariant.NO_FAULT, f"submission {submission.number} is rejected: {outcome}")
        elif isinstance(outcome, Completed | Raised):
            if all(run.outcome != outcome for run in runs):
                raise Violation(
                    Invariant.TRUE_RESULT, f"submission {submission.number} ends as {outcome}, as no run did"
                )
        elif isinstance(outcome, Failed):
            if not self._is_gone(handle) and not any(isinstance(run.outcome, Failed | Raised) for run in runs):
                raise Violation(Invariant.TRUE_RESULT, f"submission {submission.number} has failed, as no run did")
        else:
            assert isinstance(outcome, Lost)

    def _is_gone(self, handle: bytes | None) -> bool:
        """Tell whether a job may end without a run that says how."""
        return handle in self.cancelled or any(handle in server.judge.used_up for server in self.runs_of_servers)

    def _check_run(self, submission: Submission, run: Run) -> None:
        """Check that a run is one of the submission, or of another that it was joined to."""
        number = int(run.workload.partition(b".")[0])
        first = self.submissions[number]
        same = first is submission or (first.unique == submission.unique != b"")
        if not same or run.function != submission.function or run.workload != first.workload:
            raise Violation(Invariant.TRUE_RESULT, f"submission {submission.number} is run as {run}")

    def _check_background(self, submission: Submission) -> None:
        """Check that a background job that a server has taken, and not forgotten in a crash, has run."""
        handle = submission.handle
        if submission.outcomes or not submission.background or handle is None:
            return
        if not any(handle.startswith(b"H%d:" % server.generation) for server in self._servers):
            return
        runs = self.runs_of.get(handle, [])
        if not self._is_gone(handle) and all(run.outcome is None for run in runs):
            raise Violation(Invariant.JOB_KEPT, f"{handle!r} was taken, and no worker has ended it")


def run_schedule(
    seed: int,
    *,
    make_engine: Callable[..., Engine] = Engine,
    check: Callable[[Engine], object] | None = None,
) -> Simulation:
    """Play one schedule, and return what came of it; the arguments are those of `Simulation`.

    Raises:
        Violation: a promise is broken. Its notes hold the seed, and the end of the trace.
    """
    simulation = Simulation(seed, make_engine=make_engine, check=check)
    try:
        simulation.run()
    except BaseException as error:
        error.add_note(f"The seed is {seed}: python -m gear_testing.simulator --seed {seed} --trace")
        for when, who, what in simulation.trace[-12:]:
            error.add_note(f"  {when:9.4f}  {who}: {what}")
        raise
    return simulation
