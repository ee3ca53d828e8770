"""Encodes and decodes packets: the machinery behind the classes in `gearproto.packets`.

A packet is a header of 12 bytes (magic, type number and size, big-endian) and arguments with one NUL between them; only
the last argument may hold NUL bytes, and only where it is a `Payload`. A class declares its arguments as annotations;
`packet` prepares its encoder and its decoder from them, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from enum import Flag, auto
from functools import cache
from math import inf
from operator import attrgetter
from struct import Struct
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeVar, cast, dataclass_transform, get_args

from .errors import LocalProtocolError
from .event import Event, event

__all__ = [
    "EXTENSIONS",
    "HEADER",
    "MAX_GROWTH",
    "MAX_HANDLE_SIZE",
    "MAX_NAME_SIZE",
    "MAX_NUMBER",
    "MAX_NUMBER_SIZE",
    "MAX_UNIQUE_SIZE",
    "PACKETS",
    "REQUEST",
    "RESPONSE",
    "Argument",
    "Count",
    "Handle",
    "MalformedArgumentsError",
    "MalformedPacket",
    "Name",
    "Packet",
    "Payload",
    "Route",
    "Spec",
    "Text",
    "UnexpectedPacket",
    "Unique",
    "decoders",
    "header_key",
    "packet",
    "read_number",
    "split_arguments",
]

REQUEST: Final = b"\0REQ"
"""Magic of packets to a server."""

RESPONSE: Final = b"\0RES"
"""Magic of packets from a server."""

HEADER: Final = Struct("!8sI")
"""The header: magic and type number, which are the key of a packet (`header_key`), then the size of what follows."""

MAX_HANDLE_SIZE: Final = 63
"""Longest job handle in bytes; the protocol document says 64 with a terminator."""

MAX_UNIQUE_SIZE: Final = 64
"""Longest unique, and longest reducer, in bytes."""

MAX_NAME_SIZE: Final = 8191
"""Longest function name, client id or option in bytes; what fits into gearmand's buffer for arguments."""

MAX_NUMBER: Final = 10**19 - 1
"""Greatest number, either way from 0, that an argument may hold: 19 digits."""

MAX_NUMBER_SIZE: Final = 32
"""Most bytes that a number may take on the wire, with its blanks and its fraction."""

MAX_GROWTH: Final = MAX_HANDLE_SIZE + 2
"""How many bytes longer than the submission of a job the ``JOB_ASSIGN_ALL`` that hands it out may be.

A server counts submissions as that much more, so that a worker with the limit of the server can take every job.
"""

_NUL: Final = b"\0"
_NUMBER: Final = re.compile(rb"\s*([+-]?[0-9]{1,19})(?:\.[0-9]*)?\s*")


def header_key(magic: bytes, number: int) -> bytes:
    """Return the first 8 bytes of a header, by which decoders find what the packet is.

    Args:
        magic: `REQUEST` or `RESPONSE`.
        number: type number of the packet.
    """
    return magic + number.to_bytes(4, "big")


class Route(Flag):
    """Who sends a packet to whom. It replaces the columns magic and type of the protocol's table."""

    FROM_CLIENT = auto()
    FROM_WORKER = auto()
    TO_CLIENT = auto()
    TO_WORKER = auto()
    TO_SERVER = FROM_CLIENT | FROM_WORKER
    FROM_SERVER = TO_CLIENT | TO_WORKER


@dataclass(frozen=True, slots=True)
class Argument:
    """The rule for an argument. It only affects validation.

    Attributes:
        limit: its maximum size in bytes; None if only the packet's size is limited.
        empty: whether it may be empty.
        payload: whether it may hold NUL bytes; only the last argument of a packet can.
        negative: whether a number may be below 0. Clients accept such numbers anyway, because gearmand passes them on.
    """

    limit: int | None = None
    empty: bool = True
    payload: bool = False
    negative: bool = True


Name = Annotated[bytes, Argument(limit=MAX_NAME_SIZE, empty=False)]
Handle = Annotated[bytes, Argument(limit=MAX_HANDLE_SIZE, empty=False)]
Unique = Annotated[bytes, Argument(limit=MAX_UNIQUE_SIZE)]
Text = Annotated[bytes, Argument(limit=MAX_NAME_SIZE)]
Count = Annotated[int, Argument(negative=False)]
Payload = Annotated[bytes, Argument(payload=True)]
"""Opaque data, the rest of the packet."""


