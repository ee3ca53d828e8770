"""What job servers do with their sockets: connections end, servers stop and restart, peers do not read."""

from __future__ import annotations

import socket

import pytest

from gearproto.packets import EchoReq, Error, GetStatus, StatusRes, SubmitJob, SubmitJobBg, WorkComplete, WorkData
from tests.harness.sites import Site, TcpSite

from .conftest import OURS, OURS_OVER_TCP, OVER_TCP, StartSite

OK = b"OK\r\n"


def test_half_a_packet_at_the_end_of_a_connection_does_nothing(site: Site) -> None:
    client, other = site.connect(), site.connect()
    client.send_bytes(SubmitJobBg(b"f", b"", b"w").encode()[:-1])
    client.end_sending()
    client.expect_closed()
    assert other.ask_rows(b"status") == []


@OVER_TCP
def test_server_forgets_jobs_when_it_restarts(site: TcpSite) -> None:
    site.connect().submit(SubmitJobBg(b"f", b"", b""))
    site.server.restart()
    assert site.connect().ask_rows(b"status") == []


@OURS_OVER_TCP
def test_handles_do_not_repeat_after_a_restart(site: TcpSite) -> None:
    before = site.connect().submit(SubmitJobBg(b"f", b"", b""))
    site.server.restart()
    client = site.connect()
    after = client.submit(SubmitJobBg(b"f", b"", b""))
    assert after != before
    client.send(GetStatus(before))
    client.expect(StatusRes(before, False, False, 0, 0))


@OURS
def test_shutdown_closes_everything(start: StartSite) -> None:
    site = start(allow_shutdown=True)
    admin, client = site.connect(), site.connect()
    client.submit(SubmitJobBg(b"f", b"", b""))
    assert admin.ask(b"shutdown") == OK
    admin.expect_closed()
    client.expect_closed()
    if isinstance(site, TcpSite):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((site.server.host, site.server.port), 10)


@OURS
def test_graceful_shutdown_waits_for_running_jobs_only(start: StartSite) -> None:
    site = start(allow_shutdown=True)
    client, worker = site.connect(), site.worker(b"f")
    running = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    client.submit(SubmitJob(b"f", b"", b""))
    assert site.connect().ask(b"shutdown graceful") == OK
    client.send(SubmitJob(b"f", b"", b""))
    assert client.receive(Error).code == b"QUEUE_ERROR"
    worker.expect_no_job()
    worker.send(WorkComplete(running, b"r"))
    client.expect(WorkComplete(running, b"r"))
    client.expect_closed()
    worker.expect_closed()


@OURS
def test_graceful_shutdown_without_running_jobs_ends_at_once(start: StartSite) -> None:
    client = start(allow_shutdown=True).connect()
    client.submit(SubmitJobBg(b"f", b"", b""))
    assert client.ask(b"shutdown graceful") == OK
    client.expect_closed()


@OURS
def test_connections_are_limited(start: StartSite) -> None:
    site = start(max_connections=2)
    site.connect().expect_nothing()
    site.connect().expect_turned_away()


@OURS
def test_peer_that_does_not_read_is_closed_and_others_go_on(start: StartSite) -> None:
    site = start(max_unsent=1 << 20)
    client, worker = site.connect(), site.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    worker.grab()
    admin = site.connect()
    piece = b"d" * (1 << 20)

    def closed() -> bool:
        worker.send(WorkData(handle, piece))
        worker.expect_nothing()
        return admin.ask_rows(b"show jobs") == [handle + b"\t0\t1\t0\n"]

    site.until(closed, "the client that does not read has been closed")


@OURS_OVER_TCP
def test_requests_of_a_peer_that_does_not_read_wait_and_are_answered_later(site: TcpSite) -> None:
    peer, other = site.connect(), site.connect()
    peer.sock.setblocking(False)
    request_bytes = memoryview(EchoReq(b"e" * 100_000).encode() * 400)  # 40 MB, far over what sockets hold
    sent = blocked = 0
    while blocked < 50:  # each round trip of the other is a turn in which the server could have read on
        try:
            sent += peer.sock.send(request_bytes[sent:])
            blocked = 0
        except BlockingIOError:
            blocked += 1
            other.expect_nothing()
        assert sent < len(request_bytes)
    peer.sock.settimeout(15)
    whole, begun = divmod(sent, 100_012)
    for _ in range(whole):
        assert len(peer.receive_raw()) == 100_012
    if begun:
        peer.send_bytes(bytes(request_bytes[sent : (whole + 1) * 100_012]))
        assert len(peer.receive_raw()) == 100_012
    peer.expect_nothing()
