"""Jobs whose worker is lost, or whose time is over: what they run again for, and when."""

from __future__ import annotations

from typing import Any

import pytest

from gearproto.codec import (
    RESPONSE,
)
from gearproto.packets import (
    SUBMISSIONS,
    CanDo,
    CanDoTimeout,
    GetStatus,
    GrabJob,
    JobRequeued,
    Noop,
    OptionReq,
    PreSleep,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    SubmitJobHigh,
    SubmitJobLow,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
)
from gearproto.server import JobGivenUp
from tests.gearproto.server.common import lose, raw, reports
from tests.harness.engine import Bench


def test_jobs_of_several_lost_workers_come_in_the_order_in_which_they_were_submitted(bench: Bench) -> None:
    client, other = bench.connect(), bench.worker(b"f")
    handles = [client.submit(SubmitJob(b"f", b"", b"")) for _ in range(6)]
    workers = [bench.worker(b"f") for _ in range(4)]
    assert [worker.grabbed() for worker in workers] == handles[:4]
    for number in (2, 0, 3, 1):
        workers[number].leave()
    client.command(b"cancel job " + handles[1])
    assert [other.grabbed() for _ in range(5)] == [handles[0], *handles[2:]]


def test_lost_worker_wakes_a_sleeper_for_each_job(bench: Bench) -> None:
    client, worker = bench.connect(), bench.worker(b"f")
    for _ in range(2):
        client.submit(SubmitJob(b"f", b"", b""))
        worker.grabbed()
    sleepers = [bench.worker(b"f").fall_asleep() for _ in range(3)]
    worker.leave()
    assert [sleeper.received() for sleeper in sleepers] == [[Noop()], [Noop()], []]


@pytest.mark.parametrize("leaves", [True, False])
def test_clients_that_ask_for_reruns_are_told_where_one_run_ends_and_the_next_begins(
    bench: Bench, leaves: bool
) -> None:
    plain, asking, late = bench.connect(), bench.connect(), bench.connect()
    asking.ask(OptionReq(b"reruns"))
    (handle,) = {client.submit(SubmitJob(b"f", b"u", b"w")) for client in (plain, asking, late, asking)}
    late.ask(OptionReq(b"reruns"))  # counts for what was submitted before, too
    worker, other = bench.connect().send(CanDoTimeout(b"f", 1000)), bench.worker(b"f")
    worker.send(GrabJob(), WorkData(handle, b"1"))
    if leaves:
        worker.leave()
    else:  # its time limit passes
        bench.advance(1)
    other.send(GrabJob(), WorkData(handle, b"2"), WorkComplete(handle, b"r"))
    one, two, end = WorkData(handle, b"1"), WorkData(handle, b"2"), WorkComplete(handle, b"r")
    assert plain.received() == [one, two, end]
    assert late.received() == [one, JobRequeued(handle), two, end]
    assert asking.received() == [one, one, JobRequeued(handle), JobRequeued(handle), two, two, end, end]


def test_job_that_does_not_run_again_is_not_told_as_requeued() -> None:
    bench = Bench(job_retries=0)
    client, worker = bench.connect(), bench.worker(b"f")
    client.ask(OptionReq(b"reruns"))
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    worker.send(GrabJob(), WorkData(handle, b"1")).leave()
    assert client.received() == [WorkData(handle, b"1"), WorkFail(handle)]


@pytest.mark.parametrize("retries", [0, 1, 4])
@pytest.mark.parametrize("cls", [SubmitJob, SubmitJobBg])
def test_job_fails_when_its_retries_are_used_up(retries: int, cls: Any) -> None:
    bench = Bench(job_retries=retries)
    client = bench.connect()
    handle = client.submit(cls(b"f", b"u", b"w"))
    for run in range(retries + 1):
        assert client.received() == []
        assert bench.events() == []
        assert client.command(b"show jobs") == b"%b\t%d\t0\t%d\n.\n" % (handle, run, cls is SubmitJobBg)
        lose(bench, handle, 1)
    assert client.received() == ([WorkFail(handle)] if cls is SubmitJob else [])
    assert bench.events() == [JobGivenUp(handle, b"f", retries + 1)]
    assert bench.worker(b"f").grab() is None
    assert client.submit(cls(b"f", b"u", b"w")) != handle


def test_job_runs_21_times_unless_told_otherwise(bench: Bench) -> None:
    handle = bench.connect().submit(SubmitJobBg(b"f", b"", b"w"))
    start = bench.now
    lose(bench, handle, 21)
    assert bench.events() == [JobGivenUp(handle, b"f", 21)]
    assert bench.now - start == 1 + 2 + 4 + 8 + 16 + 32 + 12 * 60


def test_retries_may_be_without_limit() -> None:
    bench = Bench(job_retries=-1)
    handle = bench.connect().submit(SubmitJob(b"f", b"", b"w"))
    lose(bench, handle, 100)
    assert bench.worker(b"f").grab() is None
    bench.advance(60)
    assert bench.worker(b"f").grabbed() == handle


def test_job_that_nobody_wants_is_not_given_up_but_gone(bench: Bench) -> None:
    client, worker = bench.connect(), bench.worker(b"f")
    client.submit(SubmitJob(b"f", b"", b"w"))
    worker.grabbed()
    client.leave()
    worker.leave()
    assert bench.events() == []


