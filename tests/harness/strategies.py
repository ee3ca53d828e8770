"""Hypothesis strategies for packets, text commands and byte strings, made from the tables of `gearproto`."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from gearproto import admin
from gearproto.codec import EXTENSIONS, MAX_NUMBER, PACKETS, Argument, Packet, Route

NAME_SIZE = 24
"""Longest name that the strategies make where the protocol allows more."""

payloads = st.binary(max_size=40)
"""Opaque data, NUL bytes included."""

numbers = st.integers(-MAX_NUMBER, MAX_NUMBER) | st.integers(0, 100)
"""Whole numbers that a packet can hold."""

hostile_pieces = st.sampled_from(
    [
        *(b"\n", b"\r\n", b"\t", b" ", b".", b"\n.\n", b"-", b":", b" : ", b"ERR ", b"ERR UNKNOWN_JOB", b"OK", b"a"),
        *(b"\\", b"\\x", b"\\x2e", b"5", b"41", b"\xff", b"\x1b[2J", "é".encode(), "\u2028".encode()),
    ]
)
"""What could break, forge or end an answer of rows."""

hostile_names = st.lists(hostile_pieces | st.binary(max_size=4), max_size=5).map(b"".join)
"""Any bytes, rich in those that mean something to the text protocol."""


def argument(kind: type, rule: Argument) -> SearchStrategy[object]:
    """Values that one argument of a packet may have."""
    if kind is bool:
        return st.booleans()
    if kind is int:
        return numbers if rule.negative else numbers.map(abs)
    if rule.payload:
        return payloads
    size = NAME_SIZE if rule.limit is None else min(rule.limit, NAME_SIZE)
    return st.binary(max_size=size).map(lambda raw: raw.replace(b"\0", b"0") or b"0" * (not rule.empty))


def packets_of(cls: type[Packet]) -> SearchStrategy[Packet]:
    """Packets of one class."""
    return st.builds(cls, *(argument(kind, rule) for _name, kind, rule in cls.spec.arguments))


def packets_of_any(classes: Iterable[type[Packet]]) -> SearchStrategy[Packet]:
    """Packets of any of these classes."""
    return st.one_of(*map(packets_of, classes))


def routed(route: Route) -> SearchStrategy[Packet]:
    """Packets that go at least one of these ways."""
    classes = (*PACKETS.values(), *EXTENSIONS.values())
    return packets_of_any(cls for cls in classes if cls.spec.route & route)


packets = packets_of_any(PACKETS.values())
"""Any packet of the protocol document."""

requests = routed(Route.TO_SERVER)
"""Any packet to a server."""

responses = routed(Route.FROM_SERVER)
"""Any packet from a server."""

_names = hostile_names.filter(lambda name: name != b"")
_sizes = st.integers(0, 10**18 - 1)

commands: SearchStrategy[admin.Command[Any]] = st.one_of(
    st.sampled_from(
        [
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
        ]
    ),
    st.builds(admin.CancelJob, _names),
    st.builds(admin.CreateFunction, _names),
    st.builds(admin.DropFunction, _names),
    st.builds(admin.MaxQueue, _names, st.just(()) | st.tuples(_sizes) | st.tuples(_sizes, _sizes, _sizes)),
)
"""Any text command that can be sent."""

_counts = st.integers(0, 2**32)

ROWS: dict[type[admin.Row], SearchStrategy[admin.Row]] = {
    admin.FunctionStatus: st.builds(admin.FunctionStatus, hostile_names, _counts, _counts, _counts),
    admin.FunctionPriorities: st.builds(admin.FunctionPriorities, hostile_names, _counts, _counts, _counts, _counts),
    admin.WorkerListed: st.builds(
        admin.WorkerListed, _counts, hostile_names, hostile_names, st.lists(_names, max_size=4).map(tuple)
    ),
    admin.JobListed: st.builds(admin.JobListed, hostile_names, _counts, st.booleans(), st.booleans()),
    admin.UniqueListed: st.builds(admin.UniqueListed, hostile_names),
}
"""Rows of every class."""

row_commands: list[admin.Command[Any]] = [cls() for cls in admin.COMMANDS.values() if cls.row is not None]
"""One of each command that is answered by rows."""


def rows_for(command: admin.Command[Any]) -> SearchStrategy[tuple[admin.Row, ...]]:
    """Rows that may answer a command."""
    assert command.row is not None
    return st.lists(ROWS[command.row], max_size=6).map(tuple)


def _replies_to(command: admin.Command[Any]) -> SearchStrategy[tuple[admin.Command[Any], admin.Reply]]:
    words = st.from_regex(rb"[A-Z_]{1,12}", fullmatch=True)
    text = st.from_regex(rb"[ -~]{1,12}", fullmatch=True)
    refused = st.builds(admin.Refused, words, text | st.just(b""))
    if command.row is not None:
        return st.tuples(st.just(command), rows_for(command).map(admin.Rows))
    return st.tuples(st.just(command), refused | st.builds(admin.Ok, text | st.just(b"")))


replies: SearchStrategy[tuple[admin.Command[Any], admin.Reply]] = commands.flatmap(_replies_to)
"""Any command, with an answer that it may get."""


def cuts(data: bytes) -> SearchStrategy[list[bytes]]:
    """All ways of cutting a byte string into chunks, none of them empty."""
    if not data:
        return st.just([])
    places = st.lists(st.integers(0, len(data)), max_size=12)
    return (places | st.just(list(range(len(data))))).map(lambda at: cut(data, at))


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut a byte string at these places."""
    edges = sorted({0, *places, len(data)})
    return [data[start:end] for start, end in pairwise(edges)]


_edits = st.tuples(st.sampled_from(["change", "drop", "insert", "double"]), st.integers(0, 2**16), st.integers(0, 255))


def mutated(sources: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Byte strings with some bytes changed, left out, put in or doubled."""
    return st.builds(_mutate, sources, st.lists(_edits, min_size=1, max_size=4))


def _mutate(data: bytes, edits: list[tuple[str, int, int]]) -> bytes:
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
