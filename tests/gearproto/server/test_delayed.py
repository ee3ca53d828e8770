"""Jobs for later, under a clock that may be put right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.packets import (
    GetStatus,
    Noop,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
)
from tests.harness.engine import Bench


def test_delayed_job_is_handed_out_at_its_time_and_wakes_a_worker() -> None:
    bench = Bench(epoch_offset=1_700_000_000.0)
    client, worker = bench.connect(), bench.worker(b"f").fall_asleep()
    handle = client.submit(SubmitJobEpoch(b"f", b"", 1_700_001_005, b"w"))
    assert worker.received() == []
    assert client.command(b"status") == b"f\t1\t0\t1\n.\n"
    assert client.command(b"prioritystatus") == b"f\t0\t1\t0\t1\n.\n"
    assert client.ask(GetStatus(handle)) == StatusRes(handle, True, False, 0, 0)
    worker.fall_asleep()
    bench.advance(4.99)
    assert worker.received() == []
    assert bench.counters().delayed == 1
    bench.advance(0.01)
    assert worker.received() == [Noop()]
    assert bench.counters().queued == 1
    assert worker.grabbed() == handle


_steps = st.tuples(st.integers(0, 9), st.integers(-9, 9))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.lists(_steps, max_size=12))
def test_delayed_jobs_follow_the_wall_clock_however_it_is_set(due: list[int], steps: list[tuple[int, int]]) -> None:
    start = 1_700_000_000
    bench = Bench(epoch_offset=start - 1000.0)
    client = bench.connect()
    for when in due:
        client.submit(SubmitJobEpoch(b"f", b"", start + when, b""))
    latest = start
    for seconds, step in steps:
        bench.advance(seconds)
        latest = max(latest, int(bench.now + bench.engine.epoch_offset))
        assert bench.counters().delayed == sum(start + when > latest for when in due)
        bench.engine.epoch_offset += step
        bench.advance(0)
        latest = max(latest, int(bench.now + bench.engine.epoch_offset))
        assert bench.counters().delayed == sum(start + when > latest for when in due)


@pytest.mark.parametrize("wrong", [-3600.0, 3600.0])
def test_delayed_job_runs_at_its_time_although_the_server_was_started_with_its_clock_off(wrong: float) -> None:
    right = 1_700_000_000.0 - 1000
    bench = Bench(epoch_offset=right + wrong)
    client, worker = bench.connect(), bench.worker(b"f").fall_asleep()
    bench.engine.epoch_offset = right
    client.submit(SubmitJobEpoch(b"f", b"", 1_700_000_002, b""))
    bench.advance(1.99)
    assert worker.received() == []
    bench.advance(0.01)
    assert worker.received() == [Noop()]


def test_clock_is_looked_at_every_second_as_long_as_there_are_delayed_jobs(bench: Bench) -> None:
    handle = bench.connect().submit(SubmitJobEpoch(b"f", b"", 10**9, b""))
    for _ in range(3):
        deadline = bench.engine.next_deadline()
        assert deadline is not None
        assert deadline <= bench.now + 1
        bench.now = max(bench.now, deadline)
        bench.engine.handle_timeout(bench.now)
    assert bench.now == 1002
    bench.engine.epoch_offset = 10**9
    bench.advance(1)
    assert bench.worker(b"f").grabbed() == handle


def test_delayed_job_joins_the_end_of_the_queue_at_its_time(bench: Bench) -> None:
    client, worker = bench.connect(), bench.worker(b"f")
    late = client.submit(SubmitJobEpoch(b"f", b"", 1020, b""))
    later = client.submit(SubmitJobEpoch(b"f", b"", 1030, b""))
    soon = client.submit(SubmitJobEpoch(b"f", b"", 1010, b""))
    first = client.submit(SubmitJobBg(b"f", b"", b""))
    bench.advance(100)
    last = client.submit(SubmitJobBg(b"f", b"", b""))
    assert [worker.grabbed() for _ in range(5)] == [first, soon, late, later, last]


def test_delayed_job_can_be_cancelled(bench: Bench) -> None:
    client = bench.connect()
    handle = client.submit(SubmitJobEpoch(b"f", b"", 2000, b""))
    assert client.command(b"cancel job " + handle) == b"OK\r\n"
    assert bench.engine.next_deadline() is None
    assert client.command(b"status") == b"f\t0\t0\t0\n.\n"


def test_delayed_job_survives_its_client(bench: Bench) -> None:
    client, worker = bench.connect(), bench.worker(b"f")
    handle = client.submit(SubmitJobEpoch(b"f", b"u", 1010, b""))
    client.submit(SubmitJob(b"f", b"u", b""))
    client.leave()
    bench.advance(10)
    assert worker.grabbed() == handle
