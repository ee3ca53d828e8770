"""The packets of the Gearman protocol: one class for each row of its packet table.

Decoding, encoding, validation, the strategies of the tests and the table in the documentation all derive from the
classes here. A packet is a header of 12 bytes (magic, type number and size, big-endian) and arguments with one NUL
between them; only the last argument may hold NUL bytes, and only where it is a `Payload`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from enum import Flag, IntEnum, auto
from functools import cache
from operator import attrgetter
from struct import Struct
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
)

from .errors import LocalProtocolError
from .events import Event, MalformedPacket, UnexpectedPacket, event

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
    "SUBMISSIONS",
    "AllYours",
    "CanDo",
    "CanDoTimeout",
    "CantDo",
    "EchoReq",
    "EchoRes",
    "Error",
    "GetStatus",
    "GetStatusUnique",
    "GrabJob",
    "GrabJobAll",
    "GrabJobUniq",
    "JobAssign",
    "JobAssignAll",
    "JobAssignUniq",
    "JobCreated",
    "JobRequeued",
    "NoJob",
    "Noop",
    "OptionReq",
    "OptionRes",
    "Packet",
    "PreSleep",
    "Priority",
    "Report",
    "ResetAbilities",
    "Route",
    "SetClientId",
    "Spec",
    "StatusRes",
    "StatusResUnique",
    "SubmitJob",
    "SubmitJobBg",
    "SubmitJobEpoch",
    "SubmitJobHigh",
    "SubmitJobHighBg",
    "SubmitJobLow",
    "SubmitJobLowBg",
    "SubmitJobSched",
    "SubmitReduceJob",
    "SubmitReduceJobBackground",
    "WorkComplete",
    "WorkData",
    "WorkException",
    "WorkFail",
    "WorkStatus",
    "WorkWarning",
    "decoders",
]

REQUEST: Final = b"\0REQ"
"""Magic of packets to a server."""

RESPONSE: Final = b"\0RES"
"""Magic of packets from a server."""

HEADER: Final = Struct("!QI")
"""The header: magic and type number as one key, then the size of what follows."""

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
_RAW_HEADER: Final = Struct("!4sII")
_NUMBER: Final = re.compile(rb"\s*([+-]?[0-9]{1,19})(?:\.[0-9]*)?\s*")


class Route(Flag):
    """Who sends a packet to whom; stands for the columns magic and type of the protocol's table."""

    FROM_CLIENT = auto()
    FROM_WORKER = auto()
    TO_CLIENT = auto()
    TO_WORKER = auto()
    TO_SERVER = FROM_CLIENT | FROM_WORKER
    FROM_SERVER = TO_CLIENT | TO_WORKER


class Priority(IntEnum):
    """Which jobs go first. The numbers are those of gearmand's stores."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class Argument:
    """What an argument may be: decides validation, and nothing else.

    Attributes:
        limit: its longest size in bytes, or None where only the packet's size is limited.
        empty: whether it may be empty.
        payload: whether it may hold NUL bytes; only the last argument of a packet can.
        negative: whether a number may be below 0. Clients take such numbers all the same, as gearmand passes them on.
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
        magic: what the packet begins with unless told otherwise; reports, which have both, are requests then.
    """

    name: str
    number: int
    route: Route
    arguments: tuple[tuple[str, type, Argument], ...]
    decode: Callable[[bytes], Event]
    make: Callable[..., Event] | None = None
    growth: int = 0
    magic: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Choose the magic."""
        object.__setattr__(self, "magic", REQUEST if self.route & Route.TO_SERVER else RESPONSE)


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
        return _RAW_HEADER.pack(magic or spec.magic, spec.number, len(body)) + body

    def validate(self) -> None:
        """Check every argument against its rule.

        Raises:
            LocalProtocolError: one breaks it; the message names packet, argument and limit.
        """
        for name, kind, rule in self.spec.arguments:
            value = getattr(self, name)
            base = bytes if kind is bytes else int
            if not isinstance(value, base):
                raise self._invalid(name, f"must be {base.__name__}, not {type(value).__name__}")
            if isinstance(value, int):
                if abs(value) > MAX_NUMBER:
                    raise self._invalid(name, "has over 19 digits")
                if value < 0 and not rule.negative:
                    raise self._invalid(name, "must not be negative")
            elif rule.payload:
                continue
            elif 0 in value:
                raise self._invalid(name, "must not hold NUL bytes")
            elif rule.limit is not None and len(value) > rule.limit:
                raise self._invalid(name, f"has {len(value)} bytes, limit {rule.limit}")
            elif not rule.empty and not value:
                raise self._invalid(name, "must not be empty")

    def _invalid(self, name: str, text: str) -> LocalProtocolError:
        return LocalProtocolError(f"{self.spec.name}: {name} {text}")


