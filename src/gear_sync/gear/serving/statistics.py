"""Reports of `gear.Server` to statsd, if the package of that name is installed (extra ``statsd``)."""

from __future__ import annotations

import importlib
import logging
from typing import Protocol, cast

from gear_sync.gear import constants

__all__ = ["Statistics", "StatsClient", "open_client"]

_log = logging.getLogger("gear.Server")


class StatsClient(Protocol):
    """What is used of ``statsd.StatsClient``."""

    def timing(self, stat: str, delta: int) -> object:
        """Report a time in milliseconds."""

    def incr(self, stat: str) -> object:
        """Count one more."""

    def gauge(self, stat: str, value: int) -> object:
        """Report a number."""

    def close(self) -> object:
        """Close its socket."""


def open_client(host: str | None, port: int, prefix: str | None) -> StatsClient | None:
    """Return a client of statsd; None if none is wanted, or the package is not installed."""
    if host is None:
        return None
    try:
        statsd = importlib.import_module("statsd")
    except ImportError:
        _log.error("Nothing is reported to %s: the package statsd is not installed", host)
        return None
    return cast("StatsClient", statsd.StatsClient(host, port, prefix))


class Statistics:
    """Reports to statsd how long packets take, and how many jobs there are."""

    def __init__(self, client: StatsClient) -> None:
        """Report through a client."""
        self._client = client

    def packet(self, ptype: int, duration: float) -> None:
        """Report that a packet was handled, and the seconds that it took."""
        name = f"packet.{constants.types.get(ptype, 'UNKNOWN')}"
        self._client.timing(name, int(duration * 1000))
        self._client.incr(name)

    def jobs(self, total: int, running: int, waiting: int) -> None:
        """Report how many jobs there are."""
        for name, value in (("total", total), ("running", running), ("waiting", waiting)):
            self._client.gauge(f"queue.{name}", value)
