"""Answers to text commands, which are sent once they are whole.

Debian's ``gearadmin`` takes a moment in which nothing arrives for the end of an answer. So an answer that takes several
turns to make is held back meanwhile, up to a limit, and leaves in big pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["Answer"]

_PIECE_WORK: Final = 12  # what a piece of many short rows costs
_CHUNK: Final = 4 * 1024 * 1024


class Answer:
    """An answer in the making.

    Attributes:
        size: bytes that are held back.
        ended: whether all of it has been made.
    """

    __slots__ = ("_chunks", "_pieces", "_rest", "_room", "ended", "size")

    def __init__(self, rest: Iterator[bytes]) -> None:
        """Begin with pieces that are made when they are asked for."""
        self.size = 0
        self.ended = False
        self._rest = rest
        self._chunks: list[bytes] = []
        self._pieces: list[bytes] = []  # of the next chunk
        self._room = _CHUNK  # in the next chunk

    def make(self, work: int, limit: int) -> int:
        """Make more of it.

        Args:
            work: what it may cost until others have their turn, in requests that take as long.
            limit: bytes from which on nothing more may be held back.

        Returns:
            What it has cost.
        """
        done = 0
        for piece in self._rest:
            if piece:
                done += _PIECE_WORK + (len(piece) >> 5)
                self.size += len(piece)
                self._pieces.append(piece)
                self._room -= len(piece)
                if self._room <= 0:
                    self._end_chunk()
            else:
                done += 1  # a step of something that has to be done first
            if done >= work or self.size >= limit:
                return done
        self.ended = True
        return done

    def _end_chunk(self) -> None:
        if self._pieces:
            self._chunks.append(b"".join(self._pieces))
            self._pieces.clear()
            self._room = _CHUNK

    def take(self) -> list[bytes]:
        """Take what has been held back, to send it."""
        self._end_chunk()
        chunks, self._chunks = self._chunks, []
        self.size = 0
        return chunks