@event
class Report(Event):
    """A report of a worker as a server sees it: ``WORK_STATUS``, ``WORK_DATA`` and their kin, ready to be passed on.

    Attributes:
        packet: class of the packet.
        handle: the job it is about.
        body: all bytes behind the header, to be forwarded as they are.
    """

    packet: type[Packet]
    handle: bytes
    body: bytes

    @property
    def data(self) -> bytes:
        """What follows the handle."""
        return self.body[len(self.handle) + 1 :]

    @property
    def progress(self) -> tuple[int, int]:
        """Numerator and denominator of a ``WORK_STATUS``."""
        numerator, denominator = map(_number, _split(self.data, 2, payload=False))
        return numerator, denominator


PACKETS: Final[dict[int, type[Packet]]] = {}
"""Every packet class of the protocol document by its type number."""

EXTENSIONS: Final[dict[int, type[Packet]]] = {}
"""Packet classes that the document does not have, by their type numbers, which are far from those of the document.

A server sends them only on connections that have asked for them (``OPTION_REQ``).
"""

_P = TypeVar("_P", bound=type[Packet])


def _number(raw: bytes) -> int:
    """Read a decimal argument. Empty is 0, as some servers leave unknown numbers out; a fraction is cut off."""
    if not raw:
        return 0
    if len(raw) > MAX_NUMBER_SIZE:
        raise MalformedArgumentsError(f"number of {len(raw)} bytes, limit {MAX_NUMBER_SIZE}")
    if (match := _NUMBER.fullmatch(raw)) is None:
        raise MalformedArgumentsError(f"{raw[:24]!r} is not a number of at most 19 digits")
    return int(match[1])


def _truth(raw: bytes) -> bool:
    return _number(raw) != 0


def _split(body: bytes, count: int, payload: bool) -> list[bytes]:
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
        return lambda _body: instance  # what stands behind such a packet's header is ignored, as gearmand does
    count = len(arguments)
    payload = arguments[-1][2].payload
    readers: dict[type, Callable[[bytes], int]] = {int: _number, bool: _truth}
    numbers = [(index, readers[kind]) for index, (_name, kind, _rule) in enumerate(arguments) if kind in readers]
    if payload and not numbers:
        if count == 1:
            return cls
        last = count - 1

        def decode(body: bytes) -> Event:
            parts = body.split(_NUL, last)
            if len(parts) != count:
                raise MalformedArgumentsError(f"{len(parts)} arguments, not {count}")
            return cls(*parts)

        return decode

    def decode_checked(body: bytes) -> Event:
        parts: list[Any] = _split(body, count, payload)
        for index, read in numbers:
            parts[index] = read(parts[index])
        return cls(*parts)

    return decode_checked


def _maker(cls: type[Packet], arguments: tuple[tuple[str, type, Argument], ...]) -> Callable[..., Event] | None:
    """Return the class itself where its arguments are bytes before a payload."""
    plain = arguments and arguments[-1][2].payload and all(kind is bytes for _name, kind, _rule in arguments)
    return cls if plain else None


