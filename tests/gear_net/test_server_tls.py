"""The job server with TLS, under each of its drivers: whom it serves, and whom it leaves outside."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

import gear_net.reactor
import gear_sync
from gear_net.handshakes import Handshakes
from gear_net.serving import open_reactor
from gear_net.tls import TLS, client_context, server_context
from gear_net.tunnel import Tunnel
from gearproto.packets import CanDo, EchoReq, EchoRes, GrabJob, JobAssign, SubmitJob, WorkComplete, WorkData
from gearproto.server import PeerId
from tests.harness.certificates import authority, copy_files, replace_files
from tests.harness.drivers import DRIVERS, Driver, ThreadedServer
from tests.harness.raw import RawConnection
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT, Call, nothing_left_open

MIB: Final = 1024 * 1024

GOOD, OTHER = authority("good"), authority("other")
MUTUAL = GOOD.issue()
ONE_SIDED = replace(MUTUAL, ca=None)
CLIENT = GOOD.issue("client", common_name="client 7")
ANYBODY = TLS(ca=GOOD.ca)

Start = Callable[..., ThreadedServer]


@pytest.fixture(params=DRIVERS)
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start servers with mutual TLS unless told otherwise; nothing of them may be left at the end."""
    driver: Driver = request.param
    with contextlib.ExitStack() as stack:
        if driver == "gear_sync":  # the others run on threads of a pool
            stack.enter_context(nothing_left_open())

        def start(**options: Any) -> ThreadedServer:
            return stack.enter_context(ThreadedServer(driver, **{"tls": MUTUAL, **options}))

        yield start


class TunnelledConnection(RawConnection):
    """A connection that may send in one thread while it receives in another, as no `ssl.SSLSocket` can."""

    def __init__(self, server: ThreadedServer) -> None:
        super().__init__(server)
        self.tunnel = Tunnel(client_context(CLIENT), server_hostname="localhost")
        self._lock = threading.Lock()
        while not self.tunnel.established:
            self.sock.sendall(self.tunnel.data_to_send())
            self.tunnel.receive(self.sock.recv(65536))
        self.sock.sendall(self.tunnel.data_to_send())

    def send_bytes(self, data: bytes) -> None:
        with self._lock:
            pieces = list(self.tunnel.encrypt(data))
        self.sock.sendall(b"".join(pieces))

    def _receive_more(self, have: bytes | bytearray) -> bytes:
        said = b""
        while not said:
            data = super()._receive_more(have)
            with self._lock:
                said = self.tunnel.receive(data)
        return said


@contextlib.contextmanager
def connected(server: ThreadedServer, tls: TLS = CLIENT) -> Iterator[RawConnection]:
    with RawConnection(server, client_context(tls)) as peer:
        yield peer


def run_job(client: RawConnection, worker: RawConnection, data: bytes = b"data") -> None:
    worker.send(CanDo(b"run"))
    handle = client.submit(SubmitJob(b"run", b"", data))
    assert worker.grab() == JobAssign(handle, b"run", data)
    worker.send(WorkComplete(handle, data[::-1]))
    client.expect(WorkComplete(handle, data[::-1]))


def plain(server: ThreadedServer) -> socket.socket:
    return socket.create_connection((server.host, server.port), LIMIT)


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(65536):
            data += more
    return data


# Renewed certificates


def shown_by(peer: RawConnection) -> str | None:
    """Return the common name of the server that a client has seen."""
    assert isinstance(peer.sock, ssl.SSLSocket)
    certificate: Any = peer.sock.getpeercert()
    subject = dict(pair for group in certificate["subject"] for pair in group)
    return subject.get("commonName")


def test_files_that_are_read_again_count_for_new_connections(start: Start, tmp_path: Path) -> None:
    files = copy_files(GOOD.issue(common_name="old"), tmp_path)
    server = start(tls=files)
    with connected(server) as before:
        replace_files(files, GOOD.issue(common_name="new"))
        with connected(server) as between:
            server.reload_tls()
            with connected(server) as after:
                assert [shown_by(peer) for peer in (before, between, after)] == ["old", "old", "new"]
                run_job(before, after)


def test_authority_that_is_replaced_lets_other_clients_in(start: Start, tmp_path: Path) -> None:
    files = copy_files(GOOD.issue(), tmp_path)
    stranger = replace(OTHER.issue("stranger"), ca=GOOD.ca)
    server = start(tls=files)
    refused(server, stranger)
    replace_files(files, replace(MUTUAL, ca=OTHER.ca))
    server.reload_tls()
    with connected(server, stranger) as peer:
        run_job(peer, peer)


def test_files_that_cannot_be_used_leave_the_server_as_it_was(start: Start, tmp_path: Path) -> None:
    files = copy_files(GOOD.issue(common_name="old"), tmp_path)
    server = start(tls=files)
    assert files.key is not None
    Path(files.key).write_bytes(b"")
    with pytest.raises(ValueError, match=f"the key {files.key} has no private key in PEM form"):
        server.reload_tls()
    with connected(server) as peer:
        assert shown_by(peer) == "old"


