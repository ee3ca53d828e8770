"""A client of a simulation: it submits jobs of all kinds, and keeps what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from gearproto import ClientConnection, Lost, NotSent, Outcome, Priority
from gearproto.admin import CancelJob, Refused, ShowJobs, Status
from gearproto.event import Event
from gearproto.events import AdminReplied, JobEnded, JobQueued, RequestId

from .invariants import Invariant, Violation
from .network import Connection
from .peers import Peer, PeerWorld, Session

__all__ = ["FUNCTIONS", "Client", "ClientWorld", "Submission"]

FUNCTIONS: Final = (b"f", b"g", b"h")
_UNIQUES: Final = (b"", b"", b"u", b"v", b"-")


@dataclass(eq=False, slots=True)
class Submission:
    """What a client wants, and what became of it.

    Attributes:
        number: which submission of the simulation it is; its workload begins with it.
        function: name of the function.
        unique: the client's own name for the job.
        workload: the data to work on.
        background: whether nobody waits for the job.
        abandoned: whether the client has crashed, so that nobody knows what becomes of it.
        handle: the server's name for the job, once it is known.
        outcomes: how it ended; one in the end, unless it is a background job.
    """

    number: int
    function: bytes
    unique: bytes
    workload: bytes
    background: bool
    abandoned: bool = False
    handle: bytes | None = None
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether nothing more can become of it that its client would hear of."""
        return bool(self.abandoned or self.outcomes or (self.background and self.handle is not None))


class ClientWorld(Protocol):
    """What clients share."""

    submissions: list[Submission]
    cancelled: set[bytes]
    cancelling: bool

    def judge_outcome(self, submission: Submission, outcome: Outcome) -> None:
        """Check that an outcome is true."""
        ...


class Client(Peer[ClientConnection]):
    """A client with a connection to each server that it knows."""

    def __init__(self, name: str, world: PeerWorld, servers: list[int], shared: ClientWorld) -> None:
        super().__init__(name, world, servers)
        self._shared = shared
        self._open: dict[tuple[ClientConnection, RequestId], Submission] = {}

    def new_connection(self, session: Session[ClientConnection]) -> ClientConnection:
        """Return a connection, with options or without."""
        interval = self.random.choice((None, 1.0))
        conn = ClientConnection(probe_interval=interval, probe_timeout=0.5, now=self.clock.now)
        if self.random.random() < 0.3:
            conn.set_option(b"exceptions")
        if self.random.random() < 0.3:
            conn.set_option(b"reruns")
        return conn

    def crash(self) -> list[Connection]:
        """Forget all submissions; nobody will know what becomes of them."""
        for submission in self._open.values():
            submission.abandoned = True
        self._open.clear()
        return super().crash()

    def act(self) -> None:
        """Do one thing, if there is a connection."""
        session = self.random.choice(self.sessions)
        client = session.open
        if client is None:
            return
        random, shared = self.random, self._shared
        action = random.random()
        known = [submission.handle for submission in shared.submissions[-12:] if submission.handle]
        if action < 0.06 and known and shared.cancelling:
            handle = random.choice(known)
            shared.cancelled.add(handle)
            client.admin(CancelJob(handle))
            self.note(f"cancels {handle.decode()}")
        elif action < 0.1:
            client.admin(random.choice((Status(), ShowJobs())))
        elif action < 0.14 and known:
            client.get_status(random.choice(known))
        elif action < 0.18:
            client.get_status_unique(random.choice(_UNIQUES))
        elif action < 0.2:
            client.echo(b"?")
        else:
            for _ in range(random.choice((1, 1, 3))):
                self._submit(client)
        session.settle()

    def _submit(self, client: ClientConnection) -> None:
        random, shared = self.random, self._shared
        background = random.random() < 0.5
        delayed = background and random.random() < 0.3
        reducer = b"r" if not delayed and random.random() < 0.1 else None
        number = len(shared.submissions)
        workload = b"%d." % number + b"w" * random.choice((0, 5, 300))
        submission = Submission(number, random.choice(FUNCTIONS), random.choice(_UNIQUES), workload, background)
        shared.submissions.append(submission)
        plain = not delayed and reducer is None
        request = client.submit_job(
            submission.function,
            workload,
            unique=submission.unique,
            priority=random.choice(tuple(Priority)) if plain else Priority.NORMAL,
            background=background,
            run_at=int(self.clock.now) + random.randrange(4) if delayed else None,
            reducer=reducer,
        )
        self._open[client, request] = submission
        self.note(f"submits {number}")

    def on_event(self, session: Session[ClientConnection], event: Event) -> None:
        """Keep what becomes of a submission, and check that it is possible."""
        conn = session.conn
        assert conn is not None
        if isinstance(event, JobQueued):
            submission = self._open[conn, event.request]
            if submission.handle is not None or submission.outcomes:
                raise Violation(Invariant.ANSWERS, f"submission {submission.number} is taken twice")
            submission.handle = event.handle
            self.note(f"hears that {submission.number} is {event.handle.decode()}")
            if submission.background:
                del self._open[conn, event.request]
        elif isinstance(event, JobEnded):
            submission = self._open[conn, event.request]
            self.note(f"hears that {submission.number} ends: {event.outcome}")
            if submission.outcomes:
                raise Violation(
                    Invariant.ONE_END,
                    f"submission {submission.number} ends as {event.outcome} after {submission.outcomes}",
                )
            submission.outcomes.append(event.outcome)
            self._shared.judge_outcome(submission, event.outcome)
            del self._open[conn, event.request]
            if isinstance(event.outcome, NotSent | Lost) and event.handle != submission.handle:
                raise Violation(Invariant.ANSWERS, f"submission {submission.number} ends under another handle")
        elif isinstance(event, AdminReplied):
            reply = event.reply
            if isinstance(reply, Refused) and reply.code == b"MALFORMED_REPLY":
                raise Violation(Invariant.ANSWERS, f"{self.name} cannot read the answer {reply}")
