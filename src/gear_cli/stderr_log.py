"""Writes log lines to stderr in a thread, so that the program never waits for the reader of stderr."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from typing import Final

__all__ = ["StderrHandler"]

_MAX_LINES: Final = 10_000  # lines that wait to be written; further lines are counted and dropped
_LAST_LINES: Final = 1.0  # seconds; how long the end of the program may wait for them


class StderrHandler(logging.Handler):
    """Writes log lines to a descriptor in a thread of its own. Lines are dropped while the descriptor is not read."""

    def __init__(self, descriptor: int = 2, max_lines: int = _MAX_LINES) -> None:
        """Begin to write.

        Args:
            descriptor: where to write; stderr by default.
            max_lines: how many lines may wait.
        """
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(max_lines)
        self._left_out = 0
        self._thread = threading.Thread(target=self._write_all, name="gear log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        try:
            line = self.format(record)
            if self._left_out:
                self._lines.put_nowait(f"{self._left_out} log lines were dropped: stderr was not read")
                self._left_out = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._left_out += 1

    def close(self) -> None:
        """Write the lines that wait, for up to a second."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(_LAST_LINES)
        super().close()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            rest = f"{line}\n".encode(errors="backslashreplace")
            with contextlib.suppress(OSError):  # nobody can read it: the reader is gone, or the disk is full
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
