"""What a server logs."""

from __future__ import annotations

import logging

from gearproto.server import JobChanged, JobGivenUp, MemoryLimitReached, PeerFailed, PeerGivenUp, ShutdownRequested

from .limited_log import LimitedLog

__all__ = ["ServerLog"]


class ServerLog:
    """The lines of a server's log. The rate of those that peers can cause is limited."""

    def __init__(self, logger: logging.Logger) -> None:
        """Begin with nothing logged."""
        self._logger = logger
        self._limited = LimitedLog(logger)

    def refused(self, now: float, why: str) -> None:
        """Log that a connection was refused."""
        self._limited.warning(now, why.partition(" ")[0], "refused a connection: %s", why)

    def no_room(self, now: float, why: str | None) -> None:
        """Log that the system has no descriptor, or no memory, for another connection."""
        self._limited.warning(now, "room", "no room for another connection: %s", why)

    def tls_failed(self, now: float, host: str, why: str) -> None:
        """Log that TLS with a peer has failed."""
        self._limited.warning(now, "tls", "TLS with %s failed: %s", host, why)

    def peer_failed(self, now: float, host: str, change: PeerFailed) -> None:
        """Log that a peer has broken the protocol."""
        self._limited.warning(now, "protocol", "peer %d (%s): closed: %s", change.peer, host, change.reason)

    def peer_given_up(self, now: float, host: str, change: PeerGivenUp) -> None:
        """Log that a peer has not read its output."""
        self._limited.warning(now, "unread", "peer %d (%s): closed with %s", change.peer, host, change.reason)

    def memory_limit_reached(self, now: float, change: MemoryLimitReached) -> None:
        """Log that the limit on memory was reached, or that there is memory again."""
        text = "memory limit %d reached: nothing new is taken" if change.full else "below the memory limit %d again"
        self._limited.warning(now, "limit", text, change.limit)

    def shutdown_requested(self, change: ShutdownRequested) -> None:
        """Log that an administrator shuts the server down."""
        self._logger.info("shutdown requested%s", ", running jobs may end" if change.graceful else "")

    def job_given_up(self, change: JobGivenUp) -> None:
        """Log that a job has failed because it was lost too often."""
        text = "job %r of %r failed: its worker was lost, or its timeout passed, %d times"
        self._logger.warning(text, change.handle, change.function, change.losses)

    def job_changed(self, change: JobChanged) -> None:
        """Log what happens to a job."""
        self._logger.debug("job %r of %r: %s", change.handle, change.function, change.state.name)
