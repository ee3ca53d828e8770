"""A worker of a simulation: it runs jobs of all its servers, some of them badly, and keeps every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from gearproto import Completed, Failed, Outcome, Raised, WorkerConnection
from gearproto.event import Event
from gearproto.events import Answered, JobAssigned, ReportRefused
from gearproto.packets import GrabJob, GrabJobAll, GrabJobUniq
from gearproto.worker import Assignment, Grabber

from .client import FUNCTIONS
from .invariants import Invariant, Violation
from .parties import Timer
from .peers import Peer, PeerWorld, Session

__all__ = ["Run", "Worker", "WorkerWorld"]

_GRABS: Final[tuple[Any, ...]] = (GrabJob, GrabJobUniq, GrabJobAll)


@dataclass(eq=False, slots=True)
class Run:
    """One run of a job.

    Attributes:
        handle: the job.
        function: name of the function.
        workload: the data to work on.
        outcome: what the worker has reported; None if it has not, or was not able to.
    """

    handle: bytes
    function: bytes
    workload: bytes
    outcome: Outcome | None = None


class WorkerWorld(Protocol):
    """What workers share."""

    runs: list[Run]
    runs_of: dict[bytes, list[Run]]
    limits: bool


class Worker(Peer[WorkerConnection]):
    """A worker that asks its servers in turn, as `gearproto.worker.Grabber` decides."""

    def __init__(
        self, name: str, world: PeerWorld, servers: list[int], functions: list[bytes], shared: WorkerWorld
    ) -> None:
        super().__init__(name, world, servers)
        self._shared = shared
        self._functions = functions
        self._capacity = self.random.choice((1, 1, 2))
        self._timer = Timer(self, self._next_deadline, self._advance)
        self._grabber = self._new_grabber()

    def _next_deadline(self) -> float | None:
        return self._grabber.next_deadline()

    def _new_grabber(self) -> Grabber:
        grabber = Grabber(self._capacity, client_id=self.name.encode())
        for function in self._functions:
            grabber.can_do(function, self._limit())
        return grabber

    def _limit(self) -> int | None:
        limited = self._shared.limits and self.random.random() < 0.5
        return self.random.choice((1, 2000)) if limited else None

    def start(self) -> None:
        """Begin, or begin again after a crash."""
        self._grabber = self._new_grabber()
        super().start()

    def new_connection(self, session: Session[WorkerConnection]) -> WorkerConnection:
        """Return a connection on which the worker has introduced itself."""
        conn = WorkerConnection(
            grab=self.random.choice(_GRABS),
            asks_when_woken=False,
            probe_interval=self.random.choice((None, 1.0)),
            probe_timeout=0.5,
            now=self.clock.now,
        )
        self._grabber.attach(conn)
        return conn

    def on_closed(self, session: Session[WorkerConnection], conn: WorkerConnection) -> None:
        """Ask other servers in place of one that is lost."""
        self._grabber.detach(conn)
        self._advance()

    def settled(self, session: Session[WorkerConnection]) -> None:
        """Ask for jobs, as far as there is room."""
        self._ask()

    def act(self) -> None:
        """Change what this worker can do."""
        function = self.random.choice(FUNCTIONS)
        if function in self._functions and self.random.random() < 0.4 and len(self._functions) > 1:
            self.note(f"unlearns {function.decode()}")
            self._functions.remove(function)
            self._grabber.cant_do(function)
        else:
            self._learn(function)
        self._advance()

    def learn_all(self) -> None:
        """Be able to run everything from now on, or from the next start on."""
        for function in FUNCTIONS:
            self._learn(function)
        if self.alive:
            self._advance()

    def _learn(self, function: bytes) -> None:
        self.note(f"learns {function.decode()}")
        if function not in self._functions:
            self._functions.append(function)
        self._grabber.can_do(function, self._limit())

    def _ask(self) -> None:
        asked = self._grabber.advance(self.clock.now)
        for session in self.sessions:
            if session.conn in asked:
                session.flush()
        self._timer.set()

    def _advance(self) -> None:
        self._ask()
        for session in self.sessions:
            session.settle()

    def on_event(self, session: Session[WorkerConnection], event: Event) -> None:
        """Run a job."""
        conn, shared = session.conn, self._shared
        assert conn is not None
        if isinstance(event, JobAssigned):
            run = Run(event.handle, event.function, event.workload)
            shared.runs.append(run)
            shared.runs_of.setdefault(event.handle, []).append(run)
            self._grabber.assigned()
            self.note(f"begins {event.handle.decode()}, run {len(shared.runs) - 1}")
            faulty = self.clock.now < self.world.faults_end
            delay = self.random.choice((0.0, 0.01, 0.3, 2.5) if faulty else (0.0, 0.01))
            job, grabber = Assignment(event, conn), self._grabber
            self.clock.after(delay, lambda: self.when_awake(lambda: self._finish(session, job, run, grabber)))
        elif not isinstance(event, ReportRefused | Answered):
            raise Violation(Invariant.ANSWERS, f"{self.name} gets {event}")

    def _finish(self, session: Session[WorkerConnection], job: Assignment, run: Run, grabber: Grabber) -> None:
        if grabber is not self._grabber:
            return  # the worker has crashed since
        grabber.ended()
        conn, random = job.conn, self.random
        if conn is session.open and run.handle in conn.in_hand:
            result = b"run %d of " % self._shared.runs.index(run) + run.workload
            if random.random() < 0.3 and not job.superseded:
                conn.work_status(run.handle, 1, 2)
                conn.work_data(run.handle, result)
                conn.work_warning(run.handle, b"!")
            done, raised = Completed(result), Raised(result)
            outcome = random.choice((done, done, done, Failed(), raised))
            if not job.superseded:
                run.outcome = outcome
            self.note(f"ends {run.handle.decode()} as {outcome}")
            job.report_end(outcome)
        self._advance()
