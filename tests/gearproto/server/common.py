"""What several tests of the engine share."""

from __future__ import annotations

from gearproto.codec import (
    REQUEST,
    Packet,
)
from gearproto.packets import (
    Error,
    GrabJob,
    SetClientId,
    SubmitJob,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobLow,
    SubmitJobLowBg,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.harness.engine import Bench, Peer

FULL = Error(b"QUEUE_ERROR", b"Job queue is full")
RESULT_NOT_FOUND = Error(b"JOB_NOT_FOUND", b"Job given in work result not found")
JOB_NOT_FOUND = Error(b"JOB_NOT_FOUND", b"Job does not exist on server")
EXCEPTION_NOT_FOUND = Error(b"JOB_NOT_FOUND", b"An exception was received for a job that does not exist")


def reports(handle: bytes) -> list[tuple[Packet, Error]]:
    """Return every report with the answer where the job is not in the sender's hands."""
    return [
        (WorkStatus(handle, 1, 2), RESULT_NOT_FOUND),
        (WorkComplete(handle, b"x"), RESULT_NOT_FOUND),
        (WorkFail(handle), RESULT_NOT_FOUND),
        (WorkData(handle, b"x"), JOB_NOT_FOUND),
        (WorkWarning(handle, b"x"), JOB_NOT_FOUND),
        (WorkException(handle, b"x"), EXCEPTION_NOT_FOUND),
    ]


def raw(number: int, body: bytes = b"", magic: bytes = REQUEST) -> bytes:
    return magic + number.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body


def go_on(bench: Bench) -> int:
    """Resume all peers until none is paused; return how often."""
    times = 0
    while paused := list(bench.engine.paused_peers()):
        for peer in paused:
            bench.engine.resume(peer, bench.now)
            bench.settle()
            times += 1
    return times


def lose(bench: Bench, handle: bytes, times: int) -> None:
    """Let workers take a job, the first that is there, and leave; wait where the job has to wait."""
    for _ in range(times):
        worker = bench.worker(b"f")
        while (job := worker.grab()) is None:
            bench.advance(1)
        assert job.handle == handle
        worker.leave()


def busy(bench: Bench) -> tuple[Peer, Peer]:
    """Return a client and a worker with a running, a queued and a delayed job of ``f``, and a queued one of ``g``."""
    client, worker = bench.connect(address=b"10.0.0.1", descriptor=7), bench.worker(b"f", b"h")
    client.submit(SubmitJob(b"f", b"", b""))
    client.submit(SubmitJobHigh(b"f", b"one", b""))
    client.submit(SubmitJobEpoch(b"f", b"-", 2000, b""))
    client.submit(SubmitJobLowBg(b"g", b"two", b""))
    worker.send(GrabJob(), GrabJob(), SetClientId(b"w 1")).received()
    client.submit(SubmitJobLow(b"f", b".", b""))
    return client, worker
