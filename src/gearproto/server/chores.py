"""Work that no request pays for, shared out among the turns of the server.

What a peer leaves behind, or what is due at one moment, can be much: a hundred thousand jobs, or functions. It is done
in steps, each of which costs about as much as a request, and the number of steps in a turn is limited. So nobody waits
long for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final, TypeVar

from .clock import Clock
from .output import Output

__all__ = ["Chores", "emptied"]

_K = TypeVar("_K")
_V = TypeVar("_V")

_AHEAD: Final = 1000
_SLICE: Final = 100  # steps of one chore before the next one has its turn


class Chores:
    """What has been begun and is not finished yet. A chore is an iterator: it does a step whenever it is asked for one.

    Attributes:
        waiting: the chores that wait to be continued.
        at_once: how many steps may be taken at one time. What they make others receive counts too.
        least: how many steps a new chore may take in any case, so that small ones are over at once.
    """

    def __init__(self, output: Output, clock: Clock, *, at_once: int = 3000, least: int = 16) -> None:
        """Begin with none."""
        self.at_once = at_once
        self.least = least
        self._output = output
        self._clock = clock
        self.waiting: deque[Iterator[object]] = deque()
        self._turn_at = -1.0
        self._left = 0

    def begin(self, chore: Iterator[object]) -> None:
        """Do a new chore, as far as may be; what is left of it is done later."""
        if self._clock.now != self._turn_at:
            self.new_turn()
        if not self._do(chore, max(self._left, self.least)):
            self.waiting.append(chore)

    def new_turn(self) -> None:
        """Allow for as many steps as may be taken at one time."""
        self._turn_at = self._clock.now
        self._left = self.at_once

    def do_some(self, steps: Iterator[object]) -> None:
        """Take some steps of what need not be remembered, as it will be asked for again."""
        self._do(steps, self.at_once // 4)

    def go_on(self) -> None:
        """Continue what is waiting, by turns."""
        while self.waiting and self._left > 0:
            chore = self.waiting.popleft()
            if not self._do(chore, min(self._left, _SLICE)):
                self.waiting.append(chore)

    def _do(self, chore: Iterator[object], limit: int) -> bool:
        """Take steps, up to a limit; return whether the chore is over."""
        output = self._output
        start = output.work
        steps = 0
        for _step in chore:
            steps += 1
            if steps + output.work - start >= limit:
                self._left -= steps + output.work - start
                return False
        self._left -= steps + output.work - start
        return True


def emptied(table: dict[_K, _V]) -> Iterator[_K]:
    """Yield the keys of a table in their order, each of which has to be taken out before the next one is asked for.

    Others may be taken out meanwhile too, but none put in.
    """
    while table:
        for key in list(islice(table, _AHEAD)):  # looking for the first one each time would take longer and longer
            if key in table:
                yield key
