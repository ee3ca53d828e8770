"""Which of a worker's servers is asked for a job, and when: never for more jobs than the worker can run."""

from __future__ import annotations

from operator import attrgetter
from typing import Final

from gearproto.errors import LocalProtocolError
from gearproto.options import whole_number
from gearproto.packets import CanDo, CanDoTimeout, SetClientId

from .connection import WorkerConnection, ability
from .cycle import Grab
from .turns import GrabTurns

__all__ = ["DEFAULT_GRAB_TIMEOUT", "Grabber"]

DEFAULT_GRAB_TIMEOUT: Final = 2.0
"""Seconds that a server may take to answer ``GRAB_JOB`` before others are asked in its place."""


class Grabber:
    """Asks the servers of a worker for jobs.

    Call `advance` after the events of a connection and after every change, and send what has been queued. The
    connections have to be created with ``asks_when_woken=False``.

    Attributes:
        stopping: whether no further job is wanted.
        running: how many jobs the worker has; see `assigned` and `ended`.
    """

    def __init__(
        self, capacity: int = 1, *, client_id: bytes | None = None, grab_timeout: float = DEFAULT_GRAB_TIMEOUT
    ) -> None:
        """Begin without servers and functions.

        Args:
            capacity: how many jobs the worker can run at once.
            client_id: the name that administrators see (``SET_CLIENT_ID``).
            grab_timeout: seconds that a server may take to answer ``GRAB_JOB`` before others are asked in its place.

        Raises:
            LocalProtocolError: the name breaks a rule.
        """
        self._name = None if client_id is None else SetClientId(client_id)
        if self._name is not None:
            self._name.validate()
        self.stopping = False
        self.running = 0
        self._capacity = whole_number("capacity", capacity)
        self._abilities: dict[bytes, CanDo | CanDoTimeout] = {}  # by the names of the functions
        self._turns: GrabTurns[WorkerConnection] = GrabTurns(attrgetter("state"), grab_timeout)
        self._leaving: dict[WorkerConnection, set[bytes]] = {}  # functions to be taken back once their jobs have ended

    def can_do(self, function: bytes, timeout_ms: int | None = None) -> None:
        """Offer a function to all servers, including later ones (``CAN_DO``, ``CAN_DO_TIMEOUT``).

        Raises:
            LocalProtocolError: an argument breaks a rule; nothing has changed.
        """
        offer = ability(function, timeout_ms)
        offer.validate()
        self._abilities[function] = offer
        for conn in self._turns:
            self._leaving.get(conn, set()).discard(function)
            conn.introduce([offer])
            if conn.state is Grab.ASLEEP and not self.stopping:
                conn.stop_grabbing()  # there may be something for it now, so that it has to be asked again

    def cant_do(self, function: bytes) -> None:
        """Stop offering a function (``CANT_DO``). Its running jobs are not affected.

        gearmand takes running jobs from a worker that can no longer run their function. So if a server has assigned
        jobs of the function, or may be doing so, ``CANT_DO`` waits until they have ended, and the server is not asked
        for further jobs until then.

        Raises:
            LocalProtocolError: it was not offered.
        """
        if function not in self._abilities:
            raise LocalProtocolError(f"worker: CANT_DO for {function!r}, which was not offered")
        del self._abilities[function]
        for conn in self._turns:
            if conn.state is Grab.ASKED or conn.has_job_of(function):
                self._leaving.setdefault(conn, set()).add(function)
            else:
                conn.cant_do(function)

    def may_assign(self, function: bytes) -> bool:
        """Tell whether a server may have assigned a job of a function, or may do so: it is offered, or was just now."""
        return function in self._abilities or any(function in functions for functions in self._leaving.values())

    def attach(self, conn: WorkerConnection) -> None:
        """Introduce the worker to a server that has just been reached: its name, its functions."""
        if self._name is not None:
            conn.introduce([self._name])
        conn.introduce(self._abilities.values())
        self._turns.add(conn)

    def detach(self, conn: WorkerConnection) -> None:
        """Forget a connection that has ended, if it was attached."""
        self._turns.remove(conn)
        self._leaving.pop(conn, None)

    def assigned(self) -> None:
        """Count a job, as soon as its assignment is read."""
        self.running += 1

    def ended(self) -> None:
        """Count the end of a job, reported or not."""
        self.running -= 1

    def stop(self) -> None:
        """Ask for no more jobs. Jobs that servers have just assigned still arrive; see `drained`."""
        self.stopping = True
        for conn in self._turns:
            conn.stop_grabbing()

    @property
    def drained(self) -> bool:
        """Whether a worker that stops has no job and will get none."""
        return not self.running and not self._turns.awaiting

    def advance(self, now: float) -> list[WorkerConnection]:
        """Ask for as many jobs as the worker can still run, first the servers that were asked longest ago.

        Args:
            now: monotonic time in seconds.

        Returns:
            The connections that have something to send because of it.
        """
        told = self._take_back() if self._leaving else []
        wanted = 0 if self.stopping else self._capacity - self.running
        asked = self._turns.take(wanted, now, self._may_ask)
        for conn in asked:
            conn.grab_job()
        return told + [conn for conn in asked if conn not in told] if told else asked

    def _may_ask(self, conn: WorkerConnection) -> bool:
        """Tell whether a server may be asked that has no request open: it has answered, and takes no function back."""
        return conn not in self._leaving and not conn.on_trial

    def _take_back(self) -> list[WorkerConnection]:
        """Take functions back whose last jobs have ended; return the connections that were told."""
        told = []
        for conn, functions in list(self._leaving.items()):
            if conn.state is Grab.ASKED:
                continue
            for function in [function for function in functions if not conn.has_job_of(function)]:
                functions.remove(function)
                conn.cant_do(function)
                told.append(conn)
            if not functions:
                del self._leaving[conn]
        return list(dict.fromkeys(told))

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which `advance` has to be called next; None if never."""
        return self._turns.next_deadline()
