"""`gear_net.reactor`: turn by turn, over real sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

import gear_net.reactor
from gear_net.listening import listen
from gear_net.reactor import Reactor
from gear_net.serving import open_reactor
from gearproto.codec import REQUEST, RESPONSE, Packet
from gearproto.packets import (
    CanDo,
    EchoReq,
    EchoRes,
    GrabJob,
    NoJob,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    WorkComplete,
    WorkData,
)
from gearproto.server import Endpoint, Engine, PeerId
from tests.harness.raw import TURNED_AWAY, RawConnection, packet_bytes
from tests.harness.servers import RunningServer
from tests.harness.threads import LIMIT, Call, nothing_left_open

resource = pytest.importorskip("resource")

MIB: Final = 1024 * 1024


class Driven(RunningServer):
    """A reactor whose turns the test takes."""

    kind = "ours"

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        for address in reactor.addresses:
            assert isinstance(address, tuple)
            self.port = address[1]

    def restart(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.reactor.close()

    def turn_until(self, condition: Callable[[], bool], what: str) -> int:
        """Take turns until something holds; return how many."""
        deadline = time.monotonic() + LIMIT
        turns = 0
        while not condition():
            assert time.monotonic() < deadline, f"not so within {LIMIT} s: {what}"
            self.reactor.turn(0.01)
            turns += 1
        return turns

    def settle(self) -> None:
        """Take turns until one finds nothing to do."""
        while self.reactor.turn(0):
            pass

    def connect(self, stack: contextlib.ExitStack) -> RawConnection:
        before = self.reactor.connections
        peer = stack.enter_context(RawConnection(self))
        self.turn_until(lambda: self.reactor.connections > before, "the peer is accepted")
        return peer

    def served(self, function: Callable[[], Any]) -> Any:
        """Call a function in a thread, and take turns meanwhile."""
        call = Call(function)
        self.turn_until(lambda: not call.running, "the call returns")
        return call.result()


Open = Callable[..., Driven]


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def start(stack: contextlib.ExitStack) -> Open:
    """Open reactors; nothing of them may be left at the end."""
    stack.enter_context(nothing_left_open())

    def start(**options: Any) -> Driven:
        return stack.enter_context(contextlib.closing(Driven(open_reactor("127.0.0.1", 0, **options))))

    return start


# Turns


def test_turn_tells_whether_anything_has_happened(start: Open, stack: contextlib.ExitStack) -> None:
    server = start()
    assert not server.reactor.turn(0)
    peer = server.connect(stack)
    server.settle()
    peer.send(EchoReq(b"x"))
    assert server.reactor.turn(LIMIT)
    peer.expect(EchoRes(b"x"))
    assert not server.reactor.turn(0)


def test_descriptor_is_readable_when_a_turn_has_something_to_do(start: Open, stack: contextlib.ExitStack) -> None:
    server = start()
    with selectors.DefaultSelector() as selector:
        selector.register(server.reactor.fileno(), selectors.EVENT_READ)
        assert selector.select(0) == []
        peer = stack.enter_context(RawConnection(server))
        assert selector.select(LIMIT)
        server.settle()
        assert selector.select(0) == []
        peer.send(EchoReq(b"x"))
        assert selector.select(LIMIT)


def test_wake_ends_a_turn_that_waits_however_often_it_is_called(start: Open) -> None:
    server = start()
    call = Call(server.reactor.turn)
    for _ in range(100_000):  # far more than the socket that wakes can hold
        server.reactor.wake()
    assert call.result()
    server.settle()
    assert not server.reactor.turn(0)


def test_wake_of_a_closed_reactor_does_nothing() -> None:
    reactor = open_reactor("127.0.0.1", 0)
    reactor.close()
    reactor.wake()


def test_turns_under_load_are_limited(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    turns: list[float | None] = []

    def busy(timeout: float | None = None) -> bool:
        turns.append(timeout)
        return True

    monkeypatch.setattr(server.reactor, "turn", busy)
    server.reactor.turn_while_busy()
    assert 1 < len(turns) <= 100
    assert set(turns) == {0}
    turns.clear()
    server.reactor.turn_while_busy(-1.0)
    assert turns == [0]
    monkeypatch.setattr(server.reactor, "turn", lambda timeout: turns.clear())
    server.reactor.turn_while_busy()
    assert turns == []


def test_flood_leaves_others_their_turns(start: Open, stack: contextlib.ExitStack) -> None:
    server = start(handle_prefix="H:test")
    engine = server.reactor.endpoint.engine
    other, *flooders = (server.connect(stack) for _ in range(5))
    data = SubmitJobBg(b"f", b"", b"").encode() * 10_000
    calls = [Call(lambda peer=peer: peer.send_bytes(data)) for peer in flooders]  # type: ignore[misc]
    calls += [Call(lambda peer=peer: [peer.receive_raw() for _ in range(10_000)]) for peer in flooders]  # type: ignore[misc]
    limit = 2048
    submitted = 0
    while any(call.running for call in calls):
        other.send(EchoReq(b"x"))
        before = submitted
        while not select.select([other.sock], [], [], 0)[0]:
            server.reactor.turn(0.01)
            taken = engine.counters().submitted - submitted
            assert taken <= limit
            submitted += taken
        assert submitted - before <= 3 * limit
        other.expect(EchoRes(b"x"))
    for call in calls:
        call.result()
    assert submitted > 3 * limit


class SlowClock:
    """A clock that is some milliseconds later whenever somebody looks."""

    def __init__(self, step: float, ahead: float = 0.0) -> None:
        self.time = time.time
        self._step = step
        self._now = time.monotonic() + ahead

    def monotonic(self) -> float:
        self._now += self._step
        return self._now


def test_peers_for_which_a_turn_has_no_time_come_first_in_the_next(
    start: Open, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    peers = [server.connect(stack) for _ in range(20)]
    server.settle()
    monkeypatch.setattr(gear_net.reactor, "time", SlowClock(0.004))
    answers = [0] * len(peers)
    for peer in peers:
        peer.send_bytes(b"version\n")
    while min(answers) < 3:
        server.reactor.turn(0)
        for number, peer in enumerate(peers):
            if select.select([peer.sock], [], [], 0)[0]:
                answers[number] += peer.sock.recv(10_000).count(b"\n")
                peer.send_bytes(b"version\n")  # those that had their turn are ready again at once
        assert max(answers) - min(answers) <= 1


def test_output_for_which_a_turn_has_no_time_leaves_in_the_next(
    start: Open, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    count = 30
    worker, *clients = (server.connect(stack) for _ in range(count + 1))
    request = SubmitJob(b"f", b"unique", b"")
    handle = {server.served(lambda client=client: client.submit(request)) for client in clients}.pop()  # type: ignore[misc]
    worker.send(CanDo(b"f"))
    server.served(worker.grab)
    monkeypatch.setattr(gear_net.reactor, "time", SlowClock(0.02))
    worker.send(WorkComplete(handle, b"result"))
    sizes = []
    while server.reactor.turn(0) or server.reactor.next_deadline() is not None:
        sizes.append(len(select.select([client.sock for client in clients], [], [], 0)[0]))
    assert 0 < sizes[0] < count / 2
    assert sizes[-1] == count
    for client in clients:
        client.expect(WorkComplete(handle, b"result"))


def test_deadline_is_that_of_the_next_delayed_job(start: Open, stack: contextlib.ExitStack) -> None:
    server = start()
    peer = server.connect(stack)
    assert server.reactor.next_deadline() is None
    peer.send(SubmitJobEpoch(b"f", b"", int(time.time()) + 1000, b""))
    server.settle()
    deadline = server.reactor.next_deadline()
    assert deadline is not None
    assert 0 < deadline - time.monotonic() <= 1001


def test_job_for_the_end_of_time_does_not_break_the_waiting(start: Open, stack: contextlib.ExitStack) -> None:
    server = start()
    peer = server.connect(stack)
    peer.send(SubmitJobEpoch(b"f", b"", 2**62, b""))
    server.settle()
    peer.receive_raw()
    call = Call(server.reactor.turn)
    server.reactor.wake()
    assert call.result()


# Accepting


class Listener(socket.socket):
    """A listening socket that fails to accept as often as told."""

    def __init__(self) -> None:
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.failures: list[int] = []
        self.accepts = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.accepts += 1
        if self.failures:
            number = self.failures.pop()
            raise OSError(number, os.strerror(number))
        return super().accept()


def driven_by(listener: socket.socket, stack: contextlib.ExitStack, **options: Any) -> Driven:
    engine = Engine(handle_prefix=b"H:x", epoch_offset=0.0, version=b"1", pid=1)
    return stack.enter_context(contextlib.closing(Driven(Reactor(Endpoint(engine), [listener], **options))))


def impatient(stack: contextlib.ExitStack, **options: Any) -> Driven:
    """Open a reactor whose endpoint has options of its own."""
    endpoint = Endpoint(Engine(handle_prefix=b"H:x", epoch_offset=0.0), **options)
    stack.enter_context(nothing_left_open())
    return stack.enter_context(contextlib.closing(Driven(Reactor(endpoint, listen([("127.0.0.1", 0)])))))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_room_accepting_pauses_and_goes_on_later(
    stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    stack.enter_context(nothing_left_open())
    listener = Listener()
    server = driven_by(listener, stack, accept_pause=1000.0)
    known = server.connect(stack)
    server.settle()
    listener.accepts = 0
    listener.failures = [number] * 2
    late = stack.enter_context(RawConnection(server))
    for _ in range(100):
        server.reactor.turn(0)
    assert listener.accepts == 1  # the waiting peer makes no turn of its own
    assert not server.reactor.turn(0)
    assert server.reactor.next_deadline() is not None
    server.served(known.expect_nothing)
    ahead = 0.0
    for _ in range(2):  # there is no room the first time, either
        ahead += 1001.0
        monkeypatch.setattr(gear_net.reactor, "time", SlowClock(0.0, ahead))
        server.reactor.turn(0)
        server.reactor.turn(0)
    assert listener.accepts >= 3
    server.served(late.expect_nothing)


def test_pause_ends_by_itself(stack: contextlib.ExitStack) -> None:
    listener = Listener()
    listener.failures = [errno.EMFILE] * 3
    server = driven_by(listener, stack, accept_pause=0.01)
    peer = server.connect(stack)
    server.served(peer.expect_nothing)


@pytest.mark.parametrize("end", [Reactor.stop_listening, Reactor.drain, Reactor.close])
def test_reactor_can_end_while_accepting_pauses(end: Callable[[Reactor], None]) -> None:
    with nothing_left_open(), contextlib.ExitStack() as stack:
        listener = Listener()
        listener.failures = [errno.EMFILE]
        server = driven_by(listener, stack)
        with RawConnection(server):
            server.turn_until(lambda: listener.accepts == 1, "accepting has failed")
        if end is Reactor.close:
            return
        end(server.reactor)
        assert listener.fileno() == -1
        server.reactor.turn(0)


def test_peer_that_is_gone_before_it_is_accepted_harms_nobody(stack: contextlib.ExitStack) -> None:
    listener = Listener()
    listener.failures = [errno.ECONNABORTED, errno.EPROTO]
    server = driven_by(listener, stack)
    peer = server.connect(stack)
    server.served(peer.expect_nothing)


def test_burst_of_connections_is_accepted_in_few_turns(start: Open, stack: contextlib.ExitStack) -> None:
    count = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * count + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"{needed} descriptors are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
    server = start()
    socks = []
    for number in range(count):
        sock = stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves no trace when closed
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect((server.host, server.port))
        socks.append(sock)
        if number % 100 == 99:  # less than any system lets wait
            server.settle()
    server.turn_until(lambda: server.reactor.connections == count, "all are accepted")
    request, answer = EchoReq(b"x").encode(), EchoRes(b"x").encode(b"\0RES")
    for sock in socks:
        sock.sendall(request)
    turns = server.turn_until(lambda: server.reactor.snapshot().received == count * len(request), "all are read")
    assert turns <= count // 2
    server.settle()
    assert all(sock.recv(100) == answer for sock in socks)


def test_connections_past_the_limit_are_closed_and_room_is_used_again(start: Open, stack: contextlib.ExitStack) -> None:
    server = start(max_connections=2)
    first, second = server.connect(stack), server.connect(stack)
    with RawConnection(server) as third:
        server.settle()
        third.expect_turned_away()
    first.close()
    server.turn_until(lambda: server.reactor.connections == 1, "the first has gone")
    fourth = server.connect(stack)
    server.served(fourth.expect_nothing)
    server.served(second.expect_nothing)


# Peers that do not read


def test_peer_that_never_reads_is_closed_at_the_limit_and_others_are_served(
    start: Open, stack: contextlib.ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(max_unsent=4 * MIB)
    client, worker, other = (server.connect(stack) for _ in range(3))
    worker.send(CanDo(b"f"))
    handle = server.served(lambda: client.submit(SubmitJob(b"f", b"", b"")))
    server.served(worker.grab)
    sent = 0
    while server.reactor.connections == 3:
        server.served(lambda: worker.send(WorkData(handle, bytes(MIB))))
        server.served(other.expect_nothing)
        sent += 1
        assert sent < 100
    assert f"limit {4 * MIB}" in caplog.text
    server.served(worker.expect_nothing)
    assert server.served(lambda: other.ask_rows(b"show jobs")) == [handle + b"\t0\t1\t0\n"]


@pytest.mark.parametrize("pause_at", [0, 1000, MIB])
def test_requests_of_a_peer_that_does_not_read_wait_and_all_are_answered_when_it_reads(
    start: Open, stack: contextlib.ExitStack, pause_at: int
) -> None:
    server = start(pause_at=pause_at)
    admin, greedy = server.connect(stack), server.connect(stack)
    functions = 100
    names = b"".join(b"create function %s%03d\n" % (b"x" * 200, number) for number in range(functions))
    admin.send_bytes(names)
    server.served(lambda: admin.receive_bytes(len(b"OK\r\n") * functions))
    count = 600
    greedy.send_bytes(b"status\n" * count)  # answers of 20 KB each
    server.settle()
    for _ in range(20):
        server.served(admin.expect_nothing)
    snapshot = server.reactor.snapshot()
    assert 0 < snapshot.unsent <= pause_at + 6 * MIB  # of 12
    answer = b"".join(server.served(lambda: admin.ask_rows(b"status"))) + b".\n"
    assert server.served(lambda: greedy.receive_bytes(count * len(answer))) == answer * count
    server.served(greedy.expect_nothing)
    assert server.reactor.snapshot().unsent == 0


def test_peer_that_is_gone_with_answers_unread_is_forgotten(start: Open, stack: contextlib.ExitStack) -> None:
    server = start()
    peer, other = server.connect(stack), server.connect(stack)
    server.served(lambda: peer.send(EchoReq(bytes(16 * MIB))))
    server.settle()
    assert server.reactor.snapshot().unsent > 0
    peer.close()
    server.turn_until(lambda: server.reactor.connections == 1, "the peer is forgotten")
    assert server.reactor.snapshot().unsent == 0
    server.served(other.expect_nothing)


def test_peer_that_sends_no_more_still_gets_all_its_answers(start: Open, stack: contextlib.ExitStack) -> None:
    server = start()
    peer = server.connect(stack)
    size, count = 100_000, 100

    def send() -> None:
        for _ in range(count):
            peer.send(EchoReq(bytes(size)))
        peer.sock.shutdown(socket.SHUT_WR)

    sending = Call(send)
    for _ in range(count):
        assert len(server.served(peer.receive_raw)) == size + 12
    sending.result()
    server.turn_until(lambda: server.reactor.connections == 0, "the peer is closed")
    peer.expect_closed()


# Peers that break the protocol


@pytest.mark.parametrize(
    "data",
    [
        b"\0BAD\0\0\0\1\0\0\0\0",
        REQUEST + struct.pack("!II", 7, 2**32 - 1),
        packet_bytes(REQUEST, 99),
        b"x" * 100_000,
    ],
)
def test_peer_that_breaks_the_protocol_reads_why_and_is_closed_though_it_stays(
    stack: contextlib.ExitStack, data: bytes
) -> None:
    server = impatient(stack, linger=0.02)
    peer, other = server.connect(stack), server.connect(stack)
    peer.send(EchoReq(b"before"))
    peer.send_bytes(data)
    server.settle()
    peer.expect(EchoRes(b"before"))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        peer.send_bytes(b"more of it" * 1000)
    server.turn_until(lambda: server.reactor.connections == 1, "the peer is closed")
    with contextlib.suppress(ConnectionResetError):
        rest = b""
        while piece := peer.sock.recv(65536):
            rest += piece
        assert rest == b"" or rest.startswith((b"\0RES\0\0\0\x13", b"ERR"))
    server.served(other.expect_nothing)
    assert server.reactor.next_deadline() is None


def test_announcement_of_4_gib_is_answered_with_an_error_at_once(start: Open, stack: contextlib.ExitStack) -> None:
    server = start()
    peer = server.connect(stack)
    peer.send_bytes(REQUEST + struct.pack("!II", 7, 2**32 - 1))
    server.reactor.turn(LIMIT)
    assert peer.receive_raw()[:8] == b"\0RES\0\0\0\x13"
    assert peer.sock.recv(1) == b""


# Sockets from elsewhere


def test_adopted_socket_is_served_and_its_end_is_told_once(start: Open) -> None:
    server = start()
    ours, theirs = socket.socketpair()
    ended: list[int] = []
    server.reactor.adopt(theirs, lambda: ended.append(1))
    with ours:
        ours.settimeout(LIMIT)
        ours.sendall(EchoReq(b"x").encode())
        server.settle()
        assert ours.recv(100) == EchoRes(b"x").encode(b"\0RES")
        assert ended == []
    server.turn_until(lambda: server.reactor.connections == 0, "the peer has gone")
    server.reactor.turn(0)
    assert ended == [1]


def test_sockets_past_the_limit_are_not_adopted(start: Open, stack: contextlib.ExitStack) -> None:
    server = start(max_connections=1)
    ended: list[int] = []
    ends = [socket.socketpair() for _ in range(2)]
    for number, (ours, theirs) in enumerate(ends):
        stack.enter_context(ours)
        server.reactor.adopt(theirs, lambda number=number: ended.append(number))  # type: ignore[misc]
    assert ended == [1]
    assert ends[1][0].recv(100) == TURNED_AWAY.encode(RESPONSE)
    assert ends[1][0].recv(1) == b""
    assert server.reactor.connections == 1


def test_adopted_sockets_are_closed_with_the_reactor() -> None:
    with nothing_left_open():
        reactor = open_reactor("127.0.0.1", 0)
        ended: list[int] = []
        ours, theirs = socket.socketpair()
        with ours:
            reactor.adopt(theirs, lambda: ended.append(1))
            reactor.close()
            assert ours.recv(1) == b""
        assert ended == [1]


def test_stopping_to_listen_leaves_connections_alone(start: Open, stack: contextlib.ExitStack) -> None:
    server = start()
    peer = server.connect(stack)
    server.reactor.stop_listening()
    assert server.reactor.addresses == []
    with pytest.raises(ConnectionRefusedError):
        RawConnection(server)
    server.served(peer.expect_nothing)


# Hooks


def with_hooks(stack: contextlib.ExitStack, calls: list[Any], keep: bool) -> Driven:
    """Open a reactor whose hooks are written down, and which keeps half-closed connections or not."""

    def connected(peer: PeerId, sock: socket.socket) -> None:
        calls.append(("connected", peer, sock.getpeername()))

    def half_closed(peer: PeerId, sock: socket.socket) -> bool:
        calls.append(("half closed", peer, sock.getpeername()))
        return keep

    hooks = {"on_connected": connected, "on_half_close": half_closed}
    hooks["on_disconnected"] = lambda peer: calls.append(("disconnected", peer))  # type: ignore[assignment,misc]
    stack.enter_context(nothing_left_open())
    listener = socket.create_server(("127.0.0.1", 0))
    return driven_by(listener, stack, **hooks)


def test_hooks_are_told_of_a_connection_before_it_is_read_and_after_it_is_closed(stack: contextlib.ExitStack) -> None:
    calls: list[Any] = []
    server = with_hooks(stack, calls, keep=True)
    peer = stack.enter_context(RawConnection(server))
    peer.send_bytes(b"\0BAD\0\0\0\1\0\0\0\0")
    server.turn_until(lambda: bool(calls), "the peer is accepted")
    assert calls == [("connected", 1, peer.sock.getsockname())]
    peer.close()
    server.turn_until(lambda: server.reactor.connections == 0, "the peer is closed")
    assert calls[1:] == [("disconnected", 1)]


@pytest.mark.parametrize("keep", [False, True])
def test_half_closed_connection_is_kept_for_its_results_if_the_hook_wants_it(
    stack: contextlib.ExitStack, keep: bool
) -> None:
    calls: list[Any] = []
    server = with_hooks(stack, calls, keep)
    client, worker, handle = with_running_job(server, stack)
    calls.clear()
    client.sock.shutdown(socket.SHUT_WR)
    server.turn_until(lambda: bool(calls), "the end has been read")
    server.settle()
    assert calls[0] == ("half closed", 1, client.sock.getsockname())
    assert calls[1:] == ([] if keep else [("disconnected", 1)])
    assert server.reactor.next_deadline() is None
    worker.send(WorkComplete(handle, b"done"))
    server.turn_until(lambda: server.reactor.connections == 1, "the client is closed")
    assert calls[1:] == [("disconnected", 1)]
    if keep:
        client.expect(WorkComplete(handle, b"done"))
    client.expect_closed()


def test_half_closed_connection_that_is_reset_is_closed_at_once(stack: contextlib.ExitStack) -> None:
    calls: list[Any] = []
    server = with_hooks(stack, calls, keep=True)
    client, _worker, _handle = with_running_job(server, stack)
    client.sock.shutdown(socket.SHUT_WR)
    server.turn_until(lambda: ("half closed", 1, client.sock.getsockname()) in calls, "the end has been read")
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    server.turn_until(lambda: calls[-1] == ("disconnected", 1), "the reset has been seen")
    assert server.reactor.connections == 1


def test_peer_that_waits_for_nothing_is_closed_without_asking(stack: contextlib.ExitStack) -> None:
    calls: list[Any] = []
    server = with_hooks(stack, calls, keep=True)
    peer = server.connect(stack)
    peer.sock.shutdown(socket.SHUT_WR)
    server.turn_until(lambda: server.reactor.connections == 0, "the peer is closed")
    assert [call[0] for call in calls] == ["connected", "disconnected"]


# The end


def with_running_job(server: Driven, stack: contextlib.ExitStack) -> tuple[RawConnection, RawConnection, bytes]:
    client, worker = server.connect(stack), server.connect(stack)
    worker.send(CanDo(b"f"))
    handle = server.served(lambda: client.submit(SubmitJob(b"f", b"", b"")))
    server.served(worker.grab)
    return client, worker, handle


def test_draining_ends_when_no_job_runs_and_all_is_sent(start: Open, stack: contextlib.ExitStack) -> None:
    server = start()
    client, worker, handle = with_running_job(server, stack)
    client.send(SubmitJobBg(b"f", b"", b""))
    server.settle()
    server.reactor.drain()
    for _ in range(10):
        server.reactor.turn(0)
    assert not server.reactor.finished
    big = 16 * MIB
    server.served(lambda: worker.send(WorkComplete(handle, bytes(big))))
    server.settle()
    assert not server.reactor.finished  # the client has not read its result
    client.receive_raw()  # JOB_CREATED
    assert len(server.served(client.receive_raw)) > big
    server.turn_until(lambda: server.reactor.finished, "the server has come to its end")


def test_draining_does_not_wait_for_ever_for_a_peer_that_does_not_read(
    stack: contextlib.ExitStack,
) -> None:
    server = impatient(stack, last_words=0.05)
    _client, worker, handle = with_running_job(server, stack)
    server.reactor.drain()
    server.served(lambda: worker.send(WorkComplete(handle, bytes(16 * MIB))))
    server.turn_until(lambda: server.reactor.finished, "the server has come to its end")
    assert server.reactor.snapshot().unsent > 0


def test_draining_without_running_jobs_ends_in_one_turn(start: Open, stack: contextlib.ExitStack) -> None:
    server = start()
    peer = server.connect(stack)
    peer.send(GrabJob())
    server.settle()
    peer.expect(NoJob())
    server.reactor.drain()
    Call(server.reactor.turn).result()
    assert server.reactor.finished


@pytest.mark.parametrize("graceful", [False, True])
def test_administrator_reads_the_answer_to_a_shutdown(start: Open, stack: contextlib.ExitStack, graceful: bool) -> None:
    server = start(allow_shutdown=True)
    admin = server.connect(stack)
    admin.send_bytes(b"shutdown graceful\n" if graceful else b"shutdown\n")
    server.turn_until(lambda: server.reactor.finished, "the server has come to its end")
    server.reactor.stop_listening()
    assert admin.receive_line() == b"OK\r\n"


def test_close_closes_every_socket_whatever_state_it_is_in() -> None:
    with nothing_left_open(), contextlib.ExitStack() as stack:
        server = Driven(open_reactor("127.0.0.1", 0))
        peers = [server.connect(stack) for _ in range(6)]
        _client, worker, _handle = with_running_job(server, stack)
        requests: list[Packet] = [EchoReq(bytes(16 * MIB)), GrabJob()]
        for peer, request in zip(peers, requests, strict=False):
            server.served(lambda peer=peer, request=request: peer.send(request))  # type: ignore[misc]
        peers[2].send_bytes(b"\0BAD\0\0\0\1\0\0\0\0")
        peers[3].send_bytes(b"half a line")
        peers[4].sock.shutdown(socket.SHUT_WR)
        server.settle()
        server.reactor.close()
        assert worker.sock.recv(1) == b""
        assert server.reactor.snapshot().jobs.running == 0
