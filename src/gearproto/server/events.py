"""What an engine tells its driver, apart from the bytes to send."""

from __future__ import annotations

from gearproto.admin import FunctionStatus
from gearproto.event import Event, event

from .jobs import JobState, PeerId

__all__ = ["Counters", "JobChanged", "JobGivenUp", "PeerFailed", "ShutdownRequested"]


@event
class PeerFailed(Event):
    """A peer broke the protocol or a limit. Send it what is queued for it, close it, and call `Engine.disconnect`.

    Attributes:
        peer: the peer.
        reason: what it did, as text.
    """

    peer: PeerId
    reason: str


@event
class ShutdownRequested(Event):
    """An administrator wants the server to stop (``shutdown``).

    Attributes:
        graceful: whether running jobs are to end first; see `Engine.stop_accepting` and `Engine.running_jobs`.
    """

    graceful: bool


@event
class JobGivenUp(Event):
    """A job has failed because its workers were lost, or its timeout passed, too often (``job_retries``).

    Attributes:
        handle: the job.
        function: name of its function.
        losses: how often.
    """

    handle: bytes
    function: bytes
    losses: int


@event
class JobChanged(Event):
    """A job has gone to another state; only with ``trace=True``.

    Attributes:
        handle: the job.
        function: name of its function.
        state: its new state.
        peer: whose request or departure caused it; None if time or an administrator did, or its worker lost it.
    """

    handle: bytes
    function: bytes
    state: JobState
    peer: PeerId | None


@event
class Counters:
    """Counts of a server at one moment.

    Attributes:
        peers: connections.
        queued: jobs that a worker could take now.
        delayed: jobs that wait for their time.
        running: jobs that workers have.
        submitted: jobs accepted since the start, without joined submissions.
        ended: jobs that have ended since the start, for any reason.
        functions: one row for each function, as in ``status``.
    """

    peers: int
    queued: int
    delayed: int
    running: int
    submitted: int
    ended: int
    functions: tuple[FunctionStatus, ...]
