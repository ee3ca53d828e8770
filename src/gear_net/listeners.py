"""The listening sockets of a server, which it can leave alone for a while."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from .poller import READ, Poller

__all__ = ["Listeners"]


class Listeners:
    """Listening sockets, watched by a poller unless they are left alone.

    A listener stays readable while connections wait, and would make every turn of a loop spin. So a server that cannot
    accept for a while does not watch it.

    Attributes:
        resume_at: monotonic time in seconds at which to watch the sockets again; None while they are watched.
    """

    def __init__(self, sockets: Iterable[socket.socket], poller: Poller[Any]) -> None:
        """Begin to watch sockets.

        Args:
            sockets: the sockets; `close` closes them.
            poller: watches them, each as its own item.
        """
        self.resume_at: float | None = None
        self._poller = poller
        self._sockets = list(sockets)
        for sock in self._sockets:
            sock.setblocking(False)
        self._watch()

    def _watch(self) -> None:
        for sock in self._sockets:
            self._poller.register(sock, READ, sock)

    def _unwatch(self) -> None:
        if self.resume_at is None:
            for sock in self._sockets:
                self._poller.unregister(sock)

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Where the server listens, as pairs of host and port, or paths of Unix sockets."""
        names = [sock.getsockname() for sock in self._sockets]
        return [name[:2] if isinstance(name, tuple) else name for name in names]

    def pause(self, until: float) -> None:
        """Leave new connections alone until a monotonic time."""
        self._unwatch()
        self.resume_at = until

    def resume(self, now: float) -> None:
        """Watch the sockets again if it is time."""
        if self.resume_at is not None and now >= self.resume_at:
            self.resume_at = None
            self._watch()

    def close(self) -> None:
        """Close the sockets. Can be called twice."""
        self._unwatch()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        self.resume_at = None
