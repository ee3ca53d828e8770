"""The rows that some answers of the text protocol consist of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from gearproto.codec import MAX_NUMBER_SIZE
from gearproto.event import event

from .escaping import escape, unescape

__all__ = [
    "UNKNOWN",
    "FunctionPriorities",
    "FunctionStatus",
    "JobListed",
    "Row",
    "UniqueListed",
    "WorkerListed",
]

UNKNOWN: Final = b"ERR UNKNOWN_"
"""How an error begins that takes the place of uniques, any of which may begin with ``ERR``."""


def _count(raw: bytes) -> int:
    if len(raw) > MAX_NUMBER_SIZE:
        raise ValueError(f"number of {len(raw)} bytes, limit {MAX_NUMBER_SIZE}")
    return int(raw)


class Row(ABC):
    """Base of the rows that some answers consist of. Numbers are decimal, names escaped."""

    __slots__ = ()

    @abstractmethod
    def encode(self) -> bytes:
        """Return the row without a line ending."""

    @classmethod
    @abstractmethod
    def decode(cls, line: bytes) -> Row:
        """Read a row.

        Raises:
            ValueError: the line is not a valid row.
        """


@event
class FunctionStatus(Row):
    """One function in the answer to ``status``.

    Attributes:
        function: its name.
        total: jobs that are queued, delayed or running.
        running: jobs that a worker has.
        workers: connections that can run it.
    """

    function: bytes
    total: int
    running: int
    workers: int

    def encode(self) -> bytes:
        return b"%b\t%d\t%d\t%d" % (escape(self.function), self.total, self.running, self.workers)

    @classmethod
    def decode(cls, line: bytes) -> FunctionStatus:
        function, total, running, workers = line.rsplit(b"\t", 3)
        return cls(unescape(function), _count(total), _count(running), _count(workers))


@event
class FunctionPriorities(Row):
    """One function in the answer to ``prioritystatus``.

    Attributes:
        function: its name.
        high: queued jobs of high priority.
        normal: queued jobs of normal priority, delayed ones included.
        low: queued jobs of low priority.
        workers: connections that can run it.
    """

    function: bytes
    high: int
    normal: int
    low: int
    workers: int

    def encode(self) -> bytes:
        numbers = (self.high, self.normal, self.low, self.workers)
        return b"%b\t%d\t%d\t%d\t%d" % (escape(self.function), *numbers)

    @classmethod
    def decode(cls, line: bytes) -> FunctionPriorities:
        function, *numbers = line.rsplit(b"\t", 4)
        high, normal, low, workers = map(_count, numbers)
        return cls(unescape(function), high, normal, low, workers)


@event
class WorkerListed(Row):
    """One connection in the answer to ``workers``; clients are listed too.

    Attributes:
        descriptor: the server's number for the connection.
        address: the peer's address.
        client_id: the name that it has given itself; may be empty.
        functions: the functions that it can run, the last registered one first.
    """

    descriptor: int
    address: bytes
    client_id: bytes
    functions: tuple[bytes, ...]

    def encode(self) -> bytes:
        return self.encode_head() + b"".join(map(self.encode_function, self.functions))

    def encode_head(self) -> bytes:
        """Return the row up to its functions, for servers that write a long one in pieces."""
        client_id = b"\\x2d" if self.client_id == b"-" else escape(self.client_id, spaces=True) or b"-"
        return b"%d %b %b :" % (self.descriptor, escape(self.address, spaces=True), client_id)

    @staticmethod
    def encode_function(name: bytes) -> bytes:
        """Return what a row has for a function."""
        return b" " + escape(name, spaces=True)

    @classmethod
    def decode(cls, line: bytes) -> WorkerListed:
        descriptor, address, rest = line.split(b" ", 2)
        client_id, colon, names = (rest + b" ").partition(b" : ")
        if not colon:
            raise ValueError("no colon")
        functions = tuple(unescape(name) for name in names.split(b" ") if name)
        client_id = b"" if client_id == b"-" else unescape(client_id)
        return cls(_count(descriptor), unescape(address), client_id, functions)


@event
class JobListed(Row):
    """One job in the answer to ``show jobs``.

    Attributes:
        handle: its handle.
        retries: how often it has been given back.
        ignored: whether no client waits for it any more.
        background: whether it is a background job.
    """

    handle: bytes
    retries: int
    ignored: bool
    background: bool

    def encode(self) -> bytes:
        return b"%b\t%d\t%d\t%d" % (escape(self.handle), self.retries, self.ignored, self.background)

    @classmethod
    def decode(cls, line: bytes) -> JobListed:
        handle, retries, ignored, background = line.rsplit(b"\t", 3)
        return cls(unescape(handle), _count(retries), bool(_count(ignored)), bool(_count(background)))


@event
class UniqueListed(Row):
    """One job in the answer to ``show unique jobs``.

    Attributes:
        unique: its unique; may be empty.
    """

    unique: bytes

    def encode(self) -> bytes:
        if self.unique == b"." or self.unique.startswith(UNKNOWN):
            return b"\\x%02x" % self.unique[0] + escape(self.unique[1:])
        return escape(self.unique)

    @classmethod
    def decode(cls, line: bytes) -> UniqueListed:
        return cls(unescape(line))
