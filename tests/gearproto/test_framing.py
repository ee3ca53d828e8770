from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gear_testing import strategies
from gearproto import (
    DEFAULT_MAX_LINE_SIZE,
    DEFAULT_MAX_PACKET_SIZE,
    DEFAULT_MAX_SERVER_PACKET_SIZE,
    RemoteProtocolError,
)
from gearproto.codec import REQUEST, Route, Spec, decoders
from gearproto.event import Event
from gearproto.events import Line, MalformedPacket
from gearproto.framing import Decoder
from gearproto.packets import EchoReq, Error, OptionReq, PreSleep, SubmitJob, WorkData
from gearproto.server import server_decoders

SERVER = server_decoders()
CLIENT = decoders(Route.TO_CLIENT)
HEADER_SIZE = 12

_line_texts = st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"").replace(b"\0", b"").replace(b"\r", b""))
lines = st.builds(lambda text, ending: text + ending, _line_texts, st.sampled_from([b"\n", b"\r\n"]))
encoded_packets = strategies.packets().map(lambda packet: packet.encode(REQUEST))
streams = st.lists(lines | encoded_packets, max_size=8).map(b"".join)
wild_streams = st.one_of(
    st.binary(max_size=200),
    st.lists(st.binary(max_size=12) | lines | encoded_packets, max_size=8).map(b"".join),
    strategies.mutations(streams),
)


def header(number: int, size: int, magic: bytes = REQUEST) -> bytes:
    return magic + number.to_bytes(4, "big") + size.to_bytes(4, "big")


def pull(decoder: Decoder) -> tuple[list[Event], str | None]:
    """Return all events, and the message of the error that ended them, if any."""
    events: list[Event] = []
    try:
        while (event := decoder.next()) is not None:
            events.append(event)
    except RemoteProtocolError as error:
        return events, str(error)
    return events, None


def decode(
    chunks: list[bytes], *, specs: Mapping[bytes, Spec] = SERVER, **limits: Any
) -> tuple[list[Event], str | None]:
    """Feed chunk by chunk, and pull after each until there is nothing more."""
    decoder = Decoder(specs, **limits)
    events: list[Event] = []
    for chunk in chunks:
        decoder.feed(chunk)
        more, error = pull(decoder)
        events += more
        if error is not None:
            return events, error
    return events, None


@given(streams, st.data())
def test_any_cut_of_a_stream_gives_the_events_of_the_whole(stream: bytes, data: st.DataObject) -> None:
    whole, error = decode([stream])
    assert error is None
    assert decode(data.draw(strategies.splits(stream))) == (whole, None)
    assert decode([bytes([byte]) for byte in stream]) == (whole, None)


@given(streams, st.data())
def test_events_may_be_pulled_at_any_time(stream: bytes, data: st.DataObject) -> None:
    decoder = Decoder(SERVER)
    events: list[Event] = []
    for chunk in data.draw(strategies.splits(stream)):
        decoder.feed(chunk)
        pulled = [decoder.next() for _ in range(data.draw(st.integers(0, 2)))]
        events += [event for event in pulled if event is not None]
    assert (events + pull(decoder)[0], None) == decode([stream])
    assert decoder.buffered == 0


@given(st.lists(lines | encoded_packets, min_size=1, max_size=6), st.data())
def test_every_message_comes_with_its_last_byte(messages: list[bytes], data: st.DataObject) -> None:
    decoder = Decoder(SERVER)
    for message in messages:
        for chunk in data.draw(strategies.splits(message[:-1])):
            decoder.feed(chunk)
            assert decoder.next() is None
        assert decoder.buffered == len(message) - 1
        decoder.feed(message[-1:])
        assert decoder.next() is not None
        assert decoder.buffered == 0


@given(wild_streams, st.data())
def test_any_bytes_give_events_or_a_protocol_error_and_never_fill_more_than_the_limits(
    stream: bytes, data: st.DataObject
) -> None:
    largest, longest = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 60))
    limit = max(largest + HEADER_SIZE, longest)
    decoder = Decoder(data.draw(st.sampled_from([SERVER, CLIENT])), max_packet_size=largest, max_line_size=longest)
    for chunk in data.draw(strategies.splits(stream)):
        decoder.feed(chunk)
        assert decoder.buffered <= limit + len(chunk)
        events, error = pull(decoder)
        assert all(isinstance(event, Event) for event in events)
        if error is not None:
            assert pull(decoder) == ([], error)  # there is no way on
            break
        assert decoder.buffered < limit


