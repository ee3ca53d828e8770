"""`gear_net.tls`: contexts from files."""

from __future__ import annotations

import datetime
import logging
import re
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

import gear_sync
from gear_net.tls import TLS, ClientTLS, client_context, server_context
from gear_net.tunnel import Tunnel
from tests.harness.certificates import authority, copy_files, replace_file, replace_files
from tests.harness.tunnels import pair, shake_hands

GOOD, OTHER = authority("good"), authority("other")
SERVER = GOOD.issue()
CLIENT = GOOD.issue("client.example", common_name="client 7")
STRANGER = replace(OTHER.issue("stranger"), ca=GOOD.ca)


def test_certificate_and_key_come_together() -> None:
    with pytest.raises(ValueError, match=r"the certificate a\.pem is of no use without its key"):
        TLS(certificate="a.pem")
    with pytest.raises(ValueError, match=r"the key a\.key is of no use without its certificate"):
        TLS(key="a.key", ca="ca.pem")


@pytest.mark.parametrize("tls", [TLS(), TLS(ca="ca.pem")])
def test_server_needs_a_certificate(tls: TLS) -> None:
    with pytest.raises(ValueError, match="a server needs a certificate and its key for TLS"):
        server_context(tls)


# Renewals


@pytest.fixture
def files(tmp_path: Path) -> TLS:
    """Files of a client that may be replaced."""
    return copy_files(CLIENT, tmp_path)


def shown_by(client: ClientTLS) -> str | None:
    """Return the common name that a server sees now."""
    ends = Tunnel(client.context(), server_hostname="localhost"), Tunnel(server_context(SERVER), server_side=True)
    shake_hands(*ends)
    shown = ends[1].peer_certificate()
    assert shown is not None
    return shown.common_name


def test_files_are_read_again_once_they_have_changed(files: TLS) -> None:
    client = ClientTLS(files)
    before = client.context()
    assert client.context() is before
    replace_files(files, GOOD.issue("client", common_name="client 8"))
    assert shown_by(client) == "client 8"
    assert client.context() is client.context() is not before


def test_file_that_is_written_over_has_changed(files: TLS) -> None:
    client = ClientTLS(files)
    assert files.ca is not None
    Path(files.ca).write_bytes(Path(OTHER.ca).read_bytes())
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        shown_by(client)


def test_renewal_that_is_half_done_changes_nothing(files: TLS, caplog: pytest.LogCaptureFixture) -> None:
    client = ClientTLS(files)
    new = GOOD.issue("client", common_name="client 8")
    assert files.certificate is not None
    assert new.certificate is not None
    replace_file(files.certificate, new.certificate)
    assert [shown_by(client) for _ in range(3)] == ["client 7"] * 3
    (told,) = caplog.messages
    problem = f"the key {files.key} does not belong to the certificate {files.certificate}"
    assert told == f"{problem}; the previous files stay in use"
    replace_files(files, new)
    assert shown_by(client) == "client 8"
    assert caplog.messages == [told]


def test_files_that_are_gone_for_a_while_change_nothing(files: TLS, caplog: pytest.LogCaptureFixture) -> None:
    client = ClientTLS(files)
    assert files.ca is not None
    Path(files.ca).unlink()
    assert shown_by(client) == "client 7"
    assert caplog.messages == [
        f"the CA {files.ca} cannot be read: No such file or directory; the previous files stay in use"
    ]


def test_context_of_ones_own_is_never_made_again() -> None:
    context = client_context(CLIENT)
    assert ClientTLS(context).context() is context


# Expiry


