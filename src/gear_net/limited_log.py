"""Warnings that peers can cause, limited in rate: nobody fills a disk, or a pipe, by connecting again and again."""

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
            limit: how many are let through; that of `LogLimit` unless given.
        """
        self._logger = logger
        self._limit = LogLimit() if limit is None else limit

    def warning(self, now: float, topic: str, text: str, *details: object) -> None:
        """Log a warning, or count it if there are too many of its topic."""
        left_out = self._limit.admit(topic, now)
        if left_out is None:
            return
        if left_out:
            text, details = f"{text} (%d more like it were not logged)", (*details, left_out)
        self._logger.warning(text, *details)
