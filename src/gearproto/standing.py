"""What clients and workers know of a server: when to try it again, whether to trust it, and what to log of it.

Theory of operation. A server is away, on trial or up:

- away: there is no connection. `Standing.retry_at` says when to try again; how long that is depends on the `Failure`.
- on trial: there is a connection, but the server has fallen silent before. A system accepts connections for a program
  that hangs, so that only an answer shows that it works. Until then, and while it is away, it is a `Standing.suspect`,
  after which the other servers come first.
- up: there is a connection, and no reason to doubt it.

`connected` moves it from away to up, or to on trial if it is a suspect; `answered` from on trial to up; `failed` from
anywhere to away. Nothing but an answer ends a suspicion.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from enum import Enum, auto
from typing import Final, TypeVar

__all__ = ["DEFAULT_PAUSES", "Failure", "Standing"]

DEFAULT_PAUSES: Final = (0.1, 0.8)
"""Seconds of the first pause and of the longest: short enough that peers are back within a second of the server."""

_LONG: Final = 30.0  # seconds; the longest pause if trying again soon does not help
_FACTOR: Final = 2.0
_JITTER: Final = 0.25  # maximum part of a pause that chance takes away
_SLOW: Final = 4.0  # a server that failed slowly is left alone for this many times the time that it took
_WARNING_INTERVAL: Final = 60.0  # seconds

_E = TypeVar("_E", bound=Hashable)


class Failure(Enum):
    """Why a server could not be reached, or was lost: how soon it may be back."""

    GONE = auto()
    """It is not there, or has closed the connection. It may be back at any time."""
    SILENT = auto()
    """It has given no sign of life in time. It may hang."""
    REFUSED = auto()
    """It refuses this peer, or this peer refuses it, for a reason that somebody has to remove."""


class Standing:
    """What is known of one server.

    The pauses between attempts to connect to it double up to a limit. After `Failure.GONE` the limit is short, so that
    peers are back soon after the server; otherwise it is 30 seconds.

    Attributes:
        retry_at: monotonic time in seconds before which the server should be left alone; 0 while it is in order.
        suspect: whether it fell silent, and has not answered since.
    """

    __slots__ = (
        "_answered_at",
        "_away_since",
        "_chance",
        "_connected_at",
        "_endpoint",
        "_first",
        "_known",
        "_longest",
        "_pause",
        "_silent_at",
        "_warn_at",
        "_warned",
        "retry_at",
        "suspect",
    )

    def __init__(self, chance: Callable[[], float], pauses: tuple[float, float] = DEFAULT_PAUSES) -> None:
        """Begin without a pause.

        Args:
            chance: returns a random number from 0 to 1, so that many peers of a server do not all come back at once.
            pauses: seconds of the first pause, and of the longest. Chance makes a pause up to a quarter shorter.

        Raises:
            ValueError: a pause is not above 0, or the longest is shorter than the first.
        """
        try:
            first, longest = pauses
            in_order = 0 < first <= longest
        except (TypeError, ValueError):  # not two numbers
            first, longest, in_order = 0.0, 0.0, False
        if not in_order:
            raise ValueError(f"retry_pauses is {pauses!r}, not two numbers of seconds above 0, the second not smaller")
        self._chance = chance
        self._first = self._pause = first
        self._longest = longest
        self._connected_at: float | None = None
        self.retry_at = 0.0
        self.suspect = False
        self._endpoint: Hashable = None  # of the connection
        self._answered_at: Hashable = None  # the endpoint of the last connection that was up
        self._silent_at: Hashable = None  # the endpoint that fell silent last
        self._known = False  # whether it was ever up
        self._away_since: float | None = None
        self._warn_at = 0.0
        self._warned = False  # since it was up

    def order(self, endpoints: Iterable[_E]) -> list[_E]:
        """Return the endpoints of the server in the order in which to try them.

        The one that answered last comes first, so that a dead one before it costs its time once. The one that fell
        silent last comes last.
        """
        return sorted(endpoints, key=lambda endpoint: (endpoint == self._silent_at, endpoint != self._answered_at))

    def connected(self, now: float, endpoint: Hashable = None) -> str | None:
        """Record that there is a connection.

        Args:
            now: monotonic time in seconds.
            endpoint: which of the server's endpoints it leads to, if that is known.

        Returns:
            What to log at INFO, if anything.
        """
        self._connected_at = now
        self._endpoint = endpoint
        return None if self.suspect else self._up()

    def answered(self) -> str | None:
        """Record that a server has answered on its connection; return what to log at INFO, if anything."""
        if not self.suspect:
            return None
        self.suspect = False
        return self._up()

    def _up(self) -> str | None:
        self._answered_at = self._endpoint
        self._away_since = None
        known, self._known = self._known, True
        warned, self._warned = self._warned, False
        if known:
            return "connected again" if warned else None
        return "connected"

    def failed(
        self, now: float, reason: str, kind: Failure = Failure.GONE, took: float = 0.0, *, quiet: bool = False
    ) -> str | None:
        """Record that the server could not be reached, or that its connection was lost.

        A connection that held for longer than any short pause, and was closed, may be opened again at once, and the
        pauses begin again at the first; one that is closed soon counts as a failure like any other.

        Args:
            now: monotonic time in seconds.
            reason: why, as text.
            kind: what that means for the next attempt.
            took: seconds that somebody had to wait for the failure.
            quiet: whether it concerns nobody, so that it is not worth a warning.

        Returns:
            What to log at WARNING, if anything: once, and then once a minute while the server is away.
        """
        held = self._connected_at is not None and not self.suspect and now - self._connected_at > self._longest
        if kind is Failure.SILENT:
            self.suspect = True
            if self._connected_at is not None:
                self._silent_at = self._endpoint
        self._connected_at = self._endpoint = None
        if held:
            self._pause = self._first
        if held and kind is Failure.GONE:
            self.retry_at = now
        else:
            longest = self._longest if kind is Failure.GONE else max(self._longest, _LONG)
            pause = min(self._pause, longest)
            self.retry_at = now + max(pause * (1 - _JITTER * self._chance()), _SLOW * took)
            self._pause = min(_FACTOR * pause, longest)
        return self._warning(now, reason, quiet)

    def _warning(self, now: float, reason: str, quiet: bool) -> str | None:
        if self._away_since is None:
            self._away_since = now
        if quiet or now < self._warn_at:
            return None
        self._warn_at = now + _WARNING_INTERVAL
        self._warned = True
        away = now - self._away_since
        return f"{reason}; away for {away:.0f} s" if away >= 1 else reason