def _body_encoder(arguments: tuple[tuple[str, type, Argument], ...]) -> Callable[[Packet], bytes]:
    """Prepare the encoder of one class."""
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


def _report_decoder(cls: type[Packet]) -> Callable[[bytes], Event]:
    """Prepare what a server does with a report: find the handle, look at the rest only as far as it is checked."""
    arguments = cls.spec.arguments
    if arguments[-1][2].payload:

        def decode(body: bytes) -> Event:
            end = body.find(0)
            if end < 0:  # Perl's worker leaves the NUL out where there is no data
                return Report(cls, body, body + _NUL)
            return Report(cls, body[:end], body)

        return decode
    if len(arguments) == 1:

        def decode_handle(body: bytes) -> Event:
            (handle,) = _split(body, 1, payload=False)
            return Report(cls, handle, handle)

        return decode_handle

    def decode_numbers(body: bytes) -> Event:
        handle, *numbers = _split(body, len(arguments), payload=False)
        for raw, (_name, _kind, rule) in zip(numbers, arguments[1:], strict=True):
            if _number(raw) < 0 and not rule.negative:
                raise MalformedArgumentsError(f"{raw!r} is negative")
        return Report(cls, handle, body)

    return decode_numbers


def decoders(receives: Route) -> dict[int, Spec]:
    """Return what a decoder needs to know, by header key.

    Args:
        receives: the routes whose packets this side receives. `Route.TO_SERVER` makes the table of a server: reports
            come out as `Report`.

    Returns:
        A spec for every known packet under either magic. Those that this side never receives decode to
        `UnexpectedPacket`.
    """
    server = bool(receives & Route.TO_SERVER)
    table: dict[int, Spec] = {}
    for magic, routes in ((REQUEST, Route.TO_SERVER), (RESPONSE, Route.FROM_SERVER)):
        for number in range(1, max(PACKETS) + 1):
            (key, _size) = HEADER.unpack(_RAW_HEADER.pack(magic, number, 0))
            table[key] = _spec_for(number, routes & receives, server, magic == RESPONSE)
    for number, cls in EXTENSIONS.items():
        if cls.spec.route & receives:
            (key, _size) = HEADER.unpack(_RAW_HEADER.pack(cls.spec.magic, number, 0))
            table[key] = cls.spec
    return table


def _spec_for(number: int, routes: Route, server: bool, response: bool) -> Spec:
    """Return what one side makes of one header."""
    if (cls := PACKETS.get(number)) is None:  # type 5
        return _unexpected("(unused)", number, response)
    spec = cls.spec
    if not spec.route & routes:
        return _unexpected(spec.name, number, response)
    if server and spec.route & Route.TO_CLIENT:
        return Spec(spec.name, number, spec.route, spec.arguments, _report_decoder(cls))
    return replace(spec, growth=MAX_GROWTH) if server and cls in SUBMISSIONS else spec


def _unexpected(name: str, number: int, response: bool) -> Spec:
    found = UnexpectedPacket(name, response)
    return Spec(name, number, Route(0), (), lambda _body: found)


def malformed(spec: Spec, error: MalformedArgumentsError) -> MalformedPacket:
    """Return the event for a packet whose arguments make no sense."""
    return MalformedPacket(spec.name, str(error))


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
    def packet(number: int, route: Route, table: dict[int, type[Packet]] = PACKETS) -> Callable[[_P], _P]: ...

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


@packet(1, Route.FROM_WORKER)
class CanDo(Packet):
    """This worker can run a function (``CAN_DO``).

    Attributes:
        function: its name.
    """

    function: Name


@packet(2, Route.FROM_WORKER)
class CantDo(Packet):
    """This worker can no longer run a function (``CANT_DO``).

    Attributes:
        function: its name.
    """

    function: Name


@packet(3, Route.FROM_WORKER)
class ResetAbilities(Packet):
    """This worker can run nothing any more (``RESET_ABILITIES``)."""