@pytest.mark.parametrize("tls", [None, server_context(MUTUAL)])
def test_server_without_files_has_nothing_to_read_again(start: Start, tls: ssl.SSLContext | None) -> None:
    server = start(tls=tls)
    with pytest.raises(ValueError, match="the server has no TLS files"):
        server.reload_tls()


# Those who are served


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("server_tls", "client_tls"), [(ONE_SIDED, ANYBODY), (MUTUAL, CLIENT)])
def test_jobs_run(start: Start, server_tls: TLS, client_tls: TLS, version: ssl.TLSVersion) -> None:
    server = start(tls=server_tls)
    context = client_context(client_tls)
    context.maximum_version = version
    with RawConnection(server, context) as client, RawConnection(server, context) as worker:
        run_job(client, worker)
        client.send_bytes(b"version\n")
        assert client.receive_line().startswith(b"OK ")


def test_context_of_the_users_own_is_used(start: Start) -> None:
    with connected(start(tls=server_context(MUTUAL))) as peer:
        run_job(peer, peer)


def test_big_payloads_pass_both_ways(start: Start) -> None:
    server = start()
    with connected(server) as client, connected(server) as worker, connected(server) as other:
        run_job(client, worker, os.urandom(4) * (2 * MIB - 100))
        run_job(other, other)


def test_many_packets_in_one_piece_are_all_answered(start: Start) -> None:
    with TunnelledConnection(start()) as peer:
        echoes = [(EchoReq(b"%d" % size * 100), EchoRes(b"%d" % size * 100)) for size in range(2000)]
        call = Call(lambda: peer.send(*(request for request, _answer in echoes)))
        peer.expect(*(answer for _request, answer in echoes))
        call.result()


def test_peer_that_reads_slowly_gets_everything(start: Start) -> None:
    server = start(pause_at=65536, max_unsent=MIB, max_output_size=65536)
    with TunnelledConnection(server) as slow, connected(server) as other:
        chunks = [b"%d" % number * 9000 for number in range(300)]
        call = Call(lambda: slow.send(*map(EchoReq, chunks)))
        poll_until(lambda: server.snapshot().unsent > 65536, "the answers do not fit into the socket")
        for chunk in chunks:
            run_job(other, other)
            slow.expect(EchoRes(chunk))
        call.result()


def test_peer_that_never_reads_is_closed(start: Start) -> None:
    server = start(max_unsent=MIB)
    with connected(server) as client, connected(server) as worker:
        handle = client.submit(SubmitJob(b"run", b"", b""))
        worker.send(CanDo(b"run"))
        worker.grab()
        while server.snapshot().jobs.peers == 2:
            worker.send(WorkData(handle, bytes(65536)))
            worker.expect_nothing()
        run_job(worker, worker)


def test_server_says_that_it_ends(start: Start) -> None:
    with connected(start(allow_shutdown=True)) as peer:
        peer.send_bytes(b"shutdown\n")
        assert peer.receive_line() == b"OK\r\n"
        assert peer.sock.recv(1) == b""  # an end without a word would be an error


def test_peer_that_has_broken_the_protocol_reads_why(start: Start) -> None:
    with connected(start()) as peer:
        peer.send_bytes(b"\0REQ\0\0\0\7\xff\xff\xff\xff")  # announces 4 GiB
        assert b"PACKET_TOO_LARGE" in peer.receive_raw()
        assert peer.sock.recv(1) == b""


def test_peer_that_has_said_its_last_gets_its_answers(start: Start) -> None:
    with TunnelledConnection(start()) as peer:
        peer.send(EchoReq(bytes(4 * MIB)))
        peer.sock.sendall(peer.tunnel.end())
        peer.expect(EchoRes(bytes(4 * MIB)))
        while not peer.tunnel.ended:
            assert peer.tunnel.receive(peer.sock.recv(65536)) == b""
        assert read_to_end(peer.sock) == b""


def test_many_at_once_are_all_served(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gear_net.reactor, "Handshakes", partial(Handshakes, steps_per_turn=2))
    server = start()

    def echo() -> None:
        with connected(server) as peer:
            peer.expect_nothing()

    for call in [Call(echo) for _ in range(30)]:
        call.result()


# Those who are not


def refused(server: ThreadedServer, tls: TLS) -> str:
    """Connect, and return why the server ends the connection."""
    with pytest.raises((ssl.SSLError, ConnectionError)) as caught, connected(server, tls) as peer:  # noqa: PT012
        peer.send(EchoReq(b""))
        peer.sock.recv(1)
    return str(caught.value)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def wait_for_warning(caplog: pytest.LogCaptureFixture, text: str, times: int = 1) -> None:
    poll_until(lambda: len(warnings(caplog)) >= times, "there is a line in the log")
    assert warnings(caplog) == [f"TLS with 127.0.0.1 failed: {text}"] * times


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        (ANYBODY, "it has shown no certificate"),
        (GOOD.issue("old", expired=True), "its certificate is refused: certificate has expired"),
        (
            replace(OTHER.issue("stranger"), ca=GOOD.ca),
            "its certificate is refused: unable to get local issuer certificate",
        ),
    ],
)
def test_client_without_a_good_certificate_is_refused(
    start: Start, caplog: pytest.LogCaptureFixture, tls: TLS, text: str
) -> None:
    server = start()
    with connected(server) as other:
        assert "alert" in refused(server, tls).lower()
        run_job(other, other)
        wait_for_warning(caplog, text)
        assert server.snapshot().jobs.peers == 1