class MalformedArgumentsError(ValueError):
    """The arguments of a whole packet do not fit its class."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A packet class prepared for the decoder.

    Attributes:
        name: wire name, such as ``SUBMIT_JOB_BG``.
        number: type number.
        route: who sends it to whom.
        arguments: name, type (bytes, int or bool) and rule of each argument.
        decode: turns the bytes behind the header into an event.
        growth: how many bytes more than its own it counts against the limit of a server: see `MAX_GROWTH`.
        make: turns arguments and payload into the same event, where that needs no more than putting them together;
            spares big payloads a copy.
        key: what its header begins with: see `header_key`. Reports, which may have either magic, are requests.
        response_key: the same with the magic of a response.
        checks: the arguments once more, with what `Packet.validate` looks at first.
    """

    name: str
    number: int
    route: Route
    arguments: tuple[tuple[str, type, Argument], ...]
    decode: Callable[[bytes], Event]
    make: Callable[..., Event] | None = None
    growth: int = 0
    key: bytes = field(init=False)
    response_key: bytes = field(init=False)
    checks: tuple[tuple[str, type, Argument, bool, float, bool], ...] = field(init=False)

    def __post_init__(self) -> None:
        """Choose the magic, and prepare the check of arguments."""
        magic = REQUEST if self.route & Route.TO_SERVER else RESPONSE
        object.__setattr__(self, "key", header_key(magic, self.number))
        object.__setattr__(self, "response_key", header_key(RESPONSE, self.number))
        checks = tuple(
            (name, kind, rule, rule.payload, inf if rule.limit is None else rule.limit, rule.empty)
            for name, kind, rule in self.arguments
        )
        object.__setattr__(self, "checks", checks)


@event
class MalformedPacket(Event):
    """A whole packet whose arguments are not valid. What follows it is untouched.

    Attributes:
        packet: name of the packet, such as ``WORK_STATUS``.
        reason: what is wrong with it, as text.
    """

    packet: str
    reason: str


@event
class UnexpectedPacket(Event):
    """A whole, known packet that this side never receives, such as a response sent to a server.

    Attributes:
        packet: name of the packet.
        response: whether it came with the magic of a response.
    """

    packet: str
    response: bool


class Packet(Event):
    """Base of all packets.

    Attributes:
        spec: the packet's row of the protocol's table.
    """

    __slots__ = ()
    spec: ClassVar[Spec]
    _encode_body: ClassVar[Callable[[Packet], bytes]]

    def encode(self, magic: bytes | None = None) -> bytes:
        """Return the packet as bytes.

        Args:
            magic: `REQUEST` or `RESPONSE`. None means the one that fits; reports, which have both, become requests.
        """
        spec = self.spec
        body = type(self)._encode_body(self)
        return HEADER.pack(spec.key if magic is None else header_key(magic, spec.number), len(body)) + body

    def validate(self) -> None:
        """Check every argument against its rule.

        Raises:
            LocalProtocolError: one breaks it; the message names packet, argument and limit.
        """
        for name, kind, rule, payload, limit, empty in self.spec.checks:
            value = getattr(self, name)
            if type(value) is kind is bytes and (
                payload or (len(value) <= limit and (empty or value) and 0 not in value)
            ):
                continue  # most arguments: half the time of `_check`
            self._check(name, kind, rule, value)

    def _check(self, name: str, kind: type, rule: Argument, value: Any) -> None:
        """Check one argument; raises as `validate`."""
        base = bytes if kind is bytes else int
        if not isinstance(value, base):
            raise self._invalid(name, f"must be {base.__name__}, not {type(value).__name__}")
        if isinstance(value, int):
            if abs(value) > MAX_NUMBER:
                raise self._invalid(name, "has over 19 digits")
            if value < 0 and not rule.negative:
                raise self._invalid(name, "must not be negative")
        elif 0 in value and not rule.payload:
            raise self._invalid(name, "must not hold NUL bytes")
        elif rule.limit is not None and len(value) > rule.limit:
            raise self._invalid(name, f"has {len(value)} bytes, limit {rule.limit}")
        elif not rule.empty and not value:
            raise self._invalid(name, "must not be empty")

    def _invalid(self, name: str, text: str) -> LocalProtocolError:
        return LocalProtocolError(f"{self.spec.name}: {name} {text}")


PACKETS: Final[dict[int, type[Packet]]] = {}
"""Every packet class of the protocol document by its type number."""

EXTENSIONS: Final[dict[int, type[Packet]]] = {}
"""Packet classes that the document does not have, by their type numbers, which are far from those of the document.

A server sends them only on connections that have asked for them (``OPTION_REQ``).
"""

_P = TypeVar("_P", bound=type[Packet])


def read_number(raw: bytes) -> int:
    """Read a decimal argument. Empty is 0, as some servers leave unknown numbers out; a fraction is cut off."""
    if not raw:
        return 0
    if len(raw) > MAX_NUMBER_SIZE:
        raise MalformedArgumentsError(f"number of {len(raw)} bytes, limit {MAX_NUMBER_SIZE}")
    if (match := _NUMBER.fullmatch(raw)) is None:
        raise MalformedArgumentsError(f"{raw[:24]!r} is not a number of at most 19 digits")
    return int(match[1])


def _truth(raw: bytes) -> bool:
    return read_number(raw) != 0


def split_arguments(body: bytes, count: int, payload: bool) -> list[bytes]:
    """Cut a packet's body into its arguments."""
    parts = body.split(_NUL, count - 1)
    if len(parts) != count:
        raise MalformedArgumentsError(f"{len(parts)} arguments, not {count}")
    if not payload:
        # Some servers end the last argument with a NUL that the protocol does not have.
        last = parts[-1] = parts[-1].removesuffix(_NUL)
        if 0 in last:
            raise MalformedArgumentsError("NUL byte in the last argument")
    return parts


