"""The options that clients and workers pass on to all their connections."""

from __future__ import annotations

from typing import Final, TypedDict, Unpack

from .timeouts import setting

__all__ = ["DEFAULT_MAX_OUTPUT_SIZE", "DEFAULT_PROBE_INTERVAL", "ConnectionOptions", "connection_options", "size"]

DEFAULT_MAX_OUTPUT_SIZE: Final = 256 * 1024 * 1024
"""Most bytes of output that wait to be taken unless told otherwise."""

DEFAULT_PROBE_INTERVAL: Final = 30.0
"""Seconds without a sign of life after which clients and workers probe a server unless told otherwise."""


class ConnectionOptions(TypedDict, total=False):
    """Options of connections, as keyword arguments; `gearproto.connection.Connection` says what they mean."""

    max_packet_size: int
    max_line_size: int
    max_output_size: int
    probe_interval: float | None
    probe_timeout: float


def size(name: str, number: object) -> int:
    """Return a limit in bytes.

    Args:
        name: what users call it.
        number: what a user says.

    Raises:
        ValueError: it is not a whole number above 0.
    """
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"{name} is {number!r}, not a whole number of 1 or more")
    return number


def connection_options(**options: Unpack[ConnectionOptions]) -> ConnectionOptions:
    """Check options once for all connections of a client or a worker, and fill in the interval between probes.

    Raises:
        TypeError: there is no such option, or a number of seconds is something else.
        ValueError: a number is out of range.
    """
    for name, value in options.items():
        if name not in ConnectionOptions.__annotations__:
            raise TypeError(f"unexpected keyword argument {name!r}")
        if name.startswith("max_"):
            size(name, value)
        elif value is not None or name == "probe_timeout":
            setting(name, value, above_0=True)  # type: ignore[arg-type]
    return {"probe_interval": DEFAULT_PROBE_INTERVAL, **options}
