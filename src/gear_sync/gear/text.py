"""Text and bytes: the wire has bytes, programs may give either.

Text is UTF-8. Bytes that are not valid UTF-8 become surrogates, as in file names, and those become the same bytes
again: what a peer sends can always be read, and sent back as it came.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import SupportsIndex, TypeVar, overload

__all__ = ["TextList", "convert_to_bytes", "decode", "encode"]

_T = TypeVar("_T")


def encode(text: str) -> bytes:
    """Return text as it goes over the wire."""
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes | bytearray) -> str:
    """Return bytes from the wire as text."""
    return data.decode("utf-8", "surrogateescape")


@overload
def convert_to_bytes(data: str | bytes) -> bytes: ...


@overload
def convert_to_bytes(data: str | bytes | None) -> bytes | None: ...


@overload
def convert_to_bytes(data: _T) -> _T: ...


def convert_to_bytes(data: object) -> object:
    """Return text as UTF-8, and anything else as it is."""
    return encode(data) if isinstance(data, str) else data


def _as_text(item: str | bytes | bytearray) -> str:
    return item if isinstance(item, str) else decode(item)


class TextList(list[str]):
    """A list of text: bytes that are put into it become text."""

    def append(self, item: str | bytes, /) -> None:
        """Add an item at the end."""
        super().append(_as_text(item))

    def insert(self, index: SupportsIndex, item: str | bytes, /) -> None:
        """Add an item before an index."""
        super().insert(index, _as_text(item))

    def extend(self, items: Iterable[str | bytes], /) -> None:
        """Add all items at the end."""
        super().extend(map(_as_text, items))
