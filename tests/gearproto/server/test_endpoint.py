"""`gearproto.server.endpoint`: all that a server decides about its connections, under a virtual clock."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.codec import RESPONSE
from gearproto.event import Event
from gearproto.packets import (
    CanDo,
    EchoReq,
    EchoRes,
    GrabJob,
    Noop,
    PreSleep,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
)
from gearproto.server import (
    TURNED_AWAY,
    Close,
    JobGivenUp,
    MemoryLimitReached,
    PauseReading,
    PeerFailed,
    PeerGivenUp,
    PeerId,
    ResumeReading,
    Stopped,
    TrimMemory,
)
from gearproto.server.turns import CLOSES, READ_TIME, SEND_TIME
from tests.harness.endpoint import Driven, Wire

BAD = b"\0BAD\0\0\0\1\0\0\0\0"
MIB = 1024 * 1024


def closes(changes: list[Any]) -> list[Close]:
    return [change for change in changes if isinstance(change, Close)]


def of(kind: type, changes: list[Any]) -> list[Any]:
    return [change for change in changes if isinstance(change, kind)]


def echoes(count: int, size: int, start: int = 0) -> tuple[bytes, bytes]:
    """Return numbered requests, and their answers."""
    texts = [b"%08d" % number + b"x" * (size - 8) for number in range(start, start + count)]
    return (
        b"".join(EchoReq(text).encode() for text in texts),
        b"".join(EchoRes(text).encode(RESPONSE) for text in texts),
    )


def running_job(server: Driven, client: Wire, worker: Wire) -> bytes:
    """Have a worker take a job of a client; return its handle."""
    worker.send(CanDo(b"f"))
    client.send(SubmitJob(b"f", b"", b""))
    server.settle()
    handle = client.read()[12:]
    worker.send(GrabJob())
    server.settle()
    assert handle in worker.read()
    return handle


# Whatever happens

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["connect", "echo", "part", "bad", "read", "read all", "end", "break", "time", "turn", "few"]),
        st.integers(0, 7),
        st.integers(1, 3000),
    ),
    max_size=60,
)


@given(STEPS, st.booleans())
def test_whatever_peers_do_answers_come_in_order_limits_hold_and_everybody_is_closed_in_time(
    steps: list[tuple[str, int, int]], reports_all: bool
) -> None:
    pause_at, max_output, largest = 2000, 500, 3000
    server = Driven(engine={"max_output_size": max_output}, pause_at=pause_at, linger=2.0)
    server.reports_all = reports_all
    expected: dict[PeerId, bytes] = {}
    last: dict[PeerId, bytes] = {}  # the rest of a request of which a part was sent
    failed_at: dict[PeerId, float] = {}
    number = 0
    for what, which, amount in steps:
        if what == "connect" or not server.open:
            expected[server.connect(capacity=amount).id] = b""
        wire = server.open[which % len(server.open)]
        if what in ("echo", "part") and not wire.ended and wire.id not in failed_at:
            number += 1
            request, answer = echoes(1 + which, 8 + amount // 8, number * 10)
            rest = last.pop(wire.id, b"")
            if what == "part":
                request, last[wire.id] = request[:-5], request[-5:]
            wire.send(rest + request)
            expected[wire.id] += answer
        elif what == "bad" and wire.id not in failed_at and wire.id not in last:
            wire.send(BAD)
            failed_at[wire.id] = -1.0
        elif what == "read":
            wire.read(amount)
        elif what == "read all":
            wire.read()
        elif what == "end":
            wire.ended = True
        elif what == "break":
            wire.broken = True
        elif what == "time":
            server.wait(amount / 1000)
        elif what == "few":
            server.sends_a_turn = which or None
            server.turn()
            server.sends_a_turn = None
        for change in server.turn():
            if isinstance(change, PeerFailed):
                failed_at[change.peer] = server.now
        for wire in server.wires.values():
            assert expected[wire.id].startswith(wire.sent) or wire.id in failed_at
        open_ = server.open
        assert server.endpoint.unread <= len(open_) * (pause_at + max_output + largest)
    server.settle()
    for wire in server.wires.values():  # those that read nothing of it keep nobody from the end
        if wire.broken:
            wire.send(EchoReq(b""))
    while any(wire.held for wire in server.open):
        for wire in server.open:
            wire.read()
        server.settle()
    server.wait(2.0)
    for wire in server.wires.values():
        if wire.closed is not None:
            assert wire.closed.unread == 0 or wire.broken or wire.id in failed_at
        if wire.id in failed_at or wire.ended:
            assert wire.closed is not None
        elif not wire.broken:
            assert wire.closed is None
            assert wire.reading
        if not wire.broken and wire.id not in failed_at:
            whole = expected[wire.id]
            assert wire.sent == whole or (wire.id in last and whole.startswith(wire.sent))
    assert server.endpoint.unread == 0
    assert server.endpoint.next_deadline() is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40_000)), max_size=30), st.sampled_from([0, 100_000]))
def test_output_leaves_byte_for_byte_however_much_the_transport_takes(
    steps: list[tuple[int, int]], capacity: int
) -> None:
    server = Driven(pause_at=10**9)
    client, worker = server.connect(), server.connect()
    handle = running_job(server, client, worker)
    expected = client.sent
    client.capacity = capacity
    for what, size in steps:
        report = WorkData(handle, bytes([what]) * size * (1 if what < 2 else 10))
        worker.send(report)
        expected += report.encode(RESPONSE)
        server.settle()
        assert server.endpoint.bytes_sent == sum(len(wire.sent) for wire in server.wires.values())
        client.capacity = capacity + size * what
        client.read(size)
    client.capacity = None
    server.settle()
    assert client.sent == expected
    assert server.endpoint.unread == 0


# Turns


def test_flood_is_paused_for_a_turn_and_leaves_others_their_turns() -> None:
    server = Driven()
    flooder, other = server.connect(), server.connect()
    request, answer = echoes(10_000, 8)
    flooder.send(request)
    turns = 0
    while flooder.sent != answer:
        other.send(EchoReq(b"x"))
        before = len(flooder.sent)
        changes = server.turn()
        assert other.read() == EchoRes(b"x").encode(RESPONSE)
        assert 0 < len(flooder.sent) - before <= 2048 * 20
        assert of(PauseReading, changes) == ([PauseReading(flooder.id)] if not turns else [])
        assert server.endpoint.next_deadline() in (server.now, None)
        turns += 1
    assert turns >= 5
    assert of(ResumeReading, changes) == [ResumeReading(flooder.id)]
    assert server.endpoint.next_deadline() is None


def test_peers_that_were_paused_take_turns_however_many_there_are() -> None:
    server = Driven()
    wires = [server.connect() for _ in range(300)]
    request, answer = echoes(64, 8)
    for wire in wires:
        wire.send(request)
    progress = [0] * len(wires)
    turns = 0
    while server.turn() or any(wire.sent != answer for wire in wires):
        progress = [len(wire.sent) for wire in wires]
        assert max(progress) - min(progress) <= 2 * 20 * 32
        assert server.endpoint.next_deadline() in (server.now, None)
        turns += 1
        assert turns < 100
    assert turns > 3


def test_turn_has_a_few_milliseconds_for_reading_and_for_sending() -> None:
    server = Driven()
    server.turn()
    endpoint, now = server.endpoint, server.now
    assert endpoint.may_read(now + READ_TIME)
    assert not endpoint.may_read(now + 1.1 * READ_TIME)
    assert endpoint.may_send(now + SEND_TIME)
    assert not endpoint.may_send(now + 1.1 * SEND_TIME)
    endpoint.stop()
    assert endpoint.may_send(now + 1.1 * SEND_TIME)


def test_more_is_read_at_once_if_few_peers_are_ready() -> None:
    server = Driven()
    for ready, size in ((1, 256 * 1024), (100, 64 * 1024), (2, 256 * 1024)):
        server.endpoint.begin_turn(0.0, 0.0, ready)
        assert server.endpoint.max_read == size


def test_output_that_a_driver_leaves_for_later_is_a_deadline_and_comes_first_in_the_next_turn() -> None:
    server = Driven()
    wires = [server.connect() for _ in range(6)]
    for wire in wires:
        wire.send(EchoReq(b"x"))
    server.sends_a_turn = 2
    for count in (2, 4, 6):
        server.turn()
        assert [bool(wire.held) for wire in wires] == [True] * count + [False] * (6 - count)
        assert server.endpoint.next_deadline() == (server.now if count < 6 else None)


def test_peer_that_could_take_all_of_the_time_has_a_mebibyte_in_a_turn() -> None:
    server = Driven(engine={"max_output_size": 100 * MIB})
    client, worker = server.connect(), server.connect()
    handle = running_job(server, client, worker)
    worker.send(*[WorkData(handle, bytes(300_000))] * 20)
    server.turn()
    assert MIB <= len(client.held) < 2 * MIB
    assert server.endpoint.next_deadline() == server.now
    server.turn()
    assert 2 * MIB <= len(client.held) < 4 * MIB
    server.settle()
    assert len(client.held) > 6_000_000


def test_big_output_for_many_peers_does_not_hold_up_small_output() -> None:
    server = Driven(engine={"max_output_size": 100 * MIB})
    clients, worker, other = [server.connect() for _ in range(5)], server.connect(), server.connect()
    handles = [running_job(server, client, worker) for client in clients]
    for handle in handles:
        worker.send(*[WorkData(handle, bytes(700_000))] * 10)
    server.sends_a_turn = 4  # a turn has no time for more
    server.turn()
    other.send(EchoReq(b"x"))
    for _ in range(3):
        server.turn()
    assert other.held == EchoRes(b"x").encode(RESPONSE)
    assert sum(len(client.held) for client in clients) < 10 * MIB
    server.sends_a_turn = None
    server.settle()
    assert all(len(client.held) > 7_000_000 for client in clients)


def test_transport_that_stops_for_others_is_tried_again_in_the_next_turn() -> None:
    server = Driven()
    wire = server.connect()
    endpoint = server.endpoint
    endpoint.received(wire.id, EchoReq(b"x" * 100).encode(), server.now)
    sends = endpoint.sends()
    _peer, data = next(sends)
    endpoint.sent(wire.id, 10, server.now, full=False)
    assert next(sends, None) is None
    assert endpoint.next_deadline() == server.now
    endpoint.begin_turn(server.now, 0.0)
    assert [bytes(rest) for _peer, rest in endpoint.sends()] == [bytes(data[10:])]


# Peers that do not read


def test_peer_that_does_not_read_has_its_requests_wait_and_is_no_reason_for_a_turn() -> None:
    server = Driven(pause_at=1000)
    wire = server.connect(capacity=100)
    requests = [echoes(1, 500, number) for number in range(100)]
    for request, _answer in requests:
        wire.send(request)
    server.settle()
    assert not wire.reading
    assert server.endpoint.next_deadline() is None
    assert 1000 < server.endpoint.unread <= 1600
    expected = b"".join(answer for _request, answer in requests)
    while len(wire.got) < len(expected):
        assert wire.read()
        server.settle()
    assert wire.got == expected
    assert wire.reading


def test_text_answer_over_60_000_jobs_waits_for_a_slow_reader_and_comes_whole() -> None:
    server = Driven()
    client, admin = server.connect(), server.connect(capacity=100_000)
    client.send(*[SubmitJobBg(b"f", b"", b"")] * 60_000)
    server.settle()
    admin.send(b"show jobs\n" * 3)
    server.settle()
    while admin.read():
        server.settle()
    rows = admin.got.splitlines()
    assert len(rows) == 3 * 60_001
    assert rows[60_000] == b"."


@pytest.mark.parametrize("drained", [False, True])
def test_peer_with_too_much_unread_is_given_up_when_it_makes_no_progress(drained: bool) -> None:
    server = Driven(max_unsent=5000, max_behind=100_000)
    client, worker = server.connect(capacity=1000), server.connect()
    handle = running_job(server, client, worker)
    worker.send(WorkData(handle, bytes(8000)))
    server.settle()
    if drained:
        for _ in range(2):
            client.read(1000)
            server.settle()
    deadline = server.endpoint.next_deadline()
    assert deadline is not None
    assert deadline - server.now == pytest.approx(10.0 if drained else 1.0)
    assert not closes(server.wait(0.9))
    changes = server.wait(10.0)
    given_up, closed = of(PeerGivenUp, changes), closes(changes)
    assert [change.peer for change in given_up] == [change.peer for change in closed] == [client.id]
    assert "limit 5000: it has read nothing for" in given_up[0].reason
    assert closed[0].unread > 5000
    assert server.endpoint.next_deadline() is None


@pytest.mark.parametrize("has_read", [False, True])
def test_transport_is_tried_before_a_peer_is_given_up_for_more_output(has_read: bool) -> None:
    server = Driven(max_unsent=5000, max_behind=100_000)
    client, worker = server.connect(capacity=1000), server.connect()
    handle = running_job(server, client, worker)
    for _ in range(2):
        worker.send(WorkData(handle, bytes(4000)))
        server.settle()
    client.full = False  # a system may not tell that there is room
    server.now += 0.5
    client.capacity = 10**6 if has_read else 1000
    worker.send(WorkData(handle, bytes(4000)))
    server.settle()
    assert (client.closed is None) is has_read
    assert server.endpoint.unread == 0
    assert not has_read or len(client.sent) > 12_000


def test_peer_is_closed_past_the_limit_for_those_that_read() -> None:
    server = Driven(max_unsent=5000, max_behind=20_000)
    client, worker = server.connect(capacity=1000), server.connect()
    handle = running_job(server, client, worker)
    worker.send(*[WorkData(handle, bytes(4000))] * 3, WorkData(handle, bytes(15_000)))
    (given_up,) = of(PeerGivenUp, server.settle())
    assert "limit 20000" in given_up.reason
    for size, count in ((4000, 2), (30_000, 1)):
        other = server.connect(capacity=1000)
        handle = running_job(server, other, worker)
        worker.send(*[WorkData(handle, bytes(size))] * count)
        assert (other.id in [change.peer for change in of(PeerGivenUp, server.settle())]) is (size > 20_000)


# The end of connections


def test_peer_that_breaks_the_protocol_reads_why_and_is_closed_when_it_ends() -> None:
    server = Driven()
    wire = server.connect(capacity=10)
    wire.send(EchoReq(b"before"), b"x" * 20_000)
    changes = server.settle()
    assert [change.peer for change in of(PeerFailed, changes)] == [wire.id]
    assert not wire.write_closed
    wire.read()
    server.settle()
    assert wire.write_closed
    assert wire.got + wire.held == EchoRes(b"before").encode(RESPONSE)
    wire.send(EchoReq(b"after"))
    wire.ended = True
    server.settle()
    assert wire.closed == Close(wire.id, "it broke the protocol", 0)
    assert server.endpoint.next_deadline() is None


@pytest.mark.parametrize("reads", [False, True])
def test_peer_that_breaks_the_protocol_and_stays_is_closed_in_the_end(reads: bool) -> None:
    server = Driven(linger=3.0)
    wire = server.connect(capacity=1000 if reads else 0)
    wire.send(EchoReq(b"before"), BAD)
    assert not closes(server.settle())
    assert wire.write_closed is reads
    assert server.endpoint.next_deadline() == server.now + 3.0
    assert not closes(server.wait(2.9))
    assert [change.peer for change in closes(server.wait(0.1))] == [wire.id]
    assert server.endpoint.next_deadline() is None


def test_peers_whose_time_is_over_are_closed_in_several_turns_if_there_are_many() -> None:
    server = Driven(linger=3.0)
    for _ in range(2 * CLOSES + 1):
        server.connect().send(BAD)
    server.turn()
    server.now += 3.0
    counts = []
    while (deadline := server.endpoint.next_deadline()) is not None:
        assert deadline <= server.now
        counts.append(len(closes(server.turn())))
    assert counts == [CLOSES, CLOSES, 1]


def test_peer_that_ends_gets_all_answers_first() -> None:
    server = Driven(pause_at=0)
    wire = server.connect(capacity=10)
    request, answer = echoes(5000, 8)
    wire.send(request)
    wire.ended = True
    server.settle()
    while wire.read():
        server.settle()
    assert wire.got == answer
    assert wire.closed == Close(wire.id, "by the peer", 0)


def test_results_that_come_with_the_end_of_a_client_leave_before_it_is_closed() -> None:
    server = Driven()
    client, worker = server.connect(), server.connect()
    handle = running_job(server, client, worker)
    client.ended = True
    worker.send(WorkComplete(handle, b"done"))
    server.turn()
    assert WorkComplete(handle, b"done").encode(RESPONSE) in client.sent
    assert client.closed is not None


@pytest.mark.parametrize("keep", [None, False, True])
def test_half_closed_peer_may_be_kept_until_it_has_its_results(keep: bool | None) -> None:
    asked = []

    def hook(peer: PeerId) -> bool:
        asked.append(peer)
        return bool(keep)

    server = Driven(on_half_close=None if keep is None else hook)
    client, worker, idle = server.connect(), server.connect(), server.connect()
    handle = running_job(server, client, worker)
    client.ended = idle.ended = True
    server.settle()
    assert idle.closed is not None
    assert asked == ([] if keep is None else [client.id])
    assert (client.closed is None) is bool(keep)
    worker.send(WorkData(handle, b"some"))
    server.settle()
    assert (client.closed is None) is bool(keep)
    worker.send(WorkComplete(handle, b"done"))
    server.settle()
    assert client.closed is not None
    assert (WorkComplete(handle, b"done").encode(RESPONSE) in client.sent) is bool(keep)
    assert server.endpoint.next_deadline() is None


def test_lost_connection_is_closed_once_and_frees_its_jobs() -> None:
    server = Driven()
    client, worker, other = server.connect(capacity=0), server.connect(), server.connect()
    running_job_of = SubmitJob(b"f", b"", b"")
    worker.send(CanDo(b"f"), GrabJob())
    client.send(running_job_of)
    server.settle()
    endpoint = server.endpoint
    assert endpoint.unread > 0
    for _ in range(2):
        endpoint.lost(client.id, server.now, "reset")
    (closed,) = closes(server.settle())
    assert closed == Close(client.id, "reset", 29)
    assert endpoint.unread == 0
    endpoint.received(client.id, EchoReq(b"x").encode(), server.now)
    endpoint.ended(client.id, server.now)
    endpoint.writable(client.id)
    endpoint.sent(client.id, 0, server.now)
    assert server.settle() == []
    assert other.closed is None


def test_connection_may_fail_while_its_backlog_is_sent() -> None:
    server = Driven(pause_at=10**6)
    wire = server.connect(capacity=10)
    wire.send(EchoReq(bytes(1000)), EchoReq(bytes(1000)))
    server.settle()
    wire.read()
    wire.broken = True
    server.settle()
    assert wire.closed is not None
    assert wire.closed.unread == 2024 - 10
    assert server.endpoint.bytes_sent == 10


def test_connection_may_be_lost_before_it_is_said_what_it_has_taken() -> None:
    server = Driven()
    wire, other = server.connect(capacity=10), server.connect()
    wire.send(EchoReq(bytes(100)))
    server.settle()
    endpoint = server.endpoint
    endpoint.writable(wire.id)
    sends = endpoint.sends()
    assert next(sends)[0] == wire.id
    endpoint.lost(wire.id, server.now)
    assert next(sends, None) is None
    (closed,) = closes(server.turn())
    assert closed.unread == 102
    assert endpoint.unread == 0
    other.send(EchoReq(b"x"))
    server.settle()
    assert other.held == EchoRes(b"x").encode(RESPONSE)


def test_what_follows_from_the_end_of_a_peer_leaves_in_the_same_turn() -> None:
    server = Driven()
    client, worker, sleeper = (server.connect() for _ in range(3))
    running_job(server, client, worker)
    sleeper.send(CanDo(b"f"), PreSleep())
    worker.send(EchoReq(b"x"))
    worker.ended = True
    server.settle()
    sleeper.read()
    other = server.connect()
    other.send(CanDo(b"f"), GrabJob(), EchoReq(b"x"))
    server.settle()
    sleeper.send(PreSleep())
    server.settle()
    server.endpoint.received(other.id, EchoReq(b"y").encode(), server.now)
    other.ended = True
    server.turn()
    assert other.sent.endswith(EchoRes(b"y").encode(RESPONSE))
    assert other.closed is not None
    assert sleeper.held == Noop().encode(RESPONSE)


def test_result_for_a_peer_that_breaks_the_protocol_is_not_sent_behind_the_end() -> None:
    server = Driven()
    client, worker = server.connect(), server.connect()
    handle = running_job(server, client, worker)
    client.send(BAD)
    server.settle()
    assert client.write_closed
    worker.send(WorkComplete(handle, b"done"))
    server.wait(1.0)
    assert client.held == b""
    assert client.closed is not None


def test_peer_that_is_lost_is_not_told_of_as_failed() -> None:
    server = Driven()
    wire = server.connect()
    server.endpoint.engine.fail(wire.id, "not wanted")
    server.endpoint.lost(wire.id, server.now)
    assert of(PeerFailed, server.settle()) == []


def test_events_of_the_engine_are_among_the_changes() -> None:
    server = Driven(engine={"job_retries": 0})
    client, worker = server.connect(), server.connect()
    handle = running_job(server, client, worker)
    worker.ended = True
    assert of(JobGivenUp, server.settle()) == [JobGivenUp(handle, b"f", 1)]


def test_all_are_closed_at_the_end() -> None:
    server = Driven()
    wires = [server.connect(capacity=5 * number) for number in range(3)]
    for wire in wires:
        wire.send(EchoReq(b"x"))
    server.settle()
    server.endpoint.close_all(server.now)
    server.settle()
    assert [wire.closed for wire in wires] == [
        Close(wire.id, "the server stops", 13 - 5 * number) for number, wire in enumerate(wires)
    ]


# The end of the server


def test_draining_ends_when_no_job_runs_and_all_is_read() -> None:
    server = Driven()
    client, worker = server.connect(capacity=100), server.connect()
    handle = running_job(server, client, worker)
    server.endpoint.drain()
    assert not of(Stopped, server.settle())
    worker.send(WorkComplete(handle, bytes(500)))
    assert not of(Stopped, server.settle())
    assert server.endpoint.next_deadline() is not None
    while not server.endpoint.stopped:
        assert client.read()
        server.settle()
    assert len(of(Stopped, server.changes)) == 1
    assert client.sent.endswith(WorkComplete(handle, bytes(500)).encode(RESPONSE))
    assert server.endpoint.next_deadline() is None
    assert server.wait(10.0) == []


def test_draining_does_not_wait_for_ever_for_a_peer_that_does_not_read() -> None:
    server = Driven(last_words=7.0)
    client, worker = server.connect(capacity=100), server.connect()
    handle = running_job(server, client, worker)
    worker.send(WorkComplete(handle, bytes(500)))
    server.settle()
    server.endpoint.drain()
    assert server.endpoint.next_deadline() == server.now
    assert not of(Stopped, server.wait(6.9))
    assert of(Stopped, server.wait(0.1))
    assert server.endpoint.next_deadline() is None


def test_draining_without_running_jobs_ends_in_one_turn() -> None:
    server = Driven()
    server.connect().send(EchoReq(b"x"))
    server.endpoint.drain()
    assert of(Stopped, server.turn())


@pytest.mark.parametrize("line", [b"shutdown\n", b"shutdown graceful\n"])
def test_administrator_reads_the_answer_before_the_server_stops(line: bytes) -> None:
    server = Driven(engine={"allow_shutdown": True})
    admin, client, worker = (server.connect() for _ in range(3))
    handle = running_job(server, client, worker)
    admin.send(line)
    changes = server.settle()
    assert admin.held == b"OK\r\n"
    graceful = b"graceful" in line
    assert bool(of(Stopped, changes)) is not graceful
    if graceful:
        worker.send(WorkComplete(handle, b""))
        assert of(Stopped, server.settle())


def test_stop_tries_to_send_everything_once() -> None:
    server = Driven()
    wires = [server.connect(capacity=20 * number) for number in range(2)]
    for wire in wires:
        wire.send(EchoReq(b"x"))
    server.endpoint.stop()
    assert of(Stopped, server.turn())
    assert [len(wire.held) for wire in wires] == [0, 13]


# What is kept


def test_connections_past_the_limit_are_refused() -> None:
    server = Driven(max_connections=3)
    endpoint = server.endpoint
    server.connect()
    assert endpoint.refusal() is None
    assert endpoint.refusal(1) is None
    assert endpoint.refusal(2) == "limit 3"
    server.connect()
    wire = server.connect()
    assert endpoint.refusal() == "limit 3"
    wire.ended = True
    server.settle()
    assert endpoint.refusal() is None
    assert b"TOO_MANY_CONNECTIONS" in TURNED_AWAY


def test_memory_limit_is_told_refuses_connections_and_closes_the_greediest() -> None:
    server = Driven(max_memory=1_000_000, pause_at=10**9, engine={"max_output_size": 10**9})
    client, greedy, worker = server.connect(), server.connect(capacity=0), server.connect()
    worker.send(CanDo(b"f"))
    client.send(*[SubmitJobBg(b"f", b"", bytes(1000))] * 800)
    changes = server.settle()
    assert of(MemoryLimitReached, changes) == [MemoryLimitReached(True, 1_000_000)]
    assert server.endpoint.refusal() == "memory limit 1000000"
    assert client.closed is None
    greedy.send(EchoReq(bytes(400_000)))
    server.connect().send(BAD)  # it is leaving, and not the greediest
    server.settle()
    client.send(EchoReq(b"x"))
    changes = server.settle()
    assert [change.peer for change in of(PeerGivenUp, changes)] == [greedy.id]
    for _ in range(800):
        worker.send(GrabJob())
        server.settle()
        worker.send(WorkComplete(worker.read()[12:40].partition(b"\0")[0], b""))
    server.settle()
    assert of(MemoryLimitReached, server.changes)[-1:] == [MemoryLimitReached(False, 1_000_000)]
    assert server.endpoint.refusal() is None


def test_tls_of_connections_counts_as_memory() -> None:
    server = Driven(max_memory=1_000_000)
    server.endpoint.tunnels = 100
    server.connect().send(EchoReq(bytes(70_000)))
    server.settle()
    assert server.endpoint.refusal() == "memory limit 1000000"


def test_idle_server_that_keeps_much_less_than_before_trims_its_memory() -> None:
    server = Driven(trim_step=1_000_000)
    client, worker = server.connect(), server.connect()
    client.send(*[SubmitJobBg(b"f", b"", bytes(200_000))] * 10)
    server.settle()
    worker.send(CanDo(b"f"))
    for _ in range(10):
        worker.send(GrabJob())
        server.settle()
        handle = worker.read()[12:40].partition(b"\0")[0]
        worker.send(WorkComplete(handle, bytes(10_000)))
    assert not of(TrimMemory, server.settle())
    assert of(TrimMemory, server.wait(3.0)) == [TrimMemory()]
    assert server.endpoint.next_deadline() is None


def test_output_that_has_been_read_is_memory_to_trim_too() -> None:
    server = Driven(trim_step=1_000_000)
    wire = server.connect(capacity=0)
    wire.send(EchoReq(bytes(5_000_000)))
    server.settle()
    wire.capacity = None
    server.settle()
    assert of(TrimMemory, server.wait(3.0)) == [TrimMemory()]


# Hooks


def test_what_a_hook_raises_comes_out_and_the_peer_goes_on_in_the_next_turn() -> None:
    raised: list[int] = []

    def hook(_peer: PeerId, request: Event) -> bool:
        if isinstance(request, EchoReq) and request.data == b"bad" and len(raised) < 2:
            raised.append(1)
            raise ZeroDivisionError
        return False

    server = Driven(engine={"on_request": hook})
    wire = server.connect()
    wire.send(EchoReq(b"1"), EchoReq(b"bad"), EchoReq(b"2"), EchoReq(b"bad"), EchoReq(b"3"))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            server.turn()
        assert server.endpoint.next_deadline() == server.now
    server.settle()
    answers = [EchoRes(text).encode(RESPONSE) for text in (b"1", b"2", b"3")]
    assert wire.held == b"".join(answers)
    assert wire.reading


@pytest.mark.parametrize("raises", [False, True])
def test_hook_may_give_up_the_connection_that_it_is_asked_about(raises: bool) -> None:
    def hook(peer: PeerId, request: Event) -> bool:
        if request == EchoReq(b"bad"):
            server.endpoint.lost(peer, server.now, "not wanted")
            if raises:
                raise ZeroDivisionError
        return False

    server = Driven(engine={"on_request": hook, "work_limit": 2})
    flood = [EchoReq(b"x")] * 5000
    for requests in ([EchoReq(b"bad")], [*flood, EchoReq(b"bad"), *flood]):
        wire = server.connect()
        wire.send(*requests)
        while wire.closed is None:
            if raises:
                with contextlib.suppress(ZeroDivisionError):
                    server.turn()
            else:
                server.turn()
        assert wire.closed.reason == "not wanted"
        server.settle()
        assert server.endpoint.next_deadline() is None
