"""The options that clients and workers pass on to all their connections."""

from __future__ import annotations

from typing import Final, TypedDict, Unpack

from .timeouts import setting

__all__ = [
    "DEFAULT_MAX_OUTPUT_SIZE",
    "DEFAULT_PROBE_INTERVAL",
    "ConnectionOptions",
    "connection_options",
    "whole_number",
]

DEFAULT_MAX_OUTPUT_SIZE: Final = 256 * 1024 * 1024
"""Most bytes of output that wait to be taken by default."""

DEFAULT_PROBE_INTERVAL: Final = 30.0
"""Seconds without a sign of life after which clients and workers probe a server by default."""


class ConnectionOptions(TypedDict, total=False):
    """Options of connections, as keyword arguments; `gearproto.connection.Connection` says what they mean."""

    max_packet_size: int
    max_line_size: int
    max_output_size: int
    probe_interval: float | None
    probe_timeout: float


def whole_number(name: str, number: object, least: int = 1) -> int:
    """Check a number that a user gives: a limit in bytes, or how many of something there may be.

    Args:
        name: what users call it.
        number: what a user gives.
        least: the smallest allowed number.

    Raises:
        ValueError: it is not a whole number, or too small.
    """
    if not isinstance(number, int) or number < least:
        raise ValueError(f"{name} is {number!r}, not a whole number of {least} or more")
    return number


def connection_options(**options: Unpack[ConnectionOptions]) -> ConnectionOptions:
    """Check options once for all connections of a client or a worker, and fill in the interval between probes.

    Raises:
        TypeError: an option does not exist.
        ValueError: a number is out of range.
    """
    for name, value in options.items():
        if name not in ConnectionOptions.__annotations__:
            raise TypeError(f"unexpected keyword argument {name!r}")
        if name.startswith("max_"):
            whole_number(name, value)
        elif value is not None or name == "probe_timeout":
            setting(name, value, above_0=True)  # type: ignore[arg-type]
    return {"probe_interval": DEFAULT_PROBE_INTERVAL, **options}
