"""Calls the functions of a worker, and tells how their jobs end."""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from functools import partial
from types import FrameType
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread

from gear_net.forks import FORKS
from gear_net.signals import end_child, receiving_signals
from gear_net.worker_jobs import End, call_blocking, ended, is_kind, iterate, raised
from gearproto.worker import completed, piece

from .worker_job import HeldJob, ThreadJob, WorkerJob

__all__ = ["Call", "call_of", "is_blocking"]

_log = logging.getLogger("gear_anyio.worker")

_NO_FUNCTIONS: Final = ("anyio", "asyncio", "gear_anyio", "trio")  # packages that must not be interrupted

Call = Callable[[HeldJob], Coroutine[Any, Any, tuple[End, BaseException | None]]]
"""Calls a function for a job. Whatever the function raises ends the job, and nothing else. Returns as `raised`."""


def call_of(handler: Callable[..., Any]) -> Call:
    """Return what calls a function of any kind.

    Raises:
        TypeError: it is not callable.
    """
    if not callable(handler):
        raise TypeError(f"{handler!r} cannot be called")
    if is_kind(handler, inspect.iscoroutinefunction):
        return partial(_run_in_task, handler)
    if is_kind(handler, inspect.isasyncgenfunction):
        return partial(_run_in_task, partial(_iterate, handler))
    return partial(_run_in_thread, handler)


# In a task


async def _run_in_task(call: Callable[[WorkerJob], Awaitable[Any]], job: HeldJob) -> tuple[End, BaseException | None]:
    began = time.monotonic()
    forks = FORKS.count
    try:
        end = completed(job.function, await call(WorkerJob(job)))
    except BaseException as error:
        if FORKS.count != forks:
            end_child(error)
        if isinstance(error, Exception):
            return raised(_log, job, error, began)
        return raised(_log, job, await _not_cancelled(job, error), began)
    if FORKS.count != forks:
        end_child(None)
    return ended(_log, job, end, began)


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


async def _not_cancelled(job: HeldJob, error: BaseException) -> BaseException:
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


async def _run_in_thread(handler: Callable[[ThreadJob], Any], job: HeldJob) -> tuple[End, BaseException | None]:
    # A thread cannot be ended: one whose job is cancelled is left to itself, and its reports raise. Any number of
    # threads may run, so that those keep no job waiting.
    return await anyio.to_thread.run_sync(
        call_blocking,
        _log,
        job,
        partial(iterate, handler, ThreadJob(job)),
        abandon_on_cancel=True,
        limiter=anyio.CapacityLimiter(math.inf),
    )