NOW = datetime.datetime.now(datetime.UTC)
START: dict[str, Callable[[TLS], object]] = {
    "client": ClientTLS,
    "server": lambda tls: gear_sync.Server(port=0, tls=tls).close(),
}


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize(
    ("issued", "warning"),
    [
        ({"expired": True}, "is of no use: certificate has expired"),
        ({"begins": NOW + datetime.timedelta(days=1)}, "is of no use: certificate is not yet valid"),
        ({"ends": NOW + datetime.timedelta(hours=36)}, r"expires in 1\.5 days, at 20\d\d-\d\d-\d\d \d\d:\d\d UTC"),
        ({"ends": NOW + datetime.timedelta(days=14)}, r"expires in 14\.0 days, at "),
        ({"ends": NOW + datetime.timedelta(days=14, hours=1)}, None),
    ],
)
def test_certificate_of_ones_own_that_ends_soon_is_warned_of(
    start: str, issued: dict[str, Any], warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    tls = GOOD.issue(**issued)
    START[start](tls)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    if warning is None:
        assert warnings == []
    else:
        (text,) = warnings
        assert re.match(f"the certificate {re.escape(str(tls.certificate))} {warning}", text)


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("purpose", [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
def test_certificate_for_the_other_side_is_warned_of(
    start: str, purpose: ObjectIdentifier, caplog: pytest.LogCaptureFixture
) -> None:
    START[start](GOOD.issue_nameless("any", purpose))
    fits = (start == "client") == (purpose is ExtendedKeyUsageOID.CLIENT_AUTH)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == (0 if fits else 1)
    assert all(re.search(r"is of no use: (unsuitable|unsupported) certificate purpose", text) for text in warnings)


def test_renewed_certificate_is_looked_at_too(files: TLS, caplog: pytest.LogCaptureFixture) -> None:
    client = ClientTLS(files)
    assert caplog.messages == []
    replace_files(files, GOOD.issue("client", expired=True))
    client.context()
    assert caplog.messages == [f"the certificate {files.certificate} is of no use: certificate has expired"]


# Contexts


Make = Callable[[TLS], ssl.SSLContext]


@pytest.mark.parametrize("make", [server_context, client_context])
@pytest.mark.parametrize("name", ["certificate", "key", "ca"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nBEGIN PRIVATE KEY-----\nx"])
def test_file_that_cannot_be_used_is_named(make: Make, name: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_bytes(content)
    files: dict[str, Any] = {"certificate": SERVER.certificate, "key": SERVER.key, "ca": SERVER.ca, name: path}
    with pytest.raises(ValueError, match=rf"\bthe (?i:{name}) {path} .*(cannot be|has no)"):
        make(TLS(**files))


def test_key_of_another_certificate_is_told() -> None:
    with pytest.raises(
        ValueError, match=rf"the key {CLIENT.key} does not belong to the certificate {SERVER.certificate}"
    ):
        server_context(TLS(SERVER.certificate, CLIENT.key))


def test_encrypted_key_is_an_error_and_no_question(tmp_path: Path) -> None:
    key = form.load_pem_private_key(Path(str(SERVER.key)).read_bytes(), None)
    path = tmp_path / "locked.key"
    secret = form.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, secret))
    with pytest.raises(ValueError, match=rf"the key {path} is encrypted"):
        server_context(TLS(SERVER.certificate, path))


def test_one_file_may_hold_both(tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    path.write_bytes(Path(str(SERVER.certificate)).read_bytes() + Path(str(SERVER.key)).read_bytes())
    pair(TLS(str(path), str(path), GOOD.ca), CLIENT)


@pytest.mark.parametrize("make", [server_context, client_context])
def test_context_is_taken_as_it_is_unless_it_is_for_the_other_side(make: Make) -> None:
    contexts = server_context(SERVER), client_context(CLIENT)
    for context in contexts:
        if (context is contexts[0]) == (make is server_context):
            assert make(context) is context  # type: ignore[arg-type]
        else:
            with pytest.raises(ValueError, match=r"a TLS context for (servers|clients) cannot"):
                make(context)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [server_context, client_context])
@pytest.mark.parametrize("wrong", [True, "cert.pem", {}])
def test_other_types_are_refused(make: Callable[[Any], ssl.SSLContext], wrong: object) -> None:
    with pytest.raises(TypeError, match=r"tls takes a TLS or a ssl\.SSLContext, not a "):
        make(wrong)
