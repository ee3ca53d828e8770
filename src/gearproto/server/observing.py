"""Seeing what happens to jobs and workers."""

from __future__ import annotations

from collections import deque

from gearproto.event import Event

from .events import JobChanged
from .jobs import Job, PeerId

__all__ = ["JobObserver", "Tracer"]


class JobObserver:
    """Sees what happens to jobs and workers. Override the methods that you need: here they do nothing.

    The engine calls these methods in the middle of its own work. They must not raise, and must not call the engine.
    """

    def queued(self, job: Job, peer: PeerId | None) -> None:
        """Called when a job waits for a worker, or for its time (see its state).

        Args:
            job: the job. Its clients are not known yet.
            peer: the peer that has submitted it; None if it was there before, and its time has come.
        """

    def taken(self, job: Job, worker: PeerId) -> None:
        """Called when a worker gets a job."""

    def given_back(self, job: Job, worker: PeerId) -> None:
        """Called when a job is given back: it waits for another worker, or for the end of a pause."""

    def ended(self, job: Job, peer: PeerId | None) -> None:
        """Called when a job has ended, for any reason.

        Args:
            job: the job, which the engine has forgotten.
            peer: whose report or departure has ended it; None for an administrator or the engine itself.
        """

    def worker_registered(self, worker: PeerId, function: bytes) -> None:
        """Called when a worker registers a function, even if it has registered it before."""

    def worker_unregistered(self, worker: PeerId, function: bytes) -> None:
        """Called when a worker can no longer run a function; it may have left."""

    def worker_asleep(self, worker: PeerId) -> None:
        """Called when a worker that has found no job waits to be woken."""

    def worker_awake(self, worker: PeerId) -> None:
        """Called when a worker is woken, or asks for a job."""

    def client_id_set(self, peer: PeerId, client_id: bytes) -> None:
        """Called when a peer has set its client id."""


class Tracer(JobObserver):
    """Makes events of what happens to jobs, and passes everything on to another observer."""

    def __init__(self, events: deque[Event], observer: JobObserver | None) -> None:
        """Begin.

        Args:
            events: where to put the events.
            observer: the other one; None if there is none.
        """
        self._events = events
        self._observer = JobObserver() if observer is None else observer

    def _changed(self, job: Job, peer: PeerId | None) -> None:
        self._events.append(JobChanged(job.handle, job.function.name, job.state, peer))

    def queued(self, job: Job, peer: PeerId | None) -> None:
        """Handle a job that waits."""
        self._changed(job, peer)
        self._observer.queued(job, peer)

    def taken(self, job: Job, worker: PeerId) -> None:
        """Handle a job that a worker has got."""
        self._changed(job, worker)
        self._observer.taken(job, worker)

    def given_back(self, job: Job, worker: PeerId) -> None:
        """Handle a job that a worker has lost."""
        self._changed(job, None)
        self._observer.given_back(job, worker)

    def ended(self, job: Job, peer: PeerId | None) -> None:
        """Handle the end of a job."""
        self._changed(job, peer)
        self._observer.ended(job, peer)

    def worker_registered(self, worker: PeerId, function: bytes) -> None:
        """Pass it on."""
        self._observer.worker_registered(worker, function)

    def worker_unregistered(self, worker: PeerId, function: bytes) -> None:
        """Pass it on."""
        self._observer.worker_unregistered(worker, function)

    def worker_asleep(self, worker: PeerId) -> None:
        """Pass it on."""
        self._observer.worker_asleep(worker)

    def worker_awake(self, worker: PeerId) -> None:
        """Pass it on."""
        self._observer.worker_awake(worker)

    def client_id_set(self, peer: PeerId, client_id: bytes) -> None:
        """Pass it on."""
        self._observer.client_id_set(peer, client_id)
