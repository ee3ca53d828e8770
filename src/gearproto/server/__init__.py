"""The job server without any I/O: many peers, one queue, time as an argument."""

from .changes import (
    Change,
    Close,
    CloseWrite,
    MemoryLimitReached,
    PauseReading,
    PeerGivenUp,
    ResumeReading,
    Stopped,
    TrimMemory,
)
from .endpoint import TURNED_AWAY, Endpoint, EndpointOptions
from .engine import Engine
from .events import Counters, JobChanged, JobGivenUp, PeerFailed, ShutdownRequested
from .jobs import Job, JobState, PeerId, Worker
from .observing import JobObserver
from .options import EngineOptions
from .queue import JobQueue, Scheduler
from .reports import Report, server_decoders
from .waking import WakePolicy, Waking

__all__ = [
    "TURNED_AWAY",
    "Change",
    "Close",
    "CloseWrite",
    "Counters",
    "Endpoint",
    "EndpointOptions",
    "Engine",
    "EngineOptions",
    "Job",
    "JobChanged",
    "JobGivenUp",
    "JobObserver",
    "JobQueue",
    "JobState",
    "MemoryLimitReached",
    "PauseReading",
    "PeerFailed",
    "PeerGivenUp",
    "PeerId",
    "Report",
    "ResumeReading",
    "Scheduler",
    "ShutdownRequested",
    "Stopped",
    "TrimMemory",
    "WakePolicy",
    "Waking",
    "Worker",
    "server_decoders",
]
