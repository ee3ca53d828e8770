"""Jobs for later."""

from __future__ import annotations

import pytest

from gearproto.codec import REQUEST
from gearproto.packets import (
    GetStatus,
    GrabJob,
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    WorkComplete,
)
from tests.harness.raw import packet_bytes
from tests.harness.sites import Site

from .answers import QUEUE_FULL
from .conftest import WAITS

FAR_FUTURE = 4_000_000_000


# 8. Delayed jobs


@pytest.mark.parametrize("when", [b"0", b"1", b"-1", b"", b"1000000000"])
def test_delayed_job_of_the_past_runs_now(site: Site, when: bytes) -> None:
    client, worker = site.connect(), site.worker(b"f")
    worker.sleep()
    client.send_bytes(packet_bytes(REQUEST, SubmitJobEpoch.spec.number, b"f\0u\0" + when + b"\0w\0w"))
    handle = client.receive(JobCreated).handle
    worker.expect(Noop())
    assert worker.grab(GrabJobUniq()) == JobAssignUniq(handle, b"f", b"u", b"w\0w")
    worker.send(WorkComplete(handle, b"r"))
    worker.expect_nothing()
    client.expect_nothing()


def test_delayed_job_is_not_handed_out_before_its_time(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    client.submit(SubmitJobEpoch(b"f", b"", FAR_FUTURE, b"w"))
    worker.expect_no_job()
    worker.sleep()
    worker.expect_no_job()


def test_delayed_job_is_a_background_job_of_normal_priority(site: Site) -> None:
    client = site.connect()
    handle = client.submit(SubmitJobEpoch(b"f", b"", FAR_FUTURE, b"w"))
    assert client.ask_rows(b"status") == [b"f\t1\t0\t0\n"]
    assert client.ask_rows(b"prioritystatus") == [b"f\t0\t1\t0\t0\n"]
    assert client.ask_rows(b"show jobs") == [handle + b"\t0\t0\t1\n"]
    client.send(GetStatus(handle))
    client.expect(StatusRes(handle, True, False, 0, 0))


def test_delayed_job_counts_in_maxqueue(site: Site) -> None:
    client = site.worker(b"f")
    client.ask(b"maxqueue f 1")
    client.submit(SubmitJobEpoch(b"f", b"", FAR_FUTURE, b"w"))
    client.send(SubmitJob(b"f", b"", b""))
    client.expect(QUEUE_FULL)


def test_delayed_job_does_not_hide_ready_ones(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    client.submit(SubmitJobEpoch(b"f", b"", FAR_FUTURE, b"w"))
    handle = client.submit(SubmitJobBg(b"f", b"", b""))
    assert worker.grab().handle == handle


def test_immediate_submission_joins_a_delayed_job_and_waits(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJobEpoch(b"f", b"u", FAR_FUTURE, b"w"))
    assert client.submit(SubmitJob(b"f", b"u", b"x")) == handle
    worker.expect_no_job()
    client.expect_nothing()


@WAITS
def test_delayed_job_whose_time_has_come_is_handed_out(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJobEpoch(b"f", b"", int(site.time()) + 1, b"w"))

    def grabbed() -> bool:
        worker.send(GrabJob())
        packet = worker.receive_any()
        assert packet in (NoJob(), JobAssign(handle, b"f", b"w"))
        return packet != NoJob()

    site.until(grabbed, "the job's time has come")
