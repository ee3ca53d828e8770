"""The states that a submitted job goes through in its client, and every move between them.

`JobRecord.state` tells the state; the head of `gearproto.client.jobs` says who makes the moves. A job makes no move
that is not in `JOB_MOVES`: tests hold the record to it, and the diagram in the documentation is drawn from it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

__all__ = ["JOB_MOVES", "JobMove", "JobState"]


class JobState(Enum):
    """Where a submitted job is, as its client knows."""

    UNSENT = "unsent"
    """No connection has it: a server for it is being looked for, or it has been given up."""
    SENT = "sent"
    """It is open on a connection, and ``JOB_CREATED`` has not come. Nobody knows whether a server has it."""
    QUEUED = "queued"
    """A server has taken it, and reports on it."""
    TAKEN = "taken"
    """A server has taken it, and says no more: it is a background job."""
    RETRYABLE = "retryable"
    """Its submission has failed, and may be sent again."""
    ENDED = "ended"
    """It has its outcome."""


class JobMove(NamedTuple):
    """A move of a job from one state to another.

    Attributes:
        before: the state that it leaves.
        cause: what has happened.
        after: the state that it enters.
    """

    before: JobState
    cause: str
    after: JobState


JOB_MOVES: Final = (
    JobMove(JobState.UNSENT, "submit", JobState.SENT),
    JobMove(JobState.UNSENT, "no server left", JobState.ENDED),
    JobMove(JobState.UNSENT, "out of time", JobState.RETRYABLE),
    JobMove(JobState.SENT, "JOB_CREATED", JobState.QUEUED),
    JobMove(JobState.SENT, "JOB_CREATED (background)", JobState.TAKEN),
    JobMove(JobState.SENT, "ERROR", JobState.ENDED),
    JobMove(JobState.SENT, "connection lost, nothing sent", JobState.RETRYABLE),
    JobMove(JobState.SENT, "connection lost", JobState.ENDED),
    JobMove(JobState.SENT, "connection lost (resubmit)", JobState.RETRYABLE),
    JobMove(JobState.QUEUED, "progress, data, warning", JobState.QUEUED),
    JobMove(JobState.QUEUED, "end of the job", JobState.ENDED),
    JobMove(JobState.QUEUED, "connection lost", JobState.ENDED),
    JobMove(JobState.QUEUED, "connection lost (resubmit)", JobState.RETRYABLE),
    JobMove(JobState.RETRYABLE, "retry", JobState.UNSENT),
    JobMove(JobState.RETRYABLE, "give up", JobState.ENDED),
)
"""Every move that a job can make. TAKEN and ENDED are final."""
