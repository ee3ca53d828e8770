"""What clients and workers of both packages are told where one side speaks TLS, and the other does not."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gear_net.tls import client_context
from gear_sync import TLS, JobRequest
from gearproto import ConnectionLost, JobLost, JobNotSent
from tests.harness.certificates import authority, copy_files, replace_files
from tests.harness.hostile import HostileServer, Peer
from tests.harness.idioms import Idiom, in_thread, make_client, make_worker, until, working
from tests.harness.servers import Gearmand, OurServer, RunningServer
from tests.harness.threads import LIMIT

pytestmark = pytest.mark.anyio

GOOD = authority("good")
OURS = TLS(ca=GOOD.ca)
MAY_NOT = "it has closed the connection in the handshake, and may not speak TLS|it does not speak TLS"
SEEMS = "the server seems to speak TLS, which this connection does not"


@asynccontextmanager
async def worker_of(idiom: Idiom, address: object, **options: Any) -> AsyncIterator[None]:
    """Run a worker for the time of a block."""
    worker = make_worker(idiom, address, **options)
    worker.register("f", lambda _job: b"")
    async with working(worker):
        yield


def takes_all(peer: Peer) -> None:
    peer.wait_for_end()


def hangs_up(peer: Peer) -> None:
    peer.receive_some()


def resets(peer: Peer) -> None:
    peer.receive_some()
    peer.reset()


def refuses_as_tls_does(peer: Peer) -> None:
    peer.receive_some()
    peer.send(b"\x15\x03\x01\0\x02\x02\x46")  # an alert: protocol version


async def test_renewed_files_are_used_from_the_next_connection_on(idiom: Idiom, tmp_path: Path) -> None:
    server = await in_thread(lambda: OurServer(tls=GOOD.issue()))
    files = copy_files(
        replace(GOOD.issue("client", expired=True), ca=authority("other").ca, check_host=False), tmp_path
    )
    try:
        options: dict[str, Any] = {"tls": files, "retry_pauses": (0.001, 0.005)}
        async with make_client(idiom, server.address, **options) as client, worker_of(idiom, server.address, **options):
            with pytest.raises(ConnectionLost, match="its certificate is refused"):
                await client.echo(b"x")
            replace_files(files, GOOD.issue("client", expired=True))
            with pytest.raises(ConnectionLost, match="our certificate has expired"):
                await client.echo(b"x")
            replace_files(files, GOOD.issue("client"))
            assert await client.echo(b"x") == b"x"

            async def worker_is_there() -> bool:
                return any(worker.functions for worker in await client.admin.workers())

            await until(worker_is_there)
    finally:
        await in_thread(server.close)


VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def speaking(version: str, tls: TLS) -> ssl.SSLContext:
    """Return a client's context for one version of TLS."""
    context = client_context(replace(tls, check_host=False))
    context.maximum_version = context.minimum_version = VERSIONS[version]
    return context


@pytest.fixture
async def refusing(anyio_backend: str) -> AsyncIterator[OurServer]:
    """A server that wants a certificate of its clients."""
    server = await in_thread(lambda: OurServer(tls=GOOD.issue()))
    yield server
    await in_thread(server.close)


@pytest.mark.parametrize("version", VERSIONS)
async def test_jobs_for_a_server_that_refuses_a_certificate_go_to_the_next_server(
    idiom: Idiom, version: str, refusing: OurServer
) -> None:
    tls = speaking(version, OURS)
    taking = await in_thread(lambda: OurServer(tls=replace(GOOD.issue(), ca=None)))
    try:
        options: dict[str, Any] = {"tls": tls, "retry_pauses": (0.001, 0.002)}
        async with worker_of(idiom, taking.address, **options):
            for _ in range(5):  # each finds the server anew
                async with make_client(idiom, [refusing.address, taking.address], **options) as client:
                    jobs: Any = await client.submit_many([JobRequest("f")] * 4)
                    assert [await job.result(LIMIT) for job in jobs] == [b""] * 4
                    assert isinstance(await client.submit_background("f"), bytes)
    finally:
        await in_thread(taking.close)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("tls", "why"),
    [
        (OURS, "it wants a certificate of ours|it has closed|sslv3 alert handshake failure"),
        (replace(authority("other").issue("client"), ca=GOOD.ca), "it does not trust our certificate"),
        (GOOD.issue("client", expired=True), "our certificate has expired for it"),
    ],
)
async def test_job_that_only_a_server_could_take_that_refuses_a_certificate_is_not_sent(
    idiom: Idiom, version: str, refusing: OurServer, tls: TLS, why: str
) -> None:
    async with make_client(idiom, refusing.address, tls=speaking(version, tls)) as client:
        for workload in (b"", b"x" * 5_000_000):
            with pytest.raises(JobNotSent, match=why):
                await (await client.submit("f", workload)).result(LIMIT)
        with pytest.raises(JobNotSent, match=why):
            await client.submit_background("f")


