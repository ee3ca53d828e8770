"""What jobs that stream keep, and what is counted of it."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from gearproto import ClientConnection, LocalProtocolError, StreamBlocked
from gearproto.addresses import parse_address
from gearproto.client import (
    Candidates,
    Cursor,
    JobEvent,
    JobRecord,
    JobRequest,
    OpenRequests,
    Policy,
    Resubmitted,
    ServerChooser,
    Unread,
)
from gearproto.client.job_events import EventLog
from gearproto.client.streams import StreamLog
from gearproto.codec import Packet
from gearproto.events import Data, Progress, RequestId, Restarted, Warned
from gearproto.outcomes import Completed, Failed, Lost, Outcome
from gearproto.packets import JobCreated, WorkComplete, WorkData, WorkFail
from tests.harness.connections import sent

ONE: Final = RequestId(1)
EVENT: Final = 128  # bytes that an event counts for beside its data
SERVER = parse_address("a.example:4730")


class Job:
    def __init__(self, unread: Unread) -> None:
        self.log: EventLog | None = StreamLog(unread)
        self.outcome: Outcome | None = None


class StreamBesideLists(RuleBasedStateMachine):
    """A job that streams, and what each of its iterations has to yield, in a list of its own.

    Progress is left out of the lists: which of it an iteration yields is the same as for other jobs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unread = Unread(10**9)
        self.job = Job(self.unread)
        self.kept: list[JobEvent] = []  # while no cursor has been opened, and after each that was not left for good
        self.cursors: dict[Cursor, list[JobEvent]] = {}
        self.over = False
        self.progressed = False

    def lists(self) -> list[list[JobEvent]]:
        return list(self.cursors.values()) or [self.kept]

    def longest(self) -> list[JobEvent]:
        """Return a copy of the longest list: what the cursor that is farthest behind has to yield."""
        longest: list[JobEvent] = []
        for events in self.lists():
            if len(events) > len(longest):
                longest = events
        return list(longest)

    @precondition(lambda self: len(self.cursors) < 4)
    @rule()
    def open(self) -> None:
        self.cursors[Cursor(self.job)] = self.longest()

    @precondition(lambda self: self.job.outcome is None)
    @rule(
        event=st.one_of(
            st.builds(Data, st.just(ONE), st.binary(max_size=3)),
            st.builds(Warned, st.just(ONE), st.binary(max_size=3)),
            st.builds(Progress, st.just(ONE), st.integers(0, 2), st.just(2)),
            st.just(Restarted(ONE)),
            st.just(Resubmitted("gone")),
        )
    )
    def happen(self, event: JobEvent) -> None:
        assert self.job.log is not None
        self.progressed |= isinstance(event, Progress)
        if isinstance(event, Restarted | Resubmitted):
            self.job.log.restart(event)
        else:
            self.job.log.add(event)
        if isinstance(event, Progress) or (self.over and isinstance(event, Data | Warned)):
            return
        for events in (self.kept, *self.cursors.values()):
            if isinstance(event, Restarted | Resubmitted):
                events.clear()
            events.append(event)

    @precondition(lambda self: self.cursors)
    @rule(number=st.integers(0, 10), count=st.integers(1, 5))
    def step(self, number: int, count: int) -> None:
        cursor = list(self.cursors)[number % len(self.cursors)]
        for _ in range(count):
            expected = self.cursors[cursor]
            while cursor.fetch() and isinstance(event := cursor.take(), Progress):
                pass
            if expected:
                assert event == expected.pop(0)
            else:
                assert not cursor.fetch()
        self.kept = self.longest()

    @precondition(lambda self: self.cursors)
    @rule(number=st.integers(0, 10), discard=st.booleans())
    def leave(self, number: int, discard: bool) -> None:
        cursor = list(self.cursors)[number % len(self.cursors)]
        self.kept = self.longest()
        left = self.cursors.pop(cursor)
        cursor.close(discard=discard)
        assert cursor.fetch()
        assert cursor.take() is None
        if self.cursors:
            self.kept = self.longest()
        elif discard:
            self.over = True
            self.kept = []
        else:
            self.kept = left
        assert self.unread.size >= 0  # settles it before the next cursor is opened

    def teardown(self) -> None:
        longest = self.longest()
        held = sum(map(_size, longest))
        progress = EVENT * len(longest) * self.progressed  # before each event at most
        assert held <= self.unread.size <= held + progress
        for cursor in self.cursors:
            cursor.close(discard=False)
        del self.job
        assert self.unread.size == 0


def _size(event: JobEvent) -> int:
    return EVENT + (len(event.data) if isinstance(event, Data | Warned) else 0)


