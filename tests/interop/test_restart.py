"""A job server that is restarted under load, with a worker that starts no thread, and clients that submit many jobs.

What holds in every idiom: ``tests/adapters/test_restart.py``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from gear_sync import Client, JobRequest, Worker, WorkerJob
from gearproto import Completed, Lost, NotSent
from gearproto.outcomes import Outcome
from tests.harness.servers import Kind, RunningServer, running
from tests.harness.threads import Call, working

LIMIT = 30.0  # seconds; only a hang reaches it
THREADS = 4


@pytest.fixture
def server(kind: Kind) -> Iterator[RunningServer]:
    with running(kind) as server:
        yield server


def test_every_submission_ends_truly_and_the_worker_is_back(server: RunningServer) -> None:
    ran: Counter[bytes] = Counter()
    counting = threading.Lock()
    stop = threading.Event()
    done = threading.Semaphore(0)

    def reverse(job: WorkerJob) -> bytes:
        with counting:
            ran[job.workload] += 1
        return job.workload[::-1]

    def load(name: int) -> dict[bytes, Outcome | None]:
        outcomes: dict[bytes, Outcome | None] = {}
        with Client(server.address) as client:
            number = 0
            while not stop.is_set():
                tasks = [JobRequest("reverse", b"%d %d %d" % (name, number, index)) for index in range(5)]
                for task, job in zip(tasks, client.submit_many(tasks), strict=True):
                    assert job.wait(LIMIT), job
                    outcomes[bytes(task.workload)] = job.outcome
                    if isinstance(job.outcome, Completed):
                        done.release()
                number += 1
        return outcomes

    def completed(count: int) -> None:
        """Wait until so many more jobs are completed."""
        for _ in range(count):
            assert done.acquire(timeout=LIMIT)

    with Worker(server.address) as worker:
        worker.register("reverse", reverse)
        with working(worker):
            calls = [Call(lambda name=name: load(name)) for name in range(THREADS)]  # type: ignore[misc]
            for _ in range(2):
                completed(50)
                server.restart()
                while done.acquire(blocking=False):
                    pass
            completed(50)
            stop.set()
            outcomes = {workload: outcome for call in calls for workload, outcome in call.result().items()}
    for workload, outcome in outcomes.items():
        assert isinstance(outcome, Completed | Lost | NotSent), outcome
        if isinstance(outcome, Completed):
            assert outcome.data == workload[::-1]
            assert ran[workload]
        elif isinstance(outcome, NotSent):
            assert not ran[workload], "it ran, but was called not sent"
    assert set(ran) <= set(outcomes)