@pytest.mark.parametrize("start", [OurServer, pytest.param(Gearmand, marks=pytest.mark.interop("gearmand"))])
async def test_server_that_does_not_speak_tls_is_told_as_such(
    idiom: Idiom, start: Callable[[], RunningServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = await in_thread(start)
    try:
        address = ("localhost", server.port)
        at = rf"localhost:{server.port}: TLS: ({MAY_NOT})"
        async with make_client(idiom, address, tls=OURS) as client:
            with pytest.raises(JobNotSent, match=f"no server could be reached: {at}"):
                await client.submit("f")
            with pytest.raises(ConnectionLost, match=at):
                await client.echo(b"")
        async with worker_of(idiom, address, tls=OURS):
            await until(lambda: "TLS" in caplog.text)
        message = next(message for message in caplog.messages if message.startswith(f"localhost:{server.port}"))
        assert message.startswith(f"localhost:{server.port}: TLS: it ")
        assert "not speak TLS" in message
    finally:
        await in_thread(server.close)


@pytest.mark.parametrize("script", [hangs_up, resets])
async def test_handshake_that_is_cut_may_have_met_no_tls(idiom: Idiom, script: Callable[[Peer], None]) -> None:
    with HostileServer(script) as server:
        async with make_client(idiom, ("localhost", server.address[1]), tls=OURS) as client:
            with pytest.raises(JobNotSent, match=f"TLS: ({MAY_NOT})"):
                await client.submit("f")


async def test_handshake_that_is_not_answered_may_have_met_no_tls(idiom: Idiom) -> None:
    with HostileServer(takes_all) as server:
        async with make_client(idiom, ("localhost", server.address[1]), tls=OURS, connect_timeout=0.05) as client:
            with pytest.raises(JobNotSent, match=r"TLS: no answer within 0\.05 s: it may not speak TLS"):
                await client.submit("f")


async def test_server_that_speaks_tls_is_told_as_such(idiom: Idiom, caplog: pytest.LogCaptureFixture) -> None:
    server = await in_thread(lambda: OurServer(tls=GOOD.issue()))
    try:
        async with make_client(idiom, server.address, exceptions=False) as client:
            with pytest.raises(ConnectionLost, match=f"{server.address}: {SEEMS}"):
                await client.echo(b"")
            job = await client.submit("f")
            with pytest.raises(JobNotSent, match=SEEMS):
                await job.result(LIMIT)
        async with worker_of(idiom, server.address):
            await until(lambda: any(message.startswith(f"{server.address}: ") for message in caplog.messages))
        assert any(SEEMS in message for message in caplog.messages)
    finally:
        await in_thread(server.close)


async def test_job_that_meets_an_alert_of_tls_was_not_sent(idiom: Idiom) -> None:
    with HostileServer(refuses_as_tls_does) as server:
        async with make_client(idiom, server.address, exceptions=False) as client:
            job = await client.submit("f")
            with pytest.raises(JobNotSent, match=SEEMS):
                await job.result(LIMIT)


@pytest.mark.parametrize("script", [hangs_up, resets])
async def test_server_that_just_closes_is_not_said_to_speak_tls(idiom: Idiom, script: Callable[[Peer], None]) -> None:
    with HostileServer(script) as server:
        async with make_client(idiom, server.address, exceptions=False) as client:
            job = await client.submit("f")
            with pytest.raises(JobLost) as caught:
                await job.result(LIMIT)
    assert "TLS" not in str(caught.value)
