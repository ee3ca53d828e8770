"""`gear_net.connecting`: a connection is opened without blocking, each address of a server in its turn, and in time."""

from __future__ import annotations

import errno
import selectors
import socket
import time
from typing import Any

import pytest

from gear_net.connecting import Dial, resolve
from gear_net.tls import ClientTLS
from gear_net.tunnel import TLSSocket
from gear_sync import TLS, Server
from gearproto.addresses import Address
from tests.harness.certificates import authority
from tests.harness.ports import HeldPort
from tests.harness.servers import full_listener
from tests.harness.threads import LIMIT, nothing_left_open

NAME = Address("name", 1)


def dialed(endpoints: list[tuple[int, Any]], tls: ClientTLS | None = None) -> Dial:
    """Dial until there is a socket or an error."""
    return finished(Dial(NAME, endpoints, LIMIT, tls))


def finished(dial: Dial) -> Dial:
    """Go on until there is a socket or an error."""
    until = time.monotonic() + LIMIT
    while not dial.done:
        assert time.monotonic() < until
        with selectors.DefaultSelector() as selector:
            assert dial.trying is not None
            selector.register(dial.trying, dial.wants)
            ready = selector.select(max(0.0, dial.deadline - time.monotonic()))
        dial.advance(time.monotonic(), ready[0][1] if ready else 0)
    return dial


def connected(dial: Dial) -> socket.socket:
    """Return the socket that has been connected, without its TLS."""
    assert dial.sock is not None
    return dial.sock.sock if isinstance(dial.sock, TLSSocket) else dial.sock


def inet(*listeners: socket.socket) -> list[tuple[int, Any]]:
    return [(socket.AF_INET, listener.getsockname()) for listener in listeners]


def refusing(*ports: HeldPort) -> list[tuple[int, Any]]:
    return [(socket.AF_INET, port.address) for port in ports]


def test_connected_socket_does_not_block_and_sends_small_packets_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, connected(dialed(inet(listener))) as sock:
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_name_is_resolved_to_all_its_addresses_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (family, socket.SOCK_STREAM, 6, "", where)
        for family, where in [(socket.AF_INET6, ("::1", 1)), (socket.AF_INET, ("127.0.0.1", 1))] * 2
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: found)
    assert resolve(NAME) == [(socket.AF_INET6, ("::1", 1)), (socket.AF_INET, ("127.0.0.1", 1))]


def test_each_address_is_tried() -> None:
    with nothing_left_open(), HeldPort() as absent, socket.create_server(("127.0.0.1", 0)) as listener:
        dial = dialed([*refusing(absent), *inet(listener)])
        assert connected(dial).getpeername() == listener.getsockname()
        dial.close()


def test_address_that_does_not_answer_leaves_time_for_the_next() -> None:
    with full_listener() as silent, socket.create_server(("127.0.0.1", 0)) as listener:
        dial = Dial(NAME, [*inet(silent), *inet(listener)], LIMIT, None)
        dial.advance(dial.deadline, 0)
        assert connected(finished(dial)).getpeername() == listener.getsockname()
        dial.close()


def test_address_that_does_not_shake_hands_leaves_time_for_the_next() -> None:
    ours = authority("ours")
    with (
        nothing_left_open(),
        socket.create_server(("127.0.0.1", 0)) as silent,
        Server("127.0.0.1", 0, tls=ours.issue()) as server,
    ):
        tls = ClientTLS(TLS(ca=ours.ca, check_host=False))
        dial = Dial(NAME, [*inet(silent), (socket.AF_INET, ("127.0.0.1", server.port))], LIMIT, tls)
        dial.advance(time.monotonic(), dial.wants)  # connected: it shakes hands now
        dial.advance(dial.deadline, 0)
        assert connected(finished(dial)).getpeername() == ("127.0.0.1", server.port)
        dial.close()


def test_last_reason_is_told_if_no_address_can_be_reached() -> None:
    with nothing_left_open(), HeldPort() as first, HeldPort() as second:
        dial = dialed(refusing(first, second))
        assert isinstance(dial.error, OSError)
        assert dial.error.errno == errno.ECONNREFUSED
        with full_listener() as silent:
            dial = finished(Dial(NAME, inet(silent), 0.01, None))
            assert isinstance(dial.error, TimeoutError)
            assert str(dial.error) == "no answer within 0.01 s"


def test_dial_that_is_given_up_leaves_nothing_open() -> None:
    with full_listener() as silent, nothing_left_open():
        dial = Dial(NAME, inet(silent), LIMIT, None)
        dial.close()
        dial.advance(time.monotonic(), dial.wants)
        assert not dial.done


def test_socket_that_cannot_be_set_up_is_an_error_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sock(socket.socket):
        def setsockopt(self, *arguments: object) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")  # macOS says so of a connection that has been reset

    with socket.create_server(("127.0.0.1", 0)) as listener, nothing_left_open():
        endpoints = inet(listener)
        monkeypatch.setattr(socket, "socket", Sock)
        error = dialed(endpoints).error
        assert isinstance(error, OSError)
        assert error.errno == errno.EINVAL
