"""Reads the answers to text commands, as a client does."""

from __future__ import annotations

from typing import Any

from gearproto.errors import RemoteProtocolError

from .commands import Command
from .replies import Ok, Refused, Reply, Rows
from .rows import UNKNOWN, Row, UniqueListed

__all__ = ["ReplyReader"]


class ReplyReader:
    """Reads the answer to one command, line by line.

    Attributes:
        command: the command.
    """

    __slots__ = ("_left", "_limit", "_lines", "command")

    def __init__(self, command: Command[Any], max_size: int) -> None:
        """Expect the answer.

        Args:
            command: the command that was sent.
            max_size: limit in bytes for the whole answer.
        """
        self.command = command
        self._lines: list[bytes] = []
        self._limit = self._left = max_size

    def feed(self, line: bytes) -> Reply | None:
        """Take the next line, without its ending; return the answer when it is whole.

        Raises:
            RemoteProtocolError: the answer is over its limit.
        """
        row = self.command.row
        if row is None:
            return _read_line(line)
        if line == b".":
            return _read_rows(row, self._lines)
        if not self._lines and _is_error(row, line):
            return _read_line(line)
        self._left -= len(line) + 1
        if self._left < 0:
            raise RemoteProtocolError(f"answer to {b' '.join(self.command.words).decode()}: limit {self._limit} bytes")
        self._lines.append(line)
        return None


def _is_error(row: type[Row], line: bytes) -> bool:
    """Tell whether the first line of an answer is an error instead of a row."""
    if row is UniqueListed:  # a unique may well begin with ERR
        return line.startswith(UNKNOWN)
    return line.startswith(b"ERR ") and b"\t" not in line


def _read_line(line: bytes) -> Reply:
    word, _space, rest = line.partition(b" ")
    if word == b"OK":
        return Ok(rest)
    if word == b"ERR":
        code, _space, text = rest.partition(b" ")
        return Refused(code, text)
    return Refused(b"MALFORMED_REPLY", line)


def _read_rows(row: type[Row], lines: list[bytes]) -> Reply:
    rows = []
    for line in lines:
        try:
            rows.append(row.decode(line))
        except ValueError:  # the answer is whole: only this request fails
            return Refused(b"MALFORMED_REPLY", line)
    return Rows(tuple(rows))
