"""Properties that every parser of the protocol has to have. Call them in a test of a parser of your own.

>>> from gear_testing import properties
>>> def test_any_split():
...     properties.any_split_gives_the_same_events(lambda: MyParser(role="server"))

Each is a plain function that tries many examples and fails with the shortest that it finds; the settings of Hypothesis
apply. A parser is any object with the two methods of `Parser`; `parser_of` makes one of a sans-I/O connection. To check
a limit, it also needs the attribute ``buffered``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from gearproto import ProtocolError
from gearproto.codec import PACKETS, REQUEST, RESPONSE, Packet, Route

from . import strategies

__all__ = [
    "Parser",
    "any_bytes_give_events_or_an_error",
    "any_split_gives_the_same_events",
    "every_message_comes_with_its_last_byte",
    "every_packet_is_read",
    "parser_of",
    "streams",
]


class Parser(Protocol):
    """A parser of what one side receives: bytes in, events out."""

    def feed(self, data: bytes) -> object:
        """Store what arrived. It is called with bytes of any length, and must not raise because of them."""
        ...

    def next(self) -> object | None:
        """Return the next event; None if more input is needed."""
        ...


class _Connection(Protocol):
    def receive_data(self, data: bytes) -> object: ...

    def next_event(self) -> object | None: ...


class _ParserOfConnection:
    def __init__(self, connection: _Connection) -> None:
        self.feed = connection.receive_data
        self.next = connection.next_event


def parser_of(connection: _Connection) -> Parser:
    """Return a parser that is a connection with the methods ``receive_data`` and ``next_event``, as h11 names them."""
    return _ParserOfConnection(connection)


MakeParser = Callable[[], Parser]
"""Makes a new parser: a class without arguments, or a function."""

Errors = type[Exception] | tuple[type[Exception], ...]
"""What a parser may raise because of what a peer sends."""

_PROTOCOL_ERRORS: Final = (ProtocolError,)


def streams(receives: Route = Route.TO_SERVER) -> SearchStrategy[bytes]:
    """Byte streams that follow the protocol: whole sessions, and packets and lines in any order.

    Args:
        receives: whose packets they hold: `Route.TO_SERVER`, or what a client or a worker gets.
    """
    lines = strategies.text_commands().map(lambda command: command.encode())
    messages = strategies.packets(receives).map(lambda packet: packet.encode(_magic(receives)))
    if receives & Route.TO_SERVER:
        mixed = st.lists(messages | lines, max_size=6).map(b"".join)
        return mixed | st.one_of(*(strategies.sessions(role) for role in strategies.ROLES)).map(lambda s: s.to_server)
    role: strategies.Role = "client" if receives & Route.TO_CLIENT else "worker"
    return st.lists(messages, max_size=6).map(b"".join) | strategies.sessions(role).map(lambda s: s.from_server)


def any_split_gives_the_same_events(
    make: MakeParser, *, data: SearchStrategy[bytes] | None = None, errors: Errors = _PROTOCOL_ERRORS
) -> None:
    """Check that it does not matter how a network splits a stream, nor when the events are pulled.

    Streams that break the protocol are among those that are tried: the events before the error have to be the same, and
    whether there is one.

    Args:
        make: makes a parser.
        data: the streams; None for `streams` to a server, and mutations of them.
        errors: what the parser may raise.
    """
    whole = streams() | strategies.mutations(streams()) if data is None else data

    @given(whole, st.data(), st.booleans())
    def check(stream: bytes, choice: st.DataObject, late: bool) -> None:
        expected = _read(make(), [stream], errors, late=False)
        chunks = choice.draw(strategies.splits(stream), label="chunks")
        found = _read(make(), chunks, errors, late=late)
        assert found == expected, f"in one piece: {expected}; in {len(chunks)} pieces: {found}"

    check()


def every_message_comes_with_its_last_byte(make: MakeParser, *, messages: SearchStrategy[bytes] | None = None) -> None:
    """Check that a message is an event as soon as its last byte is there, and not before.

    A parser that waits for the next message blocks a peer that waits for the answer.

    Args:
        make: makes a parser.
        messages: whole messages, each of which gives one event; None for packets to a server and text commands.
    """
    lines = strategies.text_commands().map(lambda command: command.encode())
    whole = strategies.packets(Route.TO_SERVER).map(Packet.encode) | lines if messages is None else messages

    @given(st.lists(whole, min_size=1, max_size=4), st.data())
    def check(stream: list[bytes], choice: st.DataObject) -> None:
        parser = make()
        for message in stream:
            for chunk in choice.draw(strategies.splits(message[:-1]), label="chunks"):
                parser.feed(chunk)
                assert parser.next() is None, f"an event before the last byte of {message!r}"
            parser.feed(message[-1:])
            assert parser.next() is not None, f"no event with the last byte of {message!r}"
            assert parser.next() is None, f"a second event of {message!r}"

    check()


def any_bytes_give_events_or_an_error(
    make: MakeParser,
    *,
    limit: int | None = None,
    data: SearchStrategy[bytes] | None = None,
    errors: Errors = _PROTOCOL_ERRORS,
) -> None:
    """Check that no bytes make a parser raise anything but its errors, keep more than its limit, or yield for ever.

    Args:
        make: makes a parser.
        limit: most bytes that may wait unparsed, as the parser's attribute ``buffered`` tells after all events have
            been pulled; None if it has no such attribute. Where the limit is on packets, add 12 for the header.
        data: the bytes; None for random bytes, streams to a server, and mutations of them.
        errors: what the parser may raise.

    Raises:
        TypeError: there is a limit, and the parser has no ``buffered``.
    """
    if limit is not None and not hasattr(make(), "buffered"):
        raise TypeError("to check the limit, the parser needs an attribute `buffered`: how many bytes wait in it")
    wild = st.one_of(st.binary(max_size=200), _headers(), streams(), strategies.mutations(streams()))
    wild = wild if data is None else data

    @given(wild, st.data())
    def check(stream: bytes, choice: st.DataObject) -> None:
        parser: Any = make()
        count = 0
        for chunk in choice.draw(strategies.splits(stream), label="chunks"):
            parser.feed(chunk)
            try:
                for _event in _events(parser):
                    count += 1
                    assert count <= 2 * len(stream) + 2, f"{count} events of {len(stream)} bytes"
            except errors:
                return
            if limit is not None:
                assert parser.buffered <= limit, f"{parser.buffered} bytes wait, limit {limit}"

    check()


def every_packet_is_read(
    make: MakeParser, *, receives: Route = Route.TO_SERVER, expect: Callable[[Packet], object] = lambda packet: packet
) -> None:
    """Check that a parser reads every packet that its side receives, with any arguments that follow their rules.

    Args:
        make: makes a parser.
        receives: whose packets to try.
        expect: returns the event that the parser has to make of a packet; without it, that is the packet itself.
            ``packet.spec.number`` is its type; ``packet.encode()[12:]`` has its arguments, as they are sent.
    """
    classes = [cls for cls in PACKETS.values() if cls.spec.route & receives]

    @given(strategies.packets_of(*classes))
    def check(packet: Packet) -> None:
        parser = make()
        parser.feed(packet.encode(_magic(receives)))
        found, expected = parser.next(), expect(packet)
        assert found == expected, f"{packet} is read as {found}, not as {expected}"

    check()


def _magic(receives: Route) -> bytes:
    """Return the magic of what a side receives: reports have either."""
    return REQUEST if receives & Route.TO_SERVER else RESPONSE


def _headers() -> SearchStrategy[bytes]:
    """Headers that make sense only in part, and something behind them."""
    magics = st.sampled_from([REQUEST, RESPONSE, b"\0", b"\0REX"])
    numbers = st.integers(0, max(PACKETS) + 1) | st.integers(0, 2**32 - 1)
    sizes = st.integers(0, 80) | st.integers(0, 2**32 - 1)
    return st.builds(
        lambda magic, number, size, body: magic + number.to_bytes(4, "big") + size.to_bytes(4, "big") + body,
        magics,
        numbers,
        sizes,
        st.binary(max_size=100),
    )


def _events(parser: Parser) -> Iterator[object]:
    while (event := parser.next()) is not None:
        yield event


def _read(parser: Parser, chunks: list[bytes], errors: Errors, *, late: bool) -> tuple[list[object], bool]:
    """Return the events of a stream, and whether it has ended in an error."""
    events: list[object] = []
    try:
        for chunk in chunks:
            parser.feed(chunk)
            if not late:
                events += _events(parser)
        events += _events(parser)
    except errors:
        return events, True
    return events, False
