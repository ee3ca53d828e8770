"""`gear_net.tls`: contexts from files, and TLS connections in memory."""

from __future__ import annotations

import contextlib
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
from hypothesis import given
from hypothesis import strategies as st

import gear_sync
from gear_net.tls import TLS, ClientTLS, client_context, reason, server_context
from gear_net.tunnel import Tunnel
from tests.harness.certificates import authority, copy_files, replace_file, replace_files

GOOD, OTHER = authority("good"), authority("other")
SERVER = GOOD.issue()
CLIENT = GOOD.issue("client.example", common_name="client 7")
STRANGER = replace(OTHER.issue("stranger"), ca=GOOD.ca)


def shake_hands(client: Tunnel, server: Tunnel) -> None:
    while not (client.established and server.established):
        server.receive(client.data_to_send())
        client.receive(server.data_to_send())


def pair(server: TLS = SERVER, client: TLS = CLIENT, name: str = "localhost") -> tuple[Tunnel, Tunnel]:
    """Return a client and a server that have shaken hands."""
    ends = (
        Tunnel(client_context(client), server_hostname=name),
        Tunnel(server_context(server), server_side=True),
    )
    shake_hands(*ends)
    return ends


def texts() -> st.SearchStrategy[list[bytes]]:
    big = st.builds(bytes.__mul__, st.binary(min_size=1, max_size=3), st.integers(10_000, 70_000))
    return st.lists(st.binary(max_size=50) | big, max_size=4)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


# Tunnels


@given(st.data())
def test_what_is_said_comes_out_however_the_stream_is_cut(data: st.DataObject) -> None:
    client, server = pair()
    for sender, receiver in ((client, server), (server, client)):
        said = data.draw(texts())
        stream = b"".join(piece for text in said for piece in sender.encrypt(text))
        heard = [receiver.receive(part) for part in cut(stream, data.draw(st.lists(st.integers(0, 2**20), max_size=5)))]
        assert b"".join(heard) == b"".join(said)
    rest = client.end()
    assert not server.ended
    assert server.receive(rest) == b""
    assert server.ended


def test_handshake_goes_on_byte_by_byte() -> None:
    client = Tunnel(client_context(CLIENT), server_hostname="localhost")
    server = Tunnel(server_context(SERVER), server_side=True)
    while not (client.established and server.established):
        for sender, receiver in ((client, server), (server, client)):
            for byte in sender.data_to_send():
                assert receiver.receive(bytes([byte])) == b""
    assert server.receive(b"".join(client.encrypt(b"x"))) == b"x"


@given(st.binary(min_size=1, max_size=100), st.integers(0, 2**20), st.integers(1, 255))
def test_changed_bytes_are_never_heard(said: bytes, place: int, change: int) -> None:
    client, server = pair()
    stream = bytearray(b"".join(client.encrypt(said)))
    stream[place % len(stream)] ^= change
    with contextlib.suppress(ssl.SSLError):  # or it waits for more of what seems a longer record
        assert server.receive(bytes(stream)) == b""


@given(st.lists(st.binary(max_size=600), max_size=3), st.booleans())
def test_garbage_is_an_error_or_waited_with(parts: list[bytes], begins_well: bool) -> None:
    server = Tunnel(server_context(SERVER), server_side=True)
    if begins_well:
        parts = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", *parts]
    with contextlib.suppress(ssl.SSLError):
        for part in parts:
            assert server.receive(part) == b""
    assert not server.established
    server.end()


@pytest.mark.parametrize("text", [b"status\n", b"version\n", b"GET / HTTP/1.1\r\n\r\n", b"\0REQ\0\0\0\x10\0\0\0\0"])
def test_plain_text_is_told_as_such(text: bytes) -> None:
    server = Tunnel(server_context(SERVER), server_side=True)
    with pytest.raises(ssl.SSLError) as caught:
        server.receive(text)
    assert reason(caught.value) == "it does not speak TLS"


def test_certificates_of_both_sides_are_known() -> None:
    client, server = pair()
    shown = server.peer_certificate()
    assert shown is not None
    assert (shown.common_name, shown.names) == ("client 7", ("client.example",))
    assert shown.der == ssl.PEM_cert_to_DER_cert(Path(str(CLIENT.certificate)).read_text(encoding="ascii"))
    theirs = client.peer_certificate()
    assert theirs is not None
    assert (theirs.common_name, theirs.names) == (None, ("localhost",))


