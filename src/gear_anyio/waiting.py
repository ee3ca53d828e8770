"""Jobs and answers that tasks can wait for."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from gearproto.client import Answer, Candidates, JobRecord, Submission, Unread
from gearproto.event import Event
from gearproto.outcomes import Outcome

__all__ = ["WaitingAnswer", "WaitingRecord"]


class WaitingAnswer(Answer):
    """An answer that can be waited for."""

    __slots__ = ("_came",)

    def __init__(self) -> None:
        """Begin without an answer."""
        super().__init__()
        self._came = anyio.Event()

    def on_event(self, event: Event) -> bool:
        """Take the answer: the first event is the last."""
        self._came.set()
        return super().on_event(event)

    def look_again(self) -> None:
        """Wake the task that waits, as its answer may not come."""
        self._came.set()

    async def wait(self, check: Callable[[], None]) -> Event:
        """Wait for the answer.

        Args:
            check: called before each wait; what it raises ends the wait.
        """
        while self.event is None:
            check()
            self._came = anyio.Event()
            await self._came.wait()
        return self.event


class WaitingRecord(JobRecord):
    """A submitted job that can be waited for."""

    __slots__ = ("_changed",)

    def __init__(
        self,
        packet: Submission,
        candidates: Candidates,
        *,
        resubmit: bool = False,
        unread: Unread | None = None,
    ) -> None:
        """Make the record of a job that is not submitted yet; see `JobRecord`."""
        super().__init__(packet, candidates, resubmit=resubmit, unread=unread)
        self._changed: anyio.Event | None = None

    def on_event(self, event: Event) -> bool:
        """Take an event of the connection; return whether it was the submission's last."""
        last = super().on_event(event)
        self.look_again()
        return last

    def end(self, outcome: Outcome) -> None:
        """Give the job its outcome."""
        super().end(outcome)
        self.look_again()

    def look_again(self) -> None:
        """Wake the tasks that wait for the job."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def change(self) -> None:
        """Wait until something happens to the job, or whether it can end may have changed."""
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()
