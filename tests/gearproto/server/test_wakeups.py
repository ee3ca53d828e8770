"""Which sleeping workers are woken, and what becomes of a wake-up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.codec import (
    Packet,
)
from gearproto.packets import (
    SUBMISSIONS,
    CanDo,
    CantDo,
    Noop,
    PreSleep,
    ResetAbilities,
    SubmitJob,
    SubmitJobBg,
    SubmitJobHigh,
    SubmitJobLow,
    WorkComplete,
)
from tests.harness.engine import Bench


@given(st.lists(st.tuples(st.sampled_from([SubmitJobHigh, SubmitJobBg, SubmitJobLow]), st.sampled_from([b"f", b"g"]))))
def test_jobs_go_out_by_priority_over_all_functions_and_first_in_first_out(jobs: list[tuple[Any, bytes]]) -> None:
    bench = Bench()
    client, worker = bench.connect(), bench.worker(b"f", b"g")
    submitted = [(SUBMISSIONS[cls][0], name, client.submit(cls(name, b"", b"w"))) for cls, name in jobs]
    taken = [job for _ in jobs if (job := worker.grab()) is not None]
    assert worker.grab() is None
    known = {handle: (priority, name) for priority, name, handle in submitted}
    assert [known[job.handle][0] for job in taken] == sorted(priority for priority, _, _ in submitted)
    for kind in set(known.values()):
        in_order = [handle for handle, other in known.items() if other == kind]
        assert [job.handle for job in taken if known[job.handle] == kind] == in_order


def test_without_round_robin_a_function_is_served_until_it_has_no_jobs() -> None:
    bench = Bench(round_robin=False)
    client, worker = bench.connect(), bench.worker(b"f", b"g")
    for function in (b"g", b"f", b"g", b"f"):
        client.submit(SubmitJobBg(function, b"", b""))
    taken = [job.function for _ in range(4) if (job := worker.grab()) is not None]
    assert taken == [b"g", b"g", b"f", b"f"]


def test_second_pre_sleep_beside_a_job_ends_the_sleep_too(bench: Bench) -> None:
    client, first, second = bench.connect(), bench.worker(b"f").fall_asleep(), bench.worker(b"f").fall_asleep()
    client.submit(SubmitJob(b"f", b"", b""))
    assert first.received() == [Noop()]
    assert second.ask(PreSleep()) == Noop()
    client.submit(SubmitJob(b"f", b"", b""))
    assert second.received() == []


def test_worker_without_abilities_sleeps_until_it_has_one(bench: Bench) -> None:
    client, worker = bench.connect(), bench.connect().fall_asleep()
    client.submit(SubmitJob(b"f", b"", b""))
    assert worker.received() == []
    assert worker.ask(CanDo(b"f")) == Noop()


def test_worker_that_has_slept_longest_is_woken_first(bench: Bench) -> None:
    client, one, two = bench.connect(), bench.worker(b"f").fall_asleep(), bench.worker(b"f").fall_asleep()
    for worker, other in ((one, two), (two, one)) * 3:
        handle = client.submit(SubmitJobBg(b"f", b"", b""))
        assert (worker.received(), other.received()) == ([Noop()], [])
        assert worker.grabbed() == handle
        worker.send(WorkComplete(handle, b"")).fall_asleep()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_worker_wakeup_says_how_many_are_woken_for_a_job(count: int) -> None:
    bench = Bench(worker_wakeup=count)
    client, sleepers = bench.connect(), [bench.worker(b"f").fall_asleep() for _ in range(3)]
    client.submit(SubmitJob(b"f", b"", b""))
    assert [worker.received() for worker in sleepers].count([Noop()]) == count


def test_woken_worker_that_does_not_ask_in_time_is_no_longer_counted_on() -> None:
    bench = Bench(wakeup_timeout=2.0)
    client = bench.connect()
    one, two, three = (bench.worker(b"f").fall_asleep() for _ in range(3))
    client.submit(SubmitJob(b"f", b"", b""))
    assert bench.engine.next_deadline() == bench.now + 2.0
    bench.advance(1.9)
    assert [worker.received() for worker in (one, two, three)] == [[Noop()], [], []]
    bench.advance(0.1)
    assert [worker.received() for worker in (one, two, three)] == [[], [Noop()], [Noop()]]
    assert two.grab()
    bench.advance(10)
    assert three.received() == []
    assert bench.engine.next_deadline() is None


@pytest.mark.parametrize(("count", "woken"), [(1, [1, 3, 7, 15, 40, 40]), (2, [2, 6, 14, 30, 40]), (0, [40, 40])])
def test_each_time_that_nobody_comes_twice_as_many_are_woken_and_then_all(count: int, woken: list[int]) -> None:
    bench = Bench(worker_wakeup=count, wakeup_timeout=2.0)
    client, sleepers = bench.connect(), [bench.worker(b"f").fall_asleep() for _ in range(40)]
    client.submit(SubmitJob(b"f", b"", b""))
    for number in woken:
        assert sum(worker.pieces != [] for worker in sleepers) == number
        bench.advance(2.0)


@given(st.integers(0, 60), st.integers(1, 3), st.integers(1, 3))
def test_job_waits_at_most_four_times_for_a_worker_however_many_hang(hung: int, jobs: int, count: int) -> None:
    bench = Bench(checked=False, worker_wakeup=count, wakeup_timeout=1.0)
    client = bench.connect()
    sleepers = [bench.worker(b"f").fall_asleep() for _ in range(hung + 1)]
    alive = sleepers[-1]
    for _ in range(jobs):
        client.submit(SubmitJobBg(b"f", b"", b""))
    bench.advance(4.0)
    assert alive.received() == [Noop()]
    for _ in range(jobs):
        assert alive.grab()


def test_next_job_wakes_one_worker_again_after_many_were_woken(bench: Bench) -> None:
    client, sleepers = bench.connect(), [bench.worker(b"f").fall_asleep() for _ in range(9)]
    client.submit(SubmitJob(b"f", b"", b""))
    bench.advance(2.0)
    assert [worker.received() for worker in sleepers] == [[Noop()]] * 7 + [[]] * 2
    assert sleepers[6].grab()
    client.submit(SubmitJob(b"f", b"", b""))
    assert [worker.received() for worker in sleepers[7:]] == [[Noop()], []]


@pytest.mark.parametrize("count", [0, 1])
def test_very_many_sleepers_are_woken_little_by_little(count: int) -> None:
    bench = Bench(worker_wakeup=count)
    client, sleepers = bench.connect(), [bench.worker(b"f").fall_asleep() for _ in range(40)]
    bench.engine._chores.at_once = bench.engine._chores.least = 20
    client.submit(SubmitJob(b"f", b"", b""))
    if count:
        bench.advance(3.0)
        assert sum(worker.pieces != [] for worker in sleepers) == 15
        bench.now += 1.0
        bench.engine.handle_timeout(bench.now)
        bench.settle()
        assert 15 < sum(worker.pieces != [] for worker in sleepers) < 40
    else:
        assert sum(worker.pieces != [] for worker in sleepers) == 20
    bench.advance(0)
    assert [worker.received() for worker in sleepers] == [[Noop()]] * 40


def test_wake_up_that_was_passed_on_already_is_not_passed_on_again() -> None:
    bench = Bench(wakeup_timeout=2.0)
    client, one = bench.connect(), bench.worker(b"f", b"g").fall_asleep()
    two, three, four = (bench.worker(b"f").fall_asleep() for _ in range(3))
    client.submit(SubmitJob(b"f", b"", b""))
    bench.advance(2.0)
    assert [worker.received() for worker in (one, two, three, four)] == [[Noop()], [Noop()], [Noop()], []]
    client.submit(SubmitJobHigh(b"g", b"", b""))
    job = one.grab()
    assert job is not None
    assert job.function == b"g"
    assert four.received() == []
    one.leave()
    assert four.received() == []


def test_wake_up_is_dropped_when_its_job_is_gone_in_time(bench: Bench) -> None:
    client, one, two = bench.connect(), bench.worker(b"f").fall_asleep(), bench.worker(b"f").fall_asleep()
    client.submit(SubmitJob(b"f", b"", b""))
    client.leave()
    bench.advance(10)
    assert (one.received(), two.received()) == ([Noop()], [])


def test_woken_worker_that_takes_another_functions_job_passes_the_wake_up_on(bench: Bench) -> None:
    client, one = bench.connect(), bench.worker(b"f", b"g").fall_asleep()
    two = bench.worker(b"f").fall_asleep()
    client.submit(SubmitJob(b"f", b"", b""))
    client.submit(SubmitJobHigh(b"g", b"", b""))
    assert (one.received(), two.received()) == ([Noop()], [])
    job = one.grab()
    assert job is not None
    assert job.function == b"g"
    assert two.received() == [Noop()]


def test_woken_worker_that_sleeps_instead_of_asking_passes_the_wake_up_on(bench: Bench) -> None:
    client, one, two = bench.connect(), bench.worker(b"f").fall_asleep(), bench.worker(b"f").fall_asleep()
    client.submit(SubmitJob(b"f", b"", b""))
    assert one.received() == [Noop()]
    assert one.ask(PreSleep()) == Noop()
    assert two.received() == [Noop()]


@pytest.mark.parametrize("lose", [CantDo(b"f"), ResetAbilities()])
def test_woken_worker_that_loses_the_ability_passes_the_wake_up_on(bench: Bench, lose: Packet) -> None:
    client, one, two = bench.connect(), bench.worker(b"f").fall_asleep(), bench.worker(b"f").fall_asleep()
    client.submit(SubmitJob(b"f", b"", b""))
    one.received()
    assert one.send(lose).received() == []
    assert two.received() == [Noop()]


def test_woken_worker_that_loses_another_ability_keeps_the_wake_up(bench: Bench) -> None:
    client, one, two = bench.connect(), bench.worker(b"f", b"g").fall_asleep(), bench.worker(b"f").fall_asleep()
    client.submit(SubmitJob(b"f", b"", b""))
    assert one.received() == [Noop()]
    one.send(CantDo(b"g"))
    assert two.received() == []


def test_woken_worker_finds_no_job_if_another_was_faster(bench: Bench) -> None:
    client, awake, sleeper = bench.connect(), bench.worker(b"f"), bench.worker(b"f").fall_asleep()
    client.submit(SubmitJob(b"f", b"", b""))
    assert sleeper.received() == [Noop()]
    assert awake.grab()
    sleeper.fall_asleep()
    client.submit(SubmitJob(b"f", b"", b""))
    assert sleeper.received() == [Noop()]


def test_wake_up_goes_to_nobody_who_sleeps_no_longer(bench: Bench) -> None:
    client, both = bench.connect(), bench.worker(b"f", b"g").fall_asleep()
    other = bench.worker(b"f").fall_asleep()
    client.send(SubmitJob(b"g", b"", b""), SubmitJob(b"f", b"", b""), SubmitJob(b"f", b"", b""))
    assert both.received() == [Noop()]
    assert other.received() == [Noop()]
