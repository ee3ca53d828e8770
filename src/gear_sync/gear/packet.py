"""``gear.Packet``: a packet as a magic, a type number and bytes; and what cuts a stream into them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from gearproto.codec import HEADER, MAX_GROWTH, PACKETS, Route, Spec, header_key
from gearproto.event import Event
from gearproto.framing import Decoder
from gearproto.packets import SUBMISSIONS

from . import constants
from .errors import InvalidDataError, UnknownJobError

if TYPE_CHECKING:
    from .connection import Connection
    from .jobs import Job
    from .tasks import Task

__all__ = ["MAX_ANSWER_SIZE", "RAW", "Packet", "decoder"]

MAX_PACKET_SIZE: Final = 1024**3
"""Most bytes behind the header of a packet from a server; only what has come takes memory."""

MAX_ANSWER_SIZE: Final = 64 * 1024**2
"""Most bytes of the answer to a text command, and of a line of it."""

_NUL: Final = b"\0"
_BINARY: Final = (bytes, bytearray)
_SHOWN: Final = {
    "handle": "handle",
    "function": "function",
    "unique": "unique",
    "client_id": "id",
    "option": "option",
    "code": "code",
    "text": "message",
}


class Packet(Event):
    """One packet, of whatever type.

    Attributes:
        code: the magic, `gear.constants.REQ` or `gear.constants.RES`.
        ptype: the type number.
        data: everything behind the header.
        connection: where it came from, or goes to.
        task: what the answer completes, if a client waits for one.
    """

    task: Task | None = None

    __hash__ = None  # type: ignore[assignment]  # its attributes may be assigned to

    def __init__(
        self, code: bytes | bytearray, ptype: int, data: bytes | bytearray, connection: Connection | None = None
    ) -> None:
        """Make a packet.

        Raises:
            TypeError: code or data are not bytes.
            InvalidDataError: the code does not begin with NUL.
        """
        if not isinstance(code, _BINARY):
            raise TypeError(f"packet code must be bytes, not {type(code).__name__}")
        if code[:1] != _NUL:
            raise InvalidDataError(f"packet code {bytes(code)!r} does not begin with NUL")
        if not isinstance(data, _BINARY):
            raise TypeError(f"packet data must be bytes, not {type(data).__name__}")
        self.code = code
        self.ptype = ptype
        self.data = data
        self.connection = connection
        self._job: Job | None = None

    def __repr__(self) -> str:
        name = constants.types.get(self.ptype, "UNKNOWN")
        return f"<gear.Packet 0x{id(self):x} type: {name}{self._described()}>"

    def _described(self) -> str:
        """Return what the packet says of itself; nothing if some of that is missing."""
        if self.ptype not in PACKETS:
            return ""
        names = [name for name, _kind, _rule in PACKETS[self.ptype].spec.arguments]
        if self.ptype == constants.JOB_ASSIGN:
            del names[1:]  # as `gear` shows it
        values = self.data.split(_NUL, len(names))
        shown = [index for index, name in enumerate(names) if name in _SHOWN]
        if shown and shown[-1] >= len(values):
            return ""
        return "".join(f" {_SHOWN[names[index]]}: {values[index]!r}" for index in shown)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Packet):
            return NotImplemented
        return (self.code, self.ptype, self.data) == (other.code, other.ptype, other.data)

    def toBinary(self) -> bytearray:
        """Return the packet as it goes over the wire."""
        wire = bytearray(HEADER.pack(header_key(bytes(self.code), self.ptype), len(self.data)))
        wire += self.data
        return wire

    def getArgument(self, index: int, last: bool = False) -> bytes | bytearray:
        """Return one of the arguments, which NULs part.

        Args:
            index: which one, from 0.
            last: whether it is the last one, to which all NULs behind belong; empty if it is missing.

        Raises:
            IndexError: the packet has fewer arguments.
        """
        parts = self.data.split(_NUL, index if last else index + 1)
        return b"" if last and index >= len(parts) else parts[index]

    def getJob(self) -> Job:
        """Return the job that the packet is about.

        Raises:
            UnknownJobError: the connection knows no job with the packet's handle.
        """
        if self._job is not None:
            return self._job
        handle = bytes(self.getArgument(0))
        job = None if self.connection is None else self.connection.related_jobs.get(handle)
        if job is None:
            raise UnknownJobError(f"no job with handle {handle!r} is known")
        return job

    def about(self, job: Job) -> Packet:
        """Return the same packet as one for a job, of several that share its handle."""
        packet = Packet(self.code, self.ptype, self.data, self.connection)
        packet._job = job
        return packet


class _RawSpecs(dict[bytes, Spec]):
    """Makes a `Packet` of every packet with a magic of the protocol, whatever its type."""

    def __init__(self) -> None:
        keys = [header_key(magic, number) for magic in (constants.REQ, constants.RES) for number in PACKETS]
        super().__init__((key, _spec(key)) for key in keys)

    def get(self, key: bytes, default: Spec | None = None, /) -> Spec | None:  # type: ignore[override]
        """Return what to do with packets that begin with a key."""
        spec = super().get(key, default)
        if spec is None and key[:4] in (constants.REQ, constants.RES):
            return _spec(key)
        return spec


def _spec(key: bytes) -> Spec:
    magic, number = key[:4], int.from_bytes(key[4:], "big")
    name = constants.types.get(number, f"packet {number}")
    growth = MAX_GROWTH if magic == constants.REQ and PACKETS.get(number) in SUBMISSIONS else 0
    return Spec(name, number, Route(0), (), partial(Packet, magic, number), growth=growth)


RAW: Final[Mapping[bytes, Spec]] = _RawSpecs()
"""What a decoder needs to make a `Packet` of every packet."""


def decoder() -> Decoder:
    """Return a decoder for what a server sends: it returns `Packet`, and lines with their endings."""
    return Decoder(RAW, max_packet_size=MAX_PACKET_SIZE, max_line_size=MAX_ANSWER_SIZE, line_endings=True)