@given(wild_streams, st.data())
def test_any_cut_of_wild_bytes_gives_the_events_and_the_error_of_the_whole(stream: bytes, data: st.DataObject) -> None:
    whole = decode([stream], max_packet_size=50, max_line_size=30)
    assert decode(data.draw(strategies.splits(stream)), max_packet_size=50, max_line_size=30) == whole


@given(streams, st.sampled_from([b"\0BAD" + bytes(8), header(43, 0), header(7, 2**31), b"x" * 64]))
def test_error_comes_after_the_events_before_it(stream: bytes, broken: bytes) -> None:
    before, _none = decode([stream])
    events, error = decode([stream + broken], max_line_size=60)
    assert events == before
    assert error is not None


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\0REX" + bytes(8), r"bad magic b'\x00REX'"),
        (b"\0" * 12, r"bad magic b'\x00\x00\x00\x00'"),
        (header(0, 0), "unknown packet type 0, known are 1 to 42"),
        (header(43, 0), "unknown packet type 43, known are 1 to 42"),
        (header(2**32 - 1, 2**32 - 1), "unknown packet type 4294967295, known are 1 to 42"),
    ],
)
def test_header_that_no_table_knows_is_an_error_without_reply(head: bytes, message: str) -> None:
    decoder = Decoder(SERVER)
    decoder.feed(head[:-1])
    assert decoder.next() is None
    decoder.feed(head[-1:])
    with pytest.raises(RemoteProtocolError) as caught:
        decoder.next()
    assert str(caught.value).startswith(message)
    assert caught.value.code is None


@pytest.mark.parametrize("limit", [0, 1, 50, 100_000])
def test_packet_may_reach_the_limit(limit: int) -> None:
    data = EchoReq(b"x" * limit).encode()
    for chunks in ([data], [data[:12], data[12:]], [data[:12], data[12:-1], data[-1:]]):
        assert decode(chunks, max_packet_size=limit) == ([EchoReq(b"x" * limit)], None)


@pytest.mark.parametrize("limit", [0, 1, 50, 100_000])
@pytest.mark.parametrize("packet", [EchoReq, PreSleep])
def test_size_over_the_limit_is_an_error_before_any_payload(limit: int, packet: type[EchoReq | PreSleep]) -> None:
    decoder = Decoder(SERVER, max_packet_size=limit)
    decoder.feed(header(packet.spec.number, limit + 1))
    with pytest.raises(RemoteProtocolError) as caught:
        decoder.next()
    text = f"{packet.spec.name}: {limit + 1} bytes, limit {limit}"
    assert str(caught.value) == text
    assert caught.value.code == b"PACKET_TOO_LARGE"
    Error(caught.value.code, text.encode()).validate()


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("limit", [2, 3, 64, DEFAULT_MAX_LINE_SIZE])
def test_line_may_reach_the_limit_with_its_ending(limit: int, ending: bytes) -> None:
    text = b"x" * (limit - len(ending))
    stream = text + ending if text else ending
    for chunks in ([stream], [bytes([byte]) for byte in stream], [stream[:-1], stream[-1:]]):
        assert decode(chunks, max_line_size=limit) == ([Line(text)], None)


@pytest.mark.parametrize("limit", [1, 2, 64, DEFAULT_MAX_LINE_SIZE])
@pytest.mark.parametrize("rest", [b"", b"\n", b"x" * 10000])
def test_line_over_the_limit_is_an_error_at_once(limit: int, rest: bytes) -> None:
    text = b"x" * limit
    assert decode([text + rest], max_line_size=limit) == ([], f"text line of over {limit} bytes")
    assert decode([text[:1], text[1:] + rest], max_line_size=limit) == ([], f"text line of over {limit} bytes")


