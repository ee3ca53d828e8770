"""The job server without any I/O: many peers, one queue, time as an argument."""

from .engine import Engine, EngineOptions
from .events import Counters, JobChanged, JobGivenUp, PeerFailed, ShutdownRequested
from .jobs import Job, JobState, PeerId, Worker
from .observing import JobObserver
from .queue import JobQueue, Scheduler
from .reports import Report, server_decoders
from .waking import WakePolicy, Waking

__all__ = [
    "Counters",
    "Engine",
    "EngineOptions",
    "Job",
    "JobChanged",
    "JobGivenUp",
    "JobObserver",
    "JobQueue",
    "JobState",
    "PeerFailed",
    "PeerId",
    "Report",
    "Scheduler",
    "ShutdownRequested",
    "WakePolicy",
    "Waking",
    "Worker",
    "server_decoders",
]
