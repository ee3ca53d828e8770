"""Options of the engine, as keyword arguments."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["EngineOptions"]


class EngineOptions(TypedDict, total=False):
    """The options of `Engine` that a server may pass on; their meaning stands there."""

    job_retries: int
    worker_wakeup: int
    wakeup_timeout: float
    round_robin: bool
    exceptions: bool
    max_packet_size: int
    max_line_size: int
    max_output_size: int
    max_text_size: int
    max_functions: int
    max_jobs: int
    max_queue_size: int
    max_idle_functions: int
    max_kept_functions: int
    allow_shutdown: bool
    verbosity: bytes