@pytest.mark.parametrize("tls", [TLS(), TLS(ca=OTHER.ca)])
def test_client_that_does_not_trust_the_server_leaves(start: Start, caplog: pytest.LogCaptureFixture, tls: TLS) -> None:
    server = start(tls=ONE_SIDED)
    with pytest.raises(ssl.SSLCertVerificationError), connected(server, tls):
        pass
    wait_for_warning(caplog, "it does not trust our certificate")


@pytest.mark.parametrize("text", [b"status\n", EchoReq(b"x").encode()])
def test_plain_text_is_refused(start: Start, caplog: pytest.LogCaptureFixture, text: bytes) -> None:
    server = start()
    with connected(server) as other, plain(server) as sock:
        run_job(other, other)
        sock.sendall(text)
        read_to_end(sock)
        run_job(other, other)
    wait_for_warning(caplog, "it does not speak TLS")


def test_handshake_that_stalls_ends(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start(handshake_timeout=0.2)
    hello = Tunnel(client_context(CLIENT), server_hostname="localhost").data_to_send()
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(plain(server)) for _ in range(3)]
        for sock, size in zip(stalled, (0, 1, 100), strict=True):
            sock.sendall(hello[:size])
        other = stack.enter_context(connected(server))
        run_job(other, other)
        for sock in stalled:
            assert read_to_end(sock) == b""
        run_job(other, other)
    wait_for_warning(caplog, "no handshake within 0.2 s", times=3)


def test_very_many_handshakes_that_stall_keep_nobody_out_for_long(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gear_net.reactor, "Handshakes", partial(Handshakes, most=3, short_timeout=0.05, pause=0.005))
    server = start(handshake_timeout=1000)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(plain(server)) for _ in range(10)]
        for _ in range(2):
            with connected(server) as peer:
                run_job(peer, peer)
        for sock in silent[:7]:
            assert read_to_end(sock) == b""


def test_peer_that_comes_and_goes_is_no_warning(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start()
    for _ in range(3):
        plain(server).close()
    with connected(server) as peer:
        run_job(peer, peer)
    assert warnings(caplog) == []


def test_those_who_shake_hands_still_count_as_connections(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start(max_connections=2)
    with connected(server) as peer, plain(server):
        peer.expect_nothing()
        with plain(server) as third:
            assert read_to_end(third) == b""
        peer.expect_nothing()
    assert warnings(caplog) == ["refused a connection: limit 2"]


def test_garbage_in_an_open_connection_ends_that_one_alone(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start()
    with connected(server) as peer, connected(server) as other:
        run_job(peer, other)
        socket.socket.sendall(peer.sock, b"\x17\x03\x03\0\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            peer.sock.recv(1)
        peer.close()
        run_job(other, other)
        poll_until(lambda: server.snapshot().jobs.peers == 1, "it is closed")
    assert len(warnings(caplog)) == 1


def test_server_ends_in_the_middle_of_handshakes(start: Start) -> None:
    server = start()
    with connected(server) as other, plain(server) as silent, plain(server) as begun:
        begun.sendall(Tunnel(client_context(CLIENT), server_hostname="localhost").data_to_send())
        begun.recv(1)
        run_job(other, other)
        server.close()
        assert read_to_end(silent) == b""
        read_to_end(begun)


# Options, and what a program sees


@pytest.mark.parametrize("driver", [gear_sync.Server, open_reactor])
def test_wrong_files_leave_nothing_open(driver: Callable[..., Any]) -> None:
    with nothing_left_open(), pytest.raises(ValueError, match=r"the certificate /none\.pem cannot be read: No such"):
        driver("127.0.0.1", 0, tls=TLS("/none.pem", "/none.key"))


def test_certificate_of_a_peer_is_known() -> None:
    seen = []
    with contextlib.closing(open_reactor("127.0.0.1", 0, tls=MUTUAL)) as reactor:
        (address,) = reactor.addresses
        assert isinstance(address, tuple)

        def shake_hands() -> ssl.SSLSocket:
            sock = socket.create_connection(address, LIMIT)
            return client_context(CLIENT).wrap_socket(sock, server_hostname="localhost")

        call = Call(shake_hands)
        while not reactor.connections:
            reactor.turn(0.01)
        seen.append(reactor.peer_certificate(PeerId(1)))
        call.result().close()
        ours, theirs = socket.socketpair()
        reactor.adopt(theirs)
        seen.append(reactor.peer_certificate(PeerId(2)))
        ours.sendall(GrabJob().encode())  # in plain
        reactor.turn(LIMIT)
        while reactor.turn(0):
            pass
        assert ours.recv(100).startswith(b"\0RES")
        ours.close()
    with_tls, without = seen
    assert with_tls is not None
    assert with_tls.common_name == "client 7"
    assert without is None
