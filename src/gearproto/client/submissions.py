"""Which packet submits a job."""

from __future__ import annotations

from typing import Any, Final

from gearproto.errors import LocalProtocolError
from gearproto.packets import (
    SUBMISSIONS,
    Priority,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    SubmitReduceJob,
    SubmitReduceJobBackground,
)

__all__ = ["Submission", "submission"]

Submission = (
    SubmitJob
    | SubmitJobBg
    | SubmitJobHigh
    | SubmitJobHighBg
    | SubmitJobLow
    | SubmitJobLowBg
    | SubmitJobEpoch
    | SubmitReduceJob
    | SubmitReduceJobBackground
)
"""The packets that submit a job."""

_PLAIN: Final[dict[tuple[Priority, bool], Any]] = {
    kind: cls
    for cls, kind in SUBMISSIONS.items()
    if cls not in (SubmitJobEpoch, SubmitReduceJob, SubmitReduceJobBackground)
}


def submission(
    function: bytes,
    workload: bytes,
    unique: bytes = b"",
    priority: Priority = Priority.NORMAL,
    background: bool = False,
    run_at: int | None = None,
    reducer: bytes | None = None,
) -> Submission:
    """Return the packet that submits a job (``SUBMIT_JOB`` and its variants).

    Args:
        function: name of the function to run, 1 to 8191 bytes without NUL.
        workload: what to work on, any bytes.
        unique: the caller's own name for the job, at most 64 bytes without NUL. The server joins jobs with the same
            function and unique; empty means never. gearmand corrupts jobs with uniques of exactly 64 bytes.
        priority: its priority.
        background: whether this is a background job, which survives the connection.
        run_at: seconds since 1970 before which it must not run (``SUBMIT_JOB_EPOCH``). Needs a background job of
            normal priority.
        reducer: name of a reducer for the worker (``SUBMIT_REDUCE_JOB``). Needs normal priority.

    Raises:
        LocalProtocolError: two arguments exclude each other.
    """
    if run_at is None and reducer is None:
        packet: Submission = _PLAIN[priority, background](function, unique, workload)
        return packet
    if priority is not Priority.NORMAL:
        raise LocalProtocolError(f"client: a delayed or reduce job has normal priority, not {priority.name}")
    if run_at is not None:
        if reducer is not None or not background:
            raise LocalProtocolError("client: SUBMIT_JOB_EPOCH is for background jobs without a reducer")
        return SubmitJobEpoch(function, unique, run_at, workload)
    assert reducer is not None
    reduce = SubmitReduceJobBackground if background else SubmitReduceJob
    return reduce(function, unique, reducer, b"", workload)
