"""What an engine has to send, and how an endpoint hands it out."""

from __future__ import annotations

from gearproto.codec import RESPONSE
from gearproto.packets import CanDo, EchoReq, EchoRes, GrabJob, SubmitJob, WorkData
from gearproto.server import Endpoint, Engine, PeerId

BIG = 65536


def pending(endpoint: Endpoint) -> list[tuple[PeerId, bytes | memoryview]]:
    return list(endpoint.sends())


def new_endpoint(peers: int) -> tuple[Endpoint, list[PeerId]]:
    endpoint = Endpoint(Engine(handle_prefix=b"H", epoch_offset=0.0))
    return endpoint, [endpoint.accepted(0.0) for _ in range(peers)]


def test_small_output_leaves_in_one_piece_for_each_peer() -> None:
    endpoint, (first, second) = new_endpoint(2)
    for peer, text in ((first, b"a"), (second, b"b"), (first, b"c")):
        endpoint.received(peer, EchoReq(text).encode(), 0.0)
    assert pending(endpoint) == [
        (first, EchoRes(b"a").encode() + EchoRes(b"c").encode()),
        (second, EchoRes(b"b").encode()),
    ]
    assert pending(endpoint) == []


def test_big_output_leaves_in_pieces_that_peers_share() -> None:
    endpoint, (worker, *clients) = new_endpoint(3)
    for client in clients:
        endpoint.received(client, SubmitJob(b"f", b"u", b"").encode() * 2, 0.0)
    handle = bytes(pending(endpoint)[0][1])[12:].partition(b"\0")[0]
    endpoint.received(worker, CanDo(b"f").encode() + GrabJob().encode(), 0.0)
    pending(endpoint)
    endpoint.received(worker, WorkData(handle, bytes(BIG)).encode(), 0.0)
    outputs: dict[PeerId, list[bytes | memoryview]] = {client: [] for client in clients}
    for peer, data in pending(endpoint):
        outputs[peer].append(data)
    one, other = outputs.values()
    assert b"".join(one) == b"".join(other) == WorkData(handle, bytes(BIG)).encode(RESPONSE) * 2
    assert len({id(piece) for piece in (*one, *other) if len(piece) >= BIG}) == 1


def test_output_for_a_peer_that_has_gone_is_dropped() -> None:
    endpoint, (peer, other) = new_endpoint(2)
    endpoint.received(peer, EchoReq(b"x").encode(), 0.0)
    endpoint.received(other, CanDo(b"g").encode() + EchoReq(b"y").encode(), 0.0)
    endpoint.lost(peer, 0.0)
    assert pending(endpoint) == [(other, EchoRes(b"y").encode())]
