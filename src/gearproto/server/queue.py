"""The job queue: priorities, coalescing, limits, time, and who has to be woken. It knows no packets.

Nothing here looks through all jobs, functions, workers or sleepers. For each function and priority there is a deque of
jobs, and a heap of those that had a worker and lost it, which come first. A worker keeps, for each priority, the
functions that may have jobs for it (`Worker.ready`). A function keeps, for each priority, the workers that have looked
and found nothing (`FunctionQueue.unready`); they are told when it gets its first job. So every move from one side to
the other is paid for by a look that found nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Final, Protocol, TypeVar

from gearproto.errors import GearmanError

from .costs import ABILITY, JOB
from .deadlines import Deadlines
from .function_table import FunctionTable
from .jobs import DELAYED, ENDED, QUEUED, RUNNING, WITHDRAWN, FunctionQueue, Job, Worker
from .linked import LinkedList

__all__ = ["JobQueue", "QueueFull", "Scheduler"]

_SLACK: Final = 64
"""Number of removed jobs in a deque that are not worth a sweep."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_FEW: Final = 10_000  # entries of a table that can be put into a new one at once

_REST_AFTER: Final = 3
"""From this loss on a job waits before it is handed out again: 1 second, and each time twice as long.

So a job that kills its workers takes a few of them a minute, and a restart of all workers does not use its retries up.
"""

_LONGEST_REST: Final = 60
"""Most seconds that a job waits before it is handed out again."""

_LOOK_INTERVAL: Final = 1.0
"""Seconds after which somebody who sleeps until a delayed job is due looks whether the clock has been set meanwhile."""


def _compact(table: dict[_Key, _Value]) -> None:
    if len(table) < _FEW:
        entries = list(table.items())
        table.clear()
        table.update(entries)


class QueueFull(GearmanError):
    """A submission is refused; the message is for the client."""


class Scheduler(Protocol):
    """Decides which job a worker gets next, instead of `JobQueue`; see `Engine`.

    It may hold jobs back, by not choosing them or by taking them out of the queue (`JobQueue.withdraw`). It must not
    raise.
    """

    def next_job(self, queue: JobQueue, worker: Worker, *, peek: bool) -> Job | None:
        """Return the job that a worker gets next, or None.

        The worker can get `JobQueue.candidates` and withdrawn jobs; any other job counts as None.

        Args:
            queue: the jobs.
            worker: the worker, which asks for a job or sleeps.
            peek: whether this is only a look, and the job stays where it is.
        """


