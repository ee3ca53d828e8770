"""What a client wants done, in the caller's terms."""

from __future__ import annotations

from datetime import datetime
from math import isfinite

from .addresses import Address
from .client import submission
from .errors import LocalProtocolError
from .events import event
from .packets import Packet, Priority

__all__ = ["JobHandle", "Task", "as_bytes"]


def as_bytes(name: str | bytes) -> bytes:
    """Return a name as it goes over the wire: text as UTF-8, bytes as they are."""
    return name.encode() if isinstance(name, str) else name


@event
class Task:
    """A job to be submitted.

    Attributes:
        function: name of the function to run, 1 to 8191 bytes without NUL.
        workload: what to work on.
        unique: the caller's own name for the job, at most 64 bytes without NUL; the server joins jobs of one function
            and unique. Empty means never.
        priority: which queue it goes to.
        run_at: when it may run at the earliest, as seconds since 1970 or a datetime with a time zone. Only for
            background jobs of normal priority.
        reducer: name of a reducer for the worker. Only with normal priority.
    """

    function: str | bytes
    workload: bytes = b""
    unique: str | bytes = b""
    priority: Priority = Priority.NORMAL
    run_at: datetime | float | None = None
    reducer: str | bytes | None = None

    def packet(self, *, background: bool = False) -> Packet:
        """Return the packet that submits the job.

        Args:
            background: whether nobody waits for the job; it then survives the connection.

        Raises:
            LocalProtocolError: the fields do not go together.
        """
        return submission(
            as_bytes(self.function),
            self.workload,
            as_bytes(self.unique),
            self.priority,
            background,
            None if self.run_at is None else _epoch(self.run_at),
            None if self.reducer is None else as_bytes(self.reducer),
        )


class JobHandle(bytes):
    """The handle of a job, which knows the server that gave it: handles of two servers may be alike.

    Attributes:
        server: the server.
    """

    server: Address

    def __new__(cls, handle: bytes, server: Address) -> JobHandle:
        """Tell where a handle comes from."""
        self = super().__new__(cls, handle)
        self.server = server
        return self


def _epoch(when: datetime | float) -> int:
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise LocalProtocolError("client: run_at needs a time zone")
        when = when.timestamp()
    if not isfinite(when):
        raise LocalProtocolError(f"client: run_at is {when}, which is no time")
    return int(when)