@packet(4, Route.FROM_WORKER)
class PreSleep(Packet):
    """This worker goes to sleep, and wants a ``NOOP`` when there is a job for it (``PRE_SLEEP``)."""


@packet(6, Route.TO_WORKER)
class Noop(Packet):
    """Wakes a sleeping worker (``NOOP``)."""


@packet(7, Route.FROM_CLIENT)
class SubmitJob(Packet):
    """Submits a job of normal priority (``SUBMIT_JOB``).

    Attributes:
        function: name of the function to run.
        unique: the client's own name for the job, at most 64 bytes; jobs of one function with the same unique are
            joined. Empty means none.
        workload: what to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(8, Route.TO_CLIENT)
class JobCreated(Packet):
    """The server has taken a submission (``JOB_CREATED``). It answers submissions in their order.

    Attributes:
        handle: the server's name for the job, at most 63 bytes.
    """

    handle: Handle


@packet(9, Route.FROM_WORKER)
class GrabJob(Packet):
    """Asks for a job (``GRAB_JOB``)."""


@packet(10, Route.TO_WORKER)
class NoJob(Packet):
    """Nothing is queued for this worker's functions (``NO_JOB``)."""


@packet(11, Route.TO_WORKER)
class JobAssign(Packet):
    """Gives a job to a worker (``JOB_ASSIGN``).

    Attributes:
        handle: names the job in all reports on it.
        function: name of the function to run.
        workload: what to work on.
    """

    handle: Handle
    function: Name
    workload: Payload


