"""The functions of a server: which are known, and which are forgotten."""

from __future__ import annotations

from collections import OrderedDict

from .costs import FUNCTION
from .jobs import FunctionQueue
from .linked import LinkedList

__all__ = ["FunctionTable"]


class FunctionTable:
    """The functions that have jobs or workers, those that administrators want remembered, and some others.

    Attributes:
        by_name: all of them.
        ordered: the same, to be gone through in steps.
        idle: those without jobs and workers that nobody wants remembered, oldest first.
        size: bytes that all of them take.
        kept: how many administrators want remembered.
    """

    __slots__ = ("_max_idle", "_max_kept", "by_name", "idle", "kept", "ordered", "size")

    def __init__(self, *, max_idle: int, max_kept: int) -> None:
        """Begin with none.

        Args:
            max_idle: how many idle functions are known.
            max_kept: how many functions administrators may want remembered.
        """
        self.by_name: dict[bytes, FunctionQueue] = {}
        self.ordered: LinkedList[FunctionQueue] = LinkedList()
        self.idle: OrderedDict[FunctionQueue, None] = OrderedDict()
        self.size = 0
        self.kept = 0
        self._max_idle = max_idle
        self._max_kept = max_kept

    def function(self, name: bytes) -> FunctionQueue:
        """Return a function that is about to get a job or a worker; make it if there is none."""
        function = self.by_name.get(name)
        if function is None:
            function = self.by_name[name] = FunctionQueue(name)
            self.size += len(name) + FUNCTION
            self.ordered.add(function)
        elif function.idle:
            self._leave_idle(function)
        return function

    def create(self, name: bytes, *, full: bool) -> bool:
        """Make a function known until it is dropped.

        Args:
            name: its name.
            full: whether no function may be made.

        Returns:
            False if it may not be made, or there are too many of these.
        """
        known = self.by_name.get(name)
        if known is None and (self.kept >= self._max_kept or full):
            return False
        return self._keep(known or self.function(name))

    def _keep(self, function: FunctionQueue) -> bool:
        if not function.kept:
            if self.kept >= self._max_kept:
                return False
            self.kept += 1
            function.kept = True
            if function.idle:
                self._leave_idle(function)
        return True

    def drop(self, function: FunctionQueue) -> bool:
        """Forget a function; return False if it has workers or jobs."""
        if function.in_use:
            return False
        self._forget(function)
        return True

    def limit(self, name: bytes, sizes: tuple[int, int, int]) -> bool:
        """Limit the jobs of a function, by priority; 0 means no limit. Unknown functions are left unknown.

        Returns:
            False if the function would have to be remembered for that, and there are too many of these.
        """
        function = self.by_name.get(name)
        if function is None:
            return True
        if any(sizes) and not self._keep(function):
            return False
        function.limits = sizes
        return True

    def release(self, function: FunctionQueue) -> None:
        """Keep a function that has lost its last job or worker only as long as there are not too many of them."""
        if function.in_use or function.kept or self.by_name.get(function.name) is not function:
            return
        self.idle[function] = None
        function.idle = True
        if len(self.idle) > self._max_idle:
            self._forget(next(iter(self.idle)))

    def _leave_idle(self, function: FunctionQueue) -> None:
        del self.idle[function]
        function.idle = False

    def _forget(self, function: FunctionQueue) -> None:
        del self.by_name[function.name]
        self.size -= len(function.name) + FUNCTION
        self.ordered.remove(function)
        if function.idle:
            self._leave_idle(function)
        self.kept -= function.kept
