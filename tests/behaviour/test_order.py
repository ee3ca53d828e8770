"""In which order jobs are handed out, and who is woken for them."""

from __future__ import annotations

from gearproto.packets import (
    EchoReq,
    EchoRes,
    Noop,
    SubmitJob,
    SubmitJobBg,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    SubmitReduceJob,
)
from tests.harness.raw import RawPeer
from tests.harness.sites import Site

from .conftest import StartSite


def test_jobs_of_a_function_go_by_priority_then_age(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    low = [client.submit(SubmitJobLowBg(b"f", b"", b"")), client.submit(SubmitJobLow(b"f", b"", b""))]
    normal = [client.submit(SubmitJob(b"f", b"", b"")), client.submit(SubmitReduceJob(b"f", b"", b"r", b"", b""))]
    normal.append(client.submit(SubmitJobBg(b"f", b"", b"")))
    high = [client.submit(SubmitJobHigh(b"f", b"", b"")), client.submit(SubmitJobHighBg(b"f", b"", b""))]
    expected = high + normal + low
    assert [worker.grab().handle for _ in expected] == expected


def test_sleeping_worker_is_woken_once_until_it_grabs(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    worker.sleep()
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect(Noop())
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect_nothing()
    worker.grab()
    worker.grab()
    worker.sleep()
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect(Noop())


def test_worker_that_is_awake_is_not_woken(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect_nothing()


def test_grab_ends_the_sleep(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    worker.sleep()
    worker.expect_no_job()
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect_nothing()


def test_worker_is_woken_only_for_its_functions(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    worker.sleep()
    client.submit(SubmitJobBg(b"g", b"", b""))
    worker.expect_nothing()


def test_worker_may_sleep_while_it_runs_a_job(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.grab()
    worker.sleep()
    second = client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect(Noop())
    assert worker.grab().handle == second


def test_every_sleeping_worker_of_the_function_can_be_woken(start: StartSite) -> None:
    site = start(worker_wakeup=0)
    workers = [site.worker(b"f") for _ in range(4)]
    for worker in workers:
        worker.sleep()
    site.connect().submit(SubmitJobBg(b"f", b"", b""))
    for worker in workers:
        worker.expect(Noop())


def test_one_worker_a_job_can_be_woken(start: StartSite) -> None:
    site = start("--worker-wakeup=1", worker_wakeup=1, wakeup_timeout=1000.0)
    workers = [site.worker(b"f") for _ in range(3)]
    for worker in workers:
        worker.sleep()
    client = site.connect()
    for expected in (1, 2, 3):
        client.submit(SubmitJobBg(b"f", b"", b""))
        assert sum(woken(worker) for worker in workers) == 1, f"after {expected - 1} others"


def test_woken_worker_may_come_too_late(start: StartSite) -> None:
    site = start(worker_wakeup=0)
    quick, slow = site.worker(b"f"), site.worker(b"f")
    quick.sleep()
    slow.sleep()
    site.connect().submit(SubmitJobBg(b"f", b"", b""))
    quick.expect(Noop())
    slow.expect(Noop())
    quick.grab()
    slow.expect_no_job()


def woken(worker: RawPeer) -> bool:
    """Tell whether a worker has been sent a ``NOOP`` since the last look."""
    worker.send(EchoReq(b"?"))
    packet = worker.receive_any()
    if packet == Noop():
        worker.expect(EchoRes(b"?"))
        return True
    assert packet == EchoRes(b"?")
    return False
