"""Calls the functions of a worker, and tells how their jobs end."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

from gear_net.worker_jobs import End, call_blocking, is_kind, iterate

from .worker_job import HeldJob, WorkerJob

__all__ = ["check", "run"]

_log: Final = logging.getLogger("gear_sync.worker")


def check(handler: Callable[..., Any]) -> None:
    """Make sure that a worker can call a function.

    Raises:
        TypeError: it is not callable, or it is asynchronous, which only `gear_anyio.Worker` runs.
    """
    if not callable(handler):
        raise TypeError(f"{handler!r} cannot be called")
    if is_kind(handler, inspect.iscoroutinefunction, inspect.isasyncgenfunction):
        name = getattr(handler, "__qualname__", repr(handler))
        raise TypeError(f"{name} is asynchronous: only gear_anyio.Worker runs it")


def run(job: HeldJob, handler: Callable[..., Any]) -> tuple[End, BaseException | None]:
    """Call a job's function; what it sets in its context, the next job does not see. See `call_blocking`."""
    return call_blocking(_log, job, lambda: copy_context().run(iterate, handler, WorkerJob(job)))
