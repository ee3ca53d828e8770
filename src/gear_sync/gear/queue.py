"""The job queue of `gear.Server`: first come, first served over all functions, or what a program chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearproto.server.jobs import FunctionQueue, Job, JobState, Worker
from gearproto.server.queue import JobQueue

if TYPE_CHECKING:
    from .engine import HookedEngine

__all__ = ["HookedQueue", "age"]


def age(job: Job) -> tuple[bool, int]:
    """Return what jobs of one priority are sorted by: those that have lost a worker come first, then the oldest."""
    if job.turn:
        return False, job.turn
    return True, int(job.handle.rpartition(b":")[2])


class HookedQueue(JobQueue):
    """A queue in which jobs go by priority, then by age, whatever their functions; and which tells of all changes.

    Attributes:
        engine: who is told, and asked for the next job of a worker.
    """

    engine: HookedEngine
    _peeking = False

    # Choosing

    def take(self, worker: Worker, now: float) -> Job | None:
        """Give a worker the next job for it."""
        self.engine.woke_up(worker)
        self._peeking = False
        job = super().take(worker, now)
        if job is not None:
            self.engine.taken(worker, job)
        return job

    def function_for(self, worker: Worker) -> FunctionQueue | None:
        """Return the function of which `take` would give a worker a job."""
        self._peeking = True
        return super().function_for(worker)

    def _next_for(self, worker: Worker) -> Job | None:
        """Ask for the next job of a worker; unless this is only a look, put it where `take` takes it from."""
        peeking = self._peeking
        job = self.engine.choose(worker, peek=peeking)
        if job is None or job.state not in (JobState.QUEUED, JobState.NEW) or job.function not in worker.abilities:
            return None
        if not peeking:
            self._put_first(job)
        return job

    def _put_first(self, job: Job) -> None:
        if job.state is JobState.NEW:
            self.restore(job)
        if not job.turn:
            jobs = job.function.queues[job.priority]
            assert jobs is not None
            if jobs[0] is not job:
                jobs.remove(job)
                jobs.appendleft(job)

    def first_for(self, worker: Worker) -> Job | None:
        """Return the next job for a worker, as long as nobody chooses another."""
        for priority, tier in enumerate(worker.ready):
            first: Job | None = None
            for function in list(tier):
                job = self._head(function, priority)
                if job is None:
                    del tier[function]
                    function.unready[priority][worker] = None
                elif first is None or age(job) < age(first):
                    first = job
            if first is not None:
                return first
        return None

    def _head(self, function: FunctionQueue, priority: int) -> Job | None:
        """Return the oldest job of a function and priority."""
        if (returned := function.returned.get(priority)) is not None:
            return returned.peek()
        jobs = function.queues[priority]
        while jobs:
            if jobs[0].state is JobState.QUEUED:
                return jobs[0]
            jobs.popleft()
            function.removed[priority] -= 1
        return None

    def withdraw(self, job: Job) -> None:
        """Take a queued job out of its queue, but not out of the server."""
        if job.state is not JobState.QUEUED:
            return
        job.function.queued[job.priority] -= 1
        if job.turn:
            self._leave_returned(job)
        else:
            jobs = job.function.queues[job.priority]
            assert jobs is not None
            jobs.remove(job)
        job.state = JobState.NEW

    def restore(self, job: Job) -> None:
        """Queue a job again that was withdrawn."""
        if job.state is JobState.NEW:
            self._enqueue(job)

    # Telling

    def new_job(
        self,
        handle: bytes,
        function: FunctionQueue,
        unique: bytes,
        key: object,
        workload: bytes,
        priority: int,
        background: bool,
        reducer: bytes = b"",
        due: float | None = None,
    ) -> Job:
        """Make a job, to be run at once or when it is due."""
        job = super().new_job(handle, function, unique, key, workload, priority, background, reducer, due)
        self.engine.added(job)
        return job

    def end(self, job: Job) -> None:
        """Forget a job."""
        self.engine.ended(job)
        super().end(job)

    def give_back(self, job: Job, now: float) -> bool:
        """Take a running job from its worker and queue it again."""
        self.engine.given_back(job)
        return super().give_back(job, now)

    def register(self, worker: Worker, function: FunctionQueue, limit: float | None) -> bool:
        """Note that a worker can run a function."""
        self.engine.can_do(worker, function.name)
        if worker.asleep and self.engine.chosen:
            function.sleepers[worker] = None
        return super().register(worker, function, limit)

    def unregister(self, worker: Worker, function: FunctionQueue) -> None:
        """Note that a worker can no longer run a function."""
        self.engine.cannot_do(worker, function.name)
        super().unregister(worker, function)

    def sleep(self, worker: Worker) -> None:
        """Note that a worker waits to be woken."""
        super().sleep(worker)
        self.engine.fell_asleep(worker)
        if self.engine.chosen:  # nobody can know whom a job will be for that the program passes over now
            for function in worker.abilities:
                function.sleepers[worker] = None
