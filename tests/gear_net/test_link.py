"""`gear_net.link`: bytes between a socket and a connection, and what the end of either means for the other."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
from collections.abc import Iterator

import pytest

from gear_net.link import Link
from gearproto import ClientConnection, Completed, Lost, NotSent
from gearproto.event import Event
from gearproto.events import ConnectionClosed, Echoed, JobEnded, JobQueued
from gearproto.packets import EchoReq, EchoRes, JobCreated, SubmitJob, WorkComplete
from tests.harness.hostile import Peer
from tests.harness.threads import Call, nothing_left_open

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
BIG = 8 * 1024 * 1024  # more than a socket takes at once


class Site:
    """A link with a client's connection, and the other end of its socket."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair()
        ours.setblocking(False)
        self.peer = Peer(self.sock)
        self.conn = ClientConnection()
        self.events: list[Event] = []
        self.link = Link(ours, self.conn, self.events.append)

    def ended(self) -> list[object]:
        """Return the outcomes so far."""
        return [event.outcome for event in self.events if isinstance(event, JobEnded)]

    def close(self) -> None:
        self.link.close("the test ends")
        self.sock.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with nothing_left_open(), contextlib.closing(Site()) as site:
        yield site


def test_settle_sends_what_is_queued(site: Site) -> None:
    site.conn.echo(b"one")
    site.conn.echo(b"two")
    site.link.settle()
    assert [site.peer.receive(), site.peer.receive()] == [EchoReq(b"one"), EchoReq(b"two")]
    assert not site.link.sending
    assert site.link.wants == READ


def test_events_are_handed_out_in_their_order(site: Site) -> None:
    one, two = site.conn.echo(b"one"), site.conn.echo(b"two")
    site.link.settle()
    site.peer.send(EchoRes(b"one"), EchoRes(b"two"))
    site.link.on_ready(READ)
    assert site.events == [Echoed(one, b"one"), Echoed(two, b"two")]


def test_half_a_packet_waits_for_its_rest(site: Site) -> None:
    request = site.conn.echo(b"data")
    site.link.settle()
    answer = EchoRes(b"data").encode(b"\0RES")
    for position in range(len(answer)):
        assert site.events == []
        site.peer.send(answer[position : position + 1])
        site.link.on_ready(READ)
    assert site.events == [Echoed(request, b"data")]


def test_readiness_without_data_changes_nothing(site: Site) -> None:
    site.link.on_ready(READ | WRITE)
    assert not site.link.closed
    assert site.events == []


def test_full_socket_leaves_the_rest_for_later(site: Site) -> None:
    site.conn.submit_job(b"f", b"w" * BIG)
    site.link.settle()
    assert site.link.sending
    assert site.link.wants == READ | WRITE
    reading = Call(lambda: site.peer.receive_until(SubmitJob))
    while site.link.sending:
        with selectors.DefaultSelector() as selector:
            selector.register(site.link.sock, WRITE)
            assert selector.select(20)
        site.link.on_ready(WRITE)
    assert reading.result() == SubmitJob(b"f", b"", b"w" * BIG)
    assert site.link.wants == READ


def test_answers_are_read_while_output_waits(site: Site) -> None:
    request = site.conn.echo(b"first")
    site.conn.submit_job(b"f", b"w" * BIG)
    site.link.settle()
    site.peer.send(EchoRes(b"first"))
    site.link.on_ready(READ)
    assert site.link.sending
    assert site.events == [Echoed(request, b"first")]


def test_submission_that_has_begun_to_leave_is_lost_and_the_next_is_not_sent(site: Site) -> None:
    site.conn.submit_job(b"f", b"w" * BIG)
    site.conn.submit_job(b"f", b"behind it")
    site.link.settle()
    site.conn.submit_job(b"f", b"queued later")
    site.link.close("enough")
    assert site.ended() == [Lost("enough"), NotSent("enough"), NotSent("enough")]
    assert site.events[-1] == ConnectionClosed("enough")


def test_end_of_the_peer_tells_lost_from_not_sent_too(site: Site) -> None:
    site.conn.submit_job(b"f", b"w" * BIG)
    site.conn.submit_job(b"f", b"behind it")
    site.link.settle()
    site.sock.shutdown(socket.SHUT_WR)
    site.link.on_ready(READ)
    assert [type(outcome) for outcome in site.ended()] == [Lost, NotSent]
    assert site.link.closed


def test_peer_that_is_gone_before_anything_was_sent_is_not_sent(site: Site) -> None:
    site.sock.close()
    site.conn.submit_job(b"f", b"w")
    site.link.settle()
    assert site.ended() == [NotSent("Broken pipe")]
    assert site.link.closed


def test_results_that_came_before_the_end_are_read_when_sending_fails(site: Site) -> None:
    site.conn.submit_job(b"f", b"w")
    site.link.settle()
    site.peer.receive_until(SubmitJob)
    site.peer.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"r"))
    site.sock.close()
    site.conn.submit_job(b"f", b"too late")
    site.link.settle()
    assert site.ended() == [Completed(b"r"), NotSent("Broken pipe")]


def test_reset_is_told_in_the_system_s_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname(), 20)
        sock.setblocking(False)
        peer, _address = listener.accept()
        events: list[Event] = []
        conn = ClientConnection()
        link = Link(sock, conn, events.append)
        conn.submit_job(b"f", b"w")
        link.settle()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with selectors.DefaultSelector() as selector:
            selector.register(link.sock, READ)
            assert selector.select(20)
        link.on_ready(READ)
    reason = "Connection reset by peer"
    assert events[-1] == ConnectionClosed(reason)
    assert isinstance(events[0], JobEnded)
    assert events[0].outcome == Lost(reason)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0RES\0\0\0\x08\0\0\0\x05H:1", "the server closed the connection 15 bytes into a message"),
        (b"half a line", "the server closed the connection 11 bytes into a message"),
        (b"", "the server closed the connection"),
    ],
)
def test_end_within_a_message_says_so(site: Site, data: bytes, reason: str) -> None:
    site.sock.sendall(data)
    site.sock.shutdown(socket.SHUT_WR)
    site.link.on_ready(READ)
    if not site.link.closed:  # the data and the end come apart
        site.link.on_ready(READ)
    (closed,) = site.events
    assert isinstance(closed, ConnectionClosed)
    assert closed.reason.endswith(reason)


def test_cut_is_noticed_at_both_ends(site: Site) -> None:
    site.conn.submit_job(b"f", b"w")
    site.link.settle()
    site.link.cut()
    site.peer.receive_until(SubmitJob)
    assert site.sock.recv(1) == b""
    assert not site.link.closed
    site.link.on_ready(READ)
    assert site.link.closed
    assert [type(outcome) for outcome in site.ended()] == [Lost]
    site.link.cut()  # of a closed link, does nothing


def test_close_can_be_called_twice_and_only_the_first_reason_counts(site: Site) -> None:
    site.link.close("first")
    site.link.close("second")
    assert site.events == [ConnectionClosed("first")]
    assert site.link.sock.fileno() == -1
    site.link.on_ready(READ | WRITE)
    site.link.settle()
    assert site.events == [ConnectionClosed("first")]


def test_result_with_its_reader_in_the_same_batch_as_the_end(site: Site) -> None:
    site.conn.submit_job(b"f", b"w")
    site.link.settle()
    site.peer.receive_until(SubmitJob)
    site.peer.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"r"), b"\0XXX\0\0\0\0\0\0\0\0")
    site.link.on_ready(READ)
    assert [type(event) for event in site.events] == [JobQueued, JobEnded, ConnectionClosed]
    assert site.ended() == [Completed(b"r")]


# Connecting
