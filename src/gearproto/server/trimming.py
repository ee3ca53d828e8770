"""When a server gives memory back to the system: once it holds much less than it did, and has nothing to do."""

from __future__ import annotations

from typing import Final

__all__ = ["Trimming"]

_COARSE: Final = 1024 * 1024  # bytes of growth that are not worth recording
_QUIET: Final = 64 * 1024  # bytes received meanwhile, up to which a server counts as idle


class Trimming:
    """Decides when to give memory back.

    Attributes:
        low: bytes held up to which there is something to give back.
        high: bytes held from which on `note` has to be called, too.
        due: monotonic time at which to see whether the server is idle; None if there is nothing to give back.
    """

    __slots__ = ("_idle", "_received", "_step", "due", "high", "low")

    def __init__(self, *, step: int = 64 * 1024 * 1024, idle: float = 1.0) -> None:
        """Begin with nothing held.

        Args:
            step: bytes by which what is held has to have shrunk.
            idle: seconds without work after which the server is idle.
        """
        self._step = step
        self._idle = idle
        self._received = 0
        self.due: float | None = None
        self._set_peak(0)

    def _set_peak(self, held: int) -> None:
        self.low = held - self._step
        self.high = held + _COARSE

    def note(self, held: int, received: int, now: float) -> bool:
        """Note how much is held, and tell whether to give memory back now.

        Args:
            held: bytes of jobs and unread output.
            received: bytes received since the start.
            now: monotonic time in seconds.
        """
        if held >= self.high:
            self._set_peak(held)
        if self.due is None:
            if held <= self.low:
                self._wait(received, now)
        elif held > self.low:
            self.due = None
        elif now >= self.due:
            if received - self._received <= _QUIET:
                self.due = None
                self._set_peak(held)
                return True
            self._wait(received, now)
        return False

    def _wait(self, received: int, now: float) -> None:
        self.due = now + self._idle
        self._received = received
