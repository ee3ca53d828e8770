r"""How names are written in answers of the text protocol: with ``\xNN`` for every byte that could break a row."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["escape", "unescape"]

_LITERAL_ESCAPE: Final = re.compile(rb"\\(?=x[0-9a-f]{2})")
_ESCAPE: Final = re.compile(rb"\\x([0-9a-f]{2})")


def escape(name: bytes, *, spaces: bool = False) -> bytes:
    r"""Write a name so that it fits into one field of an answer.

    Printable UTF-8 text stays as it is; every other byte becomes ``\xNN``.

    Args:
        name: any bytes.
        spaces: whether spaces become ``\x20`` too, for fields separated by spaces.

    Returns:
        UTF-8 text without line ends and tabs, from which `unescape` makes the name again.
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and b"\\x" not in name and not (spaces and b" " in name):
        return name
    marked = _LITERAL_ESCAPE.sub(rb"\\x5c", name).decode("utf-8", "surrogateescape")
    return marked.translate(_ESCAPES[spaces]).encode()


class _Escapes(dict[int, str]):
    """What each character becomes. Kept for single bytes, so that a name of nothing else takes no long time."""

    def __init__(self, *, spaces: bool) -> None:
        super().__init__()
        self._spaces = spaces

    def __missing__(self, code: int) -> str:
        shown = character = chr(code)
        if not character.isprintable() or (self._spaces and character == " "):
            shown = "".join([_ESCAPED_BYTES[byte] for byte in character.encode("utf-8", "surrogateescape")])
        if code < 256 or 0xDC80 <= code <= 0xDCFF:
            self[code] = shown
        return shown


_ESCAPED_BYTES: Final = [f"\\x{byte:02x}" for byte in range(256)]
_ESCAPES: Final = {spaces: _Escapes(spaces=spaces) for spaces in (False, True)}


def unescape(text: bytes) -> bytes:
    r"""Undo `escape`: turn every ``\xNN`` into its byte."""
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), text)
