"""The job server without any I/O: many peers, one queue, time as an argument."""

from .engine import Engine, EngineOptions
from .events import Counters, JobChanged, JobGivenUp, PeerFailed, ShutdownRequested
from .peers import PeerId
from .reports import Report, server_decoders

__all__ = [
    "Counters",
    "Engine",
    "EngineOptions",
    "JobChanged",
    "JobGivenUp",
    "PeerFailed",
    "PeerId",
    "Report",
    "ShutdownRequested",
    "server_decoders",
]
