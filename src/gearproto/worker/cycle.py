"""The cycle of asking for jobs, going to sleep and waking up, as one connection of a worker goes through it.

Theory of operation. A worker that wants a job asks for it (``GRAB_JOB`` and its variants) and is `Grab.ASKED`. The
server either assigns a job, after which the worker is `Grab.IDLE` until it wants another one; or it has none
(``NO_JOB``). Then the worker says that it sleeps (``PRE_SLEEP``) and is `Grab.ASLEEP` until the server wakes it
(``NOOP``), after which it asks again.

What crosses a request on its way is harmless: a ``NOOP`` may come when the worker has asked, or wants nothing, and a
server may assign a job without being asked. `grab_cycle` has a row for everything that can come in every state, so that
nothing a server sends can bring a worker out of step. Only the worker itself moves from `Grab.IDLE` to `Grab.ASKED`,
and from `Grab.ASLEEP` to `Grab.IDLE` when it wants no job any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from gearproto.event import Event
from gearproto.packets import JobAssign, JobAssignAll, JobAssignUniq, NoJob, Noop

__all__ = ["ASSIGNMENTS", "Grab", "grab_cycle"]


class Grab(Enum):
    """Where a worker is in the cycle of asking for jobs."""

    IDLE = auto()
    """It wants no job."""
    ASKED = auto()
    """``GRAB_JOB`` was sent and not answered yet."""
    ASLEEP = auto()
    """``PRE_SLEEP`` was sent: ``NOOP`` wakes it."""


ASSIGNMENTS: Final = (JobAssign, JobAssignUniq, JobAssignAll)
"""The packets that assign a job."""

_CYCLE: Final[dict[tuple[Grab, type[Event]], tuple[Grab, bool]]] = {
    (Grab.IDLE, Noop): (Grab.IDLE, False),
    (Grab.IDLE, NoJob): (Grab.IDLE, False),
    (Grab.ASKED, Noop): (Grab.ASKED, False),
    (Grab.ASKED, NoJob): (Grab.ASLEEP, True),
    (Grab.ASLEEP, Noop): (Grab.ASKED, True),
    (Grab.ASLEEP, NoJob): (Grab.ASLEEP, False),
    **{(Grab.IDLE, assignment): (Grab.IDLE, False) for assignment in ASSIGNMENTS},
    **{(Grab.ASKED, assignment): (Grab.IDLE, False) for assignment in ASSIGNMENTS},
    **{(Grab.ASLEEP, assignment): (Grab.ASLEEP, False) for assignment in ASSIGNMENTS},
}
_CYCLE_OF_SEVERAL: Final = _CYCLE | {(Grab.ASLEEP, Noop): (Grab.IDLE, False)}


def grab_cycle(*, asks_when_woken: bool) -> Mapping[tuple[Grab, type[Event]], tuple[Grab, bool]]:
    """Return what a packet from the server means, by state and class of the packet.

    Args:
        asks_when_woken: whether a worker that is woken asks at once. Workers with several servers do not: they may be
            busy with the jobs of others by then.

    Returns:
        The next state, and whether to send the packet that leads there: ``PRE_SLEEP`` to be `Grab.ASLEEP`, and
        ``GRAB_JOB`` or its variants to be `Grab.ASKED`.
    """
    return _CYCLE if asks_when_woken else _CYCLE_OF_SEVERAL
