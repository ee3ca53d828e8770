"""Which of several servers a job goes to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol
from zlib import crc32

from gearproto.event import event

__all__ = ["Candidates", "Policy", "ServerChooser", "ServerStanding", "Try", "WaitUntil"]


class Policy(Enum):
    """Which of several servers a job goes to; the others follow if it cannot be reached."""

    ORDERED = "ordered"
    """The first server that can be reached, as libgearman does; it stays in use until its connection is lost."""
    ROUND_ROBIN = "round_robin"
    """The servers in turn."""
    UNIQUE_HASH = "unique_hash"
    """The server that the job's unique selects, by the rule of Perl's client: submissions with the same unique meet on
    one server, and are joined there. Jobs without a unique go to the servers in turn."""


@event
class Try:
    """Try this server.

    Attributes:
        index: its index in the list of servers.
    """

    index: int


@event
class WaitUntil:
    """Ask again at a later time.

    Attributes:
        when: monotonic time in seconds.
    """

    when: float


class ServerStanding(Protocol):
    """What a choice depends on, for each server."""

    @property
    def connected(self) -> bool:
        """Whether a connection to it is open."""
        ...

    @property
    def retry_at(self) -> float:
        """Monotonic time in seconds before which it should be left alone."""
        ...

    @property
    def suspect(self) -> bool:
        """Whether it fell silent, and has not answered since. Connecting to it lasts until it answers."""
        ...


class ServerChooser:
    """Chooses among servers by a policy."""

    def __init__(self, standings: Sequence[ServerStanding], policy: Policy | str) -> None:
        """Choose among servers.

        Args:
            standings: the servers, in the order in which the user gave them.
            policy: the policy or its value.

        Raises:
            ValueError: the policy does not exist.
        """
        self._standings = standings
        self._policy = Policy(policy)
        self._turn = -1

    def candidates(self, unique: bytes = b"") -> Candidates:
        """Return the order of servers for one job or query."""
        count = len(self._standings)
        if count == 1:
            return self.only(0)
        if self._policy is Policy.ORDERED:
            return self.in_order()
        if self._policy is Policy.UNIQUE_HASH and unique:
            start = (crc32(unique) >> 16 & 0x7FFF) % count
        else:
            start = self._turn = (self._turn + 1) % count
        return Candidates(self._standings, [(start + index) % count for index in range(count)])

    def in_order(self) -> Candidates:
        """Return the order of servers for a query that any server can answer: always `Policy.ORDERED`."""
        order = sorted(range(len(self._standings)), key=lambda index: not self._standings[index].connected)
        return Candidates(self._standings, order)

    def only(self, index: int) -> Candidates:
        """Return the order for a request to one server only."""
        return Candidates(self._standings, (index,))

    def on_the_side(self, now: float) -> list[int]:
        """Return the suspects to connect to while jobs go to others, so that they get their share again.

        With `Policy.ORDERED` there are none: jobs stay with the server that they go to.
        """
        if self._policy is Policy.ORDERED:
            return []
        return [
            index
            for index, standing in enumerate(self._standings)
            if standing.suspect and not standing.connected and standing.retry_at <= now
        ]


class Candidates:
    """The servers for one job, in order; each is tried once."""

    def __init__(self, standings: Sequence[ServerStanding], order: Sequence[int]) -> None:
        """Go through servers in an order of their indexes."""
        self._standings = standings
        self._left = list(order)
        self._tried = False

    def next(self, now: float, until: float) -> Try | WaitUntil | None:
        """Tell what to do next.

        Servers that failed recently are skipped as long as there are others. If all failed recently, it is worth
        waiting for the first one that may be tried again. Suspects come last.

        Args:
            now: monotonic time in seconds.
            until: latest time to wait until.

        Returns:
            What to do; None if nothing is left to try.
        """
        for suspects in (False, True):
            waiting: list[float] = []
            for index in self._left:
                standing = self._standings[index]
                if standing.connected or (standing.suspect is suspects and standing.retry_at <= now):
                    self._left.remove(index)
                    self._tried = True
                    return Try(index)
                if standing.suspect is suspects:
                    waiting.append(standing.retry_at)
            if waiting and not self._tried and min(waiting) <= until:
                return WaitUntil(min(waiting))
        return None
