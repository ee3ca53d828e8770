"""The order of jobs in ``gear.Server``: first come, first served over all functions."""

from __future__ import annotations

from gearproto.server import Job, JobQueue, Worker

__all__ = ["age", "first_for"]


def age(job: Job) -> tuple[bool, int, bytes]:
    """Return what jobs of one priority are sorted by: those that have lost a worker come first, then the oldest."""
    return not job.turn, job.turn, job.handle


def first_for(queue: JobQueue, worker: Worker) -> Job | None:
    """Return the next job for a worker, by priority, then by age; None if there is none."""
    first: Job | None = None
    for job in queue.candidates(worker):
        if first is not None and job.priority != first.priority:
            break
        if first is None or age(job) < age(first):
            first = job
    return first
