"""What the strategies promise: everything they make can be sent, and sessions make sense as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from gear_testing import strategies
from gearproto import RemoteProtocolError, admin
from gearproto.codec import PACKETS, Packet, Route, decoders
from gearproto.events import Line, MalformedPacket, UnexpectedPacket
from gearproto.framing import Decoder
from gearproto.packets import Error, JobAssign, JobCreated, Noop, WorkComplete
from gearproto.server import server_decoders

_T = TypeVar("_T")


def messages_in(data: bytes, decoder: Decoder) -> list[Any]:
    decoder.feed(data)
    found = list(iter(decoder.next, None))
    assert decoder.buffered == 0
    return found


def one(strategy: SearchStrategy[_T], wanted: Callable[[_T], bool]) -> _T:
    """Return any example that has something, without looking for the shortest."""
    return find(strategy, wanted, settings=settings(max_examples=10_000, phases=[Phase.generate], database=None))


@given(strategies.packets())
def test_every_packet_may_be_sent(packet: Packet) -> None:
    packet.validate()


def test_every_class_of_packets_is_made() -> None:
    made: set[type[Packet]] = set()

    def is_last(packet: Packet) -> bool:
        made.add(type(packet))
        return made == set(PACKETS.values())

    one(strategies.packets(), is_last)


@given(strategies.packets(Route.TO_WORKER))
def test_packets_of_a_route_go_that_way(packet: Packet) -> None:
    assert packet.spec.route & Route.TO_WORKER


@given(strategies.text_commands())
def test_every_text_command_is_read_as_what_it_is(command: admin.Command[Any]) -> None:
    assert admin.parse_command(command.encode().removesuffix(b"\r\n")) == command


@pytest.mark.parametrize("piece", [b"\n.\n", b"\t", b"\0", b"\xff", b"ERR "])
def test_hostile_names_hold_what_breaks_an_answer(piece: bytes) -> None:
    assert piece in one(strategies.hostile_names(), lambda name: piece in name)


@given(st.binary(max_size=50), st.data())
def test_splits_put_together_are_the_whole(whole: bytes, data: st.DataObject) -> None:
    chunks = data.draw(strategies.splits(whole))
    assert b"".join(chunks) == whole
    assert b"" not in chunks


def test_splits_hold_both_ends() -> None:
    assert one(strategies.splits(b"abcd"), lambda chunks: len(chunks) == 4) == [b"a", b"b", b"c", b"d"]
    assert one(strategies.splits(b"abcd"), lambda chunks: len(chunks) == 1) == [b"abcd"]


def test_mutations_drop_double_insert_and_change() -> None:
    source = b"abcd"
    wanted: list[Callable[[bytes], bool]] = [
        lambda data: data == b"abc",
        lambda data: data == b"abcdabcd",
        lambda data: len(data) == 5 and data.startswith(b"ab") and data.endswith(b"cd"),
        lambda data: len(data) == 4 and data != source,
    ]
    for condition in wanted:
        one(strategies.mutations(source), condition)


@pytest.mark.parametrize("role", strategies.ROLES)
@given(data=st.data())
def test_both_directions_of_a_session_follow_the_protocol(role: strategies.Role, data: st.DataObject) -> None:
    session = data.draw(strategies.sessions(role))
    to_server = messages_in(session.to_server, Decoder(server_decoders()))
    from_server = messages_in(session.from_server, Decoder(decoders(Route.FROM_SERVER)))
    assert len(to_server) == len(session.exchanges)
    assert not any(isinstance(message, MalformedPacket | UnexpectedPacket) for message in to_server + from_server)
    assert from_server == [answer for exchange in session.exchanges for answer in exchange.answers]


@pytest.mark.parametrize(
    ("role", "kinds"),
    [
        ("client", [JobCreated, WorkComplete, Error, Line]),
        ("worker", [JobAssign, Noop]),
        ("administrator", [Line]),
    ],
)
def test_session_of_a_role_has_what_the_role_gets(role: strategies.Role, kinds: list[type]) -> None:
    missing = set(kinds)

    def is_last(session: strategies.Session) -> bool:
        missing.difference_update(type(answer) for exchange in session.exchanges for answer in exchange.answers)
        return not missing

    one(strategies.sessions(role), is_last)


@given(strategies.mutations(strategies.sessions("client").map(lambda session: session.to_server)))
def test_mutations_take_a_strategy_too(data: bytes) -> None:
    decoder = Decoder(server_decoders())
    decoder.feed(data)
    try:
        while decoder.next() is not None:
            pass
    except RemoteProtocolError:
        pass
