"""Wakes a thread, or an event loop, that waits for sockets."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["Waker"]


class Waker:
    """A socket that becomes readable when `wake` is called."""

    def __init__(self) -> None:
        """Begin without a reason to wake up."""
        self._theirs, self._ours = socket.socketpair()
        self._theirs.setblocking(False)
        self._ours.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._ours.fileno()

    def wake(self) -> None:
        """Make the socket readable. May be called from any thread, and after `close`."""
        with contextlib.suppress(OSError):  # it is full: they wake up anyway; or closed
            self._theirs.send(b"w")

    def clear(self) -> None:
        """Make the socket unreadable again."""
        with contextlib.suppress(BlockingIOError):
            self._ours.recv(4096)

    def close(self) -> None:
        """Close both ends."""
        self._theirs.close()
        self._ours.close()
