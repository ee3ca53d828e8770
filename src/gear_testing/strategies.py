"""Hypothesis strategies for packets, text commands, whole sessions, and what a network and a hostile peer make of them.

All of them are made from the tables of `gearproto`, so they know every packet, every argument and every limit.

>>> from gearproto.codec import Route
>>> from hypothesis import given
>>> @given(packets(Route.TO_SERVER))
... def test_my_encoder(packet):
...     assert my_encode(packet) == packet.encode()
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from gearproto import admin
from gearproto.codec import EXTENSIONS, MAX_NUMBER, PACKETS, Argument, Packet, Route

from .sessions import ROLES, Role, Session, play

__all__ = [
    "NAME_SIZE",
    "ROLES",
    "Role",
    "Session",
    "cut",
    "hostile_names",
    "mutations",
    "numbers",
    "packets",
    "packets_of",
    "payloads",
    "replies",
    "rows",
    "sessions",
    "splits",
    "text_commands",
]

NAME_SIZE: Final = 24
"""Most bytes of the names that the strategies make where the protocol allows more."""

_PIECES: Final = (
    *(b"\n", b"\r\n", b"\t", b" ", b".", b"\n.\n", b"-", b":", b" : ", b"ERR ", b"ERR UNKNOWN_JOB", b"OK", b"a"),
    *(b"\\", b"\\x", b"\\x2e", b"5", b"41", b"\xff", b"\x1b[2J", "é".encode(), "\u2028".encode()),
)
"""What could break, forge or end an answer of rows."""


# Arguments


def payloads(max_size: int = 40) -> SearchStrategy[bytes]:
    """Opaque data, NUL bytes included.

    Args:
        max_size: most bytes.
    """
    return st.binary(max_size=max_size)


@cache
def numbers() -> SearchStrategy[int]:
    """Whole numbers that a packet can hold, up to 19 digits; small ones more often."""
    return st.integers(-MAX_NUMBER, MAX_NUMBER) | st.integers(0, 100)


@cache
def hostile_names(*, empty: bool = True) -> SearchStrategy[bytes]:
    """Any bytes, rich in those that mean something to the text protocol.

    As a name of a function or a job they may break or forge the answer to a text command. Some of them hold NUL bytes,
    which only text commands and payloads can carry.

    Args:
        empty: whether the name may be empty.
    """
    names = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=4), max_size=5).map(b"".join)
    return names if empty else names.filter(bool)


def _argument(kind: type, rule: Argument) -> SearchStrategy[object]:
    """Values that one argument of a packet may have."""
    if kind is bool:
        return st.booleans()
    if kind is int:
        return numbers() if rule.negative else numbers().map(abs)
    if rule.payload:
        return payloads()
    size = NAME_SIZE if rule.limit is None else min(rule.limit, NAME_SIZE)
    return st.binary(max_size=size).map(lambda raw: raw.replace(b"\0", b"0") or b"0" * (not rule.empty))


# Packets


def packets_of(*classes: type[Packet]) -> SearchStrategy[Packet]:
    """Packets of any of these classes, with arguments that follow their rules."""
    return st.one_of(
        *(st.builds(cls, *(_argument(kind, rule) for _name, kind, rule in cls.spec.arguments)) for cls in classes)
    )


@cache
def packets(route: Route | None = None) -> SearchStrategy[Packet]:
    """Packets with arguments that follow their rules.

    Args:
        route: who sends them to whom: those that go at least one of these ways, extensions of the protocol included.
            None means all packets of the protocol document.
    """
    if route is None:
        return packets_of(*PACKETS.values())
    return packets_of(*(cls for cls in (*PACKETS.values(), *EXTENSIONS.values()) if cls.spec.route & route))


# Text commands

_WITHOUT_ARGUMENTS: Final[tuple[admin.Command[Any], ...]] = (
    admin.Status(),
    admin.PriorityStatus(),
    admin.Workers(),
    admin.Version(),
    admin.Verbose(),
    admin.GetPid(),
    admin.ShowJobs(),
    admin.ShowUniqueJobs(),
    admin.Shutdown(),
    admin.Shutdown(graceful=True),
)


@cache
def text_commands() -> SearchStrategy[admin.Command[Any]]:
    """Every text command that can be sent, with hostile names as arguments. ``encode()`` makes the line."""
    names = hostile_names(empty=False)
    sizes = st.integers(0, 10**18 - 1)
    return st.one_of(
        st.sampled_from(_WITHOUT_ARGUMENTS),
        st.builds(admin.CancelJob, names),
        st.builds(admin.CreateFunction, names),
        st.builds(admin.DropFunction, names),
        st.builds(admin.MaxQueue, names, st.just(()) | st.tuples(sizes) | st.tuples(sizes, sizes, sizes)),
    )


@cache
def rows(cls: type[admin.Row]) -> SearchStrategy[admin.Row]:
    """Rows of one class, as answers to text commands consist of them, with hostile names.

    Args:
        cls: such as `gearproto.admin.FunctionStatus`.
    """
    counts = st.integers(0, 2**32)
    names, functions = hostile_names(), st.lists(hostile_names(empty=False), max_size=4).map(tuple)
    made: dict[type[admin.Row], SearchStrategy[admin.Row]] = {
        admin.FunctionStatus: st.builds(admin.FunctionStatus, names, counts, counts, counts),
        admin.FunctionPriorities: st.builds(admin.FunctionPriorities, names, counts, counts, counts, counts),
        admin.WorkerListed: st.builds(admin.WorkerListed, counts, names, names, functions),
        admin.JobListed: st.builds(admin.JobListed, names, counts, st.booleans(), st.booleans()),
        admin.UniqueListed: st.builds(admin.UniqueListed, names),
    }
    return made[cls]


@cache
def replies() -> SearchStrategy[tuple[admin.Command[Any], admin.Reply]]:
    """Any text command, with an answer that it may get."""
    return text_commands().flatmap(lambda command: st.tuples(st.just(command), _replies_to(command)))


def _replies_to(command: admin.Command[Any]) -> SearchStrategy[admin.Reply]:
    if command.row is not None:
        return st.lists(rows(command.row), max_size=6).map(tuple).map(admin.Rows)
    words = st.from_regex(rb"[A-Z_]{1,12}", fullmatch=True)
    text = st.from_regex(rb"[ -~]{1,12}", fullmatch=True) | st.just(b"")
    return st.builds(admin.Refused, words, text) | st.builds(admin.Ok, text)


# Sessions


@cache
def sessions(role: Role, *, max_size: int = 12) -> SearchStrategy[Session]:
    """Whole conversations of one peer with a job server: what it sends, and what the server answers.

    The answers are those of `gearproto.server.Engine`: the handles are real, and a client's jobs are run by a worker, a
    worker's come from a client. So the bytes of either direction make sense as a whole; see `Session.to_server` and
    `Session.from_server`.

    Args:
        role: ``"client"``, ``"worker"`` or ``"administrator"``.
        max_size: most requests.
    """
    return play(role, max_size, text_commands())


# What networks and hostile peers do


def splits(data: bytes) -> SearchStrategy[list[bytes]]:
    """Every way of splitting a byte string into chunks that are not empty, byte by byte among them."""
    if not data:
        return st.just([])
    places = st.lists(st.integers(0, len(data)), max_size=12)
    return (places | st.just(list(range(len(data))))).map(lambda at: cut(data, at))


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut a byte string at these places, in any order."""
    edges = sorted({0, *places, len(data)})
    return [data[start:end] for start, end in pairwise(edges)]


_EDITS: Final = st.tuples(
    st.sampled_from(["change", "drop", "insert", "double"]), st.integers(0, 2**16), st.integers(0, 255)
)


def mutations(data: bytes | SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Byte strings with one to four edits: bytes changed, left out, put in or doubled.

    Args:
        data: what to change, or a strategy for it.
    """
    sources = st.just(data) if isinstance(data, bytes) else data
    return st.builds(_mutate, sources, st.lists(_EDITS, min_size=1, max_size=4))


def _mutate(data: bytes, edits: Sequence[tuple[str, int, int]]) -> bytes:
    result = bytearray(data)
    for kind, place, byte in edits:
        at = place % (len(result) + 1)
        if kind == "insert":
            result[at:at] = bytes([byte])
        elif kind == "change":
            result[at : at + 1] = bytes([byte])
        elif kind == "drop":
            del result[at : at + 1 + byte % 4]
        else:
            result[at:at] = result[at : at + 16]
    return bytes(result)