@packet(12, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkStatus(Packet):
    """Progress of a running job (``WORK_STATUS``).

    Attributes:
        handle: job handle, at most 63 bytes.
        numerator: units of work done.
        denominator: units of work in all; may be 0.
    """

    handle: Handle
    numerator: Count
    denominator: Count


@packet(13, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkComplete(Packet):
    """A job is done (``WORK_COMPLETE``).

    Attributes:
        handle: job handle, at most 63 bytes.
        data: the result.
    """

    handle: Handle
    data: Payload


@packet(14, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkFail(Packet):
    """A job has failed (``WORK_FAIL``).

    Attributes:
        handle: job handle, at most 63 bytes.
    """

    handle: Handle


@packet(15, Route.FROM_CLIENT)
class GetStatus(Packet):
    """Asks what the server knows of a job (``GET_STATUS``).

    Attributes:
        handle: job handle, at most 63 bytes.
    """

    handle: Handle


@packet(16, Route.FROM_CLIENT | Route.FROM_WORKER)
class EchoReq(Packet):
    """Asks the server to send data back (``ECHO_REQ``).

    Attributes:
        data: any bytes.
    """

    data: Payload


@packet(17, Route.TO_CLIENT | Route.TO_WORKER)
class EchoRes(Packet):
    """The data of an ``ECHO_REQ`` (``ECHO_RES``).

    Attributes:
        data: the bytes of the request.
    """

    data: Payload


@packet(18, Route.FROM_CLIENT)
class SubmitJobBg(Packet):
    """Submits a background job of normal priority (``SUBMIT_JOB_BG``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        workload: what to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(19, Route.TO_CLIENT | Route.TO_WORKER)
class Error(Packet):
    """The server could not do what was asked (``ERROR``).

    Attributes:
        code: a word for programs, such as ``JOB_NOT_FOUND``.
        text: an explanation for people.
    """

    code: Text
    text: Text


@packet(20, Route.TO_CLIENT)
class StatusRes(Packet):
    """Answers ``GET_STATUS`` (``STATUS_RES``).

    Attributes:
        handle: the handle asked about.
        known: whether the server has the job, queued or running.
        running: whether a worker has it.
        numerator: units of work done.
        denominator: units of work in all; may be 0.
    """

    handle: Handle
    known: bool
    running: bool
    numerator: int
    denominator: int


@packet(21, Route.FROM_CLIENT)
class SubmitJobHigh(Packet):
    """Submits a job of high priority (``SUBMIT_JOB_HIGH``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        workload: what to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(22, Route.FROM_WORKER)
class SetClientId(Packet):
    """Tells the name of this worker, which administrators see (``SET_CLIENT_ID``).

    Attributes:
        client_id: the name.
    """

    client_id: Text


@packet(23, Route.FROM_WORKER)
class CanDoTimeout(Packet):
    """This worker can run a function, within a time limit (``CAN_DO_TIMEOUT``).

    Attributes:
        function: its name.
        timeout: the limit in milliseconds; 0 or less means none.
    """

    function: Name
    timeout: int


@packet(24, Route.FROM_WORKER)
class AllYours(Packet):
    """This worker has no other server (``ALL_YOURS``); changes nothing."""


@packet(25, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkException(Packet):
    """A job has ended with an exception (``WORK_EXCEPTION``).

    Attributes:
        handle: job handle, at most 63 bytes.
        data: the exception, in whatever form the worker gives it.
    """

    handle: Handle
    data: Payload


@packet(26, Route.FROM_CLIENT | Route.FROM_WORKER)
class OptionReq(Packet):
    """Sets an option for this connection (``OPTION_REQ``).

    Attributes:
        option: its name; the protocol knows ``exceptions``.
    """

    option: Text


@packet(27, Route.TO_CLIENT | Route.TO_WORKER)
class OptionRes(Packet):
    """The server has set an option (``OPTION_RES``).

    Attributes:
        option: its name, as it was sent.
    """

    option: Text


@packet(28, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkData(Packet):
    """A piece of a running job's result (``WORK_DATA``).

    Attributes:
        handle: job handle, at most 63 bytes.
        data: the piece.
    """

    handle: Handle
    data: Payload


@packet(29, Route.FROM_WORKER | Route.TO_CLIENT)
class WorkWarning(Packet):
    """A warning from a running job (``WORK_WARNING``).

    Attributes:
        handle: job handle, at most 63 bytes.
        data: the warning.
    """

    handle: Handle
    data: Payload


@packet(30, Route.FROM_WORKER)
class GrabJobUniq(Packet):
    """Asks for a job and its unique (``GRAB_JOB_UNIQ``)."""


@packet(31, Route.TO_WORKER)
class JobAssignUniq(Packet):
    """Gives a job to a worker, with its unique (``JOB_ASSIGN_UNIQ``).

    Attributes:
        handle: names the job in all reports on it.
        function: name of the function to run.
        unique: the client's own name for the job; may be empty.
        workload: what to work on.
    """

    handle: Handle
    function: Name
    unique: Unique
    workload: Payload


@packet(32, Route.FROM_CLIENT)
class SubmitJobHighBg(Packet):
    """Submits a background job of high priority (``SUBMIT_JOB_HIGH_BG``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        workload: what to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(33, Route.FROM_CLIENT)
class SubmitJobLow(Packet):
    """Submits a job of low priority (``SUBMIT_JOB_LOW``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        workload: what to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(34, Route.FROM_CLIENT)
class SubmitJobLowBg(Packet):
    """Submits a background job of low priority (``SUBMIT_JOB_LOW_BG``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        workload: what to work on.
    """

    function: Name
    unique: Unique
    workload: Payload


@packet(35, Route.FROM_CLIENT)
class SubmitJobSched(Packet):
    """Submits a background job for a time given as in a crontab (``SUBMIT_JOB_SCHED``). No server runs it.

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        minute: 0 to 59.
        hour: 0 to 23.
        day: day of the month, 1 to 31.
        month: 1 to 12.
        weekday: 0 to 6, Monday is 0.
        workload: what to work on.
    """

    function: Name
    unique: Unique
    minute: Text
    hour: Text
    day: Text
    month: Text
    weekday: Text
    workload: Payload


@packet(36, Route.FROM_CLIENT)
class SubmitJobEpoch(Packet):
    """Submits a background job that runs at a given time (``SUBMIT_JOB_EPOCH``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        run_at: seconds since 1970; the past means now.
        workload: what to work on.
    """

    function: Name
    unique: Unique
    run_at: int
    workload: Payload


@packet(37, Route.FROM_CLIENT)
class SubmitReduceJob(Packet):
    """Submits a job together with the name of a reducer (``SUBMIT_REDUCE_JOB``).

    The protocol document leaves the fourth argument out, but servers and clients have it.

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        reducer: handed to the worker, at most 64 bytes.
        aggregator: read by nobody.
        workload: what to work on.
    """

    function: Name
    unique: Unique
    reducer: Unique
    aggregator: Text
    workload: Payload


@packet(38, Route.FROM_CLIENT)
class SubmitReduceJobBackground(Packet):
    """Submits a background job together with the name of a reducer (``SUBMIT_REDUCE_JOB_BACKGROUND``).

    Attributes:
        function: name of the function to run.
        unique: as in `SubmitJob`.
        reducer: handed to the worker, at most 64 bytes.
        aggregator: read by nobody.
        workload: what to work on.
    """

    function: Name
    unique: Unique
    reducer: Unique
    aggregator: Text
    workload: Payload


@packet(39, Route.FROM_WORKER)
class GrabJobAll(Packet):
    """Asks for a job, its unique and its reducer (``GRAB_JOB_ALL``).

    Servers answer with ``JOB_ASSIGN_UNIQ`` where the job has no reducer.
    """


@packet(40, Route.TO_WORKER)
class JobAssignAll(Packet):
    """Gives a job to a worker, with its unique and its reducer (``JOB_ASSIGN_ALL``).

    Attributes:
        handle: names the job in all reports on it.
        function: name of the function to run.
        unique: the client's own name for the job; may be empty.
        reducer: name of the reducer.
        workload: what to work on.
    """

    handle: Handle
    function: Name
    unique: Unique
    reducer: Unique
    workload: Payload


@packet(41, Route.FROM_CLIENT)
class GetStatusUnique(Packet):
    """Asks what the server knows of a job, by its unique (``GET_STATUS_UNIQUE``).

    Attributes:
        unique: the client's own name for the job.
    """

    unique: Unique


@packet(42, Route.TO_CLIENT)
class StatusResUnique(Packet):
    """Answers ``GET_STATUS_UNIQUE`` (``STATUS_RES_UNIQUE``).

    Attributes:
        unique: the unique asked about. The protocol document says handle, but servers send the unique.
        known: whether the server has the job, queued or running.
        running: whether a worker has it.
        numerator: units of work done.
        denominator: units of work in all; may be 0.
        clients: how many clients wait for the job.
    """

    unique: Unique
    known: bool
    running: bool
    numerator: int
    denominator: int
    clients: int


@packet(1000, Route.TO_CLIENT, EXTENSIONS)
class JobRequeued(Packet):
    """A job was taken from its worker, and will run again from the beginning (``JOB_REQUEUED``).

    Comes only with the option ``reruns``, which the protocol document does not have.

    Attributes:
        handle: job handle, at most 63 bytes.
    """

    handle: Handle


SUBMISSIONS: Final[dict[type[Packet], tuple[Priority, bool]]] = {
    SubmitJob: (Priority.NORMAL, False),
    SubmitJobBg: (Priority.NORMAL, True),
    SubmitJobHigh: (Priority.HIGH, False),
    SubmitJobHighBg: (Priority.HIGH, True),
    SubmitJobLow: (Priority.LOW, False),
    SubmitJobLowBg: (Priority.LOW, True),
    SubmitJobEpoch: (Priority.NORMAL, True),
    SubmitReduceJob: (Priority.NORMAL, False),
    SubmitReduceJobBackground: (Priority.NORMAL, True),
}
"""Priority of each submission that servers run, and whether it is a background job."""
