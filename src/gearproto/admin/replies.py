"""What a server answers to a text command: one line, or rows."""

from __future__ import annotations

from collections.abc import Sequence

from gearproto.event import event

from .rows import Row

__all__ = ["Ok", "Refused", "Reply", "Rows"]


@event
class Ok:
    """The command was carried out, or its answer is one value.

    Attributes:
        value: the answer of commands that tell something; empty for those that change something.
    """

    value: bytes = b""

    def encode(self) -> bytes:
        """Return the line; as in gearmand, CRLF ends an ``OK`` that stands alone, and LF one with a value."""
        return b"OK %b\n" % self.value if self.value else b"OK\r\n"


@event
class Refused:
    """The command was not carried out.

    Attributes:
        code: the server's code, such as ``UNKNOWN_COMMAND``; or ``MALFORMED_REPLY`` if an answer was not valid.
        text: the server's explanation; gearmand writes ``+`` for spaces.
    """

    code: bytes
    text: bytes = b""

    def encode(self) -> bytes:
        """Return the line."""
        return b" ".join(filter(None, (b"ERR", self.code, self.text))) + b"\r\n"


@event
class Rows:
    """An answer of rows.

    Attributes:
        rows: the rows, in the server's order.
    """

    rows: Sequence[Row]

    def encode(self) -> bytes:
        """Return all lines, with the dot that ends them."""
        return b"\n".join([*(row.encode() for row in self.rows), b".\n"])


Reply = Ok | Refused | Rows
"""What a command can be answered with."""
