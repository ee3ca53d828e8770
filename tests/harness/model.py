"""A naive job server: one list of jobs, looked through for everything. It says what a real one has to answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from gearproto.codec import Packet
from gearproto.packets import JobRequeued, Priority, WorkException, WorkFail

from .engine import nth_handle

Answers = dict[int, list[Packet]]
"""What each peer gets, wake-ups left out."""


@dataclass(eq=False)
class ModelJob:
    """A job; `place` orders the queued ones, and stays when a job is given back."""

    handle: bytes
    function: bytes
    key: object
    workload: bytes
    priority: Priority
    background: bool
    place: int
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
        return self.background or self.clients != []

    @property
    def queued(self) -> bool:
        return self.worker is None and self.due is None and self.rest is None


@dataclass
class ModelPeer:
    """A connection."""

    abilities: dict[bytes, float | None] = field(default_factory=dict)
    exceptions: bool = False
    reruns: bool = False
    cancelled: set[bytes] = field(default_factory=set)
    raised: bytes | None = None
    asleep: bool = False
    woken_until: float | None = None


class ModelServer:
    """What a job server does, in the plainest words."""

    def __init__(self, *, job_retries: int, wakeup_timeout: float) -> None:
        self.jobs: list[ModelJob] = []
        self.given_up: list[bytes] = []
        self.peers: dict[int, ModelPeer] = {}
        self._retries = job_retries
        self._wakeup_timeout = wakeup_timeout
        self._numbers = count(1)
        self._places = count(1)

    def find(self, handle: bytes) -> ModelJob | None:
        return next((job for job in self.jobs if job.handle == handle), None)

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
        due: float | None = None,
    ) -> ModelJob:
        key: object = unique
        if unique == b"-":
            key = ("workload", workload) if workload else b""
        job = next((job for job in self.jobs if key and (job.function, job.key) == (function, key)), None)
        if job is None:
            handle = nth_handle(next(self._numbers))
            job = ModelJob(handle, function, key, workload, priority, background, next(self._places), due=due)
            self.jobs.append(job)
        job.background |= background
        if not background:
            job.clients.append(peer)
        return job

    def cancel(self, job: ModelJob) -> Answers:
        if job.worker is not None:
            self.peers[job.worker].cancelled.add(job.handle)
        return self._fail(job)

    def _fail(self, job: ModelJob) -> Answers:
        self.jobs.remove(job)
        answers: Answers = {}
        for client in job.clients:
            answers.setdefault(client, []).append(WorkFail(job.handle))
        return answers

    # Workers

    def candidates(self, peer: int) -> list[ModelJob]:
        """Return the jobs of which a worker may be given one: the oldest of each function, of the highest priority."""
        able = [job for job in self.jobs if job.queued and job.function in self.peers[peer].abilities]
        priority = min((job.priority for job in able), default=None)
        oldest: dict[bytes, ModelJob] = {}
        for job in sorted(able, key=lambda job: job.place):
            if job.priority is priority:
                oldest.setdefault(job.function, job)
        return list(oldest.values())

    def start(self, peer: int, job: ModelJob, now: float) -> None:
        limit = self.peers[peer].abilities[job.function]
        job.worker = peer
        job.limit = None if limit is None else now + limit
        job.started = next(self._places)

    def end(self, job: ModelJob, report: Packet) -> Answers:
        """End a job by its worker's report; a client that did not ask for exceptions gets a failure instead."""
        assert job.worker is not None
        if isinstance(report, WorkException):
            self.peers[job.worker].raised = job.handle
        self.jobs.remove(job)
        answers: Answers = {}
        for client in job.clients:
            plain = isinstance(report, WorkException) and not self.peers[client].exceptions
            answers.setdefault(client, []).append(WorkFail(job.handle) if plain else report)
        return answers

    def running(self, peer: int) -> list[ModelJob]:
        """Return the jobs that a worker has, in the order in which it got them."""
        return sorted((job for job in self.jobs if job.worker == peer), key=lambda job: job.started)

    def give_back(self, jobs: list[ModelJob], now: float) -> Answers:
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

    def lose_abilities(self, peer: int, functions: list[bytes]) -> None:
        for name in functions:
            self.peers[peer].abilities.pop(name, None)

    def leave(self, peer: int, now: float) -> Answers:
        for job in list(self.jobs):
            job.clients = [client for client in job.clients if client != peer]
            if not job.wanted and job.worker is None:
                self.jobs.remove(job)
        answers = self.give_back(self.running(peer), now)
        del self.peers[peer]
        return answers

    # Time

    def _next_time(self) -> float | None:
        times = [when for job in self.jobs for when in (job.due, job.rest, job.limit) if when is not None]
        return min(times, default=None)

    def advance(self, until: float) -> Answers:
        """Let time pass."""
        answers: Answers = {}
        while (now := self._next_time()) is not None and now <= until:
            for job in sorted(self.jobs, key=lambda job: int(job.handle[2:])):
                if job.due == now:
                    job.due, job.place = None, next(self._places)
                if job.rest == now:
                    job.rest = None
            late = sorted((job for job in self.jobs if job.limit == now), key=lambda job: job.started)
            for client, packets in self.give_back(late, now).items():
                answers.setdefault(client, []).extend(packets)
        return answers

    # Wake-ups

    def check_noop(self, peer: int, now: float) -> None:
        """Take note of a wake-up. Only one who sleeps is woken."""
        assert self.peers[peer].asleep, f"peer {peer} was woken without sleeping"
        self.peers[peer].asleep = False
        self.peers[peer].woken_until = now + self._wakeup_timeout

    def check_sleepers(self, now: float) -> None:
        """Check that wherever somebody sleeps beside a job for him, somebody else has just been woken."""
        for number, peer in self.peers.items():
            if peer.asleep and self.candidates(number):
                woken = [until for other in self.peers.values() if (until := other.woken_until) is not None]
                assert any(until >= now for until in woken), f"peer {number} sleeps beside a job, and nobody is woken"
