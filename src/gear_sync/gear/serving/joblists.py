"""The lists of queued jobs that `gear.Server` shows: real lists, which programs may change.

Theory of operation. A list is kept as jobs come and go (`JobList.show`, `JobList.hide`), so that a look at it costs
nothing. Every job has a place, a number that grows along the list. So a job is found by bisection, however many there
are. Jobs that have lost a worker have negative places, in the order in which they first had one: they come first.

What a program changes is compared with the places: jobs that it has taken out are withdrawn from the engine, jobs that
it has put in are restored. A program that has put in or moved a job has made the order its own: from then on, until the
list is empty, the order of the list decides instead of the engine's.

Only the server's thread changes a list and its places; calls from other threads wait until it has done so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, SupportsIndex, TypeVar

from gear_sync.gear.jobs import ServerJob

__all__ = ["JobList", "ListOwner"]

_BEFORE_ALL: Final = -(2**62)  # places of jobs that have lost a worker begin here

_T = TypeVar("_T")


class ListOwner(Protocol):
    """What the lists of a server belong to."""

    def call(self, call: Callable[[], _T]) -> _T:
        """Call something in the server's thread; return, or raise, what it does."""
        ...

    def withdraw(self, job: ServerJob) -> None:
        """Take a job out of its queue; the server still knows it."""
        ...

    def restore(self, job: ServerJob, priority: int) -> bool:
        """Queue a job that was taken out, perhaps with another priority; return whether it waits there now."""
        ...


class JobList(list[ServerJob]):
    """The queued jobs of one priority, in the order in which workers get them.

    A job that you take out waits for no worker any more, though the server still knows it, until you put it into a list
    again. Jobs that the server does not know, or that do not wait, cannot be put in.

    Attributes:
        reordered: whether a program has put in or moved jobs since the list was last empty.
    """

    def __init__(self, owner: ListOwner, priority: int) -> None:
        """Begin empty.

        Args:
            owner: what the list belongs to.
            priority: as in `gearproto.Priority`.
        """
        super().__init__()
        self.reordered = False
        self._owner = owner
        self._priority = priority
        self._places: dict[ServerJob, int] = {}
        self._last = 0

    def __reduce__(self) -> tuple[type[list[ServerJob]], tuple[list[ServerJob]]]:
        return list, (list(self),)  # copies are lists of the program's own

    # What the server changes

    def show(self, job: ServerJob, turn: int) -> None:
        """Add a job that waits now: at the end, or before all others if it has had a worker.

        Args:
            job: the job.
            turn: a number in the order in which workers first got jobs; 0 for a job that never had one.
        """
        if turn:
            place = self._places[job] = _BEFORE_ALL + turn
            super().insert(self._index(place), job)
        else:
            self._last += 1
            self._places[job] = self._last
            super().append(job)

    def hide(self, job: ServerJob) -> None:
        """Remove a job that waits no longer, if it is there."""
        if (place := self._places.get(job)) is not None:
            self._drop(self._index(place))

    def place(self, job: ServerJob) -> int:
        """Return a number that grows along the list."""
        return self._places[job]

    def _index(self, place: int) -> int:
        return bisect_left(self, place, key=self._places.__getitem__)

    def _drop(self, index: int) -> ServerJob:
        job = super().pop(index)
        del self._places[job]
        if not self:
            self.reordered = False
        return job

    # What programs change

    def _take(self, index: SupportsIndex) -> ServerJob:
        super().__getitem__(index)  # raises what a list does
        position = index.__index__()
        job = self._drop(position)
        self._owner.withdraw(job)
        return job

    def _change(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Change the list as a program wants, and tell the engine what that means."""
        self._owner.call(lambda: self._change_here(method, *arguments, **options))

    def _change_here(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        try:
            method(self, *arguments, **options)
        finally:
            jobs = dict.fromkeys(self)  # each once
            for job in [job for job in self._places if job not in jobs]:
                self._owner.withdraw(job)
            known = [job for job in jobs if job in self._places or self._owner.restore(job, self._priority)]
            super().__setitem__(slice(None), known)
            self._places = {job: place for place, job in enumerate(known, 1)}
            self._last = len(known)
            self.reordered = bool(known)

    def remove(self, job: ServerJob, /) -> None:
        """Take a job out.

        Raises:
            ValueError: it is not queued here.
        """
        self._owner.call(lambda: self._take(self.index(job)))

    def index(self, job: ServerJob, start: SupportsIndex = 0, stop: SupportsIndex | None = None, /) -> int:
        """Return where a job is.

        Raises:
            ValueError: it is not queued here.
        """
        return super().index(job, start, len(self) if stop is None else stop)

    def pop(self, index: SupportsIndex = -1, /) -> ServerJob:
        """Take a job out, and return it.

        Raises:
            IndexError: there is none.
        """
        return self._owner.call(lambda: self._take(index))

    def append(self, job: ServerJob, /) -> None:
        """Put a job in at the end."""
        self._change(list.append, job)

    def insert(self, index: SupportsIndex, job: ServerJob, /) -> None:
        """Put a job in."""
        self._change(list.insert, index, job)

    def extend(self, jobs: Iterable[ServerJob], /) -> None:
        """Put jobs in at the end."""
        self._change(list.extend, list(jobs))

    def clear(self) -> None:
        """Take all jobs out."""
        self._change(list.clear)

    def reverse(self) -> None:
        """Turn the order round."""
        self._change(list.reverse)

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """Sort the jobs."""
        self._change(list.sort, key=key, reverse=reverse)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        if isinstance(index, slice):
            self._change(list.__delitem__, index)
        else:
            self.pop(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._change(list.__setitem__, index, list(value) if isinstance(index, slice) else value)

    def __iadd__(self, jobs: Iterable[ServerJob]) -> JobList:  # type: ignore[override,misc]
        self.extend(jobs)
        return self

    def __imul__(self, count: SupportsIndex) -> JobList:
        self._change(list.__imul__, count)
        return self