def test_limits_have_the_documented_defaults() -> None:
    assert decode([header(16, DEFAULT_MAX_PACKET_SIZE)]) == ([], None)
    size = DEFAULT_MAX_PACKET_SIZE + 1
    assert decode([header(16, size)]) == ([], f"ECHO_REQ: {size} bytes, limit {DEFAULT_MAX_PACKET_SIZE}")
    assert DEFAULT_MAX_SERVER_PACKET_SIZE == (64 * 1024 + 64) * 1024
    assert DEFAULT_MAX_PACKET_SIZE - DEFAULT_MAX_SERVER_PACKET_SIZE == 64 * 1024
    assert decode([b"x" * (DEFAULT_MAX_LINE_SIZE - 1) + b"\n"])[1] is None
    assert decode([b"x" * DEFAULT_MAX_LINE_SIZE + b"\n"])[1] is not None


def test_line_loses_one_lf_or_crlf_and_nothing_else() -> None:
    stream = b"a\nb\r\n\n\r\nc\r\r\n d \r\n\x80\xff\x01\n"
    texts = [b"a", b"b", b"", b"", b"c\r", b" d ", b"\x80\xff\x01"]
    assert decode([stream]) == ([Line(text) for text in texts], None)


def test_lines_come_with_their_endings_where_that_is_wanted() -> None:
    assert decode([b"a\r\n", b"b\n\r\n"], line_endings=True) == ([Line(b"a\r\n"), Line(b"b\n"), Line(b"\r\n")], None)


def test_nul_inside_a_line_begins_no_packet() -> None:
    assert decode([b"a\0REQ\n"]) == ([Line(b"a\0REQ")], None)


def test_newlines_inside_a_packet_end_no_line() -> None:
    packet = SubmitJob(b"f\n", b"\r\n", b"\n.\n")
    assert decode([b"status\n" + packet.encode() + b"workers\r\n"]) == (
        [Line(b"status"), packet, Line(b"workers")],
        None,
    )


def test_malformed_packet_leaves_what_follows_untouched() -> None:
    broken = header(7, 3) + b"f\0u"
    assert decode([broken + b"status\n" + broken + PreSleep().encode()]) == (
        [
            MalformedPacket("SUBMIT_JOB", "2 arguments, not 3"),
            Line(b"status"),
            MalformedPacket("SUBMIT_JOB", "2 arguments, not 3"),
            PreSleep(),
        ],
        None,
    )


def test_arguments_are_never_sought_in_the_next_packet() -> None:
    # gearmand looks for missing NULs beyond the end of the packet.
    follower = SubmitJob(b"g", b"", b"w").encode()
    events, error = decode([header(7, 1) + b"f" + follower])
    assert (events, error) == ([MalformedPacket("SUBMIT_JOB", "1 arguments, not 3"), SubmitJob(b"g", b"", b"w")], None)


@given(encoded_packets, st.booleans())
def test_empty_chunks_change_nothing(stream: bytes, start: bool) -> None:
    chunks = [piece for byte in stream for piece in (bytes([byte]), b"")]
    assert decode([b""] * start + chunks) == decode([stream])


@given(st.sampled_from([bytearray, memoryview]), streams)
def test_chunk_may_be_reused_after_feed(kind: type[bytearray | memoryview], stream: bytes) -> None:
    expected = decode([stream])
    decoder = Decoder(SERVER)
    events = []
    for byte in stream:
        buffer = bytearray([byte])
        decoder.feed(kind(buffer))  # type: ignore[arg-type]  # what recv_into() and streams hand over
        buffer[0] ^= 0xFF
        events += pull(decoder)[0]
    assert (events, None) == expected


big_sizes = st.sampled_from([4095, 4096, 65535, 65536, 65537, 200_000]) | st.integers(65_000, 140_000)


