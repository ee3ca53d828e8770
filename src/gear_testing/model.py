"""A naive job server: one list of jobs, looked through for everything. It says what a real one has to answer.

It is the reference that `gear_testing.simulator` compares a job server with. It knows nothing of bytes, and leaves open
what a server may choose: which of several functions comes first, and which sleeping worker is woken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

from gearproto.codec import Packet
from gearproto.packets import JobRequeued, Priority, WorkException, WorkFail

__all__ = ["Answers", "ModelJob", "ModelPeer", "ModelServer"]

Answers = dict[int, list[Packet]]
"""What each peer gets, wake-ups left out."""


@dataclass(eq=False, slots=True)
class ModelJob:
    """A job.

    Attributes:
        handle: the server's name for it.
        function: name of the function.
        unique: the client's own name for it, as workers are told.
        key: under which later submissions are joined to it; empty if never.
        workload: the data to work on.
        priority: which queue it waits in.
        background: whether it runs even if nobody waits for it.
        place: orders the queued ones, and stays when a job is given back.
        reducer: name of the reducer; empty if there is none.
        clients: the peers that wait for it; one entry for each submission.
        due: seconds since 1970 before which it does not run; None for at once.
        rest: monotonic time before which it does not run again after many losses; None for at once.
        worker: who runs it; None for nobody.
        limit: monotonic time at which it is taken from its worker; None for never.
        started: orders the running ones.
        losses: how often it was given back.
        progress: numerator and denominator of its last progress.
    """

    handle: bytes
    function: bytes
    unique: bytes
    key: object
    workload: bytes
    priority: Priority
    background: bool
    place: int
    reducer: bytes = b""
    clients: list[int] = field(default_factory=list)
    due: float | None = None
    rest: float | None = None
    worker: int | None = None
    limit: float | None = None
    started: int = 0
    losses: int = 0
    progress: tuple[int, int] = (0, 0)

    @property
    def wanted(self) -> bool:
        """Whether it has to run."""
        return self.background or self.clients != []

    @property
    def queued(self) -> bool:
        """Whether a worker could take it now."""
        return self.worker is None and self.due is None and self.rest is None


@dataclass(slots=True)
class ModelPeer:
    """A connection.

    Attributes:
        abilities: its functions, and their time limits in seconds.
        exceptions: whether it has set that option.
        reruns: whether it has set that option.
        cancelled: handles of jobs that were cancelled in its hands, and whose end it still reports.
        raised: handle of the job that it has just ended with ``WORK_EXCEPTION``.
        asleep: whether it waits to be woken.
        woken_until: monotonic time until which it has to ask for a job, since it was woken.
    """

    abilities: dict[bytes, float | None] = field(default_factory=dict)
    exceptions: bool = False
    reruns: bool = False
    cancelled: set[bytes] = field(default_factory=set)
    raised: bytes | None = None
    asleep: bool = False
    woken_until: float | None = None


class ModelServer:
    """What a job server does, in the plainest words.

    Attributes:
        jobs: all jobs that have not ended, in the order of submission.
        given_up: handles of jobs that were lost too often; leave them out when you compare.
        peers: all connections.
        ended: how many jobs have ended.
    """

    def __init__(self, *, handle_prefix: bytes, job_retries: int, wakeup_timeout: float) -> None:
        """Begin without peers and jobs; the arguments are those of `gearproto.server.Engine`."""
        self.jobs: list[ModelJob] = []
        self.given_up: list[bytes] = []
        self.peers: dict[int, ModelPeer] = {}
        self.ended = 0
        self._by_handle: dict[bytes, ModelJob] = {}
        self._prefix = handle_prefix
        self._retries = job_retries
        self._wakeup_timeout = wakeup_timeout
        self._numbers = count(1)
        self._places = count(1)

    def find(self, handle: bytes) -> ModelJob | None:
        """Return the job with a handle; None if it has ended, or there was none."""
        return self._by_handle.get(handle)

    # Clients

    def submit(
        self,
        peer: int,
        function: bytes,
        unique: bytes,
        workload: bytes,
        *,
        priority: Priority,
        background: bool,
        reducer: bytes = b"",
        due: float | None = None,
    ) -> ModelJob:
        """Return a new job, or the one that the submission joins."""
        key: object = unique
        if unique == b"-":
            key = ("workload", workload) if workload else b""
        job = next((job for job in self.jobs if key and (job.function, job.key) == (function, key)), None)
        if job is None:
            handle = b"%b:%015d" % (self._prefix, next(self._numbers))
            place = next(self._places)
            job = ModelJob(handle, function, unique, key, workload, priority, background, place, reducer, due=due)
            self.jobs.append(job)
            self._by_handle[handle] = job
        job.background |= background
        if not background:
            job.clients.append(peer)
        return job

    def cancel(self, job: ModelJob) -> Answers:
        """End a job because an administrator wants it."""
        if job.worker is not None:
            self.peers[job.worker].cancelled.add(job.handle)
        return self._fail(job)

    def _fail(self, job: ModelJob) -> Answers:
        self._forget(job)
        answers: Answers = {}
        for client in job.clients:
            answers.setdefault(client, []).append(WorkFail(job.handle))
        return answers

    def _forget(self, job: ModelJob) -> None:
        self.jobs.remove(job)
        del self._by_handle[job.handle]
        self.ended += 1

    # Workers

    def candidates(self, peer: int) -> list[ModelJob]:
        """Return the jobs of which a worker may be given one: the oldest of each function, of the highest priority."""
        abilities = self.peers[peer].abilities
        able = [job for job in self.jobs if job.queued and job.function in abilities]
        if not able:
            return able
        priority = min(job.priority for job in able)
        oldest: dict[bytes, ModelJob] = {}
        for job in sorted(able, key=lambda job: job.place):
            if job.priority is priority:
                oldest.setdefault(job.function, job)
        return list(oldest.values())

    def start(self, peer: int, job: ModelJob, now: float) -> None:
        """Give a job to a worker."""
        limit = self.peers[peer].abilities[job.function]
        job.worker = peer
        job.limit = None if limit is None else now + limit
        job.started = next(self._places)

    def end(self, job: ModelJob, report: Packet) -> Answers:
        """End a job by its worker's report; a client that did not ask for exceptions gets a failure instead."""
        assert job.worker is not None
        if isinstance(report, WorkException):
            self.peers[job.worker].raised = job.handle
        self._forget(job)
        answers: Answers = {}
        for client in job.clients:
            plain = isinstance(report, WorkException) and not self.peers[client].exceptions
            answers.setdefault(client, []).append(WorkFail(job.handle) if plain else report)
        return answers

    def running(self, peer: int) -> list[ModelJob]:
        """Return the jobs that a worker has, in the order in which it got them."""
        return sorted((job for job in self.jobs if job.worker == peer), key=lambda job: job.started)

    def give_back(self, jobs: Iterable[ModelJob], now: float) -> Answers:
        """Put jobs back to where they were in their queues, or end those that may not run again."""
        answers: Answers = {}
        for job in jobs:
            job.worker, job.limit, job.progress = None, None, (0, 0)
            job.losses += 1
            if job.losses >= 3:
                job.rest = now + min(60, 2 ** (job.losses - 3))
            if not job.wanted or 0 <= self._retries < job.losses:
                if job.wanted:
                    self.given_up.append(job.handle)
                for client, packets in self._fail(job).items():
                    answers.setdefault(client, []).extend(packets)
                continue
            for client in job.clients:
                if self.peers[client].reruns:
                    answers.setdefault(client, []).append(JobRequeued(job.handle))
        return answers

    def lose_abilities(self, peer: int, functions: Iterable[bytes]) -> None:
        """Forget functions of a worker; the jobs in its hands stay there."""
        for name in functions:
            self.peers[peer].abilities.pop(name, None)

    def leave(self, peer: int, now: float) -> Answers:
        """Lose a connection."""
        for job in list(self.jobs):
            job.clients = [client for client in job.clients if client != peer]
            if not job.wanted and job.worker is None:
                self._forget(job)
        answers = self.give_back(self.running(peer), now)
        del self.peers[peer]
        return answers

    # Time

    def next_time(self, epoch_offset: float) -> float | None:
        """Return when `handle_timeout` has something to do; None for never."""
        times = [when for job in self.jobs for when in (job.rest, job.limit) if when is not None]
        times += [job.due - epoch_offset for job in self.jobs if job.due is not None]
        return min(times, default=None)

    def handle_timeout(self, now: float, epoch_offset: float) -> Answers:
        """Do what is due: first time limits, then the ends of pauses, then delayed jobs.

        Args:
            now: monotonic time in seconds.
            epoch_offset: what it lacks to be seconds since 1970.
        """
        late = [job for job in self.jobs if job.limit is not None and job.limit <= now]
        answers = self.give_back(sorted(late, key=lambda job: (job.limit, job.started)), now)
        for job in self.jobs:
            if job.rest is not None and job.rest <= now:
                job.rest = None
        due = [job for job in self.jobs if job.due is not None and job.due - epoch_offset <= now]
        for job in sorted(due, key=lambda job: job.due or 0.0):  # which keeps the order of those of one time
            job.due, job.place = None, next(self._places)
        return answers

    # Wake-ups

    def wake(self, peer: int, now: float) -> bool:
        """Record that a server has woken a worker; return whether it slept."""
        state = self.peers[peer]
        slept, state.asleep = state.asleep, False
        state.woken_until = now + self._wakeup_timeout
        return slept

    def overslept(self, now: float) -> bytes | None:
        """Return a function of which jobs wait while workers sleep that nobody has woken; None if there is none.

        Of the workers that can run a function, as many have to be awake and on their way as jobs of it wait, unless
        none of them sleeps.
        """
        sleeping = [peer.abilities for peer in self.peers.values() if peer.asleep and peer.abilities]
        if not sleeping:
            return None
        waiting: dict[bytes, int] = {}
        for job in self.jobs:
            if job.queued:
                waiting[job.function] = waiting.get(job.function, 0) + 1
        for name, number in waiting.items():
            if any(name in abilities for abilities in sleeping):
                coming = sum(
                    name in peer.abilities and peer.woken_until is not None and peer.woken_until >= now
                    for peer in self.peers.values()
                )
                if coming < number:
                    return name
        return None