@pytest.mark.parametrize("cls", [SubmitJobHigh, SubmitJob, SubmitJobLow])
def test_job_that_waits_after_its_third_loss_hides_no_other_and_is_first_again(bench: Bench, cls: Any) -> None:
    client, worker = bench.connect(), bench.worker(b"f")
    handle, other, third = (client.submit(cls(b"f", b"", b"w")) for _ in range(3))
    lose(bench, handle, 3)
    counts = [0, 0, 0]
    counts[SUBMISSIONS[cls][0]] = 3
    assert client.command(b"prioritystatus") == b"f\t%d\t%d\t%d\t1\n.\n" % tuple(counts)
    assert client.ask(GetStatus(handle)) == StatusRes(handle, True, False, 0, 0)
    assert (bench.counters().delayed, bench.counters().queued) == (1, 2)
    assert worker.grabbed() == other
    sleeper = bench.worker(b"f")
    assert sleeper.grabbed() == third
    sleeper.fall_asleep()
    bench.advance(0.99)
    assert sleeper.received() == []
    bench.advance(0.01)
    assert sleeper.received() == [Noop()]
    assert sleeper.grabbed() == handle


def test_job_that_waits_after_its_third_loss_can_be_joined_cancelled_and_left(bench: Bench) -> None:
    client, other = bench.connect(), bench.connect()
    handle = client.submit(SubmitJob(b"f", b"u", b"w"))
    lose(bench, handle, 3)
    assert other.submit(SubmitJob(b"f", b"u", b"")) == handle
    client.leave()
    assert other.command(b"cancel job " + handle) == raw(14, handle, RESPONSE) + b"OK\r\n"
    again = other.submit(SubmitJob(b"f", b"u", b"w"))
    lose(bench, again, 3)
    other.leave()
    assert bench.engine.next_deadline() is None
    assert bench.counters().delayed == 0


@pytest.mark.parametrize(("milliseconds", "seconds"), [(1, 1.0), (999, 1.0), (1000, 1.0), (2500, 2.5)])
def test_time_limit_is_in_milliseconds_and_at_least_a_second(bench: Bench, milliseconds: int, seconds: float) -> None:
    client, worker = bench.connect(), bench.connect().send(CanDoTimeout(b"f", milliseconds))
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    assert worker.grabbed() == handle
    assert bench.engine.next_deadline() == bench.now + seconds
    other = bench.worker(b"f").fall_asleep()
    bench.advance(seconds - 0.01)
    assert other.received() == []
    bench.advance(0.01)
    assert other.received() == [Noop()]
    assert client.received() == worker.received() == []
    assert [worker.ask(report) for report, _ in reports(handle)] == [error for _, error in reports(handle)]
    assert other.grabbed() == handle


def test_same_worker_may_get_its_job_again(bench: Bench) -> None:
    client, worker = bench.connect(), bench.connect().send(CanDoTimeout(b"f", 1000))
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    assert worker.grabbed() == handle
    bench.advance(1)
    assert worker.grabbed() == handle
    assert worker.send(WorkComplete(handle, b"r")).received() == []
    assert client.received() == [WorkComplete(handle, b"r")]


def test_each_job_has_a_time_limit_of_its_own(bench: Bench) -> None:
    client, worker = bench.connect(), bench.connect().send(CanDoTimeout(b"f", 2000), CanDoTimeout(b"g", 3000))
    one, two, three = (client.submit(SubmitJob(name, b"", b"")) for name in (b"f", b"f", b"g"))
    assert worker.grabbed() == one
    assert worker.grabbed() == three
    bench.advance(1)
    assert worker.grabbed() == two
    worker.send(WorkComplete(one, b""), PreSleep())
    bench.advance(1.5)
    assert bench.counters().running == 2
    bench.advance(0.5)
    assert bench.counters().running == 0
    assert client.received() == [WorkComplete(one, b"")]


def test_jobs_that_run_out_of_time_together_keep_their_order(bench: Bench) -> None:
    client, worker = bench.connect(), bench.connect().send(CanDoTimeout(b"f", 1000))
    handles = [client.submit(SubmitJob(b"f", b"", b"")) for _ in range(4)]
    assert [worker.grabbed() for _ in range(3)] == handles[:3]
    bench.advance(1)
    assert [worker.grabbed() for _ in range(4)] == handles


def test_newer_limit_counts_for_later_jobs(bench: Bench) -> None:
    client, worker = bench.connect(), bench.connect().send(CanDoTimeout(b"f", 1000))
    for _ in range(2):
        client.submit(SubmitJob(b"f", b"", b""))
    worker.grabbed()
    worker.send(CanDo(b"f"))
    worker.grabbed()
    bench.advance(100)
    assert bench.counters().running == 1


def test_end_of_a_job_ends_its_time_limit(bench: Bench) -> None:
    client, worker = bench.connect(), bench.connect().send(CanDoTimeout(b"f", 1000))
    for end in (WorkComplete, WorkException):
        handle = client.submit(SubmitJobBg(b"f", b"", b""))
        worker.grabbed()
        assert bench.engine.next_deadline() is not None
        worker.send(end(handle, b""))
        assert bench.engine.next_deadline() is None
