"""What the job queue is about: jobs, functions and workers, as data."""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum, auto
from typing import Any, Final, NewType

from .deadlines import Deadline, Deadlines
from .linked import Linked

__all__ = [
    "DELAYED",
    "ENDED",
    "NEW",
    "QUEUED",
    "RUNNING",
    "WITHDRAWN",
    "FunctionQueue",
    "Job",
    "JobState",
    "PeerId",
    "Worker",
]

PeerId = NewType("PeerId", int)
"""Names one peer of an engine; never used twice."""


class JobState(Enum):
    """Where a job is in its life: NEW, DELAYED or not, QUEUED and RUNNING, perhaps several times, then ENDED.

    A scheduler may take a QUEUED job out: it is WITHDRAWN, until it is put back, handed out, or ended.
    """

    NEW = auto()
    """It has just been submitted."""
    DELAYED = auto()
    """It waits for its time: the one that its client has named, or the end of a pause after many losses."""
    QUEUED = auto()
    """It waits for a worker."""
    WITHDRAWN = auto()
    """A scheduler holds it back."""
    RUNNING = auto()
    """A worker has it."""
    ENDED = auto()
    """It is gone: finished, failed, cancelled, or wanted by nobody."""


# Python 3.11 takes ten times as long to find a member in its class.
NEW: Final = JobState.NEW
DELAYED: Final = JobState.DELAYED
QUEUED: Final = JobState.QUEUED
WITHDRAWN: Final = JobState.WITHDRAWN
RUNNING: Final = JobState.RUNNING
ENDED: Final = JobState.ENDED


class Job(Linked):
    """A job in the server.

    Attributes:
        handle: the server's name for it.
        function: the queue it belongs to.
        unique: the client's own name for it, as workers are told; may be empty.
        key: under which later submissions are joined to it; None if never.
        workload: the data to work on.
        priority: which of the function's queues it waits in, as in `gearproto.Priority`.
        background: whether it has to run even if nobody waits for it.
        reducer: name of the reducer; empty if there is none.
        clients: the peers that wait for it, in the order of joining; one entry for each submission.
        state: queued, delayed, running, withdrawn or ended.
        worker: the peer that has it while it runs.
        losses: how often it was given back.
        progress: numerator and denominator of its last ``WORK_STATUS``.
        deadline: when its time comes, or its timeout ends; its place among the returned ones while it is queued.
        size: bytes of its workload, names and unique, as they count.
        turn: a number in the order in which workers first got the jobs of the server; 0 until it had a worker.
    """

    __slots__ = (
        "background",
        "clients",
        "deadline",
        "function",
        "handle",
        "key",
        "losses",
        "priority",
        "progress",
        "reducer",
        "size",
        "state",
        "turn",
        "unique",
        "worker",
        "workload",
    )

    def __init__(
        self,
        handle: bytes,
        function: FunctionQueue,
        unique: bytes,
        key: object,
        workload: bytes,
        priority: int,
        background: bool,
        reducer: bytes,
    ) -> None:
        """Make a new job that is not queued yet."""
        self.handle = handle
        self.function = function
        self.unique = unique
        self.key = key
        self.workload = workload
        self.priority = priority
        self.background = background
        self.reducer = reducer
        self.clients: list[Any] | None = None
        self.state: JobState = NEW
        self.worker: Worker | None = None
        self.losses = 0
        self.progress: tuple[int, int] = (0, 0)
        self.deadline: Deadline[Job] | None = None
        self.size: int
        self.turn = 0

    @property
    def wanted(self) -> bool:
        """Whether the job has to run, because it is a background job or a client waits for it."""
        return self.background or bool(self.clients)


class FunctionQueue(Linked):
    """One function: its jobs, its workers, its limits.

    Attributes:
        name: the function's name.
        name_size: its bytes.
        queues: its waiting jobs by priority, but for the returned ones; None until the first.
        returned: its waiting jobs that have lost a worker, by priority, in the order in which they first had one; all
            are older than those in the queues. Only priorities that have such jobs are there.
        queued: how many jobs wait in each, removed ones not counted.
        removed: how many jobs are still in each deque, but gone.
        running: how many jobs workers have.
        delayed: how many jobs of each priority wait for their time.
        withdrawn: how many jobs a scheduler holds back; no total counts them.
        limits: for each priority the total of jobs from which on submissions are refused; 0 for no limit.
        workers: who can run it.
        unready: for each priority, the workers that know of no job.
        sleepers: sleeping workers that know of a job but have not been woken for one; with a scheduler, all that sleep.
        waking_all: whether all its sleepers are being woken.
        kept: whether an administrator created it or set a limit, so that it is never forgotten.
        idle: whether it has neither jobs nor workers, and may be forgotten.
    """

    __slots__ = (
        "delayed",
        "idle",
        "kept",
        "limits",
        "name",
        "name_size",
        "queued",
        "queues",
        "removed",
        "returned",
        "running",
        "sleepers",
        "unready",
        "waking_all",
        "withdrawn",
        "workers",
    )

    def __init__(self, name: bytes) -> None:
        """Begin without jobs and workers."""
        self.name = name
        self.name_size = len(name)
        self.queues: list[deque[Job] | None] = [None, None, None]
        self.returned: dict[int, Deadlines[Job]] = {}
        self.queued = [0, 0, 0]
        self.removed = [0, 0, 0]
        self.running = 0
        self.delayed = [0, 0, 0]
        self.withdrawn = 0
        self.limits: tuple[int, int, int] = (0, 0, 0)
        self.workers: dict[Worker, None] = {}
        self.unready: tuple[dict[Worker, None], dict[Worker, None], dict[Worker, None]] = ({}, {}, {})
        self.sleepers: OrderedDict[Worker, None] = OrderedDict()
        self.waking_all = False
        self.kept = False
        self.idle = False

    @property
    def waiting(self) -> int:
        """How many jobs a worker could take now."""
        high, normal, low = self.queued
        return high + normal + low

    @property
    def total(self) -> int:
        """Number of jobs, including delayed and running ones."""
        return self.waiting + sum(self.delayed) + self.running

    @property
    def in_use(self) -> bool:
        """Whether it has workers or jobs."""
        return bool(self.workers or self.withdrawn or self.total)


class Worker(Linked):
    """A worker as the queue sees it.

    Attributes:
        id: what the engine calls its connection.
        abilities: its functions and their timeouts in seconds, in the order of registration.
        ready: for each priority the functions that may have a job; None until it can run anything.
        asleep: whether it waits to be woken.
        woken_for: the function whose job it was last woken for, until it asks for a job.
        misses: how many workers had been woken for that job in vain, one after the other.
        in_hand: the jobs it runs.
    """

    __slots__ = ("_listed", "abilities", "asleep", "id", "in_hand", "misses", "ready", "woken_for")

    def __init__(self, id_: PeerId) -> None:
        """Begin awake and without abilities."""
        self.id = id_
        self.abilities: dict[FunctionQueue, float | None] = {}
        self.ready: tuple[OrderedDict[FunctionQueue, None], ...] = ()
        self.asleep = False
        self.woken_for: FunctionQueue | None = None
        self.misses = 0
        self.in_hand: dict[Job, None] = {}
        self._listed: tuple[FunctionQueue, ...] | None = None

    def listed(self) -> tuple[FunctionQueue, ...]:
        """Return the functions, last registered first; the same tuple again as long as nothing changes."""
        if self._listed is None:
            self._listed = tuple(self.abilities)[::-1]
        return self._listed

    def abilities_changed(self) -> None:
        """Forget what `listed` has returned."""
        self._listed = None
