"""What a server holds at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from gearproto.server import Counters

__all__ = ["Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counts of a server.

    Attributes:
        jobs: counts of jobs and functions.
        received: bytes received since the start.
        sent: bytes sent since the start.
        unsent: bytes that peers have not read yet.
    """

    jobs: Counters
    received: int
    sent: int
    unsent: int
