"""The job server as its driver sees it: input in any pieces, packets that only ours knows, events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.codec import (
    HEADER,
    MAX_GROWTH,
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
    JobCreated,
    Noop,
    PreSleep,
    Priority,
    ResetAbilities,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobLow,
    SubmitReduceJob,
    SubmitReduceJobBackground,
    WorkComplete,
    WorkData,
    WorkFail,
    WorkStatus,
)
from gearproto.server import JobChanged, ShutdownRequested
from gearproto.server.jobs import JobState
from tests.gearproto.server.common import FULL, RESULT_NOT_FOUND, busy, go_on, raw, reports
from tests.harness.engine import Bench, nth_handle

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
