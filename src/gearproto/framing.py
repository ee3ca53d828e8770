"""Cuts a byte stream into packets and lines.

Every message of the stream tells by its first byte what it is: NUL begins a packet, anything else a line of text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .codec import HEADER, MAX_GROWTH, PACKETS, REQUEST, RESPONSE, MalformedArgumentsError, MalformedPacket, Spec
from .errors import RemoteProtocolError
from .event import Event, event

__all__ = ["DEFAULT_MAX_LINE_SIZE", "DEFAULT_MAX_PACKET_SIZE", "DEFAULT_MAX_SERVER_PACKET_SIZE", "Decoder", "Line"]

DEFAULT_MAX_SERVER_PACKET_SIZE: Final = 64 * 1024 * 1024 + 64 * 1024
"""Most bytes behind a packet's header that a server accepts by default."""

DEFAULT_MAX_PACKET_SIZE: Final = DEFAULT_MAX_SERVER_PACKET_SIZE + 64 * 1024
"""The same of clients and workers, which have to take all that a server may pass on."""

DEFAULT_MAX_LINE_SIZE: Final = 8192
"""Most bytes of a line, its ending included, that are accepted by default."""

_HEADER_SIZE: Final = HEADER.size
_unpack_header: Final = HEADER.unpack_from
_NEWLINE: Final = 10
_BIG: Final = 65536  # packets from this size on are gathered in pieces: 8 MiB take 0.7 ms, in a bytearray 15 ms
_SMALL: Final = 4096  # pieces below this size are put together first


@event
class Line(Event):
    """One line of the text protocol, without its line ending unless the decoder keeps line endings.

    Attributes:
        text: the line; never starts with NUL.
    """

    text: bytes


class Decoder:
    """Splits what a peer sends into packets and lines, one at a time.

    Complete input stays immutable bytes, read through a cursor; only an unfinished message is gathered, and looked at
    again when it is whole. So one-byte chunks and huge packets both take linear time.

    Attributes:
        holds_back: whether input has been gathered since this was last set to False.
    """

    __slots__ = (
        "_big",
        "_cursor",
        "_data",
        "_line_endings",
        "_max_line",
        "_max_packet",
        "_missing",
        "_partial",
        "_safe_packet",
        "_specs",
        "holds_back",
    )

    def __init__(
        self,
        specs: Mapping[bytes, Spec],
        *,
        max_packet_size: int = DEFAULT_MAX_PACKET_SIZE,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
        line_endings: bool = False,
    ) -> None:
        """Begin at the start of a stream.

        Args:
            specs: how to decode packets, by header key; see `gearproto.codec.decoders`.
            max_packet_size: limit in bytes for a packet without its header; some packets count as more than their own
                size, see `gearproto.codec.Spec`.
            max_line_size: limit in bytes for a line with its ending.
            line_endings: whether lines are returned with their endings, as they were received.
        """
        self._specs = specs
        self._max_packet = max_packet_size
        self._safe_packet = max_packet_size - MAX_GROWTH  # no byte before this has to be looked at
        self._max_line = max_line_size
        self._line_endings = line_endings
        self._data = b""
        self._cursor = 0
        self._partial: bytearray | None = None
        self._missing = 0  # bytes that _partial lacks to be worth a look; 0 in a line, which ends at a newline
        self._big: _BigPacket | None = None
        self.holds_back = False

    def feed(self, data: bytes) -> None:
        """Store what arrived. Never raises because of what the peer sent."""
        partial = self._partial
        if self._big is not None:
            self._big.feed(data)
            self.holds_back = True
            return
        if partial is None:
            self._data = self._data[self._cursor :] + data if self._cursor < len(self._data) else bytes(data)
            self._cursor = 0
            return
        partial += data
        if self._missing:
            self._missing -= len(data)
            if self._missing > 0:
                return
        elif _NEWLINE not in data and len(partial) < self._max_line:
            return
        self._partial = None
        self._data = bytes(partial)
        self._cursor = 0

    def next(self) -> Event | None:
        """Return the next packet or line, or None until more input is fed.

        Raises:
            RemoteProtocolError: the stream is not valid from here on; what came before it has been returned.
        """
        data, start = self._data, self._cursor
        have, body = len(data), start + _HEADER_SIZE
        if body <= have and not data[start]:
            key, size = _unpack_header(data, start)
            spec = self._specs.get(key)
            if spec is None:
                raise RemoteProtocolError(_describe(key))
            if size > self._safe_packet:
                self._check_size(spec, size)
            end = body + size
            if end <= have:
                self._cursor = end
                try:
                    return spec.decode(data[body:end])
                except MalformedArgumentsError as error:  # only this packet is bad: the next one follows it
                    return MalformedPacket(spec.name, str(error))
            if size < _BIG:
                self._set_aside(end - have)
            else:
                self._big = _BigPacket(spec, size)
                self.holds_back = True
                self._big.feed(data[body:])
                self._data = b""
                self._cursor = 0
            return None
        if start >= have:
            if self._big is None:
                self._data = b""  # all of it was returned: free it, as it may be large and the peer may stay silent
                self._cursor = 0
                return None
            return self._next_big()
        if data[start]:
            return self._next_line(data, start)
        self._set_aside(body - have)
        return None

    def _check_size(self, spec: Spec, size: int) -> None:
        if size + spec.growth > self._max_packet:
            what = f"{size} bytes, {size + spec.growth} when it is assigned" if spec.growth else f"{size} bytes"
            text = f"{spec.name}: {what}, limit {self._max_packet}"
            raise RemoteProtocolError(text, code=b"PACKET_TOO_LARGE")

    def _next_big(self) -> Event | None:
        """Return the big packet that is being gathered, if it is whole."""
        big = self._big
        assert big is not None
        if big.missing > 0:
            return None
        self._big = None
        packet, self._data = big.take()
        self._cursor = 0
        return packet

    @property
    def buffered(self) -> int:
        """Number of bytes that wait to be parsed."""
        if self._big is not None:
            return self._big.size
        if self._partial is not None:
            return len(self._partial)
        return len(self._data) - self._cursor

    def _next_line(self, data: bytes, start: int) -> Line | None:
        end = data.find(b"\n", start, start + self._max_line)
        if end < 0:
            if len(data) - start >= self._max_line:
                raise RemoteProtocolError(f"text line of over {self._max_line} bytes")
            self._set_aside(0)
            return None
        self._cursor = end + 1
        if self._line_endings:
            return Line(data[start : end + 1])
        return Line(data[start:end].removesuffix(b"\r"))

    def _set_aside(self, missing: int) -> None:
        self._partial = bytearray(memoryview(self._data)[self._cursor :])
        self.holds_back = True
        self._missing = missing
        self._data = b""
        self._cursor = 0


