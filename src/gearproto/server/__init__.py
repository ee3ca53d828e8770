"""The job server without any I/O: many peers, one queue, time as an argument."""

from .engine import Counters, Engine, EngineOptions, JobChanged, PeerFailed, PeerId, ShutdownRequested

__all__ = ["Counters", "Engine", "EngineOptions", "JobChanged", "PeerFailed", "PeerId", "ShutdownRequested"]
