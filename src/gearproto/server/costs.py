"""What things take in memory, in bytes on top of the bytes that peers have sent; measured on CPython 3.11."""

from __future__ import annotations

from typing import Final

__all__ = ["ABILITY", "CANCELLED", "FUNCTION", "JOB", "JOIN", "PEER", "TLS"]

JOB: Final = 512
"""Bytes that a job takes on top of its workload and its names."""

FUNCTION: Final = 1700
"""Bytes that a function takes on top of its name."""

ABILITY: Final = 250
"""Bytes for a function of a worker."""

JOIN: Final = 64
"""Bytes for a submission that has joined a job."""

CANCELLED: Final = 150
"""Bytes for a job that was cancelled while a worker had it."""

PEER: Final = 2000
"""Bytes for a connection."""

TLS: Final = 17_000
"""Bytes for the TLS of a connection."""
