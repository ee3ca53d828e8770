"""The events of a job, for any number of iterations beside each other."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from gearproto.client import Cursor, JobEvent, Resubmitted
from gearproto.client.job_events import EventLog
from gearproto.events import Data, Progress, RequestId, Restarted, Warned
from gearproto.outcomes import Completed, Failed, Outcome

ONE = RequestId(1)


class Job:
    def __init__(self) -> None:
        self.log: EventLog | None = None
        self.outcome: Outcome | None = None


class Watcher:
    """An iteration, and what it has to yield next: a list in which each progress has taken the place of the last."""

    def __init__(self, job: Job, told: list[JobEvent]) -> None:
        self.cursor = Cursor(job)
        self.expected = list(told)

    def add(self, event: JobEvent) -> None:
        if isinstance(event, Restarted | Resubmitted):
            self.expected.clear()
        elif isinstance(event, Progress) and self.expected and isinstance(self.expected[-1], Progress):
            self.expected.pop()
        self.expected.append(event)


class LogBesideLists(RuleBasedStateMachine):
    """Every iteration yields what a list of its own would hold, whenever it begins and however far the others are."""

    def __init__(self) -> None:
        super().__init__()
        self.job = Job()
        self.fresh = Watcher(self.job, [])  # what an iteration has to yield that begins now
        self.watchers: list[Watcher] = []

    @rule()
    def begin(self) -> None:
        self.watchers.append(Watcher(self.job, self.fresh.expected))

    @precondition(lambda self: self.job.outcome is None)
    @rule(
        event=st.one_of(
            st.builds(Data, st.just(ONE), st.binary(max_size=1)),
            st.builds(Warned, st.just(ONE), st.binary(max_size=1)),
            st.builds(Progress, st.just(ONE), st.integers(0, 2), st.just(2)),
            st.just(Restarted(ONE)),
            st.just(Resubmitted("gone")),
        )
    )
    def happen(self, event: JobEvent) -> None:
        log = self.job.log = self.job.log or EventLog()
        if isinstance(event, Restarted | Resubmitted):
            log.restart(event)
        else:
            log.add(event)
        for watcher in (self.fresh, *self.watchers):
            watcher.add(event)
        assert log.pieces() == [event.data for event in self.fresh.expected if isinstance(event, Data)]

    @precondition(lambda self: self.job.outcome is None)
    @rule(outcome=st.sampled_from([Completed(b""), Failed()]))
    def end(self, outcome: Completed | Failed) -> None:
        self.job.outcome = outcome
        for watcher in (self.fresh, *self.watchers):
            watcher.add(outcome)

    @precondition(lambda self: self.watchers)
    @rule(number=st.integers(0, 10), count=st.integers(1, 5))
    def step(self, number: int, count: int) -> None:
        watcher = self.watchers[number % len(self.watchers)]
        for _ in range(count):
            ended = self.job.outcome is not None
            assert watcher.cursor.fetch() == watcher.cursor.fetch() == (bool(watcher.expected) or ended)
            assert watcher.cursor.take() == (watcher.expected.pop(0) if watcher.expected else None)

    def teardown(self) -> None:
        """Everybody who goes on gets the rest, and ends with the outcome."""
        if self.job.outcome is None:
            self.end(Failed())
        self.begin()
        for number, watcher in enumerate(self.watchers):
            self.step(number, len(watcher.expected) + 2)


TestLogBesideLists = LogBesideLists.TestCase
TestLogBesideLists.settings = settings(max_examples=settings().max_examples * 3 // 2)


def test_event_that_is_ready_is_not_exchanged_for_a_later_one() -> None:
    job = Job()
    job.log = EventLog()
    job.log.add(Data(ONE, b"old"))
    cursor = Cursor(job)
    assert cursor.fetch()
    job.log.restart(Restarted(ONE))
    assert cursor.fetch()
    assert [cursor.take(), cursor.take()] == [Data(ONE, b"old"), None]
    assert cursor.fetch()
    assert cursor.take() == Restarted(ONE)
