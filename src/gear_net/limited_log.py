"""Limits the rate of warnings that peers can cause, so that nobody fills a disk or a pipe by connecting repeatedly."""

from __future__ import annotations

import logging

from gearproto.server.log_limit import LogLimit

__all__ = ["LimitedLog"]


class LimitedLog:
    """A logger for warnings of a few topics."""

    def __init__(self, logger: logging.Logger, limit: LogLimit | None = None) -> None:
        """Begin with nothing logged.

        Args:
            logger: where the lines go.
            limit: how many warnings are logged; `LogLimit` with its defaults if not given.
        """
        self._logger = logger
        self._limit = LogLimit() if limit is None else limit

    def warning(self, now: float, topic: str, text: str, *details: object) -> None:
        """Log a warning, or only count it if there were too many on its topic."""
        left_out = self._limit.admit(topic, now)
        if left_out is None:
            return
        if left_out:
            text, details = f"{text} (%d more like it were not logged)", (*details, left_out)
        self._logger.warning(text, *details)
