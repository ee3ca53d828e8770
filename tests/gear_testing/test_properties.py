"""The ready properties hold for the parsers of this package, and each of them finds the fault that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st

from gear_testing import properties
from gear_testing.properties import Parser, parser_of
from gearproto import ClientConnection, RemoteProtocolError, WorkerConnection
from gearproto.codec import Packet, Route, decoders
from gearproto.framing import Decoder

SERVER = partial(Decoder, decoders(Route.TO_SERVER))
LIMIT = 64  # bytes of a packet, or of a line
LONG = st.binary(min_size=LIMIT + 1, max_size=LIMIT + 9)
BOUNDED = partial(SERVER, max_packet_size=LIMIT, max_line_size=LIMIT)


def client() -> Parser:
    return parser_of(ClientConnection())


def worker() -> Parser:
    return parser_of(WorkerConnection())


@pytest.mark.parametrize(("make", "receives"), [(client, Route.TO_CLIENT), (worker, Route.TO_WORKER)])
def test_connections_have_every_property_of_streams(make: Callable[[], Parser], receives: Route) -> None:
    data = properties.streams(receives)
    properties.any_split_gives_the_same_events(make, data=data)
    properties.any_bytes_give_events_or_an_error(make, data=data)


def test_the_decoder_has_every_property() -> None:
    properties.any_split_gives_the_same_events(SERVER)
    properties.any_bytes_give_events_or_an_error(BOUNDED, limit=LIMIT + 12)
    properties.every_message_comes_with_its_last_byte(SERVER)
    properties.every_packet_is_read(SERVER)
    properties.every_packet_is_read(partial(Decoder, decoders(Route.TO_CLIENT)), receives=Route.TO_CLIENT)


# Parsers with a fault


@pytest.fixture
def _many_examples() -> Iterator[None]:
    """Try so many examples that each fault is found, and do not look for the shortest."""
    usual = settings.default
    assert usual is not None
    settings.register_profile(
        "faults", settings.get_profile("ci"), max_examples=3000, phases=[Phase.generate], database=None
    )
    settings.load_profile("faults")
    yield
    settings.register_profile("usual", usual)
    settings.load_profile("usual")


class Wrapped:
    """A decoder with a fault in it."""

    def __init__(self) -> None:
        self.decoder = SERVER()

    @property
    def buffered(self) -> int:
        return self.decoder.buffered

    def feed(self, data: bytes) -> None:
        self.decoder.feed(data)

    def next(self) -> object | None:
        return self.decoder.next()


class Forgets(Wrapped):
    """It takes each chunk for a whole message, as a reader without a buffer does."""

    def feed(self, data: bytes) -> None:
        self.decoder = SERVER()
        super().feed(data)


class Raises(Wrapped):
    """It raises something else than a protocol error."""

    def next(self) -> object | None:
        try:
            return super().next()
        except RemoteProtocolError as error:
            raise IndexError from error


class Hoards(Wrapped):
    """It has no limit."""


class Repeats(Wrapped):
    """It returns its first event for ever."""

    event: object | None = None

    def next(self) -> object | None:
        self.event = self.event or super().next()
        return self.event


class Waits(Wrapped):
    """It returns an event when the next message has begun."""

    held: object | None = None

    def next(self) -> object | None:
        event, self.held = self.held, super().next()
        return event


class Misreads(Wrapped):
    """It cuts data off at a NUL byte, as programs in C do."""

    def next(self) -> object | None:
        event = super().next()
        if not isinstance(event, Packet) or not event.spec.arguments:
            return event
        *leading, last = (getattr(event, name) for name, _kind, _rule in event.spec.arguments)
        return type(event)(*leading, last.partition(b"\0")[0] if isinstance(last, bytes) else last)


@pytest.mark.parametrize(
    ("check", "fault", "says"),
    [
        (properties.any_split_gives_the_same_events, Forgets, "in one piece"),
        (properties.any_bytes_give_events_or_an_error, Raises, None),
        (partial(properties.any_bytes_give_events_or_an_error, limit=LIMIT, data=LONG), Hoards, "limit 64"),
        (properties.any_bytes_give_events_or_an_error, Repeats, "events of"),
        (properties.every_message_comes_with_its_last_byte, Waits, "no event with the last byte"),
        (properties.every_packet_is_read, Misreads, "is read as"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.usefixtures("_many_examples")
def test_property_finds_its_fault(
    check: Callable[[Callable[[], Parser]], None], fault: type[Wrapped], says: str | None
) -> None:
    with pytest.raises((AssertionError, IndexError), match=says):
        check(fault)


def test_limit_of_a_parser_that_tells_no_buffered_bytes_is_not_checked_in_silence() -> None:
    class Plain:
        def feed(self, data: bytes) -> None:
            pass

        def next(self) -> object | None:
            return None

    with pytest.raises(TypeError, match="needs an attribute `buffered`"):
        properties.any_bytes_give_events_or_an_error(Plain, limit=LIMIT)
    properties.any_bytes_give_events_or_an_error(Plain)


def test_expectation_may_be_another_event_than_ours() -> None:
    def names() -> Parser:
        class Names(Wrapped):
            def next(self) -> object | None:
                event = super().next()
                return event.spec.name if isinstance(event, Packet) else event

        return Names()

    properties.every_packet_is_read(names, expect=lambda packet: packet.spec.name)
