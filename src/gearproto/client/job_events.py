"""The events of a job, stored for any number of iterations.

A job has one `EventLog`, and each iteration over its events a `Cursor`: a place in the log. All cursors begin at the
oldest event that is kept and end with the outcome, however far others are. Events are numbered in the order in which
they came, so a cursor stays valid when events before it are dropped. Progress that nothing has followed yet has no such
number, as the next progress takes its place; cursors count how often they have seen progress instead.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Protocol

from gearproto.event import event
from gearproto.events import Data, Progress, Restarted, Warned
from gearproto.outcomes import Outcome

__all__ = ["Cursor", "EventLog", "JobEvent", "Resubmitted", "Step"]


@event
class Resubmitted:
    """The submission was lost, and has been sent again: earlier events of the job no longer count.

    Drop the pieces of the result that came before, as the next run sends its own. A client cannot tell whether the
    server has joined the submission to a job that is already running; the first pieces of that run are then missing.

    Attributes:
        cause: why the connection of the lost submission ended, as text.
    """

    cause: str


JobEvent = Progress | Data | Warned | Restarted | Resubmitted | Outcome
"""What happens to a job, as its client sees it; the outcome comes last."""


class Step:
    """Progress that other events have followed.

    Attributes:
        number: how often there had been progress by then.
        progress: the progress.
    """

    __slots__ = ("number", "progress")

    def __init__(self, progress: Progress, number: int) -> None:
        self.progress = progress
        self.number = number


class EventLog:
    """The stored events of a job, without the outcome."""

    __slots__ = ("_events", "_first", "_progress", "_steps")

    def __init__(self) -> None:
        """Begin without events."""
        self._events: MutableSequence[JobEvent | Step] = []
        self._first = 0  # number of the first of them
        self._progress: Progress | None = None  # the latest, as long as nothing has followed it
        self._steps = 0  # how often there was progress

    def add(self, event: JobEvent) -> None:
        """Add the newest event; progress takes the place of progress right before it."""
        if isinstance(event, Progress):
            self._progress = event
            self._steps += 1
            return
        if self._progress is not None:
            self._append(Step(self._progress, self._steps))
            self._progress = None
        self._append(event)

    def restart(self, event: JobEvent) -> None:
        """Drop all events, as the job begins again, and add the event that says so."""
        self._clear()
        self.add(event)

    def _append(self, event: JobEvent | Step) -> None:
        self._events.append(event)

    def _clear(self) -> None:
        self._first += len(self._events)
        self._events.clear()
        self._progress = None

    def pieces(self) -> list[bytes]:
        """Return the pieces of the result."""
        return [event.data for event in self._events if isinstance(event, Data)]

    def open(self, cursor: Cursor) -> None:
        """Do nothing: all events are kept, whatever cursors there are."""

    def cursor_left(self) -> None:
        """Do nothing, as `open`; called when a cursor has been left, at any time and in any thread."""

    def passed(self) -> None:
        """Do nothing, as `open`; called when a cursor has moved on."""

    def next(self, at: int, steps: int) -> tuple[JobEvent | None, int, int]:
        """Return the next event for a cursor, or None, and where the cursor is then.

        Args:
            at: number of the next event that the cursor has not passed.
            steps: how often there had been progress when the cursor last had one.
        """
        at = max(at, self._first)
        while at < self._first + len(self._events):
            event = self._events[at - self._first]
            at += 1
            if not isinstance(event, Step):
                return event, at, steps
            if event.number > steps:
                return event.progress, at, event.number
        if self._progress is not None and self._steps > steps:
            return self._progress, at, self._steps
        return None, at, steps


class _Source(Protocol):
    """The job that a cursor is about."""

    log: EventLog | None
    outcome: Outcome | None


class Cursor:
    """One iteration over the events of a job.

    Attributes:
        at: number of the next event that it has not passed.
        closed: whether it has come to its end, or has been left.
        discards: whether the job may drop its events when this was the last of its cursors.
    """

    __slots__ = ("_event", "_record", "_steps", "at", "closed", "discards")

    def __init__(self, record: _Source) -> None:
        """Begin at the oldest event that is kept."""
        self._record: _Source | None = record
        self._steps = 0
        self._event: JobEvent | None = None
        self.at = 0
        self.closed = False
        self.discards = True
        if record.log is not None:
            record.log.open(self)

    def fetch(self) -> bool:
        """Prepare the next event for `take`; return whether there is one, or the iteration has ended.

        If threads share the job, call this only while none of them changes it.
        """
        record = self._record
        if self._event is None and record is not None:
            if record.log is not None:
                self._event, self.at, self._steps = record.log.next(self.at, self._steps)
                record.log.passed()
            if self._event is None:
                self._event = record.outcome
        return self._event is not None or self.closed

    def take(self) -> JobEvent | None:
        """Return the event that is ready; None if there is none, and always after the outcome."""
        event, self._event = self._event, None
        if isinstance(event, Outcome):
            self.close()
        return event

    def close(self, *, discard: bool = True) -> None:
        """Leave the iteration. May be called at any time, in any thread, and more than once.

        Args:
            discard: whether it is left for good: a job that streams drops its events with the last cursor. If not,
                they are kept for the next cursor.
        """
        record, self._record = self._record, None
        if record is not None:
            self.discards = discard
            self.closed = True
            self._event = None
            if record.log is not None:
                record.log.cursor_left()