@settings(max_examples=40)
@given(big_sizes, big_sizes, st.data())
def test_big_packets_survive_any_cut(first: int, second: int, data: st.DataObject) -> None:
    packets = [SubmitJob(b"f", b"u", bytes(range(251)) * (first // 251)), EchoReq(b"\0y" * (second // 2)), PreSleep()]
    stream = b"status\n" + b"".join(packet.encode() for packet in packets) + b"workers\n"
    places = st.lists(st.integers(0, len(stream)), max_size=6)
    chunk = data.draw(st.sampled_from([1000, 4095, 4096, 5000, 65536]) | st.integers(500, 70_000))
    expected = [Line(b"status"), *packets, Line(b"workers")]
    assert decode(strategies.cut(stream, data.draw(places))) == (expected, None)
    assert decode(strategies.cut(stream, range(0, len(stream), chunk))) == (expected, None)


@settings(max_examples=20)
@given(big_sizes, st.integers(500, 70_000))
def test_big_packet_counts_as_buffered_until_it_is_whole(size: int, chunk: int) -> None:
    stream = WorkData(b"H:1", b"x" * size).encode(b"\0RES")
    decoder = Decoder(CLIENT)
    fed = 0
    for piece in strategies.cut(stream, range(0, len(stream), chunk)):
        assert decoder.next() is None
        assert fed - HEADER_SIZE <= decoder.buffered <= fed
        assert (decoder.buffered == 0) == (fed == 0)
        decoder.feed(piece)
        fed += len(piece)
    assert decoder.next() == WorkData(b"H:1", b"x" * size)
    assert decoder.buffered == 0


def test_big_malformed_packet_leaves_what_follows_untouched() -> None:
    stream = header(7, 100_000) + b"f\0" + b"u" * 99_998 + b"status\n"
    for places in ([], [12], [50_000], [60_000, 100_012], [100_000, 100_013]):
        events, error = decode(strategies.cut(stream, places))
        assert (events, error) == ([MalformedPacket("SUBMIT_JOB", "2 arguments, not 3"), Line(b"status")], None)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["big", "small", "line", "options", "unexpected"]), max_size=5), st.data())
def test_big_packets_may_be_pulled_at_any_time(kinds: list[str], data: st.DataObject) -> None:
    messages = {
        "big": SubmitJob(b"f", b"u", bytes(range(250)) * 400).encode(),
        "small": PreSleep().encode(),
        "line": b"status\n",
        "options": OptionReq(b"o" * 70_000).encode(),
        "unexpected": header(11, 80_000) + b"x" * 80_000,
    }
    stream = b"".join(messages[kind] for kind in kinds)
    expected = [event for kind in kinds for event in decode([messages[kind]])[0]]
    decoder = Decoder(SERVER)
    events: list[Event] = []
    chunk = data.draw(st.sampled_from([100, 4096]) | st.integers(500, 70_000))
    for piece in strategies.cut(stream, range(0, len(stream), chunk)):
        decoder.feed(piece)
        if data.draw(st.booleans()) and (event := decoder.next()) is not None:
            events.append(event)
    assert events + pull(decoder)[0] == expected
    assert decoder.buffered == 0


@pytest.mark.parametrize("chunk", [100, 4096, 50_000])
def test_chunk_of_a_big_packet_may_be_reused_after_feed(chunk: int) -> None:
    packet = SubmitJob(b"f", b"u", bytes(range(250)) * 400)
    decoder = Decoder(SERVER)
    events = []
    for piece in strategies.cut(packet.encode() + b"status\n", range(0, 101_000, chunk)):
        buffer = bytearray(piece)
        decoder.feed(buffer)  # type: ignore[arg-type]
        buffer[:] = bytes(len(buffer))
        events += pull(decoder)[0]
    assert events == [packet, Line(b"status")]


class CountingSpecs(Mapping[bytes, Spec]):
    """Counts how often a header is looked up."""

    def __init__(self) -> None:
        self.lookups = 0

    def __getitem__(self, key: bytes) -> Spec:
        self.lookups += 1
        return SERVER[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(SERVER)

    def __len__(self) -> int:
        return len(SERVER)


@given(st.lists(encoded_packets, min_size=1, max_size=5))
def test_unfinished_packet_is_not_looked_at_with_every_byte(packets: list[bytes]) -> None:
    specs = CountingSpecs()
    events, error = decode([bytes([byte]) for packet in packets for byte in packet], specs=specs)
    assert (len(events), error) == (len(packets), None)
    assert specs.lookups <= 2 * len(packets)  # when its header is whole, and when all of it is
