"""The job server under each of its drivers: who is turned away, and how much of that is logged."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import pytest

from gearproto.packets import SubmitJobBg
from tests.harness.drivers import DRIVERS, Driver, ThreadedServer
from tests.harness.raw import RawConnection
from tests.harness.servers import poll_until

Start = Callable[..., ThreadedServer]

REQUEST = b"POST /jobs HTTP/1.1\r\nHost: localhost:4730\r\n\r\ncreate function forged\r\n"


@pytest.fixture(params=DRIVERS)
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    driver: Driver = request.param
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(ThreadedServer(driver, **options))


def test_http_request_ends_its_connection_with_one_log_line(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = start()
    with RawConnection(server) as other:
        other.expect_nothing()
        caplog.clear()
        with RawConnection(server) as peer:
            peer.send_bytes(REQUEST)
            peer.expect_closed()
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage() == "peer 2 (127.0.0.1): closed: HTTP request (POST)"
        assert other.ask_rows(b"status") == []


def test_http_request_behind_another_line_is_an_unknown_command(start: Start) -> None:
    with RawConnection(start()) as peer:
        assert peer.ask(b"version").startswith(b"OK ")
        assert peer.ask(b"GET / HTTP/1.1") == b"ERR UNKNOWN_COMMAND Unknown+server+commandGET\r\n"
        peer.expect_nothing()


@pytest.mark.parametrize("line", [b"shutdown", b"shutdown graceful"])
def test_shutdown_is_an_unknown_command_unless_it_is_allowed(start: Start, line: bytes) -> None:
    with RawConnection(start()) as admin:
        assert admin.ask(line) == b"ERR UNKNOWN_COMMAND Unknown+server+commandshutdown\r\n"
        admin.submit(SubmitJobBg(b"f", b"", b""))


@pytest.mark.parametrize("line", [b"shutdown", b"shutdown graceful"])
def test_shutdown_stops_a_server_that_allows_it(start: Start, line: bytes) -> None:
    server = start(allow_shutdown=True)
    with RawConnection(server) as admin:
        assert admin.ask(line) == b"OK\r\n"
        server.wait()


def test_refused_connections_are_logged_at_a_limited_rate(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    _check_rate(start(max_connections=1), b"", 100, "refused a connection: limit 1", caplog)


def test_peers_that_break_the_protocol_are_logged_at_a_limited_rate(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    _check_rate(start(), REQUEST, 100, "closed: HTTP request", caplog)


def _check_rate(server: ThreadedServer, data: bytes, count: int, line: str, caplog: pytest.LogCaptureFixture) -> None:
    """Have connections closed: few of them are logged, and good peers notice nothing."""
    with RawConnection(server) as good:
        good.expect_nothing()
        for _ in range(count):
            with RawConnection(server) as bad:
                bad.send_bytes(data)
                if data:
                    bad.expect_closed()
                else:
                    bad.expect_turned_away()
        good.expect_nothing()
    logged = [record for record in caplog.records if line in record.getMessage()]
    assert 0 < len(logged) < count / 2
    poll_until(lambda: server.snapshot().jobs.peers == 0, "all have gone")
