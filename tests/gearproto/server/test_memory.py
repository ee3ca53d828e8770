"""`gearproto.server.memory`: all that peers make a server keep has one limit."""

from __future__ import annotations

from typing import Any

import pytest

from gearproto.codec import Packet
from gearproto.packets import CanDo, EchoReq, EchoRes, Error, SubmitJob, SubmitJobBg
from gearproto.server.backlog import Backlogs
from gearproto.server.memory import MemoryLimit
from tests.harness.engine import Bench, Peer

LIMIT = 100_000


class Server:
    """An engine, what its peers have not read, and a limit for both."""

    def __init__(self, **options: Any) -> None:
        self.bench = Bench(**options)
        self.backlogs: Backlogs[Peer] = Backlogs(pause_at=10, max_unsent=10**9, max_behind=10**9)
        self.memory = MemoryLimit(LIMIT)

    def unread(self, peer: Peer, size: int) -> None:
        """Let a peer leave output unread."""
        self.backlogs.begin(peer, [bytes(size)], size)

    def half(self, size: int) -> Peer:
        """Connect a peer that sends a part of a packet."""
        peer = self.bench.connect()
        peer.send(EchoReq(bytes(10 * LIMIT)).encode()[:size])
        return peer

    def look(self) -> list[str]:
        """Close the peers that have to go; return why."""
        reasons = []
        for peer, why in self.memory.look(self.bench.engine, self.backlogs, self.bench.peers, 0):
            self.backlogs.end(peer)
            peer.leave()
            reasons.append(why)
        return reasons


def refused(answer: object) -> bool:
    return isinstance(answer, Error) and answer.code in (b"QUEUE_ERROR", b"TOO_MANY_FUNCTIONS")


def test_past_the_limit_nothing_is_taken_that_would_be_kept_until_there_is_room_again() -> None:
    server = Server()
    client, worker = server.bench.connect(), server.bench.worker(b"f")
    client.submit(SubmitJob(b"f", b"unique", bytes(LIMIT)))
    assert server.look() == []
    assert server.memory.full
    requests: list[Packet] = [SubmitJobBg(b"f", b"", b""), SubmitJob(b"f", b"unique", b""), CanDo(b"g")]
    for request in requests:
        assert refused(client.ask(request))
    assert client.command(b"create function g").startswith(b"ERR TOO_MANY_FUNCTIONS ")
    assert worker.send(CanDo(b"f")).received() == []  # which it could before
    assert client.ask(EchoReq(b"x")) == EchoRes(b"x")
    worker.grabbed()
    client.leave()
    worker.leave()
    assert server.look() == []
    assert not server.memory.full
    server.bench.connect().submit(SubmitJobBg(b"f", b"", b""))


def fill_with_names(bench: Bench) -> None:
    client = bench.connect()
    for number in range(12):
        client.submit(SubmitJobBg(b"%08000d" % number, b"", b""))


def fill_with_functions(bench: Bench) -> None:
    bench.worker(*(b"%08000d" % number for number in range(12)))


def fill_with_tiny_jobs(bench: Bench) -> None:
    client = bench.connect()
    for _ in range(200):
        client.submit(SubmitJobBg(b"f", b"", b""))


def fill_with_connections(bench: Bench) -> None:
    for _ in range(60):
        bench.connect()


def fill_with_joins(bench: Bench) -> None:
    client = bench.connect()
    for _ in range(1600):
        client.submit(SubmitJob(b"f", b"unique", b""))


@pytest.mark.parametrize(
    "fill", [fill_with_names, fill_with_functions, fill_with_tiny_jobs, fill_with_connections, fill_with_joins]
)
def test_everything_that_is_kept_counts(fill: Any) -> None:
    server = Server(checked=False)
    fill(server.bench)
    assert server.look() == []
    assert server.memory.full


def test_tls_of_connections_counts() -> None:
    server = Server()
    for tunnels, full in ((5, False), (6, True)):
        engine, peers = server.bench.engine, server.bench.peers
        assert list(server.memory.look(engine, server.backlogs, peers, 0, tunnels)) == []
        assert server.memory.full == full


def test_peer_with_most_unread_output_goes_first() -> None:
    server = Server()
    peers = [server.bench.connect() for _ in range(4)]
    for peer, size in zip(peers, (20_000, 50_000, 40_000, 10_000), strict=True):
        server.unread(peer, size)
    assert server.look() == [f"50000 bytes under way, memory limit {LIMIT} of the server"]
    assert list(server.bench.peers.values()) == [peers[0], *peers[2:]]
    assert not server.memory.full


def test_halves_of_packets_count_and_the_largest_goes_first() -> None:
    server = Server()
    small, large = server.half(30_000), server.half(80_000)
    assert server.bench.engine.under_way == 110_000 - 2 * 12
    assert len(server.look()) == 1
    assert list(server.bench.peers.values()) == [small]
    assert large.id not in server.bench.peers
    assert server.bench.engine.under_way == 30_000 - 12


@pytest.mark.parametrize("cut", [0, 1, 11, 12, 13])
def test_half_of_a_packet_counts_wherever_it_was_cut_before(cut: int) -> None:
    server = Server()
    peer = server.half(cut)
    packet = EchoReq(bytes(10 * LIMIT)).encode()
    for end in (30_000, 60_000):
        peer.send(packet[cut:end])
        assert server.bench.engine.under_way == end - 12
        cut = end


def test_answers_that_are_held_back_count() -> None:
    server = Server(work_limit=10**9)
    client, admin = server.bench.connect(), server.bench.connect()
    for _ in range(100):
        client.submit(SubmitJobBg(b"f", b"", b""))
    server.bench.engine.work_limit = 10
    admin.send(b"show jobs\n")
    held = server.bench.engine.under_way_of(admin.id)
    assert held == server.bench.engine.under_way > 0
    admin.leave()
    assert server.bench.engine.under_way == 0


def test_nobody_is_closed_while_a_full_queue_is_worked_off() -> None:
    server = Server()
    server.bench.connect().submit(SubmitJobBg(b"f", b"", bytes(LIMIT)))
    worker = server.bench.worker(b"f")
    server.unread(worker, LIMIT // 8 - 100)  # a job that is being handed to it
    assert server.look() == []
    assert server.memory.full
    server.half(1000)
    assert len(server.look()) == 1


def test_only_so_many_peers_are_closed_in_a_turn() -> None:
    server = Server()
    for _ in range(30):
        server.unread(server.bench.connect(), 10_000)
    assert len(server.look()) == 16
    assert len(server.look()) == 7
    assert server.look() == []


def test_memory_is_looked_at_again_after_some_input_and_at_once_while_it_is_full() -> None:
    server = Server()
    assert server.memory.look_at > 0
    assert server.look() == []
    assert server.memory.look_at > 0
    server.unread(server.bench.connect(), LIMIT // 8)
    server.bench.connect().submit(SubmitJobBg(b"f", b"", bytes(LIMIT)))
    assert server.look() == []
    assert server.memory.look_at == 0
