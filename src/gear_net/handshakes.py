"""The TLS handshakes of a server's new connections: how many may run, how much they may cost, and how long they take.

The server does not know these peers yet, and each step costs it a millisecond or more. So a turn takes only some of
the steps, and handshakes get less time while very many of them are running.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Handshakes"]

_Peer = TypeVar("_Peer")


class Handshakes(Generic[_Peer]):
    """The peers whose TLS handshake is not complete.

    Attributes:
        pause: seconds for which to accept no connection while they are `crowded`.
        begun: when the handshake of each has begun, in monotonic seconds; the oldest first.
        failed: the peers whose handshake has failed, and that may read why until this time; the earliest first.
    """

    def __init__(
        self,
        timeout: float,
        linger: float = 1.0,
        *,
        most: int = 2048,
        short_timeout: float = 1.0,
        steps_per_turn: int = 16,
        pause: float = 0.05,
    ) -> None:
        """Begin with none.

        Args:
            timeout: seconds within which a handshake has to complete.
            linger: seconds that a peer may take to read why its handshake has failed.
            most: how many handshakes may run at a time.
            short_timeout: seconds that each of them has while `most` are running.
            steps_per_turn: how many steps of handshakes a turn of the server may take.
            pause: seconds for which to accept no connection while this many are running.
        """
        self.pause = pause
        self.begun: dict[_Peer, float] = {}
        self.failed: dict[_Peer, float] = {}
        self._timeout = timeout
        self._linger = linger
        self._most = most
        self._short_timeout = min(short_timeout, timeout)
        self._steps_per_turn = steps_per_turn
        self._steps_left = 0

    def begin(self, peer: _Peer, now: float) -> None:
        """Add a peer whose handshake begins."""
        self.begun[peer] = now

    def fail(self, peer: _Peer, now: float) -> None:
        """Give a peer whose handshake has failed some time to read why."""
        del self.begun[peer]
        self.failed[peer] = now + self._linger

    def end(self, peer: _Peer) -> bool:
        """Forget a peer whose handshake is over, or that has gone; return whether there was a handshake."""
        return self.begun.pop(peer, self.failed.pop(peer, None)) is not None

    def new_turn(self) -> None:
        """Allow the steps of another turn."""
        self._steps_left = self._steps_per_turn

    def may_step(self) -> bool:
        """Take one of the turn's steps; return whether there was one left."""
        if not self._steps_left:
            return False
        self._steps_left -= 1
        return True

    @property
    def waiting(self) -> bool:
        """Whether there are any peers here."""
        return bool(self.begun or self.failed)

    @property
    def crowded(self) -> bool:
        """Whether too many handshakes are running for another one to begin."""
        return len(self.begun) >= self._most

    def _timeout_now(self) -> float:
        return self._short_timeout if self.crowded else self._timeout

    def next_deadline(self) -> float | None:
        """Return the time at which the next one has taken too long, or has had time to read; None if there is none."""
        times = [next(iter(self.failed.values()))] if self.failed else []
        if self.begun:
            times.append(next(iter(self.begun.values())) + self._timeout_now())
        return min(times, default=None)

    def pop_overdue(self, now: float) -> Iterator[tuple[_Peer, float | None]]:
        """Forget those whose time is over, the oldest first.

        Yields:
            Each with the seconds that its handshake had; None if that had failed before.
        """
        while self.failed and next(iter(self.failed.values())) <= now:
            peer = next(iter(self.failed))
            del self.failed[peer]
            yield peer, None
        while self.begun and next(iter(self.begun.values())) + (timeout := self._timeout_now()) <= now:
            peer = next(iter(self.begun))
            del self.begun[peer]
            yield peer, timeout
