"""What happens to jobs.

A job is submitted, or a submission joins it; a worker gets it; it is given back if the worker is lost; it ends. Each of
these is one function here: it moves the job in the queue, queues what its clients get, wakes workers, and tells the
observer. No other part of the engine does any of this.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from gearproto.codec import RESPONSE
from gearproto.event import Event
from gearproto.packets import JobCreated

from .clock import Clock
from .costs import CANCELLED, JOIN
from .events import JobGivenUp
from .jobs import QUEUED, RUNNING, Job, PeerId
from .observing import JobObserver
from .output import Output
from .peers import Peer
from .queue import JobQueue, QueueFull
from .relay import Relay
from .waking import Waking

__all__ = ["Lifecycle"]

# libgearman 2.0 takes a handle for that of its task if it only begins as that does. At 100,000 jobs a second, 15 digits
# last for 300 years.
_HANDLE_NUMBER: Final = b":%013d"  # then two digits more
_DIGITS: Final = tuple(b"%02d" % number for number in range(100))  # a format for each handle would take 4 times as long

_CREATED: Final = RESPONSE + JobCreated.spec.number.to_bytes(4, "big")


class Lifecycle:
    """The moves of an engine's jobs.

    Attributes:
        submitted: how many jobs there have been.
        ended: how many of them have ended.
        max_joined: as given.
        max_cancelled: as given.
    """

    __slots__ = (
        "_cancelled",
        "_clock",
        "_created",
        "_created_size",
        "_events",
        "_handle_format",
        "_handles",
        "_joins",
        "_observer",
        "_output",
        "_queue",
        "_relay",
        "_waking",
        "ended",
        "max_cancelled",
        "max_joined",
        "submitted",
    )

    def __init__(
        self,
        queue: JobQueue,
        output: Output,
        relay: Relay,
        waking: Waking,
        events: deque[Event],
        clock: Clock,
        *,
        handle_prefix: bytes,
        observer: JobObserver | None,
        max_joined: int = 100_000,
        max_cancelled: int = 1000,
    ) -> None:
        """Begin.

        Args:
            queue: the jobs.
            output: where to queue what peers get.
            relay: tells the clients of jobs.
            waking: wakes workers.
            events: where to put events for the driver.
            clock: the time.
            handle_prefix: what job handles begin with.
            observer: who is told.
            max_joined: how many submissions may be joined to one job.
            max_cancelled: how many jobs there may be whose late ends a worker is forgiven.
        """
        self.max_joined = max_joined
        self.max_cancelled = max_cancelled
        self._queue = queue
        self._output = output
        self._relay = relay
        self._waking = waking
        self._events = events
        self._clock = clock
        self._observer = observer
        self._handle_format = handle_prefix.replace(b"%", b"%%") + _HANDLE_NUMBER
        self.submitted = 0
        self._number_jobs()
        handle_size = len(self._handle_format % 0) + 2
        self._created = _CREATED + handle_size.to_bytes(4, "big")  # what stands before any handle
        self._created_size = len(self._created) + handle_size
        self.ended = 0
        self._joins = 0  # clients of jobs, without the first one of each job
        self._cancelled = 0

    def _number_jobs(self) -> None:
        """Prepare the handles up to the next full hundred; one by one, a background submission would cost 3 % more."""
        hundred, rest = divmod(self.submitted + 1, 100)
        head = self._handle_format % hundred
        self._handles = [head + digits for digits in reversed(_DIGITS[rest:])]

    @property
    def kept_size(self) -> int:
        """Bytes that clients and cancellations take."""
        return self._joins * JOIN + self._cancelled * CANCELLED

    def submit(
        self,
        peer: Peer,
        name: bytes,
        unique: bytes,
        workload: bytes,
        priority: int,
        background: bool,
        reducer: bytes,
        due: float | None,
    ) -> None:
        """Make a job, or join one, and answer with ``JOB_CREATED``; with an ``ERROR`` if there are too many.

        Args:
            peer: who submits it.
            name: its function, as checked.
            unique: the client's own name for it.
            workload: the data to work on.
            priority: as in `gearproto.Priority`.
            background: whether it has to run even if nobody waits for it.
            reducer: name of the reducer; empty if there is none.
            due: seconds since 1970 before which nobody gets it; None for at once.
        """
        queue, output = self._queue, self._output
        function = queue.functions.get(name)
        if function is None or function.idle:
            function = queue.table.function(name)
        key: object = None
        job = None
        if unique:
            key = unique
            if unique == b"-":  # the workload is the key, and must not match a unique of the same bytes
                key = (workload,) if workload else None
            job = queue.find(function, key)
        if job is None:
            try:
                handle = self._handles.pop()
            except IndexError:
                self._number_jobs()
                handle = self._handles.pop()
            try:
                job = queue.new_job(handle, function, unique, key, workload, priority, background, reducer, due)
            except QueueFull as error:  # nothing was queued: the client may submit again
                self._handles.append(handle)
                output.send_error(peer, b"QUEUE_ERROR", str(error).encode())
                return
            self.submitted += 1
            if self._observer is not None:
                self._observer.queued(job, peer.id)
            if function.sleepers and due is None:
                self._waking.wake(function, job)
        elif background:
            job.background = True
        elif job.clients is not None and (len(job.clients) >= self.max_joined or queue.full):
            text = b"Server is at its memory limit" if queue.full else b"Job queue is full"
            output.send_error(peer, b"QUEUE_ERROR", text)
            return
        if not background:
            if not job.clients:
                job.clients = [peer]
            else:
                job.clients.append(peer)
                self._joins += 1
            peer.waiting[job] = None
        if not peer.output:
            output.dirty.append(peer)
        peer.output.append(self._created + job.handle)
        peer.output_size += self._created_size

    def take(self, worker: Peer) -> Job | None:
        """Give a worker its next job, which the caller has to send; None if there is none."""
        observer = self._observer
        if observer is not None:
            observer.worker_awake(worker.id)
        job = self._queue.take(worker, self._clock.now)
        if worker.woken_for is not None:
            self._waking.pass_on(worker, job)
        if observer is not None and job is not None:
            observer.taken(job, worker.id)
        return job

    def give_back(self, job: Job) -> None:
        """Take a running job from its worker, and queue it again or end it."""
        assert job.worker is not None
        worker = job.worker.id
        if self._queue.give_back(job, self._clock.now):
            self._relay.requeued(job)
            if self._observer is not None:
                self._observer.given_back(job, worker)
            if job.state is QUEUED:
                self._waking.wake(job.function, job)
        else:
            if job.wanted:
                self._events.append(JobGivenUp(job.handle, job.function.name, job.losses))
            self.fail(job)

    def queue_due(self, job: Job) -> None:
        """Wake somebody for a job that has been queued because its time has come."""
        if self._observer is not None:
            self._observer.queued(job, None)
        if job.function.sleepers:
            self._waking.wake(job.function, job)

    def end(self, job: Job, peer: PeerId | None) -> None:
        """Forget a job.

        Args:
            job: the job.
            peer: whose report or departure has ended it.
        """
        self._queue.end(job)
        self.ended += 1
        if clients := job.clients:
            if len(clients) > 1:
                self._joins -= len(clients) - 1
            for client in clients:
                client.waiting.pop(job, None)
        if self._observer is not None:
            self._observer.ended(job, peer)

    def fail(self, job: Job) -> None:
        """End a job for which no worker has sent an end."""
        self._relay.fail(job)
        self.end(job, None)

    def cancel(self, job: Job) -> None:
        """End a job because an administrator wants it."""
        worker = job.worker
        if isinstance(worker, Peer) and not worker.gone:
            cancelled = worker.cancelled
            cancelled[job.handle] = None
            if len(cancelled) > self.max_cancelled:
                del cancelled[next(iter(cancelled))]
            elif len(cancelled) > worker.cancelled_most:
                worker.cancelled_most += 1
                self._cancelled += 1
        self.fail(job)

    def leave(self, gone: Peer, job: Job) -> None:
        """Let a job have a client less."""
        del gone.waiting[job]
        assert job.clients is not None
        self._output.work += len(job.clients) >> 6
        count = len(job.clients)
        job.clients = [client for client in job.clients if client is not gone]
        self._joins -= count - (len(job.clients) or 1)
        if not job.wanted and job.state is not RUNNING:
            self.end(job, gone.id)

    def forget_cancelled(self, gone: Peer) -> None:
        """Forget the cancelled jobs that a worker that has gone had yet to end."""
        self._cancelled -= gone.cancelled_most
