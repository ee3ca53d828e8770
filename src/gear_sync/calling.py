"""Calls the functions of a worker, and tells how their jobs end."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Generator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from gear_net.signals import end_child
from gearproto import Completed, ConnectionLost, Failed, Raised
from gearproto.worker import completed, described, ended_by, is_failure, is_interrupt, piece

if TYPE_CHECKING:
    from .worker_job import WorkerJob

__all__ = ["check", "run"]

_log = logging.getLogger("gear_sync.worker")

End = Completed | Failed | Raised


def check(handler: Callable[..., Any]) -> None:
    """Make sure that a worker can call a function.

    Raises:
        TypeError: it is not callable, or it is asynchronous, which only `gear_anyio.Worker` runs.
    """
    if not callable(handler):
        raise TypeError(f"{handler!r} cannot be called")
    wrapped: Any = handler
    while isinstance(wrapped, functools.partial):
        wrapped = wrapped.func
    called = wrapped if inspect.isroutine(wrapped) else type(wrapped).__call__
    for function in (wrapped, called):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            name = getattr(handler, "__qualname__", repr(handler))
            raise TypeError(f"{name} is asynchronous: only gear_anyio.Worker runs it")


def run(job: WorkerJob, handler: Callable[..., Any]) -> tuple[End, BaseException | None]:
    """Call a job's function.

    Whatever it raises ends the job, and nothing else: a pool's thread lives on, and so does the worker.

    Returns:
        How the job ends; and KeyboardInterrupt, or a group with it, if the function has raised it in the main thread,
        where it is meant for the whole program.
    """
    began = time.monotonic()
    process = os.getpid()
    try:
        # What a function sets in its context, the next job does not see.
        end = completed(job.function, copy_context().run(_call, job, handler))
    except BaseException as error:
        if os.getpid() != process:
            end_child(error)
        return _raised(job, error, time.monotonic() - began)
    if os.getpid() != process:
        end_child(None)
    late = ", after it was given up" if job.given_up else ""
    _log.info("job %r of %r done in %.3f s%s", job.handle, job.function, time.monotonic() - began, late)
    return end, None


def _call(job: WorkerJob, handler: Callable[..., Any]) -> Any:
    result = handler(job)
    if not isinstance(result, Generator):
        return result
    with contextlib.closing(result):
        while True:
            try:
                data = next(result)
            except StopIteration as end:
                return end.value
            job.send(piece(job.function, data))


def _raised(job: WorkerJob, error: BaseException, seconds: float) -> tuple[End, BaseException | None]:
    """Return how a job ends whose function has raised, as `run` does, and tell of it."""
    handle, function = job.handle, job.function
    interrupt = is_interrupt(error) and threading.current_thread() is threading.main_thread()
    if interrupt:
        _log.warning("job %r of %r interrupted after %.3f s", handle, function, seconds)
    elif is_failure(error):
        _log.info("job %r of %r failed after %.3f s: %s", handle, function, seconds, described(error))
    elif job.given_up or (isinstance(error, ConnectionLost) and not job.connected):
        _log.info("job %r of %r given up after %.3f s: %s", handle, function, seconds, described(error))
    else:
        _log.error("job %r of %r raised after %.3f s", handle, function, seconds, exc_info=error)
    return ended_by(error), error if interrupt else None
