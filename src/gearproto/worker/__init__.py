"""The worker's side: a connection, which of several servers is asked for jobs, and how jobs in hand are reported on."""

from .assignments import Assignment, server_timeout_ms, stopping
from .connection import MAX_UNASKED, WorkerConnection
from .cycle import ASSIGNMENTS, Grab, grab_cycle
from .grabbing import DEFAULT_GRAB_TIMEOUT, Grabber
from .in_hand import WorkerJobs
from .results import completed, described, ended_by, is_failure, is_interrupt, piece, raised, timed_out
from .turns import GrabTurns

__all__ = [
    "ASSIGNMENTS",
    "DEFAULT_GRAB_TIMEOUT",
    "MAX_UNASKED",
    "Assignment",
    "Grab",
    "GrabTurns",
    "Grabber",
    "WorkerConnection",
    "WorkerJobs",
    "completed",
    "described",
    "ended_by",
    "grab_cycle",
    "is_failure",
    "is_interrupt",
    "piece",
    "raised",
    "server_timeout_ms",
    "stopping",
    "timed_out",
]
