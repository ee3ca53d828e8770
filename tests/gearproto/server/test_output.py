"""What an engine has to send, and how a driver takes it."""

from __future__ import annotations

from gearproto.packets import CanDo, EchoReq, EchoRes, GrabJob, SubmitJob, WorkData
from gearproto.server import Engine, PeerId
from tests.harness.engine import Bench

BIG = 65536


def pending(engine: Engine) -> list[tuple[PeerId, bytes | list[bytes]]]:
    return list(iter(engine.next_output, None))


def test_small_output_leaves_in_one_piece_for_each_peer() -> None:
    bench = Bench()
    first, second = bench.connect(), bench.connect()
    for peer, text in ((first, b"a"), (second, b"b"), (first, b"c")):
        bench.engine.receive_data(peer.id, EchoReq(text).encode(), 0.0)
    assert pending(bench.engine) == [
        (first.id, EchoRes(b"a").encode() + EchoRes(b"c").encode()),
        (second.id, EchoRes(b"b").encode()),
    ]
    assert pending(bench.engine) == []


def test_big_output_leaves_in_pieces_that_peers_share() -> None:
    bench = Bench()
    clients, worker = [bench.connect() for _ in range(2)], bench.worker(b"f")
    for client in clients:
        handle = client.submit(SubmitJob(b"f", b"u", b""))
        client.submit(SubmitJob(b"f", b"u", b""))
    worker.ask(GrabJob())
    bench.engine.receive_data(worker.id, WorkData(handle, bytes(BIG)).encode(), 0.0)
    outputs = dict(pending(bench.engine))
    assert set(outputs) == {client.id for client in clients}
    one, other = (outputs[client.id] for client in clients)
    assert isinstance(one, list)
    assert isinstance(other, list)
    assert b"".join(one) == b"".join(other) == WorkData(handle, bytes(BIG)).encode(b"\0RES") * 2
    assert {id(piece) for piece in one if len(piece) >= BIG} == {id(piece) for piece in other if len(piece) >= BIG}
    assert len({id(piece) for piece in one}) < len(one)


def test_output_for_a_peer_that_has_gone_is_dropped() -> None:
    bench = Bench()
    peer, other = bench.connect(), bench.worker(b"f")
    bench.engine.receive_data(peer.id, EchoReq(b"x").encode(), 0.0)
    bench.engine.receive_data(other.id, CanDo(b"g").encode() + EchoReq(b"y").encode(), 0.0)
    bench.engine.disconnect(peer.id, 0.0)
    assert pending(bench.engine) == [(other.id, EchoRes(b"y").encode())]
