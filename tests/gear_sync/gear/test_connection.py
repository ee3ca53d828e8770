"""Connections of their own, without a client or worker."""

from __future__ import annotations

import contextlib
import errno
import socket
import time

import pytest

import gearproto
from gear_sync import gear
from gear_sync.gear import constants
from gearproto.packets import EchoReq, SetClientId
from tests.harness.gear_api import GearServer, Shop, replies, tls_files
from tests.harness.hostile import HostileServer, Peer
from tests.harness.ports import HeldPort
from tests.harness.raw import RawConnection
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT, Call

REQ, RES = constants.REQ, constants.RES
LOOKS = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


@pytest.fixture(params=["plain", "TLS"])
def connection(request: pytest.FixtureRequest, shop: Shop) -> gear.Connection:
    tls = tls_files() if request.param == "TLS" else ()
    server = shop.server(gear.Server(0, *tls))
    connection = shop.standing(gear.Connection("localhost", server.port, *tls))
    connection.connect()
    return connection


def test_packets_go_both_ways(connection: gear.Connection) -> None:
    data = bytes(range(256)) * 2000
    connection.sendPacket(gear.Packet(REQ, constants.ECHO_REQ, data))
    assert connection.readPacket() == gear.Packet(RES, constants.ECHO_RES, data)
    assert not connection.hasPendingData()


def test_packets_and_text_share_a_connection(connection: gear.Connection) -> None:
    request = gear.StatusAdminRequest()
    connection.admin_requests.append(request)
    echo = gear.Packet(REQ, constants.ECHO_REQ, b"x").toBinary()
    connection.sendRaw(echo + request.getCommand() + echo)
    answers = [connection.readPacket() for _ in range(3)]
    assert answers[1] is request
    assert request.response == b".\n"
    assert answers[0] == answers[2] == gear.Packet(RES, constants.ECHO_RES, b"x")


def test_admin_requests_and_echo_need_somebody_who_reads(connection: gear.Connection) -> None:
    with replies(connection):
        request = gear.VersionAdminRequest()
        connection.sendAdminRequest(request, timeout=LIMIT)
        assert request.response == f"OK {gearproto.__version__}\n".encode()
        assert connection.echo(b"data", timeout=LIMIT) == b"data"
        assert connection.echo("text", timeout=LIMIT) == b"text"
        assert connection.echo(timeout=LIMIT) != connection.echo(timeout=LIMIT)


def test_echo_waits_for_each_data_once(shop: Shop) -> None:
    def ignore(peer: Peer) -> None:
        peer.receive_until(EchoReq)
        peer.wait_for_end()

    with HostileServer(ignore) as server:
        connection = shop.standing(gear.Connection(*server.address))
        connection.connect()
        first = Call(lambda: connection.echo(b"x", timeout=LIMIT))
        poll_until(lambda: b"x" in connection.echo_conditions, "it waits")
        with pytest.raises(gear.InvalidDataError, match="is awaited already"):
            connection.echo(b"x")
        with pytest.raises(gear.TimeoutError, match="no answer to ECHO_REQ within 0 s"):
            connection.echo(b"y", timeout=0)
        connection.handleEchoRes(b"x")
        connection.handleEchoRes(b"nobody's")
        assert first.result() == b"x"
        connection.disconnect()


def test_the_end_of_the_stream_is_none(shop: Shop) -> None:
    with HostileServer(lambda peer: peer.send(b"\0RES\0\0\0\x06\0\0\0\0\0RES")) as server:
        connection = shop.standing(gear.Connection(*server.address))
        connection.connect()
        assert connection.readPacket() == gear.Packet(RES, constants.NOOP, b"")
        assert connection.readPacket() is None
        assert connection.hasPendingData()


def test_nonsense_is_an_error(shop: Shop) -> None:
    for nonsense in (b"\0XXX\0\0\0\x06\0\0\0\0", b"text that nobody asked for\n"):
        with HostileServer(lambda peer, data=nonsense: peer.send(data)) as server:  # type: ignore[misc]
            connection = shop.standing(gear.Connection(*server.address))
            connection.connect()
            with pytest.raises(gearproto.RemoteProtocolError):
                connection.readPacket()


def test_unknown_packet_types_are_packets(shop: Shop) -> None:
    with HostileServer(lambda peer: peer.send(b"\0REQ\0\0\0\x65\0\0\0\x01x")) as server:
        connection = shop.standing(gear.Connection(*server.address))
        connection.connect()
        assert connection.readPacket() == gear.Packet(REQ, 101, b"x")


def test_a_new_connection_is_down(connection: gear.Connection) -> None:
    new = gear.Connection("localhost", "4730", client_id="me", keepalive=True)
    assert (new.host, new.port, new.conn, new.connected, new.connect_time) == ("localhost", "4730", None, False, None)
    assert (new.state, new.use_ssl, new.options, len(new.related_jobs)) == ("INIT", False, set(), 0)
    assert repr(new) == f"<gear.Connection 0x{id(new):x} host: localhost port: 4730>"
    with pytest.raises(gear.DisconnectError):
        new.sendPacket(gear.Packet(REQ, constants.NOOP, b""))
    new.disconnect()


def test_states_have_a_time() -> None:
    new = gear.Connection("localhost", 1)
    before = time.time()
    new.changeState("SLEEP")
    assert (new.state, new.state_time >= before) == ("SLEEP", True)


