"""An endpoint when turns are cut short, hooks do what they should not, and several things come together."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.codec import RESPONSE, Packet
from gearproto.event import Event
from gearproto.packets import CanDo, EchoReq, GrabJob, SubmitJob, WorkComplete, WorkData
from gearproto.server import Close, PeerFailed, PeerId, Stopped
from tests.harness.endpoint import Driven

from .test_endpoint import BAD, MIB, closes, of, running_job

# Turns that are cut short


@pytest.mark.parametrize("keep", [False, True])
def test_turn_that_ends_with_the_last_output_of_an_ended_peer_is_followed_by_one_that_closes_it(keep: bool) -> None:
    server = Driven(on_half_close=lambda _peer: keep)
    client, worker = server.connect(), server.connect()
    handle = running_job(server, client, worker)
    if keep:
        client.ended = True
        server.settle()
        worker.send(WorkComplete(handle, b"done"))
    else:
        client.send(EchoReq(b"last"))
        server.turn()
        client.ended = True
        client.send(EchoReq(b"last"))
        client.incoming = [b"".join(client.incoming)]
        server.endpoint.received(client.id, client.incoming.pop(), server.now)
    server.sends_a_turn = 1
    server.turn()
    assert client.closed is None
    assert server.endpoint.next_deadline() == server.now
    server.turn()
    assert client.closed == Close(client.id, "by the peer", 0)


def test_drained_server_stops_at_once_if_a_turn_ends_with_the_last_output() -> None:
    server = Driven()
    client, worker = server.connect(), server.connect()
    handle = running_job(server, client, worker)
    server.endpoint.drain()
    server.settle()
    worker.send(WorkComplete(handle, b"done"))
    server.sends_a_turn = 1
    server.turn()
    assert not server.endpoint.stopped
    assert server.endpoint.next_deadline() == server.now
    assert of(Stopped, server.turn())


def test_output_behind_output_that_waits_for_a_try_keeps_its_order() -> None:
    server = Driven(max_unsent=5000, max_behind=100 * MIB, pause_at=100 * MIB)
    first, second, worker = server.connect(capacity=1000), server.connect(capacity=1000), server.connect()
    handles = {wire: running_job(server, wire, worker) for wire in (first, second)}
    expected = second.sent
    reports = [WorkData(handles[second], bytes([number]) * 4000) for number in range(4)]
    worker.send(*[WorkData(handles[first], bytes(70_000))] * 10, *reports[:2])
    server.settle()
    second.full = False  # a system may not tell that there is room
    first.capacity = second.capacity = None
    server.sends_a_turn = 2  # the first peer is tried, and has more, when there is no time for the second
    for report in reports[2:]:
        worker.send(report)
        server.turn()
    server.sends_a_turn = None
    server.settle()
    assert second.sent == expected + b"".join(report.encode(RESPONSE) for report in reports)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0, 100, 4000, 70_000]), st.integers(0, 3), st.booleans()),
        max_size=40,
    )
)
def test_output_of_slow_peers_keeps_its_order_however_turns_are_cut_short(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    server = Driven(max_unsent=5000, max_behind=100 * MIB, pause_at=100 * MIB)
    server.may_try_full_ones = True
    clients, worker = [server.connect(), server.connect()], server.connect()
    handles = [running_job(server, client, worker) for client in clients]
    expected = [client.sent for client in clients]
    for number, (which, size, budget, reads) in enumerate(steps):
        client = clients[which]
        report = WorkData(handles[which], bytes([number]) * size)
        if client.closed is None:
            worker.send(report)
            expected[which] += report.encode(RESPONSE)
        client.capacity = 100_000 if reads else 1000
        client.read()
        client.full = client.full and number % 3 > 0  # a system may not tell that there is room
        server.sends_a_turn = budget or None
        server.turn()
        assert all(whole.startswith(client.sent) for client, whole in zip(clients, expected, strict=True))
    server.sends_a_turn = None
    for client in clients:
        client.capacity, client.full = None, True
    server.settle()
    for client, whole in zip(clients, expected, strict=True):
        assert client.sent == whole or client.closed is not None
    assert server.endpoint.unread == 0


def test_big_output_leaves_once_if_a_turn_ends_in_the_middle_of_it() -> None:
    server = Driven()
    client, worker = server.connect(), server.connect()
    handle = running_job(server, client, worker)
    expected = client.sent
    reports = [WorkData(handle, bytes([number]) * 70_000) for number in range(5)]
    worker.send(*reports)
    server.sends_a_turn = 1
    server.settle()
    assert client.sent == expected + b"".join(report.encode(RESPONSE) for report in reports)
    assert server.endpoint.unread == 0


def test_peer_that_took_its_output_at_the_end_of_a_turn_is_not_given_up_in_the_next() -> None:
    server = Driven(max_unsent=5000, max_behind=10**6)
    client, worker = server.connect(capacity=1000), server.connect()
    handle = running_job(server, client, worker)
    worker.send(WorkData(handle, bytes(8000)))
    server.settle()
    deadline = server.endpoint.next_deadline()
    assert deadline is not None
    server.now = deadline - 0.001
    client.capacity = None
    server.sends_a_turn = 1
    server.turn()
    server.now = deadline
    assert not closes(server.turn())
    assert len(client.sent) > 8000


def test_event_outside_of_a_turn_is_a_deadline() -> None:
    server = Driven()
    wire = server.connect()
    server.settle()
    server.endpoint.engine.fail(wire.id, "not wanted")
    assert server.endpoint.next_deadline() == server.now
    assert of(PeerFailed, server.settle()) == [PeerFailed(wire.id, "not wanted")]


# Stopping


def test_stop_sends_all_that_a_peer_takes_however_much_that_is() -> None:
    server = Driven(engine={"max_output_size": 100 * MIB})
    client, worker = server.connect(), server.connect()
    handle = running_job(server, client, worker)
    expected = client.sent
    reports = [WorkData(handle, bytes(300_000))] * 20
    worker.send(*reports)
    server.turn()
    server.endpoint.stop()
    while not server.endpoint.stopped:
        assert server.endpoint.next_deadline() == server.now
        server.turn()
    assert client.sent == expected + reports[0].encode(RESPONSE) * 20


def test_stop_ends_though_a_peer_takes_more_and_more() -> None:
    server = Driven(last_words=3.0, engine={"max_output_size": 100 * MIB})
    client, worker = server.connect(), server.connect()
    handle = running_job(server, client, worker)
    worker.send(*[WorkData(handle, bytes(300_000))] * 10)
    server.endpoint.stop()
    turns = 0
    while not server.endpoint.stopped:
        worker.send(*[WorkData(handle, bytes(300_000))] * 10)
        server.turn()
        assert server.endpoint.next_deadline() in (server.now, None)
        server.now += 0.5
        turns += 1
        assert turns < 20
    assert turns == 7


# Hooks


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("request_", [SubmitJob(b"f", b"", b""), CanDo(b"g"), GrabJob(), EchoReq(b"x")])
@pytest.mark.parametrize("rest", [BAD, EchoReq(b"half").encode()[:-1]])
@pytest.mark.parametrize("how", ["lost", "fail"])
def test_request_whose_peer_a_hook_has_closed_has_no_effect(
    how: str, rest: bytes, request_: Packet, raises: bool
) -> None:
    def hook(peer: PeerId, request: Event) -> bool:
        if peer == wire.id and armed and request == request_:
            if how == "lost":
                server.endpoint.lost(peer, server.now)
            else:
                engine.fail(peer, "not wanted")
            if raises:
                raise ZeroDivisionError
        return False

    armed = False
    server = Driven(engine={"on_request": hook})
    engine = server.endpoint.engine
    wire, client, admin = server.connect(), server.connect(), server.connect()
    wire.send(CanDo(b"f"))
    client.send(SubmitJob(b"f", b"", b""))
    server.settle()
    armed = True
    wire.send(request_, EchoReq(b"more"), rest)
    with contextlib.suppress(ZeroDivisionError):
        server.turn()
    server.wait(10.0)
    assert len(of(PeerFailed, server.changes)) == (how == "fail")
    assert wire.closed is not None
    assert wire.sent == b""
    assert not engine.paused_peers()
    assert engine.under_way == 0
    admin.send(b"status\n")
    server.settle()
    assert admin.held == b"f\t1\t0\t0\n.\n"


def test_hook_for_half_closes_that_raises_keeps_nobody_open() -> None:
    def hook(peer: PeerId) -> bool:
        raise ZeroDivisionError

    server = Driven(on_half_close=hook)
    wires = [server.connect() for _ in range(3)]
    for wire in wires:
        wire.send(SubmitJob(b"f", b"", b""))
    server.settle()
    for wire in wires:
        wire.ended = True
    for left in (2, 1, 0):
        with pytest.raises(ZeroDivisionError):
            server.turn()
        assert server.endpoint.next_deadline() == (server.now if left else None)
    server.settle()
    assert [wire.closed for wire in wires] == [Close(wire.id, "by the peer", 0) for wire in wires]


@pytest.mark.parametrize("keep", [False, True])
def test_hook_for_half_closes_may_give_up_the_connection_itself(keep: bool) -> None:
    def hook(peer: PeerId) -> bool:
        server.endpoint.lost(peer, server.now, "not wanted")
        return keep

    server = Driven(on_half_close=hook)
    wire = server.connect().send(SubmitJob(b"f", b"", b""))
    server.settle()
    wire.ended = True
    server.wait(1.0)
    assert wire.closed == Close(wire.id, "not wanted", 0)
    assert server.endpoint.next_deadline() is None


def test_hook_for_half_closes_is_asked_once() -> None:
    asked: list[PeerId] = []

    def hook(peer: PeerId) -> bool:
        asked.append(peer)
        return True

    server = Driven(on_half_close=hook)
    client, worker = server.connect(capacity=100), server.connect()
    handle = running_job(server, client, worker)
    client.ended = True
    for _ in range(3):
        worker.send(WorkData(handle, bytes(200)))
        server.settle()
        while client.read():
            server.settle()
    worker.send(WorkComplete(handle, b"done"))
    server.settle()
    client.read()
    server.settle()
    assert client.got.endswith(WorkComplete(handle, b"done").encode(RESPONSE))
    assert client.closed is not None
    assert asked == [client.id]


def test_hook_for_half_closes_may_give_up_others() -> None:
    def hook(peer: PeerId) -> bool:
        for wire in server.open:
            server.endpoint.lost(wire.id, server.now, "not wanted")
        return False

    server = Driven(on_half_close=hook)
    wires = [server.connect().send(SubmitJob(b"f", b"", b"")) for _ in range(3)]
    server.settle()
    for wire in wires:
        wire.ended = True
    server.settle()
    assert [wire.closed for wire in wires] == [Close(wire.id, "not wanted", 0) for wire in wires]
