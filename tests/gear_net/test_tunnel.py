"""`gear_net.tunnel`: TLS connections in memory, and on sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gear_net.tls import TLS, client_context, reason, server_context
from gear_net.tunnel import TLSSocket, Tunnel
from tests.harness.certificates import authority
from tests.harness.threads import nothing_left_open
from tests.harness.tunnels import pair, shake_hands

GOOD, OTHER = authority("good"), authority("other")
SERVER = GOOD.issue()
CLIENT = GOOD.issue("client.example", common_name="client 7")
STRANGER = replace(OTHER.issue("stranger"), ca=GOOD.ca)


def texts() -> st.SearchStrategy[list[bytes]]:
    big = st.builds(bytes.__mul__, st.binary(min_size=1, max_size=3), st.integers(10_000, 70_000))
    return st.lists(st.binary(max_size=50) | big, max_size=4)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(st.data())
def test_what_is_said_comes_out_however_the_stream_is_cut(data: st.DataObject) -> None:
    client, server = pair(SERVER, CLIENT)
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
    client, server = pair(SERVER, CLIENT)
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
    client, server = pair(SERVER, CLIENT)
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


# On a socket


class Site:
    """A client's end of a TLS connection, and the server's."""

    def __init__(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        ours, self.sock = socket.socketpair()
        for sock in (ours, self.sock):
            sock.setblocking(False)
        context = client_context(CLIENT)
        context.maximum_version = version
        self.client = TLSSocket(ours, Tunnel(context, server_hostname="localhost"))
        self.server = Tunnel(server_context(SERVER), server_side=True)

    def answer(self, *said: bytes) -> None:
        """Let the server take what has come, and answer; if it is established, with something to say behind it."""
        heard = self.sock.recv(2**16)
        assert self.server.receive(heard) == b""
        answer = self.server.data_to_send()
        if self.server.established:
            answer += self.encrypted(*said)
        self.sock.sendall(answer)

    def encrypted(self, *said: bytes) -> bytes:
        return b"".join(piece for text in said for piece in self.server.encrypt(text))

    def shake_hands(self, *said: bytes) -> None:
        while not self.client.shake_hands():
            self.answer(*said)
        if not self.server.established:
            self.answer(*said)

    def close(self) -> None:
        self.client.close()
        self.sock.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with nothing_left_open(), contextlib.closing(Site()) as site:
        site.shake_hands()
        yield site


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_comes_with_the_handshake_is_received(version: ssl.TLSVersion) -> None:
    with contextlib.closing(Site(version)) as site:
        site.shake_hands(b"too many connections")
        assert site.client.pending() is (version is ssl.TLSVersion.TLSv1_2)
        assert site.client.recv(2**16) == b"too many connections"
        assert not site.client.pending()
        with pytest.raises(BlockingIOError):
            site.client.recv(2**16)


def test_what_is_said_before_an_error_is_received_first(site: Site) -> None:
    said = bytearray(site.encrypted(b"a result", b"and its end", b"never heard"))
    said[-1] ^= 1
    site.sock.sendall(said)
    assert site.client.recv(2**16) == b"a resultand its end"
    assert site.client.pending()
    with pytest.raises(ssl.SSLError):
        site.client.recv(2**16)


def test_end_that_comes_with_something_said_is_received_after_it(site: Site) -> None:
    site.sock.sendall(site.encrypted(b"a result") + site.server.end())
    assert site.client.recv(2**16) == b"a result"
    assert site.client.pending()  # no selector tells of it, as the other side may leave the socket open
    assert site.client.recv(2**16) == b""
    assert not site.client.pending()
    assert site.client.recv(2**16) == b""


def test_handshake_that_the_other_side_leaves_is_aborted() -> None:
    with contextlib.closing(Site()) as site:
        assert not site.client.shake_hands()
        site.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionAbortedError):
            site.client.shake_hands()


@pytest.mark.parametrize("size", [1, 16384, 16385, 10_000_000])
def test_bytes_count_as_sent_once_the_other_side_can_read_them(site: Site, size: int) -> None:
    data = memoryview(bytes(size))
    sent, heard = 0, 0
    while sent < size:
        try:
            sent += site.client.send(data[sent:])
        except BlockingIOError:
            assert site.client.unsent
            before = heard
            while True:  # until all that the system holds has been read
                try:
                    heard += len(site.server.receive(site.sock.recv(2**16)))
                except BlockingIOError:
                    break
            assert before < heard == sent
    assert not site.client.unsent
    with contextlib.suppress(BlockingIOError):
        while True:
            heard += len(site.server.receive(site.sock.recv(2**16)))
    assert heard == size


def test_what_tls_has_to_say_waits_for_room_behind_the_record_that_is_under_way(site: Site) -> None:
    data = memoryview(bytes(10_000_000))
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += site.client.send(data[sent:])
    broken = bytearray(site.encrypted(b"never heard"))
    broken[-1] ^= 1
    site.sock.sendall(broken)
    with pytest.raises(ssl.SSLError):
        site.client.recv(2**16)
    heard = 0
    while site.server.error is None:
        heard += len(site.server.receive(site.sock.recv(2**16)))
        site.client.flush()
    assert site.server.error.reason == "SSLV3_ALERT_BAD_RECORD_MAC"
    assert heard > sent  # the record that was under way, too
    assert not site.client.unsent


def test_close_says_that_nothing_more_comes(site: Site) -> None:
    site.client.close()
    assert site.server.receive(site.sock.recv(2**16)) == b""
    assert site.server.ended
    assert site.client.fileno() == -1
    site.client.close()
