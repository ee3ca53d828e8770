"""Faults of TLS connections that `gear` 0.16 has: none is here. The numbers are those of its list of weaknesses."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from gear_net.tunnel import PeerCertificate
from gear_sync import gear
from gear_sync.gear.tls import names_host
from tests.harness.certificates import authority
from tests.harness.gear_api import Shop, tls_files
from tests.harness.hostile import HostileServer, Peer
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT


def test_c17_a_tls_handshake_has_a_time_limit_and_holds_up_nobody(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = shop.server(gear.Server(0, *tls_files()))
    with HostileServer(Peer.wait_for_end, Peer.wait_for_end) as plain:
        client = shop.client(("localhost", plain.address[1]), tls, tls=tls_files(), wait=False)
        client.waitForServer(LIMIT)
        client.shutdown()
        monkeypatch.setattr(gear.Connection, "connect_timeout", 0.02)
        with pytest.raises(gear.ConnectionError, match=r"TLS: no answer within 0\.02 s: it may not speak TLS"):
            gear.Connection("localhost", plain.address[1], *tls_files()).connect()


@pytest.mark.parametrize("given", [(None, None, "ca"), ("key", "cert", None), ("key", None, None)])
def test_c18_some_of_the_tls_files_are_not_taken_for_none(shop: Shop, given: tuple[str | None, ...]) -> None:
    key, cert, ca = given
    actions: list[Callable[[], object]] = [
        lambda: gear.Connection("localhost", 4730, key, cert, ca),
        lambda: shop.client().addServer("localhost", 4730, key, cert, ca),
        lambda: gear.Server(0, key, cert, ca),
    ]
    for action in actions:
        with pytest.raises(gear.ConfigurationError, match="TLS needs ssl_key, ssl_cert and ssl_ca: without ssl_"):
            action()


def test_c19_a_certificate_may_name_another_host_unless_the_program_wants_it_checked(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = shop.server(gear.Server(0, *tls_files("elsewhere.example")))
    connection = shop.standing(gear.Connection("localhost", server.port, *tls_files()))
    for _ in range(2):
        connection.reconnect()
    (warning,) = caplog.messages
    assert f"localhost:{server.port} does not name this host" in warning
    assert connection.session is not None
    assert connection.session._tls is not None
    assert connection.session._tls.tunnel._object.version() == "TLSv1.3"
    monkeypatch.setattr(gear.Connection, "check_hostname", True)
    with pytest.raises(gear.ConnectionError, match="localhost"):
        connection.reconnect()


def test_c19_a_certificate_without_alternative_names_needs_only_one_import_changed(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    old = authority("gear").issue_nameless("localhost")
    files = str(old.key), str(old.certificate), str(old.ca)
    server = shop.server(gear.Server(0, *files))
    shop.client(server, tls=files)
    assert [record.levelname for record in caplog.records if "does not name" in record.message] == ["WARNING"]


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("a.example", True),
        ("A.Example.", True),
        ("b.wild.example", True),
        ("wild.example", False),
        ("c.b.wild.example", False),
        ("b.example", False),
        ("127.0.0.1", True),
        ("::1", True),
        ("127.0.0.2", False),
    ],
)
def test_c19_only_alternative_names_name_a_host(host: str, named: bool) -> None:
    names, addresses = ("a.example", "*.wild.example"), ("127.0.0.1", "0:0:0:0:0:0:0:1\n")
    assert names_host(PeerCertificate("b.example", names, addresses, 0, b""), host) is named


def test_c20_a_refusal_is_logged_again_once_a_minute_with_its_reason(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = shop.server(gear.Server(0, *tls_files()))
    later, real = [0.0], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + later[0])
    client = shop.client()
    client.addServer("localhost", server.port, *tls_files(ca="strangers"))
    tried: set[float] = set()
    for _ in range(4):  # half a minute passes between two attempts
        poll_until(lambda: not tried.issuperset(client._retry_at.values()), "it has failed")
        tried.update(client._retry_at.values())
        with client.connections_condition:
            later[0] += 31
            client.connections_condition.notify_all()
    warnings = [text for text in caplog.messages if text.startswith(f"No connection to localhost:{server.port}: ")]
    assert all("certificate" in text for text in warnings)
    assert ["away for" in text for text in warnings] == [False, True]


def test_c20_what_is_wrong_with_certificates_is_said(shop: Shop) -> None:
    server = shop.server(gear.Server(0, *tls_files()))
    for files, problem in ((tls_files(ca="strangers"), "certificate"), (tls_files("client", "c", "strangers"), "")):
        client = shop.client()
        client.addServer("localhost", server.port, *files)
        poll_until(lambda client=client: bool(client._problems), "it has been tried")  # type: ignore[misc]
        with pytest.raises(
            gear.TimeoutError, match=f"no server connected within 0 s; localhost:{server.port}: .*{problem}"
        ):
            client.waitForServer(0)


def test_c20_tls_files_that_cannot_be_used_are_an_error_at_once(shop: Shop) -> None:
    key, cert, ca = tls_files()
    for files, error in (
        ((key, cert, "/missing"), FileNotFoundError),
        ((ca, cert, ca), gear.ConfigurationError),
    ):
        with pytest.raises(error):
            shop.client().addServer("localhost", 4730, *files)
        with pytest.raises(error):
            gear.Server(0, *files)
