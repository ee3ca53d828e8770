"""What makes a job: its handle and names, and which submissions are one job."""

from __future__ import annotations

import os
import re

import pytest

from gearproto.codec import Packet
from gearproto.packets import (
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    Noop,
    SubmitJob,
    SubmitJobBg,
    SubmitJobHigh,
    SubmitJobLow,
    WorkComplete,
    WorkData,
)
from tests.harness.sites import Site

from .answers import QUEUE_FULL, SIMPLE_SUBMISSIONS
from .conftest import StartSite

# 3. Job life and identity


def test_handles_are_prefix_and_count(site: Site) -> None:
    one, two = site.connect(), site.connect()
    handles = [one.submit(SubmitJobBg(b"f", b"", b"")), one.submit(SubmitJobLow(b"g", b"", b""))]
    handles.append(two.submit(SubmitJob(b"f", b"", b"")))
    assert [int(handle.rpartition(b":")[2]) for handle in handles] == [1, 2, 3]
    assert len({handle.rpartition(b":")[0] for handle in handles}) == 1
    assert all(re.fullmatch(rb"H:[^\0]{1,58}", handle) for handle in handles)


def test_handle_prefix_may_be_chosen(start: StartSite) -> None:
    site = start("--job-handle-prefix=J:mine", handle_prefix="J:mine")
    assert re.fullmatch(rb"J:mine(:[0-9a-f]+)?:0*1", site.connect().submit(SubmitJobBg(b"f", b"", b"")))


@pytest.mark.parametrize("name", [b"a b", b"a\tb", b"a\nb", b"\xff\xfe", "ä".encode(), b".", b"-"])
def test_function_name_may_be_any_bytes(site: Site, name: bytes) -> None:
    worker, client = site.worker(name), site.connect()
    handle = client.submit(SubmitJob(name, b"", b"w"))
    assert worker.grab() == JobAssign(handle, name, b"w")


def test_case_of_function_names_matters(site: Site) -> None:
    worker, client = site.worker(b"F"), site.connect()
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect_no_job()


def test_function_stays_in_status_after_its_jobs_and_workers(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    worker.send(WorkComplete(handle, b""))
    client.expect(WorkComplete(handle, b""))
    site.leave(worker)
    site.until(lambda: client.ask_rows(b"status") == [b"f\t0\t0\t0\n"], "the function is there without its worker")


def test_ten_megabytes_go_through_both_ways(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    workload = os.urandom(1 << 20) * 10
    handle = client.submit(SubmitJob(b"f", b"", workload))
    assert worker.grab() == JobAssign(handle, b"f", workload)
    worker.send(WorkComplete(handle, workload))
    client.expect(WorkComplete(handle, workload))


# 4. Coalescing


def test_empty_uniques_are_never_joined(site: Site) -> None:
    one, two, worker = site.connect(), site.connect(), site.worker(b"f")
    handles = [client.submit(SubmitJob(b"f", b"", b"w")) for client in (one, one, two)]
    assert len({*handles}) == 3
    for _ in handles:
        handle = worker.grab().handle
        worker.send(WorkComplete(handle, b"of " + handle))
    for client, handle in zip((one, one, two), handles, strict=True):
        client.expect(WorkComplete(handle, b"of " + handle))


FOREGROUND = (SubmitJobHigh, SubmitJob, SubmitJobLow)
ROWS = (b"1\t0\t0", b"0\t1\t0", b"0\t0\t1")


@pytest.mark.parametrize("first", SIMPLE_SUBMISSIONS)
def test_same_function_and_unique_is_the_same_job_as_it_was_first_submitted(site: Site, first: type[Packet]) -> None:
    client = site.connect()
    for number, second in enumerate(SIMPLE_SUBMISSIONS):
        function, unique = b"f%d" % number, b"u" * 63
        worker = site.worker(function)
        worker.sleep()
        handle = client.submit(first(function, unique, b"one"))
        worker.expect(Noop())
        assert client.submit(second(function, unique, b"two")) == handle
        worker.expect_nothing()
        row = ROWS[SIMPLE_SUBMISSIONS.index(first) // 2]
        assert b"%b\t%b\t1\n" % (function, row) in client.ask_rows(b"prioritystatus")
        assert worker.grab(GrabJobUniq()) == JobAssignUniq(handle, function, unique, b"one")
        worker.expect_no_job()
        worker.sleep()
        assert client.submit(second(function, unique, b"three")) == handle  # it may run already
        worker.expect_nothing()
        worker.send(WorkData(handle, b"d"), WorkComplete(handle, b"r"))
        worker.expect_nothing()
        waiting = (first in FOREGROUND) + 2 * (second in FOREGROUND)
        client.expect(*[WorkData(handle, b"d")] * waiting, *[WorkComplete(handle, b"r")] * waiting)
        client.expect_nothing()
        assert client.submit(SubmitJobBg(function, unique, b"four")) != handle


def test_same_unique_of_another_function_is_another_job(site: Site) -> None:
    client = site.connect()
    assert client.submit(SubmitJob(b"f", b"u", b"")) != client.submit(SubmitJob(b"g", b"u", b""))


def test_unique_dash_is_keyed_by_the_workload(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"-", b"same"))
    assert client.submit(SubmitJob(b"f", b"-", b"same")) == handle
    assert client.submit(SubmitJob(b"f", b"-", b"other")) != handle
    assert client.submit(SubmitJob(b"g", b"-", b"same")) != handle
    assert worker.grab(GrabJobUniq()) == JobAssignUniq(handle, b"f", b"-", b"same")


def test_unique_dash_with_an_empty_workload_is_never_joined(site: Site) -> None:
    client = site.connect()
    assert client.submit(SubmitJob(b"f", b"-", b"")) != client.submit(SubmitJob(b"f", b"-", b""))


def test_foreground_joins_a_running_job_and_hears_the_rest(site: Site) -> None:
    one, two, worker = site.connect(), site.connect(), site.worker(b"f")
    handle = one.submit(SubmitJob(b"f", b"u", b""))
    worker.grab()
    worker.send(WorkData(handle, b"1"))
    one.expect(WorkData(handle, b"1"))
    assert two.submit(SubmitJob(b"f", b"u", b"")) == handle
    worker.send(WorkData(handle, b"2"), WorkComplete(handle, b"r"))
    for client in (one, two):
        client.expect(WorkData(handle, b"2"), WorkComplete(handle, b"r"))


def test_one_connection_that_submits_twice_hears_everything_twice(site: Site) -> None:
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"u", b""))
    assert client.submit(SubmitJob(b"f", b"u", b"")) == handle
    worker.grab()
    worker.send(WorkData(handle, b"d"), WorkComplete(handle, b"r"))
    client.expect(WorkData(handle, b"d"), WorkData(handle, b"d"))
    client.expect(WorkComplete(handle, b"r"), WorkComplete(handle, b"r"))
    client.expect_nothing()


def test_joining_succeeds_when_the_queue_is_full(site: Site) -> None:
    client = site.worker(b"f")
    assert client.ask(b"maxqueue f 1") == b"OK\r\n"
    handle = client.submit(SubmitJob(b"f", b"u", b""))
    client.send(SubmitJob(b"f", b"v", b""))
    client.expect(QUEUE_FULL)
    assert client.submit(SubmitJob(b"f", b"u", b"")) == handle