def test_reconnecting_forgets(connection: gear.Connection) -> None:
    connection.related_jobs[b"H"] = job = gear.Job("f", b"")
    connection.handleOptionRes(b"exceptions")
    session = connection.session
    assert connection.options == {b"exceptions"}
    connection.reconnect()
    assert (len(connection.related_jobs), connection.options, connection.connected) == (0, set(), True)
    assert connection.session is not session
    assert not job.complete
    connection.sendPacket(gear.Packet(REQ, constants.ECHO_REQ, b"x"))
    assert connection.readPacket() == gear.Packet(RES, constants.ECHO_RES, b"x")


def test_what_cannot_be_connected_to(shop: Shop) -> None:
    with HeldPort() as absent, pytest.raises(gear.ConnectionError, match="refused") as caught:
        gear.Connection(*absent.address).connect()
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(socket.gaierror):
        gear.Connection("host.invalid", 1).connect()


def test_keepalive_is_set_where_it_is_asked_for(shop: Shop, server: gear.Server) -> None:
    asked = gear.Connection("localhost", server.port, keepalive=True, tcp_keepidle=11, tcp_keepintvl=12, tcp_keepcnt=3)
    for connection, on in ((asked, 1), (gear.Connection("localhost", server.port), 0)):
        shop.standing(connection).connect()
        assert connection.conn is not None
        assert connection.conn.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == on
    assert asked.conn is not None
    assert [asked.conn.getsockopt(socket.IPPROTO_TCP, option) for option in LOOKS] == [11, 12, 3]


def test_disconnecting_ends_waiting_for_a_packet(connection: gear.Connection) -> None:
    reading = Call(connection.readPacket)
    connection.disconnect()
    with contextlib.suppress(gear.DisconnectError):  # it may not have begun
        assert reading.result() is None


def test_a_finished_connection_stays_closed(server: gear.Server) -> None:
    connection = gear.Connection("localhost", server.port)
    connection.finish("enough")
    with pytest.raises(gear.ConnectionError, match="connecting was stopped"):
        connection.connect()


def test_a_connection_that_does_not_block(shop: Shop, server: gear.Server) -> None:
    connection = gear.NonBlockingConnection("localhost", server.port)
    assert connection.send_queue == []
    shop.standing(connection).connect()
    with pytest.raises(gear.RetryIOError):
        connection.readPacket()
    connection.sendPacket(gear.Packet(REQ, constants.ECHO_REQ, b"x"))
    assert connection.session is not None
    assert connection.session.wait_readable(LIMIT)
    assert connection.readPacket() == gear.Packet(RES, constants.ECHO_RES, b"x")


def test_what_cannot_be_sent_at_once_is_queued(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = gear.NonBlockingConnection(*listener.getsockname())
        shop.standing(connection).connect()
        peer, _address = listener.accept()
        data = bytes(2**24)
        connection.sendRaw(data)
        connection.sendRaw(b"more")
        assert connection.send_queue[-1] == b"more"
        received = 0
        while received < len(data) + 4:
            received += len(peer.recv(2**20))
            connection.sendQueuedData()
        assert connection.send_queue == []
        peer.close()


def test_a_servers_end_of_a_connection(shop: Shop) -> None:
    ours, theirs = socket.socketpair()
    connection = gear.ServerConnection(("host", 5, 0, 0), ours, False, "server")
    shop.standing(connection)
    theirs.sendall(b"status\r\n\0REQ\0\0\0\x16\0\0\0\x02me")
    request = connection.readPacket()
    assert isinstance(request, gear.ServerAdminRequest)
    assert (request.command, request.connection) == (b"status\r", connection)
    assert connection.readPacket() == gear.Packet(REQ, constants.SET_CLIENT_ID, b"me")
    with pytest.raises(gear.RetryIOError):
        connection.readPacket()
    assert (connection.host, connection.port, connection.client_id, connection.ssl_subject) == ("host", 5, None, None)
    assert (connection.functions, connection.state) == (set(), "INIT")
    assert repr(connection) == f"<gear.ServerConnection 0x{id(connection):x} name: None host: host port: 5>"
    theirs.close()
    assert connection.readPacket() is None


def test_a_server_shows_its_peers(server: gear.Server) -> None:
    with RawConnection(GearServer(server)) as raw:
        raw.send(SetClientId(b"me"))
        raw.expect_nothing()
        (connection,) = server.active_connections
        assert (connection.client_id, connection.port) == (b"me", raw.sock.getsockname()[1])
        assert connection.host in ("127.0.0.1", "::ffff:127.0.0.1")
        connection.sendPacket(gear.Packet(RES, constants.NOOP, b""))
        assert raw.receive_raw() == gear.Packet(RES, constants.NOOP, b"").toBinary()
        connection.disconnect()
        raw.expect_closed()
    poll_until(lambda: server.active_connections == [], "it is gone")
    with pytest.raises(gear.DisconnectError, match="the peer is gone"):
        connection.sendPacket(gear.Packet(RES, constants.NOOP, b""))


def test_programs_may_bring_something_that_only_looks_like_a_socket() -> None:
    class Scripted(socket.socket):
        """A socket that receives what a test says, and tells by the number alone that there is nothing."""

        def recv(self, *_arguments: object) -> bytes:
            if script:
                return script.pop(0)
            nothing = OSError("nothing yet")
            nothing.errno = errno.EAGAIN
            raise nothing

    script = [b"status", b"\n"]
    connection = gear.ServerConnection(("host", 5), Scripted(), False, "server")
    request = connection.readPacket()
    assert isinstance(request, gear.ServerAdminRequest)
    assert request.command == b"status"
    with pytest.raises(gear.RetryIOError):
        connection.readPacket()
    connection.disconnect()
