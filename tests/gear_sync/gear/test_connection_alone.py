"""A connection that no client or worker reads: it blocks, and needs little of a socket."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from gear_sync import gear
from gear_sync.gear import constants
from gear_sync.gear.opening import BlockingOpening
from tests.harness.gear_api import Shop
from tests.harness.servers import full_listener, poll_until
from tests.harness.threads import Call

REQ, RES = constants.REQ, constants.RES


@contextlib.contextmanager
def connected(shop: Shop) -> Iterator[tuple[gear.Connection, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = shop.standing(gear.Connection(*listener.getsockname()))
        connection.connect()
        peer, _address = listener.accept()
        with peer:
            yield connection, peer


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


class FakeSocket:
    """As little of a socket as `gear` needs."""

    made: ClassVar[list[Any]]
    answers: ClassVar[list[bytes]]
    refusals: ClassVar[int]

    def __init__(self, family: int, kind: int, protocol: int) -> None:
        self.sent = b""
        self.made.append(self)

    def connect(self, address: object) -> None:
        if len(self.made) <= self.refusals:
            raise ConnectionRefusedError("no")

    def send(self, data: bytes) -> int:
        piece = bytes(data[:7])
        self.sent += piece
        return len(piece)

    def recv(self, size: int) -> bytes:
        return self.answers.pop(0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeSocket]:
    class Fake(FakeSocket):
        made: ClassVar[list[Any]] = []
        answers: ClassVar[list[bytes]] = []
        refusals: ClassVar[int] = 0

    monkeypatch.setattr(socket, "socket", Fake)
    monkeypatch.setattr(socket, "socketpair", None)
    return Fake


def test_a_connection_needs_only_connect_recv_and_send(fake: type[FakeSocket]) -> None:
    answer = gear.Packet(RES, constants.ECHO_RES, b"hello").toBinary()
    fake.answers += [bytes(answer[:5]), bytes(answer[5:]) + b"OK 1", b".2\n", b""]
    connection = gear.Connection("localhost", 4730, keepalive=True)
    connection.connect()
    (sock,) = fake.made
    assert connection.connected
    assert fake.made == [connection.conn]
    packet = gear.Packet(REQ, constants.ECHO_REQ, b"hello")
    connection.sendPacket(packet)
    assert sock.sent == packet.toBinary()
    assert connection.readPacket() == gear.Packet(RES, constants.ECHO_RES, b"hello")
    request = gear.VersionAdminRequest()
    connection.admin_requests.append(request)
    assert connection.readPacket() is request
    assert request.response == b"OK 1.2\n"
    assert connection.readPacket() is None
    connection.disconnect()
    assert connection.conn is None


def test_a_connection_tries_each_address(fake: type[FakeSocket], monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 1, 0, 0))] * 2
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: found)
    connection = gear.Connection("localhost", 1)
    fake.refusals = 1
    connection.connect()
    assert fake.made[1:] == [connection.conn]
    fake.refusals = 9
    with pytest.raises(gear.ConnectionError, match="localhost:1: no"):
        connection.reconnect()


def test_a_connection_on_its_own_blocks(shop: Shop) -> None:
    with connected(shop) as (connection, _peer):
        assert connection.conn is not None
        assert connection.conn.gettimeout() is None
        assert connection.conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_sending_on_a_broken_connection_is_an_error(shop: Shop) -> None:
    with connected(shop) as (connection, peer):
        reset(peer)
        with contextlib.suppress(gear.DisconnectError):  # the system may take what it cannot send any more
            connection.sendRaw(b"x")
        with pytest.raises(gear.DisconnectError, match="sending failed"):
            connection.sendRaw(b"x")
        session = connection.session
        assert session is not None
        connection.disconnect()
        with pytest.raises(gear.DisconnectError, match="is down"):
            connection.sendRaw(b"x")
        with pytest.raises(gear.DisconnectError, match="is down"):
            session.enqueue(b"x")


def test_reading_from_a_broken_connection_is_an_error(shop: Shop) -> None:
    with connected(shop) as (connection, peer):
        reset(peer)
        with pytest.raises(ConnectionResetError):
            connection.readPacket()


def test_disconnecting_ends_sending_and_reading(shop: Shop) -> None:
    with connected(shop) as (connection, peer):
        sending, reading = Call(lambda: connection.sendRaw(bytes(2**26))), Call(connection.readPacket)
        peer.recv(1)
        connection.disconnect()
        with pytest.raises(gear.DisconnectError):
            sending.result()
        assert reading.result() is None


def test_requests_are_answered_when_somebody_reads(shop: Shop) -> None:
    with connected(shop) as (connection, peer):
        asking = Call(lambda: connection.sendAdminRequest(gear.VersionAdminRequest()))
        assert peer.recv(100) == b"version\n"
        peer.sendall(b"OK 1\n")
        answered = connection.readPacket()
        assert isinstance(answered, gear.AdminRequest)
        answered.setComplete()
        asking.result()
        assert answered.response == b"OK 1\n"


def test_disconnecting_ends_connecting(shop: Shop) -> None:
    with full_listener() as listener:
        connection = shop.standing(gear.Connection(*listener.getsockname()))
        connecting = Call(connection.connect)

        def ended() -> bool:
            connection.disconnect()
            return not connecting.running

        poll_until(lambda: isinstance(connection._opening, BlockingOpening), "it begins")
        poll_until(ended, "it has ended")
        with pytest.raises(gear.ConnectionError, match="connecting was stopped"):
            connecting.result()
