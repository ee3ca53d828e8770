"""Cuts a byte stream into packets and lines.

Every message of the stream tells by its first byte what it is: NUL begins a packet, anything else a line of text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .errors import RemoteProtocolError
from .events import Event, Line
from .packets import HEADER, PACKETS, REQUEST, RESPONSE, Error, MalformedArgumentsError, Spec, malformed

__all__ = ["DEFAULT_MAX_LINE_SIZE", "DEFAULT_MAX_PACKET_SIZE", "Decoder"]

DEFAULT_MAX_PACKET_SIZE: Final = 32 * 1024 * 1024
"""Most bytes behind a packet's header that are accepted unless told otherwise."""

DEFAULT_MAX_LINE_SIZE: Final = 8192
"""Most bytes of a line, its ending included, that are accepted unless told otherwise."""

_NEWLINE: Final = 10


class Decoder:
    """Cuts what a peer sends into packets and lines, one at a time.

    Complete input stays immutable bytes, read through a cursor; only an unfinished message is gathered in a
    bytearray, which is looked at again when it is whole. So one-byte chunks and huge packets both take linear time.
    """

    __slots__ = ("_cursor", "_data", "_max_line", "_max_packet", "_missing", "_partial", "_specs")

    def __init__(
        self,
        specs: Mapping[int, Spec],
        *,
        max_packet_size: int = DEFAULT_MAX_PACKET_SIZE,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    ) -> None:
        """Begin at the start of a stream.

        Args:
            specs: what to make of packets, by header key: see `gearproto.packets.decoders`.
            max_packet_size: limit in bytes for what stands behind a packet's header.
            max_line_size: limit in bytes for a line with its ending.
        """
        self._specs = specs
        self._max_packet = max_packet_size
        self._max_line = max_line_size
        self._data = b""
        self._cursor = 0
        self._partial: bytearray | None = None
        self._missing = 0  # bytes that _partial lacks to be worth a look; 0 in a line, which ends at a newline

    def feed(self, data: bytes) -> None:
        """Store what arrived. Never raises because of what the peer sent."""
        partial = self._partial
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
            RemoteProtocolError: the stream makes no sense from here on; what came before it has been returned.
        """
        data, start = self._data, self._cursor
        have = len(data) - start
        if have <= 0:
            return None
        if data[start]:
            return self._next_line(data, start)
        needed = HEADER.size
        if have >= needed:
            key, size = HEADER.unpack_from(data, start)
            spec = self._specs.get(key)
            if spec is None:
                raise RemoteProtocolError(_describe(data[start : start + 8]))
            if size > self._max_packet:
                text = f"{spec.name}: {size} bytes, limit {self._max_packet}"
                raise RemoteProtocolError(text, reply=Error(b"PACKET_TOO_LARGE", text.encode()))
            needed += size
            if have >= needed:
                self._cursor = end = start + needed
                try:
                    return spec.decode(data[start + 12 : end])
                except MalformedArgumentsError as error:
                    return malformed(spec, error)
        self._set_aside(needed - have)
        return None

    @property
    def buffered(self) -> int:
        """How many bytes wait, parsed into nothing yet."""
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
        return Line(data[start:end].removesuffix(b"\r"))

    def _set_aside(self, missing: int) -> None:
        self._partial = bytearray(memoryview(self._data)[self._cursor :])
        self._missing = missing
        self._data = b""
        self._cursor = 0


def _describe(head: bytes) -> str:
    """Say what is wrong with a header that no table knows."""
    magic, number = head[:4], int.from_bytes(head[4:8], "big")
    if magic not in (REQUEST, RESPONSE):
        return f"bad magic {magic!r}"
    return f"unknown packet type {number}, known are 1 to {max(PACKETS)} without 5"