def _body_decoder(cls: type[Packet], arguments: tuple[tuple[str, type, Argument], ...]) -> Callable[[bytes], Event]:
    """Prepare the decoder of one class."""
    if not arguments:
        instance = cls()
        return lambda _body: instance  # the body of such a packet is ignored, as in gearmand
    count = len(arguments)
    payload = arguments[-1][2].payload
    readers: dict[type, Callable[[bytes], int]] = {int: read_number, bool: _truth}
    numbers = [(index, readers[kind]) for index, (_name, kind, _rule) in enumerate(arguments) if kind in readers]
    if payload and not numbers:
        if count == 1:
            return cls
        last = count - 1

        # `split_arguments` and the loop over numbers would take 1.2 times as long; `partition` instead of `split` 1.9.
        def decode(body: bytes) -> Event:
            parts = body.split(_NUL, last)
            if len(parts) != count:
                raise MalformedArgumentsError(f"{len(parts)} arguments, not {count}")
            return cls(*parts)

        return decode

    def decode_checked(body: bytes) -> Event:
        parts: list[Any] = split_arguments(body, count, payload)
        for index, read in numbers:
            parts[index] = read(parts[index])
        return cls(*parts)

    return decode_checked


def _maker(cls: type[Packet], arguments: tuple[tuple[str, type, Argument], ...]) -> Callable[..., Event] | None:
    """Return the class itself where its arguments are bytes before a payload."""
    plain = arguments and arguments[-1][2].payload and all(kind is bytes for _name, kind, _rule in arguments)
    return cls if plain else None


def _body_encoder(arguments: tuple[tuple[str, type, Argument], ...]) -> Callable[[Packet], bytes]:
    """Prepare the encoder of one class: a loop over the arguments for each packet takes 1.8 times as long."""
    if not arguments:
        return lambda _packet: b""
    get: Any = attrgetter(*(name for name, _kind, _rule in arguments))
    if len(arguments) == 1:
        return lambda packet: cast("bytes", get(packet))
    numbers = [index for index, (_name, kind, _rule) in enumerate(arguments) if kind is not bytes]
    if not numbers:
        return lambda packet: _NUL.join(get(packet))

    def encode(packet: Packet) -> bytes:
        parts = list(get(packet))
        for index in numbers:
            parts[index] = b"%d" % parts[index]
        return _NUL.join(parts)

    return encode


def decoders(receives: Route) -> dict[bytes, Spec]:
    """Return the specs that a decoder needs, by header key.

    Args:
        receives: the routes whose packets this side receives.

    Returns:
        A spec for every known packet under either magic. Those that this side never receives decode to
        `UnexpectedPacket`.
    """
    table: dict[bytes, Spec] = {}
    for magic, routes in ((REQUEST, Route.TO_SERVER), (RESPONSE, Route.FROM_SERVER)):
        for number in range(1, max(PACKETS) + 1):
            table[header_key(magic, number)] = _spec_for(number, routes & receives, magic == RESPONSE)
    extensions = (cls.spec for cls in EXTENSIONS.values())
    return table | {spec.key: spec for spec in extensions if spec.route & receives}


def _spec_for(number: int, routes: Route, response: bool) -> Spec:
    """Return what one side makes of one header."""
    if (cls := PACKETS.get(number)) is None:  # type 5
        return _unexpected("(unused)", number, response)
    return cls.spec if cls.spec.route & routes else _unexpected(cls.spec.name, number, response)


def _unexpected(name: str, number: int, response: bool) -> Spec:
    found = UnexpectedPacket(name, response)
    return Spec(name, number, Route(0), (), lambda _body: found)


def _wire_name(class_name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", class_name).upper()


def _rules(cls: type[Packet]) -> Iterable[tuple[str, type, Argument]]:
    for argument in fields(cls):  # type: ignore[arg-type]
        yield argument.name, *_kind(str(argument.type))


@cache
def _kind(annotation: str) -> tuple[type, Argument]:
    """Return the type and the rule that an annotation stands for; reading each once spares most of the time."""
    hint = eval(annotation)
    kind, *extras = get_args(hint) or (hint,)
    return kind, extras[0] if extras else Argument()


if TYPE_CHECKING:

    @dataclass_transform(frozen_default=True)
    def packet(number: int, route: Route, table: dict[int, type[Packet]] = PACKETS) -> Callable[[_P], _P]:
        """Make a class the packet with this type number and route.

        Args:
            number: the type number.
            route: who sends it to whom.
            table: where the class is entered.
        """
        ...

else:

    def packet(number, route, table=PACKETS):
        """Make a class the packet with this type number and route."""

        def decorate(cls):
            cls = event(cls)
            arguments = tuple(_rules(cls))
            cls.spec = Spec(
                _wire_name(cls.__name__),
                number,
                route,
                arguments,
                _body_decoder(cls, arguments),
                _maker(cls, arguments),
            )
            cls._encode_body = staticmethod(_body_encoder(arguments))
            table[number] = cls
            return cls

        return decorate
