"""Sleeping workers: which of them are woken for a job, and what happens if they do not come.

A worker that has found no job says that it sleeps (``PRE_SLEEP``). For a job as many sleepers are woken (``NOOP``) as
the job is worth. One that has been woken has to ask for a job within a while; otherwise others are woken in its place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from gearproto.packets import Noop

from .chores import Chores
from .clock import Clock
from .jobs import FunctionQueue, Job, Worker
from .observing import JobObserver
from .output import Output
from .peers import Peer
from .queue import JobQueue

__all__ = ["WakePolicy", "Waking"]

_MAX_MISSES: Final = 3  # once more workers than this have been woken in vain, all are woken
_NOOP: Final = Noop().encode()


class Waking:
    """The sleeping workers of an engine, and those that have been woken and have not asked for a job yet.

    Attributes:
        woken: the latter, and when each has to have asked; the oldest first.
    """

    __slots__ = (
        "_chores",
        "_clock",
        "_observer",
        "_output",
        "_policy",
        "_queue",
        "_timeout",
        "_worker_wakeup",
        "woken",
    )

    def __init__(
        self,
        queue: JobQueue,
        output: Output,
        chores: Chores,
        clock: Clock,
        *,
        worker_wakeup: int,
        timeout: float,
        policy: WakePolicy | None,
        observer: JobObserver | None,
    ) -> None:
        """Begin.

        Args:
            queue: the jobs.
            output: where to queue what workers get.
            chores: what takes long.
            clock: the time.
            worker_wakeup: as in `Engine`.
            timeout: seconds within which a woken worker has to ask for a job.
            policy: as in `Engine`.
            observer: who is told.
        """
        self._queue = queue
        self._output = output
        self._chores = chores
        self._clock = clock
        self._worker_wakeup = worker_wakeup
        self._timeout = timeout
        self._policy = policy
        self._observer = observer
        # When each has to have asked, the oldest first. Deleting the first of a plain dict again and again makes
        # finding the next one take long.
        self.woken: OrderedDict[Worker, float] = OrderedDict()

    # Falling asleep

    def sleep(self, worker: Peer) -> None:
        """Let a worker sleep, or wake it at once if there is a job for it."""
        if worker.woken_for is not None:
            self.pass_on(worker, None)
        if self.wake_if_wanted(worker):
            return
        worker.asleep = True
        if self._queue.scheduled:  # it may pass over jobs now of which it gives the worker one later
            for function in worker.abilities:
                function.sleepers[worker] = None
        if self._observer is not None:
            self._observer.worker_asleep(worker.id)

    # Waking

    def wake(self, function: FunctionQueue, job: Job | None = None, misses: int = 0) -> None:
        """Wake somebody because one more job of a function waits: what the policy says, or `wake_sleepers`.

        Args:
            function: the function.
            job: the job; None if somebody was woken already, and has not taken one.
            misses: how many have been woken in vain, one after the other.
        """
        if self._policy is None:
            self.wake_sleepers(function, misses)
        else:
            self._policy(self, function, job, misses)

    def wake_sleepers(self, function: FunctionQueue, misses: int = 0) -> None:
        """Wake as many sleeping workers as one more job of a function is worth.

        Args:
            function: the function.
            misses: how many have been woken in vain, one after the other.
        """
        if not self._queue.accepting:
            return  # they would find nothing
        count = self._count(misses)
        if self._queue.scheduled:
            self._wake_wanted(function, misses, count)
        elif count is not None:
            while count and (worker := self._pop_sleeper(function)) is not None:
                self._wake_up(worker, function, misses)
                count -= 1
        elif not function.waking_all:
            function.waking_all = True
            self._chores.begin(self._wake_all(function, misses))

    def _count(self, misses: int) -> int | None:
        """Return how many workers to wake; None means all.

        Each one that does not come is replaced by two. So twice as many are woken each time, and soon all.
        """
        if not self._worker_wakeup or misses > _MAX_MISSES:
            return None
        return 2 if misses else self._worker_wakeup

    def _wake_all(self, function: FunctionQueue, misses: int) -> Iterator[None]:
        while function.waiting and (worker := self._pop_sleeper(function)) is not None:
            self._wake_up(worker, function, misses)
            yield
        function.waking_all = False

    def _wake_wanted(self, function: FunctionQueue, misses: int, count: int | None) -> None:
        """Wake those for which a scheduler has a job. The others stay where they are, as it may have one later."""
        for worker in list(function.sleepers):
            if not worker.asleep:
                del function.sleepers[worker]
            elif self.wake_if_wanted(worker, misses) and count is not None:
                count -= 1
                if not count:
                    return

    def wake_if_wanted(self, worker: Worker, misses: int = 0) -> bool:
        """Wake a worker that sleeps, or is about to, if there is a job for it; return whether there is."""
        function = self._queue.function_for(worker)
        if function is not None:
            self._wake_up(worker, function, misses)
        return function is not None

    def _wake_up(self, worker: Worker, function: FunctionQueue, misses: int) -> None:
        assert isinstance(worker, Peer)
        worker.asleep = False
        worker.woken_for = function
        worker.misses = misses
        self.woken.pop(worker, None)
        self.woken[worker] = self._clock.now + self._timeout
        self._output.send(worker, _NOOP)
        if self._observer is not None:
            self._observer.worker_awake(worker.id)

    def _pop_sleeper(self, function: FunctionQueue) -> Worker | None:
        """Take the worker that has slept longest of those that can run a function."""
        sleepers = function.sleepers
        while sleepers:
            worker, _none = sleepers.popitem(last=False)
            if worker.asleep:
                return worker
        return None

    # What becomes of those that were woken

    def pass_on(self, worker: Worker, job: Job | None) -> None:
        """Wake somebody else if a woken worker takes no job of the function that it was woken for.

        Args:
            worker: the worker. It has asked for a job, goes to sleep, or is gone.
            job: what it has got; None for nothing.
        """
        function = self._stop_waiting_for(worker)
        if function is not None and function.waiting and (job is None or job.function is not function):
            self.wake(function)

    def _stop_waiting_for(self, worker: Worker) -> FunctionQueue | None:
        function, worker.woken_for = worker.woken_for, None
        if function is not None:
            self.woken.pop(worker, None)
        return function

    def pass_overslept_on(self) -> Iterator[None]:
        """Wake others where woken workers have not asked for a job in time; each step passes one wake-up on."""
        while self.woken:
            worker, deadline = next(iter(self.woken.items()))
            if deadline > self._clock.now:
                return
            function = self._stop_waiting_for(worker)
            assert function is not None
            if function.waiting:
                self.wake(function, misses=worker.misses + 1)
            yield


WakePolicy: TypeAlias = Callable[[Waking, FunctionQueue, Job | None, int], None]
"""Decides whom to wake for a job; its arguments are the sleepers, and those of `Waking.wake`. It must not raise."""
