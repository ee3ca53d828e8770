"""The lists of queued jobs that `gear.Server` shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from gear_sync.gear.jobs import ServerJob

if TYPE_CHECKING:
    from .engine import ServerEngine

__all__ = ["QueueView"]

_T = TypeVar("_T")


class QueueView(MutableSequence[ServerJob]):
    """The queued jobs of one priority, oldest first, as a list; each look shows those that are queued then.

    A job that is taken out waits for nothing any more, though the server still knows it; one that is put in again goes
    to the end, wherever it is put.
    """

    def __init__(self, engine: ServerEngine, priority: int, run: Callable[[Callable[[], object]], object]) -> None:
        """Show the queue of an engine.

        Args:
            engine: the engine.
            priority: as in `gearproto.Priority`.
            run: calls something in the engine's thread, and waits until that is done.
        """
        self._engine = engine
        self._priority = priority
        self._run = run

    def _list(self) -> list[ServerJob]:
        return self._engine.waiting(self._priority)

    def __repr__(self) -> str:
        return repr(self._list())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, QueueView):
            return self._list() == other._list()
        return self._list() == other

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._list())

    def __iter__(self) -> Iterator[ServerJob]:
        return iter(self._list())

    def __reversed__(self) -> Iterator[ServerJob]:
        return reversed(self._list())

    def __contains__(self, job: object) -> bool:
        return job in self._list()

    @overload
    def __getitem__(self, index: int) -> ServerJob: ...

    @overload
    def __getitem__(self, index: slice) -> list[ServerJob]: ...

    def __getitem__(self, index: int | slice) -> ServerJob | list[ServerJob]:
        return self._list()[index]

    def __delitem__(self, index: int | slice) -> None:
        found = self._list()[index]
        for job in found if isinstance(found, list) else [found]:
            self._run(lambda job=job: self._engine.withdraw(job))  # type: ignore[misc]

    def __setitem__(self, index: Any, value: Any) -> None:
        del self[index]
        for job in value if isinstance(index, slice) else [value]:
            self.append(job)

    def __add__(self, other: Iterable[ServerJob]) -> list[ServerJob]:
        return [*self, *other]

    def insert(self, index: int, value: ServerJob) -> None:
        """Queue a job again that was taken out."""
        del index
        self._run(lambda: self._engine.restore(value))

    def index(self, value: object, start: int = 0, stop: int | None = None) -> int:
        """Return where a job is.

        Raises:
            ValueError: it is not queued.
        """
        jobs = self._list()
        return jobs.index(value, start, len(jobs) if stop is None else stop)  # type: ignore[arg-type]

    def clear(self) -> None:
        """Take all jobs out."""
        del self[:]
