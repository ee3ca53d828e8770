"""Calls the functions of a worker, and tells how their jobs end."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing, closing, suppress
from functools import partial
from types import FrameType
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread

from gear_net.signals import end_child, receiving_signals
from gearproto import Completed, ConnectionLost, Failed, Raised
from gearproto.worker import completed, described, ended_by, is_failure, is_interrupt, piece

from .worker_job import ThreadJob, WorkerJob

__all__ = ["Call", "End", "call_of", "is_blocking"]

_log = logging.getLogger("gear_anyio.worker")

_NO_FUNCTIONS: Final = ("anyio", "asyncio", "gear_anyio", "trio")  # packages that are not to be interrupted

End = Completed | Failed | Raised

Call = Callable[[WorkerJob], Coroutine[Any, Any, tuple[End, BaseException | None]]]
"""Calls a function for a job. Whatever the function raises ends the job, and nothing else.

Returns how the job ends; and KeyboardInterrupt, or a group with it, if the function has raised it in the main thread,
where it is meant for the whole program.
"""


def call_of(handler: Callable[..., Any]) -> Call:
    """Return what calls a function of any kind.

    Raises:
        TypeError: it is not callable.
    """
    if not callable(handler):
        raise TypeError(f"{handler!r} cannot be called")
    function: Any = handler
    while isinstance(function, functools.partial):
        function = function.func
    called = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):
        return partial(_run_in_task, handler)
    if inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(called):
        return partial(_run_in_task, partial(_iterate, handler))
    return partial(_run_in_thread, handler)


# In a task


async def _run_in_task(call: Callable[[WorkerJob], Awaitable[Any]], job: WorkerJob) -> tuple[End, BaseException | None]:
    began = time.monotonic()
    process = os.getpid()
    try:
        end = completed(job.function, await call(job))
    except BaseException as error:
        if os.getpid() != process:
            end_child(error)
        if isinstance(error, Exception):
            return _raised(job, error, time.monotonic() - began)
        return _raised(job, await _not_cancelled(job, error), time.monotonic() - began)
    if os.getpid() != process:
        end_child(None)
    _log_done(job, time.monotonic() - began)
    return end, None


def is_blocking(frame: FrameType | None) -> bool:
    """Tell whether a frame is that of a function in a task, and not that of the event loop or of this package."""
    blocking = True
    while frame is not None and frame.f_code is not _run_in_task.__code__:
        module = str(frame.f_globals.get("__name__"))
        if module == receiving_signals.__module__:
            blocking = True  # what calls this is a handler of another signal, which interrupts what is behind it
        elif module.partition(".")[0] in _NO_FUNCTIONS:
            blocking = False
        frame = frame.f_back
    return blocking and frame is not None


async def _not_cancelled(job: WorkerJob, error: BaseException) -> BaseException:
    """Return what a function has raised, unless its job is cancelled: then that is raised, and nothing hides it."""
    cancelled = anyio.get_cancelled_exc_class()
    if anyio.current_effective_deadline() > -math.inf:
        with suppress(cancelled):
            await anyio.lowlevel.checkpoint()  # all tasks of a loop may be about to be cancelled, this one first
    if anyio.current_effective_deadline() > -math.inf:
        if not isinstance(error, cancelled):
            return error
        # What it waited for has been cancelled, as asyncio's tasks and futures can be.
        told = RuntimeError(f"{type(error).__name__}: what the function awaited was cancelled")
        told.__cause__ = error
        return told
    if not isinstance(error, cancelled):
        _log.warning("job %r of %r raised when it was cancelled", job.handle, job.function, exc_info=error)
    await anyio.sleep_forever()
    raise error  # it does not come to this


async def _iterate(handler: Callable[[WorkerJob], AsyncGenerator[Any, None]], job: WorkerJob) -> None:
    async with aclosing(handler(job)) as pieces:
        async for data in pieces:
            await job.send(piece(job.function, data))


# In a thread


async def _run_in_thread(handler: Callable[[ThreadJob], Any], job: WorkerJob) -> tuple[End, BaseException | None]:
    # A thread cannot be ended: one whose job is cancelled is left to itself, and its reports raise. There is room for
    # any number of threads, so that those keep no job waiting.
    return await anyio.to_thread.run_sync(
        _in_thread, handler, job, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf)
    )


def _in_thread(handler: Callable[[ThreadJob], Any], job: WorkerJob) -> tuple[End, BaseException | None]:
    """Call a function; raise nothing, as not all exceptions find their way through an event loop."""
    began = time.monotonic()
    process = os.getpid()
    try:
        end = completed(job.function, _call(handler, ThreadJob(job)))
    except BaseException as error:
        if os.getpid() != process:
            end_child(error)
        return _raised(job, error, time.monotonic() - began)
    if os.getpid() != process:
        end_child(None)
    _log_done(job, time.monotonic() - began)
    return end, None


def _call(handler: Callable[[ThreadJob], Any], job: ThreadJob) -> Any:
    result = handler(job)
    if not isinstance(result, Generator):
        return result
    with closing(result):
        while True:
            try:
                data = next(result)
            except StopIteration as end:
                return end.value
            job.send(piece(job.function, data))


# What is told


def _log_done(job: WorkerJob, seconds: float) -> None:
    late = ", after it was given up" if job.given_up else ""
    _log.info("job %r of %r done in %.3f s%s", job.handle, job.function, seconds, late)


def _raised(job: WorkerJob, error: BaseException, seconds: float) -> tuple[End, BaseException | None]:
    """Return how a job ends whose function has raised, as `Call` does, and tell of it."""
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
