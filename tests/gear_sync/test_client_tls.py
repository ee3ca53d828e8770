"""TLS of `gear_sync.Client` and `gear_sync.Worker`: who is served, and what the others are told."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gear_net.tls import client_context
from gear_sync import TLS, Client, Server, Worker
from gearproto import ConnectionLost, JobNotSent
from gearproto.addresses import Address
from tests.harness.certificates import authority
from tests.harness.hostile import HostileServer
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT, Call, nothing_left_open, working

GOOD, OTHER = authority("good"), authority("other")
MUTUAL = GOOD.issue()
ONE_SIDED = replace(MUTUAL, ca=None)
CLIENT = GOOD.issue("client", common_name="client 7")
ANYBODY = TLS(ca=GOOD.ca)


def port_of(server: Server) -> int:
    return int(server.port)


@pytest.mark.parametrize(
    ("server_tls", "tls"),
    [(ONE_SIDED, ANYBODY), (ONE_SIDED, CLIENT), (MUTUAL, CLIENT), (MUTUAL, client_context(CLIENT))],
)
@pytest.mark.parametrize("threads", [0, 2])
def test_client_and_worker_meet_over_tls(server_tls: TLS, tls: TLS | ssl.SSLContext, threads: int) -> None:
    with Server(port=0, tls=server_tls) as server:
        address = ("localhost", port_of(server))
        with Worker(address, tls=tls, threads=threads) as worker, Client(address, tls=tls) as client:
            worker.register("reverse", lambda job: job.workload[::-1])
            with working(worker):
                workload = bytes(range(256)) * 8192
                assert client.submit("reverse", workload).result(LIMIT) == workload[::-1]
                jobs = [client.submit("reverse", b"%d!" % number) for number in range(50)]
                assert [job.result(LIMIT) for job in jobs] == [(b"%d!" % number)[::-1] for number in range(50)]


def test_files_are_found_by_any_kind_of_path() -> None:
    tls = TLS(str(CLIENT.certificate), Path(str(CLIENT.key)), ca=str(GOOD.ca))
    with Server(port=0, tls=MUTUAL) as server, Client(("localhost", port_of(server)), tls=tls) as client:
        assert client.echo(b"x") == b"x"


WRONG: list[tuple[TLS, TLS, str, str]] = [
    (ONE_SIDED, ANYBODY, "127.0.0.1", "its certificate is refused: IP address mismatch"),
    (GOOD.issue("elsewhere"), CLIENT, "localhost", "its certificate is refused: Hostname mismatch"),
    (ONE_SIDED, TLS(ca=OTHER.ca), "localhost", "its certificate is refused: unable to get local issuer certificate"),
    (GOOD.issue(expired=True), CLIENT, "localhost", "its certificate is refused: certificate has expired"),
    (ONE_SIDED, TLS(), "localhost", "its certificate is refused: "),
]


@pytest.mark.parametrize(("server_tls", "tls", "host", "sentence"), WRONG)
def test_client_refuses_a_server_that_it_cannot_trust_and_says_why(
    server_tls: TLS, tls: TLS, host: str, sentence: str
) -> None:
    with (
        Server(port=0, tls=server_tls) as server,
        Client((host, port_of(server)), tls=tls, retry_pauses=(0.001, 0.001)) as client,
    ):
        expected = f"no server could be reached: {host}:{port_of(server)}: TLS: {sentence}"
        calls: list[Callable[[], object]] = [
            lambda: client.submit("f"),
            lambda: client.submit_background("f"),
            lambda: client.echo(b""),
        ]
        for call in calls:
            with pytest.raises((JobNotSent, ConnectionLost), match=re.escape(expected)):
                call()


@pytest.mark.parametrize(("server_tls", "tls", "host", "sentence"), WRONG)
def test_worker_refuses_a_server_that_it_cannot_trust_and_says_why(
    caplog: pytest.LogCaptureFixture, server_tls: TLS, tls: TLS, host: str, sentence: str
) -> None:
    with (
        Server(port=0, tls=server_tls) as server,
        Worker((host, port_of(server)), tls=tls) as worker,
        working(worker),
    ):
        poll_until(lambda: f"{host}:{port_of(server)}: TLS: {sentence}" in caplog.text, "the worker tells why")


@pytest.mark.parametrize(
    ("tls", "sentence"),
    [
        (ANYBODY, "it wants a certificate of ours"),
        (
            TLS(OTHER.issue("client").certificate, OTHER.issue("client").key, GOOD.ca),
            "it does not trust our certificate",
        ),
    ],
)
def test_client_that_is_refused_is_told_why(tls: TLS, sentence: str) -> None:
    with Server(port=0, tls=MUTUAL) as server, Client(("localhost", port_of(server)), tls=tls) as client:
        with pytest.raises(ConnectionLost) as caught:
            client.echo(b"x")
        assert sentence in str(caught.value)


def test_host_name_is_not_looked_at_if_told_so() -> None:
    tls = replace(ANYBODY, check_host=False)
    with Server(port=0, tls=ONE_SIDED) as server, Client(server.address, tls=tls) as client:
        assert client.echo(b"x") == b"x"


def test_server_without_tls_is_told_as_such_and_nothing_is_sent_in_plain() -> None:
    with (
        Server(port=0) as server,
        Client(("localhost", port_of(server)), tls=ANYBODY, connect_timeout=2) as client,
        Client(server.address) as plain,
    ):
        with pytest.raises(JobNotSent, match="TLS: "):
            client.submit("secret", b"data")
        assert plain.admin.status() == ()


def test_client_without_tls_cannot_speak_to_a_server_with_it() -> None:
    with Server(port=0, tls=ONE_SIDED) as server, Client(server.address) as client, pytest.raises(ConnectionLost):
        client.echo(b"x")


def test_handshake_that_hangs_ends_with_the_time_for_connecting() -> None:
    with (
        HostileServer(lambda peer: peer.wait_for_end()) as server,
        Client(("localhost", server.address[1]), tls=ANYBODY, connect_timeout=0.05) as client,
        pytest.raises(JobNotSent, match=r"no answer within 0\.05 s"),
    ):
        client.submit("f")


@pytest.mark.parametrize("make", [Client, Worker])
def test_file_that_is_missing_is_named_when_the_object_is_made(make: Callable[..., object], tmp_path: Path) -> None:
    with nothing_left_open(), pytest.raises(ValueError, match=r"the CA .*nowhere\.pem cannot be read: No such file"):
        make("localhost", tls=TLS(ca=tmp_path / "nowhere.pem"))
    with nothing_left_open(), pytest.raises(ValueError, match="is of no use without its key"):
        make("localhost", tls=TLS(certificate=tmp_path / "mine.pem"))


def test_program_may_bring_a_socket_with_tls_of_its_own() -> None:
    context = client_context(CLIENT)

    def connect(address: Address) -> ssl.SSLSocket:
        sock = socket.create_connection((address.host, address.port), LIMIT)
        return context.wrap_socket(sock, server_hostname="localhost")

    with (
        Server(port=0, tls=MUTUAL) as server,
        nothing_left_open(server_goes_on=True),
        Client(server.address, connect=connect) as client,
    ):
        data = bytes(range(256)) * 4096  # many records at once
        assert client.echo(data) == data


def test_nothing_is_left_open_over_tls() -> None:
    with Server(port=0, tls=MUTUAL) as server, nothing_left_open(server_goes_on=True):
        for tls in (CLIENT, ANYBODY, TLS(ca=OTHER.ca)):
            with Client(("localhost", port_of(server)), tls=tls) as client:
                call = Call(lambda client=client: client.echo(b"x"))  # type: ignore[misc]
                if tls is CLIENT:
                    assert call.result() == b"x"
                else:
                    with pytest.raises(ConnectionLost):
                        call.result()
