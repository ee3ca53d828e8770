"""A job to be submitted, as the caller describes it, and the handle that it gets."""

from __future__ import annotations

from datetime import datetime
from math import ceil, isfinite
from typing import Final

from gearproto.addresses import Address
from gearproto.arguments import as_bytes, as_payload
from gearproto.errors import LocalProtocolError
from gearproto.event import event
from gearproto.packets import Priority

from .submissions import Submission, submission

__all__ = ["DEFAULT_MAX_UNIQUE_SIZE", "JobHandle", "JobRequest", "check_max_unique_size", "earliest"]

DEFAULT_MAX_UNIQUE_SIZE: Final = 63
"""Most bytes of a unique by default: one less than the protocol allows, for gearmand's sake."""

_MAX_UNIQUE_SIZE: Final = 64


def _as_priority(priority: object) -> Priority:
    if isinstance(priority, Priority):
        return priority
    name = priority.upper() if isinstance(priority, str) else ""
    if name not in Priority.__members__:
        names = ", ".join(repr(member.name.lower()) for member in Priority)
        raise LocalProtocolError(f"client: priority is {priority!r}, which has to be a Priority or one of {names}")
    return Priority[name]


def check_max_unique_size(size: object) -> int:
    """Return a limit for uniques, in bytes.

    Raises:
        ValueError: it is not a whole number from 0 to 64.
    """
    if not isinstance(size, int) or not 0 <= size <= _MAX_UNIQUE_SIZE:
        raise ValueError(f"max_unique_size is {size!r}, not a whole number from 0 to {_MAX_UNIQUE_SIZE}")
    return size


def earliest(run_at: datetime | float | None, delay: float | None, wall: float) -> datetime | float | None:
    """Return the earliest time at which a job may run, which users give as a time, as a delay, or not at all.

    Args:
        run_at: the time itself.
        delay: seconds from now. The server is told the next whole second, so that the job never runs too early.
        wall: seconds since 1970 by now.

    Raises:
        LocalProtocolError: both are given, or the delay is not a finite number of 0 or more.
    """
    if delay is None:
        return run_at
    if run_at is not None:
        raise LocalProtocolError("client: give either run_at or delay, not both")
    if not _is_finite(delay) or delay < 0:
        raise LocalProtocolError(
            f"client: delay is {delay!r:.40}, which is not a finite number of seconds of 0 or more"
        )
    return ceil(wall + delay)


@event
class JobRequest:
    """A job to be submitted.

    Attributes:
        function: name of the function to run, 1 to 8191 bytes without NUL.
        workload: the data to work on.
        unique: the caller's own name for the job, at most 64 bytes without NUL (by default, clients allow 63). The
            server joins jobs with the same function and unique; empty means never.
        priority: a `Priority` or its name, such as ``"high"``.
        run_at: earliest time to run, as seconds since 1970 or a datetime with a time zone. Only for background jobs of
            normal priority.
        reducer: name of a reducer for the worker. Only with normal priority.
    """

    function: str | bytes | bytearray
    workload: bytes | bytearray = b""
    unique: str | bytes | bytearray = b""
    priority: Priority | str = Priority.NORMAL
    run_at: datetime | float | None = None
    reducer: str | bytes | bytearray | None = None

    def packet(self, *, background: bool = False, max_unique_size: int = _MAX_UNIQUE_SIZE) -> Submission:
        """Return the packet that submits the job. Later changes to a bytearray do not affect it.

        Args:
            background: whether this is a background job, which survives the connection.
            max_unique_size: limit in bytes for the unique, up to 64.

        Raises:
            LocalProtocolError: a field breaks its rule, or two fields exclude each other.
        """
        unique = as_bytes(self.unique)
        if max_unique_size < len(unique) <= _MAX_UNIQUE_SIZE:
            why = ": gearmand 1.1.20 corrupts the workload of a job whose unique has 64; max_unique_size=64 allows it"
            raise LocalProtocolError(
                f"client: unique has {len(unique)} bytes, limit {max_unique_size}"
                + why * (max_unique_size == DEFAULT_MAX_UNIQUE_SIZE)
            )
        packet = submission(
            as_bytes(self.function),
            as_payload("the workload", self.workload),
            unique,
            _as_priority(self.priority),
            background,
            None if self.run_at is None else _epoch(self.run_at),
            None if self.reducer is None else as_bytes(self.reducer),
        )
        packet.validate()
        return packet


class JobHandle(bytes):
    """The handle of a job, together with its server, because two servers may use the same handle.

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
    if not _is_finite(when):
        raise LocalProtocolError(f"client: run_at is {when!r:.40}, which is not a finite time")
    return int(when)


def _is_finite(seconds: float) -> bool:
    try:
        return isfinite(seconds)
    except (TypeError, OverflowError):  # not a number, or an integer of hundreds of digits
        return False
