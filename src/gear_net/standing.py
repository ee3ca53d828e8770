"""What clients and workers know of a server, and log of it."""

from __future__ import annotations

import logging
import random
import ssl
from collections.abc import Hashable

from gearproto.addresses import Address
from gearproto.events import ConnectionClosed
from gearproto.standing import Failure, Standing

__all__ = ["LoggedStanding", "failure_of"]


def failure_of(error: BaseException | None) -> Failure:
    """Return what an error in connecting, or of a connection, means for the next attempt."""
    causes = (error, None if error is None else error.__cause__)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return Failure.SILENT
    # A server that hangs up in the handshake may be about to stop; all else that TLS finds wrong stays so.
    refused = [isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError) for cause in causes]
    return Failure.REFUSED if any(refused) else Failure.GONE


class LoggedStanding:
    """The `Standing` of one server, whose changes are logged.

    Attributes:
        order: as `Standing.order`.
    """

    def __init__(self, address: Address, log: logging.Logger, pauses: tuple[float, float]) -> None:
        """Begin without a pause.

        Args:
            address: the server.
            log: where to log.
            pauses: as in `Standing`.

        Raises:
            ValueError: the pauses are not valid.
        """
        self._address = address
        self._log = log
        self._standing = Standing(random.random, pauses)
        self.order = self._standing.order

    @property
    def retry_at(self) -> float:
        """Monotonic time in seconds before which the server should be left alone."""
        return self._standing.retry_at

    @property
    def suspect(self) -> bool:
        """Whether the server fell silent, and has not answered since."""
        return self._standing.suspect

    def connected(self, now: float, endpoint: Hashable = None) -> None:
        """Record a connection; see `Standing.connected`."""
        self._info(self._standing.connected(now, endpoint))

    def answered(self) -> None:
        """Record that the server has answered; see `Standing.answered`."""
        self._info(self._standing.answered())

    def unreachable(self, error: OSError, now: float, took: float = 0.0) -> None:
        """Record that the server could not be reached; see `Standing.failed`."""
        self._warning(self._standing.failed(now, error.strerror or str(error), failure_of(error), took))

    def lost(self, event: ConnectionClosed, error: Exception | None, now: float, *, quiet: bool = False) -> None:
        """Record that the connection was lost; see `Standing.failed`.

        Args:
            event: the end of the connection.
            error: why, if the transport has failed.
            now: monotonic time in seconds.
            quiet: whether that concerns nobody.
        """
        kind = Failure.SILENT if event.silent else Failure.REFUSED if event.refused else failure_of(error)
        self._warning(self._standing.failed(now, event.reason, kind, quiet=quiet))

    def _info(self, text: str | None) -> None:
        if text is not None:
            self._log.info("%s: %s", self._address, text)

    def _warning(self, text: str | None) -> None:
        if text is not None:
            self._log.warning("%s: %s", self._address, text)
