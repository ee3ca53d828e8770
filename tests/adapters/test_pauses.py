"""How clients and workers of both packages take failures: what it means for the next attempt, and what they log."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from gear_sync import TLS
from gearproto import ConnectionLost, JobNotSent
from gearproto.standing import Failure, Standing
from tests.harness.certificates import authority
from tests.harness.hostile import HostileServer, Peer
from tests.harness.idioms import AnyWorker, Idiom, in_thread, make_client, make_worker, until, working
from tests.harness.network import Connector
from tests.harness.servers import OurServer

pytestmark = pytest.mark.anyio

GOOD = authority("good")
PAUSES = (0.001, 0.002)


@asynccontextmanager
async def running(worker: AnyWorker) -> AsyncIterator[None]:
    """Run a worker for the time of a block, and close it."""
    worker.register("f", lambda _job: b"")
    async with working(worker):
        yield


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> list[Failure]:
    """How the failures of a test are taken."""
    kinds: list[Failure] = []
    failed = Standing.failed

    def record(
        standing: Standing, now: float, reason: str, kind: Failure = Failure.GONE, *rest: Any, **more: Any
    ) -> Any:
        kinds.append(kind)
        return failed(standing, now, reason, kind, *rest, **more)

    monkeypatch.setattr(Standing, "failed", record)
    return kinds


# What failures mean


def hangs_up(peer: Peer) -> None:
    peer.receive_some()


def refuses_as_tls_does(peer: Peer) -> None:
    peer.receive_some()
    peer.send(b"\x15\x03\x01\0\x02\x02\x46")  # an alert: protocol version


def says_nothing(peer: Peer) -> None:
    peer.wait_for_end()


@contextlib.contextmanager
def hostile(script: Callable[[Peer], None]) -> Iterator[Any]:
    with HostileServer(then=script) as server:
        yield server.address


@contextlib.contextmanager
def ours(**options: Any) -> Iterator[Any]:
    server = OurServer(**options)
    try:
        yield server.address
    finally:
        server.close()


@contextlib.contextmanager
def nobody() -> Iterator[Any]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


TRUSTING = TLS(ca=GOOD.ca, check_host=False)
FAILURES: dict[str, tuple[Callable[[], Any], TLS | None, Failure]] = {
    "nobody is there": (nobody, None, Failure.GONE),
    "it hangs up": (lambda: hostile(hangs_up), None, Failure.GONE),
    "it hangs up in the handshake": (lambda: hostile(hangs_up), TRUSTING, Failure.GONE),
    "it says nothing": (lambda: hostile(says_nothing), None, Failure.SILENT),
    "it says nothing in the handshake": (lambda: hostile(says_nothing), TRUSTING, Failure.SILENT),
    "it is not trusted": (
        lambda: ours(tls=GOOD.issue()),
        TLS(ca=authority("other").ca, check_host=False),
        Failure.REFUSED,
    ),
    "it does not trust": (
        lambda: ours(tls=GOOD.issue()),
        replace(GOOD.issue("client", expired=True), check_host=False),
        Failure.REFUSED,
    ),
    "it has no room": (lambda: ours(max_connections=0), None, Failure.REFUSED),
    "it wants TLS": (lambda: hostile(refuses_as_tls_does), None, Failure.REFUSED),
}


@pytest.mark.parametrize("what", FAILURES)
async def test_failure_is_taken_for_what_it_is(idiom: Idiom, what: str, kinds: list[Failure]) -> None:
    place, tls, kind = FAILURES[what]
    options: dict[str, Any] = {"tls": tls}
    if kind is Failure.SILENT:
        options |= {"connect_timeout": 0.05, "probe_interval": 0.05, "probe_timeout": 0.05}
    with place() as address:
        async with make_client(idiom, address, retry_pauses=PAUSES, **options) as client:
            with contextlib.suppress(ConnectionLost):
                await client.echo(b"x")
        assert kinds == [kind]
        async with running(make_worker(idiom, address, **options)):
            await until(lambda: len(kinds) > 2)
        assert set(kinds) == {kind}


# What is logged


@pytest.fixture
def server() -> Iterator[OurServer]:
    server = OurServer()
    yield server
    server.close()


def lines(caplog: pytest.LogCaptureFixture, server: OurServer) -> list[tuple[int, str]]:
    """Return what was logged of a server; the reason in a warning depends on who is quicker."""
    at = f"{server.address}: "
    texts = [(r.levelno, r.getMessage().removeprefix(at)) for r in caplog.records if r.getMessage().startswith(at)]
    return [(level, "away" if level == logging.WARNING else text) for level, text in texts]


@pytest.mark.parametrize("role", ["client", "worker"])
async def test_server_that_is_away_is_warned_of_once_until_it_is_back(
    idiom: Idiom, role: str, server: OurServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    connector = Connector(idiom)
    options: dict[str, Any] = {"connect": connector.connect, "retry_pauses": PAUSES}
    expected = [(logging.INFO, "connected"), (logging.WARNING, "away"), (logging.INFO, "connected again")]
    if role == "client":
        async with make_client(idiom, server.address, **options) as client:
            await client.submit("f")
            assert await client.echo(b"x") == b"x"
            connector.refuses = True
            await in_thread(server.restart)
            for _ in range(5):
                with pytest.raises(JobNotSent):
                    await client.submit("f")
            connector.refuses = False
            assert await client.echo(b"x") == b"x"
            assert lines(caplog, server) == expected
    else:
        async with running(make_worker(idiom, server.address, **options)):
            await until(lambda: lines(caplog, server))
            connector.refuses = True
            calls = connector.calls
            await in_thread(server.restart)
            await until(lambda: connector.calls > calls + 5)
            connector.refuses = False
            await until(lambda: len(lines(caplog, server)) > 2)
            assert lines(caplog, server) == expected


async def test_idle_client_that_is_hung_up_on_warns_of_nothing(
    idiom: Idiom, server: OurServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_client(idiom, server.address, retry_pauses=PAUSES) as client:
        for _ in range(3):
            assert await client.echo(b"x") == b"x"
            await in_thread(server.restart)
        assert await client.echo(b"x") == b"x"
    assert lines(caplog, server) == []


async def test_end_that_is_wanted_is_no_warning(
    idiom: Idiom, server: OurServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        running(make_worker(idiom, server.address, retry_pauses=PAUSES)),
        make_client(idiom, server.address) as client,
    ):
        await client.submit("unknown")
        await client.echo(b"x")
    assert lines(caplog, server) == []