class JobQueue:
    """All jobs of a server.

    Attributes:
        jobs: the jobs by handle.
        job_list: the same jobs, to be gone through in steps.
        table: the functions that are known, and the limits on their number.
        functions: the functions by name.
        accepting: whether new jobs are taken and workers woken.
        size: bytes of the workloads, names and uniques of all jobs.
        timed: whether a job may be delayed, resting or running with a timeout. Reset once there is none.
    """

    __slots__ = (
        "_by_key",
        "_delayed",
        "_job_list_end",
        "_job_retries",
        "_limits",
        "_look_at",
        "_max_jobs",
        "_max_queue_size",
        "_registrations",
        "_resting",
        "_room",
        "_round_robin",
        "_scheduler",
        "_turns",
        "accepting",
        "functions",
        "job_list",
        "jobs",
        "size",
        "table",
        "timed",
    )

    def __init__(
        self,
        *,
        job_retries: int,
        max_jobs: int,
        max_queue_size: int,
        max_idle_functions: int,
        max_kept_functions: int,
        round_robin: bool,
        scheduler: Scheduler | None = None,
    ) -> None:
        """Begin empty; the arguments are those of `Engine`."""
        self.jobs: dict[bytes, Job] = {}
        self.table = FunctionTable(max_idle=max_idle_functions, max_kept=max_kept_functions)
        self.functions = self.table.by_name
        self.job_list: LinkedList[Job] = LinkedList()
        self._job_list_end = self.job_list.end
        self.accepting = True
        self.size = 0
        self._registrations = 0  # how many abilities all workers have
        self._job_retries = job_retries
        self._max_jobs = self._room = max_jobs
        self._max_queue_size = max_queue_size
        self._round_robin = round_robin
        self._scheduler = scheduler
        self._by_key: dict[object, Job | dict[FunctionQueue, Job]] = {}
        self._turns = 0  # how many jobs have had a worker
        self._delayed: Deadlines[Job] = Deadlines()  # by wall time, because this is what their clients have given
        self._resting: Deadlines[Job] = Deadlines()  # jobs that have lost many workers, until they are queued again
        self._look_at = 0.0  # when to look at the clock again while there are such jobs
        self._limits: Deadlines[Job] = Deadlines()
        self.timed = False

    @property
    def full(self) -> bool:
        """Whether nothing more is taken, whatever the limits say."""
        return self._room == 0

    @full.setter
    def full(self, full: bool) -> None:
        self._room = 0 if full else self._max_jobs

    @property
    def kept_size(self) -> int:
        """Bytes that jobs and functions take."""
        return self.jobs_size + self.table.size + self._registrations * ABILITY

    @property
    def jobs_size(self) -> int:
        """Bytes that jobs take."""
        return self.size + len(self.jobs) * JOB

    # Submitting

    def find(self, function: FunctionQueue, key: object) -> Job | None:
        """Return the job that a submission with this key joins."""
        found = self._by_key.get(key)
        if isinstance(found, Job):
            return found if found.function is function else None
        return found.get(function) if found else None

    def find_unique(self, unique: bytes) -> Job | None:
        """Return the oldest job with this unique, of whatever function."""
        found = self._by_key.get(unique)
        return next(iter(found.values())) if isinstance(found, dict) else found

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
        """Make a job, to be run at once or when it is due.

        Args:
            handle: its name.
            function: the queue it belongs to.
            unique: the client's own name for it.
            key: under which later submissions are joined to it; None if never.
            workload: the data to work on.
            priority: which of the function's queues it waits in.
            background: whether it has to run even if nobody waits for it.
            reducer: name of the reducer; empty if there is none.
            due: seconds since 1970 before which nobody gets it; None for at once.

        Raises:
            QueueFull: a limit is reached.
        """
        jobs, limit = self.jobs, function.limits[priority]
        own_size = len(workload) + len(unique) + function.name_size
        size = self.size + own_size
        if (
            len(jobs) >= self._room
            or size > self._max_queue_size
            or not self.accepting
            or (limit and function.total >= limit)
        ):
            self.table.release(function)
            raise QueueFull(self._why_full())
        jobs[handle] = job = Job(handle, function, unique, key, workload, priority, background, reducer)
        end = self._job_list_end  # what `job_list.add` does; a call would be 3 % of a background submission
        job.size = own_size
        job.after, job.before = end, end.before
        end.before.after = end.before = job
        self.size = size
        if key is not None:
            self._add_key(key, job)
        if due is None:
            job.state = QUEUED
            queue = function.queues[priority]
            if queue is None:
                queue = function.queues[priority] = deque()
            queue.append(job)
            function.queued[priority] += 1
            if function.unready[priority]:
                self._make_ready(function, priority)
        else:
            job.state = DELAYED
            job.deadline = self._delayed.add(due, job)
            self.timed = True
            function.delayed[priority] += 1
        return job

    def compact(self) -> None:
        """Shrink tables that are nearly empty; dicts never shrink by themselves."""
        _compact(self.jobs)
        _compact(self._by_key)
        _compact(self.functions)

    def _why_full(self) -> str:
        if not self.accepting:
            return "Server is shutting down"
        return "Server is at its memory limit" if self.full else "Job queue is full"

    def _add_key(self, key: object, job: Job) -> None:
        found = self._by_key.setdefault(key, job)
        if found is job:
            return
        if isinstance(found, Job):
            found = self._by_key[key] = {found.function: found}
        found[job.function] = job

    def _drop_key(self, job: Job) -> None:
        found = self._by_key[job.key]
        if isinstance(found, Job):
            del self._by_key[job.key]
        else:
            del found[job.function]
            if not found:
                del self._by_key[job.key]

    def _enqueue(self, job: Job) -> None:
        """Put a job where workers find it: at the end, or before all others if it has had a worker."""
        function, priority = job.function, job.priority
        job.state = QUEUED
        if job.turn:
            returned = function.returned.get(priority)
            if returned is None:
                returned = function.returned[priority] = Deadlines()
            job.deadline = returned.add(job.turn, job)
        else:
            jobs = function.queues[priority]
            if jobs is None:
                jobs = function.queues[priority] = deque()
            jobs.append(job)
        function.queued[priority] += 1
        if function.unready[priority]:
            self._make_ready(function, priority)

    def _make_ready(self, function: FunctionQueue, priority: int) -> None:
        """Let the workers that have found no job of a function know that there is one."""
        unready = function.unready[priority]
        for worker in unready:
            worker.ready[priority][function] = None
            if worker.asleep:
                function.sleepers[worker] = None
        unready.clear()

    # Handing out

    def take(self, worker: Worker, now: float) -> Job | None:
        """Give a worker the next job for it: by priority over all its functions, oldest first within a function."""
        worker.asleep = False
        if not self.accepting:
            return None
        job = self._next_for(worker) if self._scheduler is None else self._choose(worker, peek=False)
        if job is None:
            return None
        function, priority = job.function, job.priority
        if job.turn:
            self._leave_returned(job)
        else:
            jobs = function.queues[priority]
            assert jobs is not None
            jobs.popleft()
            self._turns += 1
            job.turn = self._turns
        function.queued[priority] -= 1
        function.running += 1
        job.state = RUNNING
        job.worker = worker
        worker.in_hand[job] = None
        tier = worker.ready[priority]
        if self._round_robin and len(tier) > 1:
            tier.move_to_end(function)
        limit = worker.abilities[function]
        if limit is not None:
            job.deadline = self._limits.add(now + limit, job)
            self.timed = True
        return job

    def function_for(self, worker: Worker) -> FunctionQueue | None:
        """Return the function of which `take` would give a worker a job; None if it would give it none."""
        if not self.accepting:
            return None
        job = self._next_for(worker) if self._scheduler is None else self._choose(worker, peek=True)
        return None if job is None else job.function

    def _next_for(self, worker: Worker) -> Job | None:
        """Find the next job for a worker; it stays where it is."""
        for priority, tier in enumerate(worker.ready):
            while tier:
                function = next(iter(tier))
                jobs = function.queues[priority]
                if jobs and not function.returned and jobs[0].state is QUEUED:
                    return jobs[0]  # as `head` finds it; a call would be 1 % of a job
                job = self.head(function, priority)
                if job is not None:
                    return job
                del tier[function]
                function.unready[priority][worker] = None
        return None

    def head(self, function: FunctionQueue, priority: int) -> Job | None:
        """Return the job of a function and a priority that is next; None if none waits."""
        if (returned := function.returned.get(priority)) is not None:
            return returned.peek()
        jobs = function.queues[priority]
        while jobs:
            if jobs[0].state is QUEUED:
                return jobs[0]
            jobs.popleft()
            function.removed[priority] -= 1
        return None

    # What a scheduler decides

    @property
    def scheduled(self) -> bool:
        """Whether a scheduler decides which job a worker gets, which may be none although some wait."""
        return self._scheduler is not None

    def candidates(self, worker: Worker) -> Iterator[Job]:
        """Yield the jobs that a worker may get: the next of each priority and function, high priorities first."""
        for priority, tier in enumerate(worker.ready):
            for function in list(tier):
                job = self.head(function, priority)
                if job is not None:
                    yield job
                else:
                    del tier[function]
                    function.unready[priority][worker] = None

    def _choose(self, worker: Worker, *, peek: bool) -> Job | None:
        """Ask the scheduler for the next job of a worker; unless this is only a look, put it where `take` looks."""
        assert self._scheduler is not None
        job = self._scheduler.next_job(self, worker, peek=peek)
        if job is None or job.state not in (QUEUED, WITHDRAWN) or job.function not in worker.abilities:
            return None
        if not peek:
            self.restore(job)
            if not job.turn:
                jobs = job.function.queues[job.priority]
                assert jobs is not None
                if jobs[-1] is job:  # as one that has just been restored
                    jobs.appendleft(jobs.pop())
                elif jobs[0] is not job:
                    jobs.remove(job)
                    jobs.appendleft(job)
        return job

    def withdraw(self, job: Job) -> None:
        """Take a job out of its queue, but not out of the server; nothing if it is not queued."""
        if job.state is not QUEUED:
            return
        function = job.function
        function.queued[job.priority] -= 1
        function.withdrawn += 1
        if job.turn:
            self._leave_returned(job)
        else:
            jobs = function.queues[job.priority]
            assert jobs is not None
            jobs.remove(job)
        job.state = WITHDRAWN

    def restore(self, job: Job) -> None:
        """Queue a withdrawn job again, at the end if it has had no worker; nothing if it is not withdrawn.

        Nobody is woken for it; see `Waking.wake`.
        """
        if job.state is WITHDRAWN:
            job.function.withdrawn -= 1
            self._enqueue(job)

    def give_back(self, job: Job, now: float) -> bool:
        """Take a running job from its worker, and queue it again before all that have had no worker yet.

        One that has lost many workers is DELAYED first.

        Returns:
            False if it has been given back too often or nobody wants it any more; then the caller has to end it.
        """
        self._take_from_worker(job)
        job.losses += 1
        job.progress = (0, 0)
        if not job.wanted or 0 <= self._job_retries < job.losses:
            return False
        if job.losses < _REST_AFTER:
            self._enqueue(job)
        else:
            job.state = DELAYED
            job.deadline = self._resting.add(now + min(1 << min(job.losses - _REST_AFTER, 6), _LONGEST_REST), job)
            job.function.delayed[job.priority] += 1
            self.timed = True
        return True

    def _take_from_worker(self, job: Job) -> None:
        assert job.worker is not None
        del job.worker.in_hand[job]
        job.worker = None
        job.function.running -= 1
        if job.deadline is not None:
            self._limits.cancel(job.deadline)
            job.deadline = None

    def end(self, job: Job) -> None:
        """Forget a job, wherever it is in its life."""
        function = job.function
        if job.worker is not None:
            self._take_from_worker(job)
        elif job.state is QUEUED:
            function.queued[job.priority] -= 1
            if job.turn:
                self._leave_returned(job)
            else:
                self._leave_in_deque(job)
        elif job.state is DELAYED:
            assert job.deadline is not None
            (self._resting if job.turn else self._delayed).cancel(job.deadline)
            function.delayed[job.priority] -= 1
        elif job.state is WITHDRAWN:
            function.withdrawn -= 1
        job.state = ENDED
        del self.jobs[job.handle]
        before, after = job.before, job.after  # what `job_list.remove` does
        before.after, after.before = after, before
        job.before = job.after = None
        self.size -= job.size
        job.workload = b""  # the job itself may stay in its deque for a while
        if job.key is not None:
            self._drop_key(job)
        if not function.workers:
            self.table.release(function)

    def _leave_returned(self, job: Job) -> None:
        """Take a job out of the returned ones."""
        assert job.deadline is not None
        returned = job.function.returned[job.priority]
        returned.cancel(job.deadline)
        job.deadline = None
        if not returned:
            del job.function.returned[job.priority]

    def _leave_in_deque(self, job: Job) -> None:
        """Count a queued job as gone; it leaves its deque when its turn comes, or in a sweep."""
        function, priority = job.function, job.priority
        jobs = function.queues[priority]
        assert jobs is not None
        function.removed[priority] += 1
        if function.removed[priority] > _SLACK + len(jobs) // 2:
            live = [other for other in jobs if other.state is QUEUED and other is not job]
            jobs.clear()
            jobs.extend(live)
            function.removed[priority] = 0

    # Workers

    def register(self, worker: Worker, function: FunctionQueue, timeout: float | None) -> bool:
        """Note that a worker can run a function; return whether it sleeps and has to be woken for a job of it.

        Args:
            worker: the worker.
            function: the function.
            timeout: seconds after which a job is taken from the worker; None for no limit.
        """
        known = function in worker.abilities
        worker.abilities[function] = timeout
        if known:
            return False
        worker.abilities_changed()
        self._registrations += 1
        if worker.asleep and self._scheduler is not None:
            function.sleepers[worker] = None
        if not worker.ready:
            worker.ready = (OrderedDict(), OrderedDict(), OrderedDict())
        function.workers[worker] = None
        for priority, tier in enumerate(worker.ready):
            if function.queued[priority]:
                tier[function] = None
            else:
                function.unready[priority][worker] = None
        return worker.asleep and self.accepting and function.waiting > 0

    def unregister(self, worker: Worker, function: FunctionQueue) -> None:
        """Note that a worker can no longer run a function that it could."""
        del worker.abilities[function]
        worker.abilities_changed()
        self._registrations -= 1
        del function.workers[worker]
        function.sleepers.pop(worker, None)
        for tier, unready in zip(worker.ready, function.unready, strict=True):
            tier.pop(function, None)
            unready.pop(worker, None)
        self.table.release(function)

    # Time

    def next_deadline(self, epoch_offset: float) -> float | None:
        """Return when one of the methods below may have something to return.

        Args:
            epoch_offset: what monotonic time lacks to be seconds since 1970.
        """
        limits, resting, delayed = self._limits, self._resting, self._delayed
        self.timed = bool(limits.heap or limits.old or resting.heap or resting.old or delayed.heap or delayed.old)
        times = [limits.next(), resting.next()]
        if (due := delayed.next()) is not None:
            times.append(min(due - epoch_offset, self._look_at))
        return min((when for when in times if when is not None), default=None)

    def queue_due(self, now: float, epoch_offset: float) -> Iterator[Job]:
        """Queue the jobs whose time has come, and return them."""
        self._look_at = now + _LOOK_INTERVAL
        while (rested := self._resting.pop_due(now)) is not None:
            yield self._queue_delayed(rested)
        while (due := self._delayed.pop_due(now, epoch_offset)) is not None:
            yield self._queue_delayed(due)

    def _queue_delayed(self, job: Job) -> Job:
        job.deadline = None
        job.function.delayed[job.priority] -= 1
        self._enqueue(job)
        return job

    def overrun(self, now: float) -> Iterator[Job]:
        """Return the running jobs whose timeout has passed."""
        while (job := self._limits.pop_due(now)) is not None:
            yield job
