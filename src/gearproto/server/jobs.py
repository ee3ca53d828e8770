"""A job as the server keeps it."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from .linked import Linked

if TYPE_CHECKING:
    from .deadlines import Deadline
    from .queue import FunctionQueue, Worker

__all__ = ["DELAYED", "ENDED", "NEW", "QUEUED", "RUNNING", "Job", "JobState"]


class JobState(Enum):
    """Where a job is in its life: NEW, DELAYED or not, QUEUED and RUNNING, perhaps several times, then ENDED."""

    NEW = auto()
    """It has just been submitted."""
    DELAYED = auto()
    """It waits for its time: the one that its client has named, or the end of a pause after many losses."""
    QUEUED = auto()
    """It waits for a worker."""
    RUNNING = auto()
    """A worker has it."""
    ENDED = auto()
    """It is gone: finished, failed, cancelled, or wanted by nobody."""


# Python 3.11 takes ten times as long to find a member in its class.
NEW: Final = JobState.NEW
DELAYED: Final = JobState.DELAYED
QUEUED: Final = JobState.QUEUED
RUNNING: Final = JobState.RUNNING
ENDED: Final = JobState.ENDED


class Job(Linked):
    """A job in the server.

    Attributes:
        handle: the server's name for it.
        function: the queue it belongs to.
        unique: the client's own name for it, as workers are told; may be empty.
        key: under which later submissions are joined to it; None if never.
        workload: what to work on.
        priority: which of the function's queues it waits in, as in `gearproto.Priority`.
        background: whether it has to run even if nobody waits for it.
        reducer: name of the reducer; empty if there is none.
        clients: who waits for it, in the order of joining; one entry for each submission.
        state: where it is in its life.
        worker: who has it while it runs.
        losses: how often it was given back.
        progress: numerator and denominator of its last ``WORK_STATUS``.
        deadline: when its time comes, or its time limit ends; its place among the returned ones while it is queued.
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
        """Whether the job has to run: it is a background job, or somebody waits for it."""
        return self.background or bool(self.clients)
