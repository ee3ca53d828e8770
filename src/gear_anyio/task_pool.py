"""Tasks that are kept to run one job after another."""

from __future__ import annotations

import asyncio
import math
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, Generic, TypeVar

import anyio
import anyio.abc

from .eventloop import TaskStarter, asyncio_loop

__all__ = ["TaskPool"]

_J = TypeVar("_J")


class TaskPool(Generic[_J]):
    """Runs jobs at once, each in a task that has nothing else to do: to begin a task takes longer than many a job.

    What a job sets in its context (`contextvars`), the next one of its task does not see.
    """

    def __init__(self, group: anyio.abc.TaskGroup, work: Callable[[_J], Coroutine[Any, Any, None]]) -> None:
        """Begin in a task.

        Args:
            group: where tasks run, until it is cancelled.
            work: runs a job.
        """
        self._starter = TaskStarter(group)
        self._work = work
        self._idle: list[_Worker[_J]] = []

    def give(self, job: _J) -> None:
        """Run a job; in callbacks of the event loop too."""
        if self._idle:
            self._idle.pop().give(job)
        else:
            self._starter.start_soon(self._run, job)

    async def _run(self, job: _J) -> None:
        worker: _Worker[_J] = _Worker()
        while True:
            await _in_own_context(self._work(job))
            del job  # it may be big
            self._idle.append(worker)
            job = await worker.take()


class _Worker(Generic[_J]):
    """A task that waits for a job."""

    __slots__ = ("_given", "_jobs", "_task")

    def __init__(self) -> None:
        self._jobs: list[_J] = []
        self._given = anyio.Event()
        self._task = None if asyncio_loop() is None else asyncio.current_task()

    def give(self, job: _J) -> None:
        self._jobs.append(job)
        self._given.set()

    async def take(self) -> _J:
        while not self._jobs:
            try:
                await self._given.wait()
            except anyio.get_cancelled_exc_class():
                if anyio.current_effective_deadline() == -math.inf:
                    raise
                # Nobody but a job has cancelled this task, as asyncio lets it; it shows only now.
        self._given = anyio.Event()
        while self._task is not None and self._task.cancelling():
            self._task.uncancel()  # that of a job; the timeouts and task groups of the next one look at it
        return self._jobs.pop()


@types.coroutine
def _in_own_context(call: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """Await a call in a copy of the task's context."""
    context = copy_context()
    step: Callable[[Any], Any] = call.send
    value: Any = None
    while True:
        try:
            wanted = context.run(step, value)
        except StopIteration:
            return
        try:
            value = yield wanted
            step = call.send
        except BaseException as error:  # the coroutine gets it, as it would without the context
            step, value = call.throw, error
