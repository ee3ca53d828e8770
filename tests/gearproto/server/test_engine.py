"""The job server clause by clause, in packets and text commands."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.admin import JobListed, WorkerListed, unescape
from gearproto.codec import (
    HEADER,
    MAX_GROWTH,
    MAX_HANDLE_SIZE,
    REQUEST,
    RESPONSE,
    Packet,
)
from gearproto.packets import (
    SUBMISSIONS,
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GetStatusUnique,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    JobCreated,
    JobRequeued,
    Noop,
    OptionReq,
    PreSleep,
    Priority,
    ResetAbilities,
    SetClientId,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobLow,
    SubmitJobLowBg,
    SubmitReduceJob,
    SubmitReduceJobBackground,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from gearproto.server import Engine, JobChanged, JobGivenUp, ShutdownRequested
from gearproto.server.jobs import JobState
from tests.harness.engine import Bench, Peer, nth_handle
from tests.harness.strategies import hostile_names

FULL = Error(b"QUEUE_ERROR", b"Job queue is full")
RESULT_NOT_FOUND = Error(b"JOB_NOT_FOUND", b"Job given in work result not found")
JOB_NOT_FOUND = Error(b"JOB_NOT_FOUND", b"Job does not exist on server")
EXCEPTION_NOT_FOUND = Error(b"JOB_NOT_FOUND", b"An exception was received for a job that does not exist")

names = hostile_names.map(lambda raw: raw.replace(b"\0", b"\n")).filter(bool)


@pytest.fixture
def bench() -> Bench:
    return Bench()


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


# 1 Framing and errors


@given(st.sampled_from([*SUBMISSIONS]), st.integers(0, 120), st.binary(max_size=3), st.integers(1, 40))
def test_worker_with_the_limit_of_the_server_can_take_every_job_that_the_server_has_taken(
    cls: Any, room: int, unique: bytes, prefix: int
) -> None:
    bench = Bench(max_packet_size=200, handle_prefix=b"H" * prefix)
    unique = unique.replace(b"\0", b"0")
    middle: dict[Any, list[Any]] = {
        SubmitJobEpoch: [0],
        SubmitReduceJob: [b"r" * 9, b""],
        SubmitReduceJobBackground: [b"r" * 9, b""],
    }
    bare = len(cls(b"f", unique, *middle.get(cls, []), b"").encode()) - HEADER.size
    size = max(0, 200 - bare - room)
    client, worker = bench.connect(), bench.connect().send(CanDo(b"f"))
    answer = client.ask(cls(b"f", unique, *middle.get(cls, []), bytes(size)))
    if bare + size <= 200 - MAX_GROWTH:
        assert isinstance(answer, JobCreated)
        assert len(worker.send(GrabJobAll()).raw()) <= HEADER.size + 200
    else:
        text = f"{cls.spec.name}: {bare + size} bytes, {bare + size + 65} when it is assigned, limit 200"
        assert answer == Error(b"PACKET_TOO_LARGE", text.encode())
        assert bench.failure() == text


def go_on(bench: Bench) -> int:
    """Resume all peers until none is paused; return how often."""
    times = 0
    while paused := list(bench.engine.paused_peers()):
        for peer in paused:
            bench.engine.resume(peer, bench.now)
            bench.settle()
            times += 1
    return times


@given(st.data())
def test_any_cut_of_the_input_gives_the_same_output(data: st.DataObject) -> None:
    whole = b"".join(
        [
            *(packet.encode() for packet in (CanDo(b"f"), SubmitJob(b"f", b"", b"w"), GrabJobUniq(), EchoReq(b"e"))),
            b"status\r\nversion\n",
            *(packet.encode() for packet in (WorkComplete(nth_handle(1), b"r"), GrabJob())),
        ]
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    bench = Bench(work_limit=data.draw(st.integers(1, 6)))
    whole_peer, cut_peer = Bench().connect(), bench.connect()
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        cut_peer.send(whole[start:end])
        if data.draw(st.booleans()):
            go_on(bench)
    go_on(bench)
    assert cut_peer.raw() == whole_peer.send(whole).raw() != b""


# 2 Packets one by one


@pytest.mark.parametrize("number", [b"0", b"-5", b"", b"-1.5"])
def test_can_do_timeout_of_nothing_is_no_limit(bench: Bench, number: bytes) -> None:
    worker = bench.connect().send(raw(23, b"f\0" + number))
    bench.connect().submit(SubmitJobBg(b"f", b"", b"w"))
    assert worker.grab()
    assert bench.engine.next_deadline() is None


def test_fraction_of_a_millisecond_is_cut_off(bench: Bench) -> None:
    worker = bench.connect().send(raw(23, b"f\0" + b"2500.9"))
    bench.connect().submit(SubmitJobBg(b"f", b"", b"w"))
    assert worker.grab()
    assert bench.engine.next_deadline() == bench.now + 2.5


@pytest.mark.parametrize("lose", [CantDo(b"f"), ResetAbilities()])
def test_jobs_in_hand_stay_with_a_worker_that_loses_the_ability(bench: Bench, lose: Packet) -> None:
    client, worker, other = bench.connect(), bench.worker(b"f", b"g"), bench.worker(b"f", b"g")
    handles = [client.submit(SubmitJob(b"f", b"", b"%d" % number)) for number in range(3)]
    assert [worker.grabbed() for _ in handles[:2]] == handles[:2]
    assert worker.send(lose).received() == []
    assert worker.grab() is None
    assert other.grabbed() == handles[2]
    assert other.grab() is None
    worker.send(WorkStatus(handles[0], 1, 2), WorkComplete(handles[0], b"r"), WorkFail(handles[1]))
    assert worker.received() == []
    assert client.received() == [WorkStatus(handles[0], 1, 2), WorkComplete(handles[0], b"r"), WorkFail(handles[1])]


@pytest.mark.parametrize("lose", [CantDo(b"f"), ResetAbilities()])
def test_job_of_a_worker_that_has_lost_the_ability_goes_to_another_when_it_leaves_or_is_late(
    bench: Bench, lose: Packet
) -> None:
    client, leaver, late = bench.connect(), bench.worker(b"f"), bench.connect().send(CanDoTimeout(b"f", 1000))
    handles = [client.submit(SubmitJob(b"f", b"", b"%d" % number)) for number in range(2)]
    assert [leaver.grabbed(), late.grabbed()] == handles
    leaver.send(lose).leave()
    late.send(lose)
    bench.advance(1)
    assert late.ask(WorkComplete(handles[1], b"")) == RESULT_NOT_FOUND
    other = bench.worker(b"f")
    assert [other.grabbed(), other.grabbed()] == handles


@given(
    st.lists(st.sampled_from([b"", b"7", b" 7 ", b"7.9", b"+7", b"9" * 19]), min_size=2, max_size=2),
    st.booleans(),
)
def test_numbers_of_a_status_are_passed_on_as_they_came_and_read_for_queries(numbers: list[bytes], nul: bool) -> None:
    bench = Bench()
    client, worker = bench.connect(), bench.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    worker.grabbed()
    body = b"\0".join([handle, *numbers]) + b"\0" * nul
    worker.send(raw(12, body))
    assert client.raw() == raw(12, body, RESPONSE)
    values = (int(number.partition(b".")[0] or b"0") for number in numbers)
    assert client.ask(GetStatus(handle)) == StatusRes(handle, True, True, *values)


def test_status_by_unique_finds_the_oldest_job_of_any_function(bench: Bench) -> None:
    client, worker = bench.connect(), bench.worker(b"g")
    for function in (b"f", b"g", b"h"):
        client.submit(SubmitJobBg(function, b"u", b"w"))
    handle = worker.grabbed()
    assert client.ask(GetStatusUnique(b"u")) == StatusResUnique(b"u", True, False, 0, 0, 0)
    bench.worker(b"f").send(GrabJob(), WorkComplete(nth_handle(1), b""))
    assert client.ask(GetStatusUnique(b"u")) == StatusResUnique(b"u", True, True, 0, 0, 0)
    worker.send(WorkComplete(handle, b""))
    bench.worker(b"h").send(GrabJob(), WorkComplete(nth_handle(3), b""))
    assert client.ask(GetStatusUnique(b"u")) == StatusResUnique(b"u", False, False, 0, 0, 0)


def test_work_fail_with_a_nul_behind_the_handle_is_passed_on_without_it(bench: Bench) -> None:
    client, worker = bench.connect(), bench.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    worker.grabbed()
    worker.send(raw(14, handle + b"\0"))
    assert client.raw() == raw(14, handle, RESPONSE)


def test_reports_on_what_is_no_handle_at_all_are_an_error(bench: Bench) -> None:
    worker = bench.worker(b"f")
    for handle in (b"", b"x" * 63, b"\xff\n"):
        assert [worker.ask(report) for report, _ in reports(handle)] == [error for _, error in reports(handle)]


# 4 Coalescing


def test_same_unique_of_other_functions_are_other_jobs(bench: Bench) -> None:
    client = bench.connect()
    handles = [client.submit(SubmitJob(function, b"u", b"w")) for function in (b"f", b"g", b"h")]
    assert len(set(handles)) == 3
    assert [client.submit(SubmitJob(function, b"u", b"w")) for function in (b"f", b"g", b"h")] == handles
    assert client.command(b"cancel job " + handles[1]) == raw(14, handles[1], RESPONSE) * 2 + b"OK\r\n"
    again = client.submit(SubmitJob(b"g", b"u", b"w"))
    assert again not in handles
    assert [client.submit(SubmitJob(function, b"u", b"w")) for function in (b"f", b"g", b"h")] == [
        handles[0],
        again,
        handles[2],
    ]


# 5 Order and wake-ups


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


# 6 Losing a worker, time limits, retries


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


def lose(bench: Bench, handle: bytes, times: int) -> None:
    """Let workers take a job, the first that is there, and leave; wait where the job has to wait."""
    for _ in range(times):
        worker = bench.worker(b"f")
        while (job := worker.grab()) is None:
            bench.advance(1)
        assert job.handle == handle
        worker.leave()


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


# 7 Losing a client


def test_very_many_jobs_of_a_client_that_leaves_are_dropped_little_by_little(bench: Bench) -> None:
    bench.engine._chores.at_once = bench.engine._chores.least = 3
    client, other, worker = bench.connect(), bench.connect(), bench.worker(b"f")
    for number in range(10):
        client.submit(SubmitJob(b"f", b"%d" % number, b""))
    client.leave()
    assert bench.counters().queued == 7
    handles = [other.submit(SubmitJob(b"f", b"%d" % number, b"")) for number in (0, 9)]  # the last is still there
    assert worker.grabbed() == nth_handle(4)
    worker.send(WorkComplete(nth_handle(4), b"goes nowhere"))
    while (deadline := bench.engine.next_deadline()) is not None:
        assert deadline <= bench.now
        bench.engine.handle_timeout(bench.now)
        bench.settle()
    assert {worker.grabbed() for _ in handles} == set(handles)
    assert worker.grab() is None
    assert worker.send(*(WorkComplete(handle, b"r") for handle in handles)).received() == []
    assert other.received() == [WorkComplete(handle, b"r") for handle in handles]


def test_very_many_jobs_of_a_worker_that_leaves_are_given_back_little_by_little() -> None:
    bench = Bench(job_retries=1)
    bench.engine._chores.at_once = bench.engine._chores.least = 3
    client, worker, other = bench.connect(), bench.worker(b"f"), bench.worker(b"f").fall_asleep()
    handles = [client.submit(SubmitJob(b"f", b"", b"")) for _ in range(8)]
    other.received()
    assert [worker.grabbed() for _ in handles] == handles
    other.fall_asleep()
    worker.leave()
    assert other.received() == [Noop()]
    assert (bench.counters().queued, bench.counters().running) == (3, 5)
    assert client.command(b"cancel job " + handles[7]).endswith(b"OK\r\n")
    bench.advance(0)
    assert [other.grabbed() for _ in range(7)] == handles[:7]
    assert other.grab() is None


def test_only_so_many_submissions_join_one_job(bench: Bench) -> None:
    bench.engine._lifecycle.max_joined = 2
    clients = [bench.connect() for _ in range(3)]
    answers = [client.ask(SubmitJob(b"f", b"one", b"")) for client in clients]
    assert answers == [JobCreated(nth_handle(1)), JobCreated(nth_handle(1)), FULL]
    assert clients[2].ask(SubmitJobBg(b"f", b"one", b"")) == JobCreated(nth_handle(1))
    clients[0].leave()
    assert clients[2].ask(SubmitJob(b"f", b"one", b"")) == JobCreated(nth_handle(1))


def test_peer_that_waits_for_a_job_in_its_own_hands_takes_it_along(bench: Bench) -> None:
    both, other = bench.worker(b"f"), bench.worker(b"f").fall_asleep()
    both.submit(SubmitJob(b"f", b"", b"w"))
    both.grabbed()
    both.leave()
    assert other.received() == [Noop()]
    assert other.grab() is None


def test_peer_that_waits_for_a_job_in_its_own_hands_gets_its_result(bench: Bench) -> None:
    both = bench.worker(b"f")
    handle = both.submit(SubmitJob(b"f", b"", b"w"))
    both.grabbed()
    assert both.ask(WorkComplete(handle, b"r")) == WorkComplete(handle, b"r")


def test_peer_that_is_gone_can_go_again_and_what_arrives_from_it_is_nothing(bench: Bench) -> None:
    peer, other = bench.worker(b"f"), bench.worker(b"f")
    handle = bench.connect().submit(SubmitJobBg(b"f", b"", b"w"))
    assert peer.grabbed() == handle
    peer.leave()
    counters = bench.counters()
    bench.engine.disconnect(peer.id, bench.now)
    bench.engine.receive_data(peer.id, SubmitJobBg(b"f", b"", b"late").encode() + b"nonsense", bench.now)
    bench.engine.resume(peer.id, bench.now)
    bench.settle()
    assert bench.counters() == counters
    assert bench.events() == []
    assert other.grabbed() == handle


def test_output_for_a_peer_that_has_gone_is_dropped() -> None:
    bench = Bench()
    peer, other = bench.connect(), bench.connect()
    bench.engine.receive_data(peer.id, EchoReq(b"1").encode(), bench.now)
    bench.engine.receive_data(other.id, EchoReq(b"2").encode(), bench.now)
    peer.leave()
    assert peer.received() == []
    assert other.received() == [EchoRes(b"2")]


# 8 Delayed jobs


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


# 9 Text commands


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


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"status", b"f\t4\t2\t1\nh\t0\t0\t1\ng\t1\t0\t0\n.\n"),
        (b"prioritystatus", b"f\t0\t1\t1\t1\nh\t0\t0\t0\t1\ng\t0\t0\t1\t0\n.\n"),
        (b"workers", b"7 10.0.0.1 - :\n2 - w\\x201 : h f\n.\n"),
        (b"show jobs", b"".join(nth_handle(n) + b"\t0\t0\t%d\n" % (n in (3, 4)) for n in range(1, 6)) + b".\n"),
        (b"show unique jobs", b"\none\n-\ntwo\n\\x2e\n.\n"),
        (b"cancel job " + nth_handle(4), b"OK\r\n"),
        (b"create function f", b"OK\r\n"),
        (b"drop function f", b"ERR there are still connected workers or executing clients\r\n"),
        (b"drop function g", b"ERR there are still connected workers or executing clients\r\n"),
        (b"drop function h", b"ERR there are still connected workers or executing clients\r\n"),
        (b"shutdown", b"ERR UNKNOWN_COMMAND Unknown+server+commandshutdown\r\n"),
        (b"Shutdown graceful", b"ERR UNKNOWN_COMMAND Unknown+server+commandShutdown\r\n"),
        (b"non\0sense\xff", b"ERR UNKNOWN_COMMAND Unknown+server+commandnon\\x00sense\\xff\r\n"),
    ],
)
def test_text_command_tells_and_changes_what_is_there(bench: Bench, line: bytes, answer: bytes) -> None:
    client, _ = busy(bench)
    assert client.command(line) == answer


def test_answers_about_the_server_are_what_it_was_told() -> None:
    peer = Bench(version=b"1.2", pid=42, verbosity=b"DEBUG").connect()
    assert [peer.command(line) for line in (b"version", b"getpid", b"verbose")] == [
        b"OK 1.2\n",
        b"OK 42\n",
        b"OK DEBUG\n",
    ]


def test_created_function_is_known_until_it_is_dropped() -> None:
    bench = Bench(max_idle_functions=0)
    peer = bench.connect()
    peer.command(b"create function f")
    peer.submit(SubmitJob(b"f", b"", b""))
    assert peer.command(b"drop function f").startswith(b"ERR there are")
    assert peer.command(b"cancel job " + nth_handle(1)).endswith(b"OK\r\n")
    assert peer.command(b"status") == b"f\t0\t0\t0\n.\n"
    assert peer.command(b"drop function f") == b"OK\r\n"
    assert peer.command(b"status") == b".\n"


def test_functions_to_be_remembered_are_limited() -> None:
    bench = Bench(max_kept_functions=1)
    peer = bench.connect()
    assert peer.command(b"create function f") == b"OK\r\n"
    bench.worker(b"g")
    for command in (b"create function h", b"create function g", b"maxqueue g 1"):
        assert peer.command(command) == b"ERR TOO_MANY_FUNCTIONS are to be remembered, drop some first\r\n"
    assert peer.command(b"maxqueue f 1") == b"OK\r\n"
    assert peer.command(b"drop function f") == b"OK\r\n"
    assert peer.command(b"maxqueue g 1") == b"OK\r\n"


def test_function_that_was_dropped_and_comes_back_is_a_new_one(bench: Bench) -> None:
    client, worker = bench.connect(), bench.worker(b"f")
    client.command(b"maxqueue f 1")
    worker.send(CantDo(b"f"))
    assert client.command(b"drop function f") == b"OK\r\n"
    worker.fall_asleep()
    handles = [client.submit(SubmitJobBg(b"f", b"", b"")) for _ in range(2)]
    assert worker.received() == []
    assert worker.ask(CanDo(b"f")) == Noop()
    assert [worker.grabbed() for _ in handles] == handles


def test_only_so_many_late_ends_of_cancelled_jobs_are_forgiven(bench: Bench) -> None:
    bench.engine._lifecycle.max_cancelled = 2
    client, worker = bench.connect(), bench.worker(b"f")
    handles = [client.submit(SubmitJobBg(b"f", b"", b"")) for _ in range(3)]
    for handle in handles:
        assert worker.grabbed() == handle
        client.command(b"cancel job " + handle)
    assert worker.send(*(WorkComplete(handle, b"") for handle in handles)).received() == [RESULT_NOT_FOUND]


def test_job_cancelled_while_it_runs_is_not_run_again_when_its_worker_is_lost(bench: Bench) -> None:
    client, worker = bench.connect(), bench.connect().send(CanDoTimeout(b"f", 1000))
    handle = client.submit(SubmitJobBg(b"f", b"", b"w"))
    worker.grabbed()
    client.command(b"cancel job " + handle)
    assert bench.engine.next_deadline() is None
    worker.leave()
    assert bench.worker(b"f").grab() is None


@given(st.lists(names, min_size=1, max_size=5, unique=True), hostile_names, hostile_names)
def test_no_name_breaks_a_row(functions: list[bytes], client_id: bytes, unique: bytes) -> None:
    bench = Bench()
    client_id, unique = client_id.replace(b"\0", b""), unique.replace(b"\0", b"")
    worker = bench.worker(*functions).send(SetClientId(client_id))
    for function in functions:
        worker.submit(SubmitJobBg(function, unique, b"w"))
    for command in (b"status", b"prioritystatus"):
        *rows, dot, end = worker.command(command).split(b"\n")
        assert [unescape(row.split(b"\t")[0]) for row in rows] == functions
        assert (dot, end) == (b".", b"")
    first, dot, end = worker.command(b"workers").split(b"\n")
    _, _, shown, _, *listed = first.split(b" ")
    assert (unescape(shown), dot, end) == (client_id or b"-", b".", b"")
    assert [unescape(name) for name in reversed([*listed])] == functions
    *rows, dot, end = worker.command(b"show unique jobs").split(b"\n")
    assert [unescape(row) for row in rows] == [unique] * len(functions)
    assert (dot, end) == (b".", b"")


# Limits


def test_max_jobs_limits_all_functions_together() -> None:
    bench = Bench(max_jobs=2, max_idle_functions=0)
    client, worker = bench.connect(), bench.worker(b"f")
    client.submit(SubmitJobBg(b"f", b"", b""))
    client.submit(SubmitJobBg(b"g", b"u", b""))
    assert client.ask(SubmitJobBg(b"h", b"", b"")) == FULL
    client.submit(SubmitJobBg(b"g", b"u", b""))
    worker.send(GrabJob(), WorkComplete(nth_handle(1), b""))
    assert client.command(b"status") == b"f\t0\t0\t1\ng\t1\t0\t0\n.\n"  # h is not remembered
    client.submit(SubmitJobBg(b"h", b"", b""))


def test_max_functions_limits_a_worker() -> None:
    bench = Bench(max_functions=2)
    worker = bench.worker(b"f", b"g")
    for packet in (CanDo(b"h"), CanDoTimeout(b"h", 5)):
        text = packet.spec.name.encode() + b": limit of 2 functions per worker"
        assert worker.ask(packet) == Error(b"TOO_MANY_FUNCTIONS", text)
    assert worker.send(CanDo(b"g"), CanDoTimeout(b"f", 5)).received() == []
    assert worker.send(CantDo(b"g"), CanDo(b"h")).received() == []
    assert worker.command(b"workers") == b"1 - - : h f\n.\n"


def test_functions_without_jobs_and_workers_are_forgotten_oldest_first() -> None:
    bench = Bench(max_idle_functions=2)
    client, worker = bench.connect(), bench.worker(b"a", b"b", b"c", b"d")
    client.command(b"maxqueue d 7")
    worker.send(CantDo(b"d"), CantDo(b"b"), CantDo(b"a"))
    worker.send(CantDo(b"c"))
    assert client.command(b"status") == b"a\t0\t0\t0\nc\t0\t0\t0\nd\t0\t0\t0\n.\n"
    client.submit(SubmitJobBg(b"a", b"", b""))
    bench.worker(b"e", b"f").leave()
    assert client.command(b"status") == b"a\t1\t0\t0\nd\t0\t0\t0\ne\t0\t0\t0\nf\t0\t0\t0\n.\n"


def test_limit_set_on_an_idle_function_is_remembered() -> None:
    bench = Bench(max_idle_functions=1)
    client = bench.connect()
    bench.worker(b"f").leave()
    client.command(b"maxqueue f 1")
    bench.worker(b"g").leave()
    bench.worker(b"h").leave()
    client.submit(SubmitJobBg(b"f", b"", b""))
    assert client.ask(SubmitJobBg(b"f", b"", b"")) == FULL


def test_function_that_was_forgotten_is_registered_anew() -> None:
    bench = Bench(max_idle_functions=0)
    client, worker = bench.connect(), bench.worker(b"f").fall_asleep()
    worker.send(CantDo(b"f"))
    assert client.command(b"status") == b".\n"
    handle = client.submit(SubmitJobBg(b"f", b"", b""))
    assert worker.ask(CanDo(b"f")) == Noop()
    assert worker.grabbed() == handle
    worker.send(WorkComplete(handle, b""), CantDo(b"f"))
    assert client.command(b"status") == b".\n"


def echoes(count: int, size: int) -> list[Packet]:
    return [EchoReq(b"%d" % number * size) for number in range(count)]


def test_requests_are_left_unread_while_there_is_too_much_output() -> None:
    bench = Bench(max_output_size=1000)
    engine, peer, other = bench.engine, bench.connect(), bench.connect()
    requests = echoes(6, 600)
    engine.receive_data(peer.id, b"".join(request.encode() for request in requests), bench.now)
    assert list(engine.paused_peers()) == [peer.id]
    assert other.ask(EchoReq(b"1")) == EchoRes(b"1")
    for begin in (0, 2, 4):
        assert peer.received() == [EchoRes(request.data) for request in echoes_of(requests)[begin : begin + 2]]
        assert list(engine.paused_peers()) == [peer.id]
        bench.settle()
        assert peer.received() == []
        engine.resume(peer.id, bench.now)
        bench.settle()
    assert list(engine.paused_peers()) == []
    engine.resume(peer.id, bench.now)  # one that is not paused
    assert peer.ask(EchoReq(b"1")) == EchoRes(b"1")


def echoes_of(requests: list[Packet]) -> list[EchoReq]:
    return [request for request in requests if isinstance(request, EchoReq)]


def test_what_a_paused_peer_sends_is_left_unread_too() -> None:
    bench = Bench(max_output_size=1000)
    peer = bench.connect().send(EchoReq(b"x" * 1001))
    assert peer.received() == [EchoRes(b"x" * 1001)]
    for number in range(3):
        assert peer.send(EchoReq(b"%d" % number)).received() == []
    bench.engine.resume(peer.id, bench.now)
    bench.settle()
    assert peer.received() == [EchoRes(b"0"), EchoRes(b"1"), EchoRes(b"2")]


def test_requests_past_the_work_limit_wait_until_others_have_had_their_turn() -> None:
    bench = Bench(work_limit=10)
    peer, other = bench.connect(), bench.connect()
    requests = echoes(35, 1)
    answers = [EchoRes(request.data) for request in echoes_of(requests)]
    for number in range(4):
        if number:
            bench.engine.resume(peer.id, bench.now)
            bench.settle()
        else:
            peer.send(*requests)
        assert peer.received() == answers[10 * number :][:10]
        assert other.ask(EchoReq(b"1")) == EchoRes(b"1")
    assert list(bench.engine.paused_peers()) == []


def test_report_to_many_clients_counts_for_several_requests() -> None:
    bench = Bench(work_limit=10)
    clients, worker = [bench.connect() for _ in range(80)], bench.worker(b"f")
    for client in clients:
        client.submit(SubmitJob(b"f", b"one", b""))
    worker.grabbed()
    worker.send(*[WorkData(nth_handle(1), b"x")] * 6)
    assert all(client.received() == [WorkData(nth_handle(1), b"x")] * 2 for client in clients)
    assert go_on(bench) == 3
    assert all(client.received() == [WorkData(nth_handle(1), b"x")] * 4 for client in clients)


@pytest.mark.parametrize("options", [{}, {"work_limit": 100}, {"max_output_size": 3000}, {"work_limit": 1}])
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 512, 1000])
def test_answer_of_many_rows_is_given_in_pieces_that_make_the_whole(options: Any, count: int) -> None:
    bench = Bench(checked=False, **options)
    client, admin, other = bench.connect(), bench.connect(), bench.connect()
    handles = []
    for number in range(count):
        client.send(SubmitJobBg(b"f", b"%d" % number, b""))
        go_on(bench)
    handles = [packet.handle for packet in client.received() if isinstance(packet, JobCreated)]
    assert len(handles) == count
    rows = b"".join(JobListed(handle, 0, False, True).encode() + b"\n" for handle in handles)
    uniques = b"".join(b"%d\n" % number for number in range(count))
    admin.send(b"show jobs\nversion\nshow unique jobs\n")
    while bench.engine.paused_peers():
        assert other.ask(EchoReq(b"1")) == EchoRes(b"1")
        for id_ in list(bench.engine.paused_peers()):
            bench.engine.resume(id_, bench.now)
            bench.settle()
    assert admin.raw() == rows + b".\nOK gearproto\n" + uniques + b".\n"


def test_jobs_that_end_while_they_are_listed_are_left_out() -> None:
    bench = Bench(checked=False, max_text_size=1)
    client, admin, worker = bench.connect(), bench.connect(), bench.worker(b"f")
    for _ in range(600):
        client.submit(SubmitJobBg(b"f", b"", b""))
    bench.engine.work_limit = 1
    admin.send(b"show jobs\n")
    bench.engine.work_limit = 10
    shown = admin.raw().split(b"\n")[:-1]
    assert 0 < len(shown) < 100
    for _ in range(500):
        worker.send(WorkComplete(worker.grabbed(), b""))
    go_on(bench)
    handles = [line.split(b"\t")[0] for line in shown + admin.raw().split(b"\n")]
    assert handles == [*map(nth_handle, range(1, len(shown) + 1)), *map(nth_handle, range(501, 601)), b".", b""]
    for _ in range(100):
        worker.send(WorkComplete(worker.grabbed(), b""))
    assert admin.command(b"show jobs") == b".\n"


@pytest.mark.parametrize("name", [b"%d", b"%07000d", b"\xff%04d"])
def test_row_of_a_worker_with_many_functions_is_given_in_pieces(name: bytes) -> None:
    bench = Bench(checked=False, max_text_size=1)
    names = [name % number for number in range(100)]
    worker, admin = bench.worker(*names), bench.connect()
    whole = b"".join(WorkerListed.encode_function(name) for name in reversed(names))
    bench.engine.work_limit = 1
    admin.send(b"workers\n")
    pieces = [admin.raw()]
    while paused := list(bench.engine.paused_peers()):
        bench.engine.resume(paused[0], bench.now)
        bench.settle()
        pieces.append(admin.raw())
    assert b"".join(pieces) == b"1 - - :%b\n2 - - :\n.\n" % whole
    assert len(pieces) > 3
    assert max(map(len, pieces)) <= 4096 + len(names[0])
    bench.engine.work_limit = 10**9
    worker.send(CantDo(names[0]), CanDo(names[1]), CanDo(b"new"))
    names = [*names[1:], b"new"]
    assert admin.command(b"workers").split(b" :")[1].split() == [
        WorkerListed.encode_function(name).strip() for name in reversed(names)
    ] + [b"2", b"-", b"-"]


def test_peer_may_leave_in_the_middle_of_an_answer() -> None:
    bench = Bench(checked=False, work_limit=100)
    client, admin = bench.connect(), bench.connect()
    for _ in range(600):
        client.submit(SubmitJobBg(b"f", b"", b""))
    admin.send(b"show jobs\n")
    admin.leave()
    assert list(bench.engine.paused_peers()) == []


def test_paused_peer_gets_what_others_have_for_it() -> None:
    bench = Bench(max_output_size=1000)
    peer, client = bench.worker(b"f").fall_asleep(), bench.connect()
    peer.send(EchoReq(b"x" * 1001), GrabJob())
    peer.received()
    client.submit(SubmitJob(b"f", b"", b""))
    assert peer.received() == [Noop()]
    bench.engine.resume(peer.id, bench.now)
    bench.settle()
    assert peer.received() == [JobAssign(nth_handle(1), b"f", b"")]


def test_paused_peer_that_does_not_ask_in_time_loses_its_wake_up() -> None:
    bench = Bench(max_output_size=1000)
    peer, other, client = bench.worker(b"f").fall_asleep(), bench.worker(b"f").fall_asleep(), bench.connect()
    peer.send(EchoReq(b"x" * 1001), GrabJob())
    client.submit(SubmitJob(b"f", b"", b""))
    bench.advance(1)
    assert other.received() == [Noop()]


def test_paused_peer_can_leave() -> None:
    bench = Bench(max_output_size=1000)
    bench.connect().send(EchoReq(b"x" * 1001), EchoReq(b"")).leave()
    assert list(bench.engine.paused_peers()) == []


def test_paused_peer_that_fails_is_not_resumed() -> None:
    bench = Bench(max_output_size=1000)
    peer = bench.connect().send(EchoReq(b"x" * 1001), b"\0BAD\0\0\0\0\0\0\0\0")
    bench.engine.resume(peer.id, bench.now)
    bench.settle()
    assert bench.failure()
    bench.engine.resume(peer.id, bench.now)
    assert bench.events() == []
    assert len(peer.received()) == 1


@pytest.mark.parametrize("size", [65535, 65536, 200_000])
def test_big_payloads_are_passed_on_as_they_are(bench: Bench, size: int) -> None:
    one, two, worker = bench.connect(), bench.connect(), bench.worker(b"f")
    workload, result = b"w" * size, b"r" * size
    handle = one.submit(SubmitJob(b"f", b"u", workload))
    two.submit(SubmitJob(b"f", b"u", b""))
    assert worker.grab() == JobAssignUniq(handle, b"f", b"u", workload)
    worker.send(WorkData(handle, result), WorkWarning(handle, b""), WorkComplete(handle, result))
    expected = [WorkData(handle, result), WorkWarning(handle, b""), WorkComplete(handle, result)]
    assert one.received() == two.received() == expected


@given(st.lists(st.sampled_from([0, 300, 40_000, 65_536, 100_000]), max_size=8))
def test_output_leaves_in_order_and_big_pieces_are_not_copied_together(sizes: list[int]) -> None:
    bench = Bench(checked=False)
    client, worker = bench.connect(), bench.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grabbed()
    packets = [WorkData(handle, b"%d" % index * size) for index, size in enumerate(sizes)]
    worker.send(*packets)
    big = [packet.encode()[12:] for packet, size in zip(packets, sizes, strict=True) if size >= 65_536]
    assert [piece for piece in client.pieces if piece in big] == big
    assert client.received() == packets


def test_output_of_several_peers_leaves_in_the_order_in_which_it_began(bench: Bench) -> None:
    one, two = bench.connect(), bench.connect()
    for peer, data in ((one, b"1"), (two, b"2" * 70000), (one, b"3" * 70000), (two, b"4")):
        bench.engine.receive_data(peer.id, EchoReq(data).encode(), bench.now)
    transmits = list(iter(bench.engine.next_transmit, None))
    assert [peer for peer, _ in transmits] == [one.id, one.id, two.id, two.id]
    assert b"".join(data for peer, data in transmits if peer == two.id) == (
        EchoRes(b"2" * 70000).encode() + EchoRes(b"4").encode()
    )


@pytest.mark.parametrize("prefix", [b"", b"x" * 41, b"a\0b", b"a b", b"a\tb", b"a\x1b", b"a\x7f"])
def test_handle_prefix_fits_into_a_handle_and_a_line_of_text(prefix: bytes) -> None:
    with pytest.raises(ValueError, match="handle prefix"):
        Engine(handle_prefix=prefix, epoch_offset=0.0)


@given(
    st.binary(min_size=1, max_size=40).map(lambda raw: bytes(b"%"[0] if b < 33 or b == 127 else b for b in raw)),
    st.sets(st.integers(0, 10**15 - 2)),
)
def test_no_handle_is_the_beginning_of_another(prefix: bytes, counts: set[int]) -> None:
    bench = Bench(handle_prefix=prefix)
    client = bench.connect()
    handles = set()
    for count in sorted({*counts, 0, 1, *(10**digits - 2 for digits in range(1, 16))}):
        bench.engine._lifecycle.submitted = count
        handles.add(client.submit(SubmitJobBg(b"f", b"", b"")))
    assert len(handles) >= 16
    ordered = sorted(handles)
    assert not any(after.startswith(before) for before, after in pairwise(ordered))
    assert all(len(handle) <= MAX_HANDLE_SIZE and handle.startswith(prefix + b":") for handle in handles)


@pytest.mark.parametrize("missing", ["handle_prefix", "epoch_offset"])
def test_what_no_default_can_be_right_for_has_to_be_given(missing: str) -> None:
    arguments: dict[str, Any] = {"handle_prefix": b"H:x", "epoch_offset": 0.0}
    del arguments[missing]
    with pytest.raises(TypeError, match=missing):
        Engine(**arguments)


# HTTP


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"POST /x?y HTTP/1.0", b"PRI * HTTP/2.0"])
def test_http_request_is_the_end_of_a_connection_that_begins_with_it(bench: Bench, line: bytes) -> None:
    peer = bench.connect().send(line + b"\r\ncreate function forged\r\n")
    assert bench.failure().startswith("HTTP request (")
    assert peer.raw() == b""
    other = bench.connect()
    assert other.command(b"status") == b".\n"
    assert other.command(line).startswith(b"ERR UNKNOWN_COMMAND ")


# Shutdown, counters, trace


@pytest.mark.parametrize(
    ("line", "graceful"), [(b"shutdown", False), (b"shutdown graceful", True), (b"SHUTDOWN now", False)]
)
def test_shutdown_is_an_event_for_the_driver_if_it_is_allowed(line: bytes, graceful: bool) -> None:
    bench = Bench(allow_shutdown=True)
    peer = bench.connect()
    assert peer.command(line) == b"OK\r\n"
    assert bench.events() == [ShutdownRequested(graceful)]
    answer = peer.ask(SubmitJobBg(b"f", b"", b""))
    assert (answer == Error(b"QUEUE_ERROR", b"Server is shutting down")) == graceful


def test_shutdown_is_for_nobody_unless_it_is_allowed(bench: Bench) -> None:
    peer = bench.connect()
    assert peer.command(b"shutdown").startswith(b"ERR UNKNOWN_COMMAND ")
    assert bench.events() == []
    peer.submit(SubmitJobBg(b"f", b"", b""))


def test_graceful_shutdown_hands_out_nothing_more_and_lets_running_jobs_end(bench: Bench) -> None:
    client, worker = bench.connect(), bench.worker(b"f")
    running, queued = (client.submit(SubmitJob(b"f", unique, b"")) for unique in (b"u", b"v"))
    client.submit(SubmitJobEpoch(b"f", b"", 1005, b""))
    worker.grabbed()
    sleepers = [bench.worker(b"g").fall_asleep() for _ in range(2)]
    bench.engine.stop_accepting()
    assert bench.engine.running_jobs == 1
    assert client.submit(SubmitJob(b"f", b"u", b"")) == running
    assert client.submit(SubmitJobBg(b"f", b"v", b"")) == queued
    assert worker.grab() is None
    assert worker.send(PreSleep()).received() == []
    assert sleepers[0].send(CanDo(b"f")).received() == []
    bench.advance(10)
    assert worker.received() == sleepers[0].received() == []
    worker.send(WorkComplete(running, b"r"))
    assert client.received() == [WorkComplete(running, b"r")] * 2
    assert bench.engine.running_jobs == 0
    assert bench.counters().queued == 2


def test_graceful_shutdown_wakes_nobody_for_jobs_given_back(bench: Bench) -> None:
    client, worker = bench.connect(), bench.worker(b"f")
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.grabbed()
    sleeper = bench.worker(b"f").fall_asleep()
    bench.engine.stop_accepting()
    worker.leave()
    assert sleeper.received() == []
    assert bench.engine.running_jobs == 0


def test_submissions_refused_at_shutdown_leave_no_function_behind() -> None:
    bench = Bench(max_idle_functions=0)
    client = bench.connect()
    bench.engine.stop_accepting()
    client.ask(SubmitJobBg(b"f", b"", b""))
    assert client.command(b"status") == b".\n"


def test_counters_tell_what_the_server_holds(bench: Bench) -> None:
    busy(bench)
    counters = bench.counters()
    assert (counters.peers, counters.queued, counters.delayed, counters.running) == (2, 2, 1, 2)
    assert (counters.submitted, counters.ended) == (5, 0)
    assert [(row.function, row.total, row.running, row.workers) for row in counters.functions] == [
        (b"f", 4, 2, 1),
        (b"h", 0, 0, 1),
        (b"g", 1, 0, 0),
    ]


def test_trace_tells_every_change_of_a_job_and_who_caused_it() -> None:
    bench = Bench(trace=True)
    client, worker, other = bench.connect(), bench.worker(b"f"), bench.worker(b"f")

    def states() -> list[tuple[JobState, Any]]:
        events = bench.events()
        assert all(isinstance(event, JobChanged) and event.function == b"f" for event in events)
        return [(event.state, event.peer) for event in events if isinstance(event, JobChanged)]

    handle = client.submit(SubmitJob(b"f", b"", b""))
    assert states() == [(JobState.QUEUED, client.id)]
    worker.grabbed()
    assert states() == [(JobState.RUNNING, worker.id)]
    worker.leave()
    assert states() == [(JobState.QUEUED, None)]
    other.grabbed()
    other.send(WorkData(handle, b""), WorkComplete(handle, b""))
    assert states() == [(JobState.RUNNING, other.id), (JobState.ENDED, other.id)]
    assert len(client.received()) == 2
    late = client.submit(SubmitJobEpoch(b"f", b"", 1010, b""))
    bench.advance(10)
    assert client.command(b"cancel job " + late).endswith(b"OK\r\n")
    client.submit(SubmitJob(b"f", b"", b""))
    client.leave()
    assert states() == [
        (JobState.DELAYED, client.id),
        (JobState.QUEUED, None),
        (JobState.ENDED, None),
        (JobState.QUEUED, client.id),
        (JobState.ENDED, client.id),
    ]


def test_without_trace_jobs_make_no_events(bench: Bench) -> None:
    client, worker = bench.connect(), bench.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.send(GrabJob(), WorkComplete(handle, b""))
    assert bench.events() == []


def test_priorities_are_those_of_the_submissions() -> None:
    assert [SUBMISSIONS[cls][0] for cls in (SubmitJobHigh, SubmitJob, SubmitJobLow)] == list(Priority)
