"""What all parties of a simulation are: they act, sleep, crash and start again, and have a place in the world."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from gear_testing.clock import VirtualClock

from .invariants import Invariant, Violation
from .network import Pipe

__all__ = ["Party", "Timer", "World"]


class World(Protocol):
    """What a party needs to know of the simulation that it is in."""

    clock: VirtualClock
    random: Random

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        ...


class Party:
    """A process: a client, a worker or a server.

    Attributes:
        name: what the trace calls it.
        alive: whether it runs, or is paused.
        paused: whether it does nothing for a while, as a process that its system has stopped.
    """

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.clock = world.clock
        self.random = world.random
        self._world = world
        self._waiting: list[Callable[[], object]] = []  # what has happened while it was paused

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self._world.note(self.name, what)

    def when_awake(self, action: Callable[[], object]) -> None:
        """Do something now, or when it is no longer paused; never if it has crashed."""
        if self.paused:
            self._waiting.append(action)
        elif self.alive:
            try:
                action()
            except (Violation, RecursionError):
                raise
            except Exception as error:
                raise Violation(Invariant.NO_FAULT, f"{self.name} raises {error!r}") from error

    def pause(self) -> None:
        """Do nothing until `resume`; what arrives waits."""
        if self.alive and not self.paused:
            self.note("is paused")
            self.paused = True

    def resume(self) -> None:
        """Continue, and handle what has happened meanwhile."""
        if self.paused:
            self.note("continues")
            self.paused = False
            waiting, self._waiting = self._waiting, []
            for action in waiting:
                self.when_awake(action)

    def stop(self) -> None:
        """Be gone, as a process that was killed."""
        self.note("crashes")
        self.alive = self.paused = False
        self._waiting.clear()

    # What pipes call

    def readable(self, pipe: Pipe) -> None:
        """Look into an inbox, or do so when no longer paused."""
        self.when_awake(lambda: self._read(pipe))

    def sent(self, pipe: Pipe, size: int) -> None:
        """Hear that bytes have left."""
        raise NotImplementedError

    def _read(self, pipe: Pipe) -> None:
        while pipe.inbox and self.alive:
            self._take(pipe, pipe.take())

    def _take(self, pipe: Pipe, data: bytes | None) -> None:
        raise NotImplementedError


class Timer:
    """Calls a function of a party when its deadline has come; deadlines may move either way between two calls."""

    __slots__ = ("_at", "_deadline", "_fire", "_party")

    def __init__(self, party: Party, deadline: Callable[[], float | None], fire: Callable[[], object]) -> None:
        self._party = party
        self._deadline = deadline
        self._fire = fire
        self._at: float | None = None

    def set(self) -> None:
        """Look at the deadline again."""
        when = self._deadline()
        if when is not None and (self._at is None or when < self._at):
            self._at = when
            self._party.clock.at(when, lambda: self._on_time(when))

    def _on_time(self, set_for: float) -> None:
        if self._at == set_for:  # otherwise it was set for an earlier time meanwhile
            self._at = None
            self._party.when_awake(self._call)

    def _call(self) -> None:
        when = self._deadline()
        if when is not None and when <= self._party.clock.now:
            self._fire()
        self.set()
