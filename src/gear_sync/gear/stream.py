"""Cuts a stream into packets of whatever type, and lines."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from gearproto.codec import MAX_GROWTH, PACKETS, Route, Spec, header_key
from gearproto.framing import Decoder
from gearproto.packets import SUBMISSIONS

from . import constants
from .packet import Packet

__all__ = ["RAW", "decoder"]

MAX_PACKET_SIZE: Final = 1024**3
"""Most bytes behind the header of a packet from a server; only what has come takes memory."""

MAX_ANSWER_SIZE: Final = 64 * 1024**2
"""Most bytes of the answer to a text command, and of a line of it."""


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