class _BigPacket:
    """A big packet of which not all has come yet: its pieces, joined once.

    Attributes:
        missing: how many bytes it lacks; negative if some behind it have come too.
        size: how many bytes of it, and behind it, have come.
    """

    __slots__ = ("_pieces", "_spec", "_tail", "missing", "size")

    def __init__(self, spec: Spec, missing: int) -> None:
        self.missing = missing
        self.size = 0
        self._spec = spec
        self._pieces: list[bytes] = []
        self._tail = bytearray()  # small pieces, so that a stream of them takes no more memory than big ones

    def feed(self, data: bytes) -> None:
        self.missing -= len(data)
        self.size += len(data)
        if len(data) < _SMALL:
            self._tail += data
            if len(self._tail) < _BIG and self.missing > 0:
                return
            data = bytes(self._tail)
            self._tail.clear()
        elif self._tail:
            self._pieces.append(bytes(self._tail))
            self._tail.clear()
        self._pieces.append(bytes(data))  # no copy, unless the caller may use its buffer again

    def take(self) -> tuple[Event, bytes]:
        """Return the packet, and what came behind it."""
        behind = self._cut_off(-self.missing)
        spec, pieces = self._spec, self._pieces
        try:
            if spec.make is not None:
                arguments = pieces[0].split(b"\0", len(spec.arguments) - 1)
                if len(arguments) == len(spec.arguments):
                    *leading, start = arguments
                    pieces[0] = start
                    return spec.make(*leading, b"".join(pieces)), behind
            return spec.decode(b"".join(pieces)), behind
        except MalformedArgumentsError as error:  # only this packet is bad, as above
            return MalformedPacket(spec.name, str(error)), behind

    def _cut_off(self, excess: int) -> bytes:
        """Take bytes off the end."""
        behind: list[bytes] = []
        while excess:
            last = self._pieces.pop()
            if len(last) > excess:
                self._pieces.append(last[:-excess])
                last = last[-excess:]
            behind.append(last)
            excess -= len(last)
        return b"".join(reversed(behind))


def _describe(key: bytes) -> str:
    """Say what is wrong with a header that no table knows."""
    magic, number = key[:4], int.from_bytes(key[4:], "big")
    if magic not in (REQUEST, RESPONSE):
        return f"bad magic {magic!r}"
    return f"unknown packet type {number}, known are 1 to {max(PACKETS)}"
