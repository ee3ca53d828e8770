"""The functions of a worker, and its jobs: those that wait, those that run, and those that go with their connection."""

from __future__ import annotations

import math

import pytest

from gearproto import Grab, LocalProtocolError, WorkerConnection
from gearproto.events import JobAssigned
from gearproto.packets import CanDo, CanDoTimeout, CantDo, GrabJobAll, JobAssignAll, NoJob
from gearproto.worker import Assignment, Grabber, WorkerJobs
from tests.harness.connections import output, receive

F = b"f"
NOW = 100.0


class Site:
    """The jobs of a worker that can run some at once, and its connections."""

    def __init__(self, capacity: int = 1, *, connections: int = 1) -> None:
        self.jobs: WorkerJobs[Assignment, str] = WorkerJobs(Grabber(capacity))
        self.conns = [WorkerConnection(asks_when_woken=False) for _ in range(connections)]
        for conn in self.conns:
            self.jobs.grabber.attach(conn)

    def advance(self, *, stopping: bool = False) -> list[WorkerConnection]:
        return self.jobs.advance(NOW, stopping=stopping)

    def assign(self, conn: WorkerConnection, handle: bytes) -> Assignment:
        """Let a server assign a job."""
        (event,) = receive(conn, JobAssignAll(handle, F, b"", b"", b""))
        assert isinstance(event, JobAssigned)
        job = Assignment(event, conn)
        self.jobs.assigned(job)
        return job


def test_functions_are_offered_with_the_time_that_servers_allow() -> None:
    site = Site()
    site.jobs.register("f", "handler", None)
    site.jobs.register(b"g", "other", 5.0)
    first, second = output(site.conns[0])
    assert first == CanDo(F)
    assert isinstance(second, CanDoTimeout)
    assert second.timeout > 5000
    assert site.jobs.functions == {F: ("handler", None), b"g": ("other", 5.0)}


@pytest.mark.parametrize("timeout", [0.0, math.nan])
def test_function_that_breaks_a_rule_is_not_offered(timeout: float) -> None:
    site = Site()
    with pytest.raises(ValueError, match="timeout of a function"):
        site.jobs.register("f", "handler", timeout)
    with pytest.raises(LocalProtocolError):
        site.jobs.register("", "handler", None)
    assert output(site.conns[0]) == []
    assert site.jobs.functions == {}


def test_job_counts_until_it_is_put_down() -> None:
    site = Site()
    (conn,) = site.conns
    site.jobs.register("f", "handler", None)
    assert site.advance() == [conn]
    job = site.assign(conn, b"H:1")
    assert (list(site.jobs.in_hand), list(site.jobs.waiting)) == ([job], [job])
    assert site.advance() == []
    assert site.jobs.waiting.popleft() is job
    assert site.advance() == []
    site.jobs.put_down(job)
    assert site.jobs.in_hand == {}
    assert site.advance() == [conn]


def test_jobs_that_wait_go_with_their_connection_and_others_stay() -> None:
    site = Site(3, connections=2)
    site.jobs.register("f", "handler", None)
    first, second = site.conns
    site.advance()
    begun = site.assign(first, b"H:1")
    site.jobs.waiting.popleft()
    site.advance()
    lost, other = site.assign(first, b"H:2"), site.assign(second, b"H:1")
    site.jobs.lost(first)
    assert list(site.jobs.waiting) == [other]
    assert list(site.jobs.in_hand) == [begun, other]
    assert lost not in site.jobs.in_hand


def test_function_that_is_taken_back_is_kept_until_no_job_of_it_can_come() -> None:
    site = Site()
    (conn,) = site.conns
    site.jobs.register("f", "handler", None)
    site.advance()  # the server may be assigning a job now
    output(conn)
    site.jobs.unregister("f")
    site.advance()
    assert site.jobs.functions == {F: ("handler", None)}
    receive(conn, NoJob())
    assert site.advance() == [conn]
    assert CantDo(F) in output(conn)
    assert site.jobs.functions == {}
    with pytest.raises(LocalProtocolError, match="was not offered"):
        site.jobs.unregister("f")


def test_function_that_is_offered_again_is_not_forgotten() -> None:
    site = Site()
    site.jobs.register("f", "handler", None)
    site.jobs.unregister("f")
    site.jobs.register("f", "other", None)
    site.advance()
    assert site.jobs.functions == {F: ("other", None)}


def test_worker_that_is_to_stop_asks_for_nothing_and_ends_with_its_last_job() -> None:
    site = Site(2)
    (conn,) = site.conns
    site.jobs.register("f", "handler", None)
    site.advance()
    job = site.assign(conn, b"H:1")
    output(conn)
    for _ in range(2):
        assert site.advance(stopping=True) == []
    assert GrabJobAll() not in output(conn)
    assert not site.jobs.grabber.drained
    site.jobs.put_down(job)
    assert site.jobs.grabber.drained
    assert conn.state is Grab.IDLE


def test_job_has_the_time_of_its_function_from_when_it_begins() -> None:
    site = Site(2)
    job = site.assign(site.conns[0], b"H:1")
    job.begin(None, NOW)
    assert (job.timeout, job.until) == (None, None)
    job.begin(2.5, NOW)
    assert (job.timeout, job.until) == (2.5, NOW + 2.5)