def test_client_without_a_certificate_has_none() -> None:
    _client, server = pair(TLS(SERVER.certificate, SERVER.key), TLS(ca=GOOD.ca))
    assert server.peer_certificate() is None


@pytest.mark.parametrize(
    ("server", "client", "name", "sentence"),
    [
        (SERVER, TLS(ca=GOOD.ca), "localhost", "it has shown no certificate"),
        (SERVER, TLS(CLIENT.certificate, CLIENT.key, OTHER.ca), "localhost", "its certificate is refused: self-signed"),
        (SERVER, OTHER.issue("client"), "localhost", "its certificate is refused: "),
        (SERVER, STRANGER, "localhost", "its certificate is refused: unable to get local issuer certificate"),
        (SERVER, GOOD.issue("old", expired=True), "localhost", "its certificate is refused: certificate has expired"),
        (GOOD.issue(expired=True), CLIENT, "localhost", "its certificate is refused: certificate has expired"),
        (SERVER, CLIENT, "elsewhere", "its certificate is refused: Hostname mismatch, certificate is not valid for"),
        (TLS(SERVER.certificate, SERVER.key), TLS(), "localhost", "its certificate is refused: "),
    ],
)
def test_side_that_cannot_be_trusted_is_refused_with_a_reason(
    server: TLS, client: TLS, name: str, sentence: str
) -> None:
    with pytest.raises(ssl.SSLError) as caught:
        pair(server, client, name)
    assert sentence in reason(caught.value)


def test_refused_client_is_told() -> None:
    client = Tunnel(client_context(TLS(ca=GOOD.ca)), server_hostname="localhost")
    server = Tunnel(server_context(SERVER), server_side=True)
    with pytest.raises(ssl.SSLError):
        shake_hands(client, server)
    with pytest.raises(ssl.SSLError) as caught:
        client.receive(server.data_to_send())
    assert reason(caught.value) == "it wants a certificate of ours"


def test_common_name_is_not_taken_for_the_name_of_a_host() -> None:
    server = GOOD.issue_nameless("localhost")
    with pytest.raises(ssl.SSLError) as caught:
        pair(server, CLIENT)
    assert "its certificate is refused: Hostname mismatch" in reason(caught.value)
    pair(server, replace(CLIENT, check_host=False))


def test_host_name_is_not_looked_at_if_told_so() -> None:
    pair(SERVER, TLS(CLIENT.certificate, CLIENT.key, GOOD.ca, check_host=False), "elsewhere")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_from_1_2_on_are_spoken(version: ssl.TLSVersion) -> None:
    context = client_context(CLIENT)
    context.maximum_version = version
    ends = Tunnel(context, server_hostname="localhost"), Tunnel(server_context(SERVER), server_side=True)
    shake_hands(*ends)
    assert ends[1].receive(b"".join(ends[0].encrypt(b"x"))) == b"x"


def test_older_versions_are_not_spoken() -> None:
    for context in (server_context(SERVER), client_context(TLS())):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


# Files


def test_certificate_and_key_come_together() -> None:
    with pytest.raises(ValueError, match=r"the certificate a\.pem is of no use without its key"):
        TLS(certificate="a.pem")
    with pytest.raises(ValueError, match=r"the key a\.key is of no use without its certificate"):
        TLS(key="a.key", ca="ca.pem")


@pytest.mark.parametrize("tls", [TLS(), TLS(ca="ca.pem")])
def test_server_needs_a_certificate(tls: TLS) -> None:
    with pytest.raises(ValueError, match="a server cannot speak TLS without a certificate and its key"):
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
    problem = f"the key {files.key} is not that of the certificate {files.certificate}"
    assert told == f"{problem}; what has been read before stays in use"
    replace_files(files, new)
    assert shown_by(client) == "client 8"
    assert caplog.messages == [told]


def test_files_that_are_gone_for_a_while_change_nothing(files: TLS, caplog: pytest.LogCaptureFixture) -> None:
    client = ClientTLS(files)
    assert files.ca is not None
    Path(files.ca).unlink()
    assert shown_by(client) == "client 7"
    assert caplog.messages == [
        f"the CA {files.ca} cannot be read: No such file or directory; what has been read before stays in use"
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
    with pytest.raises(ValueError, match=rf"the key {CLIENT.key} is not that of the certificate {SERVER.certificate}"):
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
    pair(TLS(str(path), str(path), GOOD.ca))


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
