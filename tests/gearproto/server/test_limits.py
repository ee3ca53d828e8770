"""What peers can make the server keep and do is limited."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.admin import JobListed, WorkerListed
from gearproto.codec import (
    MAX_HANDLE_SIZE,
    Packet,
)
from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GrabJob,
    JobAssign,
    JobAssignUniq,
    JobCreated,
    Noop,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkWarning,
)
from gearproto.server import Engine
from tests.gearproto.server.common import FULL, go_on
from tests.harness.engine import Bench, nth_handle


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
