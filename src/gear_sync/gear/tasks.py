"""What a thread waits for while another one reads the answer."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .jobs import Job

__all__ = ["OptionReqTask", "SubmitJobTask", "Task"]


class Task:
    """A request that has been sent, or is about to be.

    Attributes:
        error: why there is no good answer; None while there is none at all, and after a good one.
        answered: whether the server has answered it, well or not.
        sent: whether it has begun to leave.
    """

    def __init__(self) -> None:
        """Begin without an answer."""
        self.error: str | None = None
        self.answered = False
        self.sent = False
        self._complete = False
        self._gate = threading.Lock()  # shut until the task is complete; made faster than an event, and so is waiting
        self._gate.acquire()

    def setComplete(self) -> None:
        """Wake the waiting threads."""
        self._complete = True
        with contextlib.suppress(RuntimeError):  # it is open already
            self._gate.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the answer.

        Args:
            timeout: longest time in seconds; None for no limit.

        Returns:
            Whether it has come.
        """
        seconds = -1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX)
        if not self._complete and self._gate.acquire(timeout=seconds):
            self.setComplete()  # opens the gate for other waiting threads
        return self._complete

    def fail(self, error: str, *, answered: bool = False) -> None:
        """End the task without a good answer.

        Args:
            error: why.
            answered: whether the server has said so.
        """
        self.error = error
        self.answered = answered
        self.setComplete()


class SubmitJobTask(Task):
    """A submission: awaits ``JOB_CREATED``.

    Attributes:
        job: the job.
        background: whether nobody waits for its result.
    """

    def __init__(self, job: Job, background: bool = False) -> None:
        """Begin without an answer."""
        super().__init__()
        self.job = job
        self.background = background


class OptionReqTask(Task):
    """An option: awaits ``OPTION_RES``."""
