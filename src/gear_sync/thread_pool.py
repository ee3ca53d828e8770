"""The threads in which a worker runs its jobs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

from .worker_job import HeldJob

__all__ = ["ThreadPool"]


class ThreadPool:
    """Threads that run jobs; none for a worker that runs them in its own thread."""

    def __init__(
        self, threads: int, work: Callable[[HeldJob], None], on_error: Callable[[BaseException], None]
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._count = threads
        self._jobs: queue.SimpleQueue[HeldJob | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Callable[[HeldJob], None]:
        """Start the threads, and return what hands a job over."""
        for number in range(self._count):
            thread = threading.Thread(target=self._run, name=f"gear worker {number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no room for another one
                self.__exit__(None, None, None)
                raise
            self._threads.append(thread)
        return self._jobs.put if self._count else self._work

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let each thread end with the job that it has; one that hangs is left behind, as no thread can be ended."""
        for _ in self._threads:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._work(job)
            except BaseException as error:  # `run` raises it
                self._on_error(error)
                return
