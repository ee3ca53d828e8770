"""What several of these tests send, and the errors that they expect."""

from __future__ import annotations

from gearproto.codec import REQUEST, Packet
from gearproto.packets import (
    Error,
    SubmitJob,
    SubmitJobBg,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    SubmitReduceJob,
    SubmitReduceJobBackground,
)
from tests.harness.raw import packet_bytes

QUEUE_FULL = Error(b"QUEUE_ERROR", b"Job queue is full")
RESULT_NOT_FOUND = Error(b"JOB_NOT_FOUND", b"Job given in work result not found")
SIMPLE_SUBMISSIONS = (SubmitJobHigh, SubmitJobHighBg, SubmitJob, SubmitJobBg, SubmitJobLow, SubmitJobLowBg)
REDUCE_SUBMISSIONS = (SubmitReduceJob, SubmitReduceJobBackground)


def raw_report(kind: type[Packet], body: bytes) -> bytes:
    """Build a report with any bytes behind its header."""
    return packet_bytes(REQUEST, kind.spec.number, body)
