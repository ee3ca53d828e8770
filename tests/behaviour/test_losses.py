"""What becomes of jobs whose worker or client leaves, or whose time is over."""

from __future__ import annotations

import pytest

from gearproto.codec import Packet
from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    GetStatus,
    JobAssign,
    Noop,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.harness.sites import Site

from .answers import RESULT_NOT_FOUND
from .conftest import WAITS, StartSite

# 6. Losing a worker, time limits, retries


def test_job_of_a_lost_worker_runs_again_and_the_client_hears_nothing(site: Site) -> None:
    client, lost, other = site.connect(), site.worker(b"f"), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    lost.grab()
    lost.send(WorkStatus(handle, 1, 2), WorkData(handle, b"first run"))
    client.expect(WorkStatus(handle, 1, 2), WorkData(handle, b"first run"))
    other.sleep()
    lost.close()
    other.expect(Noop())
    client.send(GetStatus(handle))
    client.expect(StatusRes(handle, True, False, 0, 0))
    assert client.ask_rows(b"show jobs") == [handle + b"\t1\t0\t0\n"]
    assert other.grab() == JobAssign(handle, b"f", b"w")
    other.send(WorkData(handle, b"second run"), WorkComplete(handle, b"r"))
    client.expect(WorkData(handle, b"second run"), WorkComplete(handle, b"r"))


def test_background_job_of_a_lost_worker_runs_again(site: Site) -> None:
    client, lost, other = site.connect(), site.worker(b"f"), site.worker(b"f")
    handle = client.submit(SubmitJobBg(b"f", b"", b"w"))
    lost.grab()
    other.sleep()
    lost.close()
    other.expect(Noop())
    assert other.grab().handle == handle


def test_every_job_of_a_lost_worker_runs_again(site: Site) -> None:
    client, lost, other = site.connect(), site.worker(b"f", b"g"), site.worker(b"f", b"g")
    handles = {client.submit(SubmitJob(name, b"", b"")) for name in (b"f", b"g", b"f")}
    for _ in handles:
        lost.grab()
    site.leave(lost)
    assert {other.grab().handle for _ in handles} == handles


def test_runs_can_be_limited(start: StartSite) -> None:
    site = start("--job-retries=2", job_retries=1)
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    background = client.submit(SubmitJobBg(b"f", b"", b""))
    for _ in range(2):
        assert {worker.grab().handle, worker.grab().handle} == {handle, background}
        lost, worker = worker, site.worker(b"f")
        site.leave(lost)
    client.expect(WorkFail(handle))
    client.expect_nothing()
    worker.expect_no_job()
    assert client.ask_rows(b"show jobs") == []


@pytest.mark.parametrize("kind", [WorkFail, WorkException])
def test_failed_job_is_not_run_again(site: Site, kind: type[Packet]) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    worker.send(WorkFail(handle) if kind is WorkFail else WorkException(handle, b"x"))
    client.expect(WorkFail(handle))
    worker.expect_no_job()


@WAITS
def test_time_limit_gives_the_job_back_or_fails_it(start: StartSite) -> None:
    site = start("--job-retries=2", job_retries=1)
    client, slow, last, other = (site.connect() for _ in range(4))
    once, twice = (client.submit(SubmitJob(function, b"", b"")) for function in (b"once", b"twice"))
    lost = site.worker(b"twice")
    assert lost.grab().handle == twice
    site.leave(lost)
    slow.send(CanDoTimeout(b"once", 1))  # raised to 1000 ms
    last.send(CanDoTimeout(b"twice", 1000))
    assert slow.grab().handle == once
    assert last.grab().handle == twice
    other.send(CanDo(b"once"))
    other.sleep()
    other.expect(Noop())
    if site.kind == "gearmand":  # another of its threads wakes workers, and queues the job after that
        watcher = site.connect()
        site.until(lambda: watcher.ask_rows(b"status").count(b"once\t1\t0\t2\n") == 1, "the job is queued")
    assert other.grab().handle == once
    client.expect(WorkFail(twice))
    for worker, handle in ((slow, once), (last, twice)):
        worker.expect_nothing()
        worker.send(WorkComplete(handle, b"late"))
        worker.expect(RESULT_NOT_FOUND)
    client.expect_nothing()


# 7. Losing a client


def test_abandoned_job_is_never_handed_out(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    client.submit(SubmitJob(b"f", b"", b""))
    site.leave(client)
    worker.expect_no_job()
    worker.sleep()
    assert site.connect().ask_rows(b"show jobs") == []


def test_worker_of_an_abandoned_running_job_is_not_told(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    site.leave(client)
    worker.send(WorkStatus(handle, 1, 2), WorkData(handle, b"d"), WorkWarning(handle, b"w"), WorkComplete(handle, b"r"))
    worker.expect_nothing()
    assert site.connect().ask_rows(b"show jobs") == []


def test_abandoned_running_job_is_dropped_with_its_worker(site: Site) -> None:
    client, worker, other = site.connect(), site.worker(b"f"), site.worker(b"f")
    client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    site.leave(client)
    site.leave(worker)
    other.expect_no_job()


def test_abandoned_running_job_can_be_joined(site: Site) -> None:
    client, worker, newcomer = site.connect(), site.worker(b"f"), site.connect()
    handle = client.submit(SubmitJob(b"f", b"u", b""))
    worker.grab()
    site.leave(client)
    assert newcomer.submit(SubmitJob(b"f", b"u", b"")) == handle
    worker.send(WorkComplete(handle, b"r"))
    newcomer.expect(WorkComplete(handle, b"r"))


def test_one_of_several_clients_may_leave(site: Site) -> None:
    leaver, stayer, worker = site.connect(), site.connect(), site.worker(b"f")
    handle = leaver.submit(SubmitJob(b"f", b"u", b""))
    stayer.submit(SubmitJob(b"f", b"u", b""))
    site.leave(leaver)
    assert worker.grab().handle == handle
    worker.send(WorkComplete(handle, b"r"))
    stayer.expect(WorkComplete(handle, b"r"))


def test_background_job_outlives_its_client(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJobBg(b"f", b"", b""))
    site.leave(client)
    assert worker.grab().handle == handle