TestStreamBesideLists = StreamBesideLists.TestCase
TestStreamBesideLists.settings = settings(max_examples=settings().max_examples * 3 // 2)


def test_cursor_that_is_left_over_and_over_leaves_word_once() -> None:
    unread = Unread(10)
    job = Job(unread)
    for _ in range(100):
        Cursor(job).close()
    assert len(unread._left) == 1
    job.log = None
    assert not unread.full
    assert not unread._left


# Jobs of a connection


def streaming(unread: Unread, unique: bytes = b"") -> JobRecord:
    return JobRecord(JobRequest("f", b"", unique).packet(), Candidates((), ()), unread=unread, resubmit=bool(unique))


def submitted(*jobs: JobRecord) -> OpenRequests[JobRecord]:
    records: OpenRequests[JobRecord] = OpenRequests(ClientConnection(), SERVER)
    records.submit(jobs)
    records.conn.data_to_send()
    for number, _job in enumerate(jobs):
        arrive(records, JobCreated(b"H:%d" % number))
    return records


def arrive(records: OpenRequests[JobRecord], *packets: Packet) -> None:
    records.conn.receive_data(sent(*packets))
    for event in records.conn.events():
        records.on_event(event)


def take_all(cursor: Cursor) -> list[JobEvent]:
    taken = []
    while cursor.fetch() and (event := cursor.take()) is not None:
        taken.append(event)
    return taken


def test_connection_is_not_read_while_jobs_that_stream_hold_more_than_they_may() -> None:
    unread = Unread(1000)
    stream, other = streaming(unread), JobRecord(JobRequest("g").packet(), Candidates((), ()))
    records = submitted(stream, other)
    arrive(records, WorkData(b"H:0", bytes(1000 - EVENT)))
    assert not records.stopped
    assert not other.stuck
    arrive(records, WorkData(b"H:0", b""))
    assert records.stopped
    assert stream.stuck
    assert other.stuck
    message = r"^a\.example:4730 is not read: jobs that stream hold 1128 bytes unread, limit 1000; use another client"
    for check in (records.check_progress, stream.check_progress, other.check_progress):
        with pytest.raises(StreamBlocked, match=message):
            check()
    cursor = stream.cursor()
    assert not stream.stuck  # somebody is about to take its events
    assert other.stuck
    stream.check_progress()
    assert cursor.fetch()
    assert not records.stopped
    other.check_progress()


def test_what_other_connections_hold_stops_only_those_with_jobs_that_stream() -> None:
    unread = Unread(0)
    first, second, third = streaming(unread), streaming(unread), JobRecord(JobRequest("g").packet(), Candidates((), ()))
    connections = [submitted(job) for job in (first, second, third)]
    assert not any(records.stopped for records in connections)
    arrive(connections[0], WorkData(b"H:0", b"x"), WorkComplete(b"H:0", b"end"))
    assert [records.stopped for records in connections] == [False, True, False]
    assert second.stuck
    assert not first.stuck
    assert take_all(first.cursor()) == [Data(ONE, b"x"), Completed(b"end")]
    assert not second.stuck


@pytest.mark.parametrize("how", ["ends", "is lost", "is abandoned"])
def test_connection_without_open_jobs_that_stream_is_read(how: str) -> None:
    stream = streaming(Unread(0))
    records = submitted(stream)
    arrive(records, WorkData(b"H:0", b"x"))
    assert records.stopped
    if how == "ends":
        arrive(records, WorkFail(b"H:0"))
    elif how == "is lost":
        records.conn.connection_lost("gone")
        arrive(records)
    else:
        records.abandon("gone")
    assert not records.stopped
    assert take_all(stream.cursor()) == [Data(ONE, b"x"), Failed() if how == "ends" else Lost("gone")]


def test_job_that_streams_keeps_no_result() -> None:
    stream = streaming(Unread(1000))
    arrive(submitted(stream), WorkData(b"H:0", b"x"), WorkComplete(b"H:0", b"end"))
    with pytest.raises(LocalProtocolError, match=r"^client: job 'f' \(handle H:0\) streams and keeps no result: take"):
        stream.result_data()


def test_job_that_is_sent_once_more_holds_nothing_of_its_first_submission() -> None:
    unread = Unread(0)
    stream = streaming(unread, b"u")
    records = submitted(stream)
    arrive(records, WorkData(b"H:0", b"x"))
    cursor = stream.cursor()
    records.conn.connection_lost("gone")
    arrive(records)
    assert stream.records is None
    stream.prepare_retry(ServerChooser((), Policy.ORDERED))
    assert unread.size == EVENT
    assert take_all(cursor) == [Resubmitted("gone")]
    again = submitted(stream)
    arrive(again, WorkData(b"H:0", b"y"))
    assert again.stopped
    assert not stream.stuck


def test_what_is_left_of_a_job_that_nobody_keeps_counts_no_longer() -> None:
    unread = Unread(0)
    other = streaming(unread)
    records = submitted(other)

    def drop_a_job() -> None:
        stream = streaming(unread)
        arrive(submitted(stream), WorkData(b"H:0", b"x"), WorkFail(b"H:0"))
        assert records.stopped

    drop_a_job()
    assert not records.stopped


@pytest.mark.parametrize("wrong", [-1, 1.5, "1"])
def test_limit_that_is_not_a_number_of_bytes_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_unread is "):
        Unread(wrong)
