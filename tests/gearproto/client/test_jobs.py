from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto import (
    ClientConnection,
    ConnectionLost,
    JobFailed,
    JobLost,
    JobNotSent,
    JobRaised,
    JobRejected,
    LocalProtocolError,
    ServerError,
)
from gearproto.addresses import parse_address
from gearproto.admin import FunctionStatus, Status, Version
from gearproto.client import (
    MAX_RESUBMISSIONS,
    Answer,
    Candidates,
    Cursor,
    JobEvent,
    JobHandle,
    JobRecord,
    JobRequest,
    OpenRequests,
    Policy,
    Resubmitted,
    ServerChooser,
    outcome_error,
)
from gearproto.codec import Packet
from gearproto.events import ConnectionClosed, Data, Progress, RequestId, Restarted, StatusReceived, Warned
from gearproto.outcomes import Completed, Failed, Lost, NotSent, Outcome, Raised, Rejected
from gearproto.packets import (
    EchoRes,
    Error,
    JobCreated,
    JobRequeued,
    OptionReq,
    StatusRes,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.harness.connections import output, sent

H = b"H:a:1"
SERVER = parse_address("a.example:4730")
NOWHERE = Candidates((), ())
CHOOSER = ServerChooser((), Policy.ORDERED)

OUTCOMES: list[tuple[Outcome, type[Exception], str]] = [
    (Failed(), JobFailed, "the worker reported WORK_FAIL"),
    (Raised(b"why"), JobRaised, "why"),
    (Rejected(b"QUEUE_FULL", b"no room"), JobRejected, "no room"),
    (NotSent("refused"), JobNotSent, "refused"),
    (Lost("gone"), JobLost, "gone"),
]


def record(*, unique: bytes = b"", background: bool = False, resubmit: bool = False) -> JobRecord:
    """Return the record of a job that is not submitted yet."""
    return JobRecord(JobRequest("f", b"w", unique).packet(background=background), NOWHERE, resubmit=resubmit)


def connected() -> OpenRequests[JobRecord]:
    """Return the records of a new connection."""
    return OpenRequests(ClientConnection(), SERVER)


def submitted(*records: JobRecord) -> OpenRequests[JobRecord]:
    """Return a connection on which jobs have been submitted; their packets have left."""
    connection = connected()
    connection.submit(records)
    connection.conn.data_to_send()
    return connection


def pump(records: OpenRequests[JobRecord], *packets: Packet) -> list[JobRecord | Answer | None]:
    """Let packets arrive, and hand their events out."""
    records.conn.receive_data(sent(*packets))
    told = []
    while (event := records.conn.next_event()) is not None:
        told.append(records.on_event(event))
    return told


def lose(records: OpenRequests[JobRecord], *, unsent: int = 0) -> None:
    """Let the connection end."""
    records.conn.connection_lost("gone", unsent)
    pump(records)


def events(cursor: Cursor) -> list[JobEvent]:
    """Take all events that there are for a cursor."""
    taken = []
    while cursor.fetch() and (event := cursor.take()) is not None:
        taken.append(event)
    return taken


# Jobs


def test_job_is_followed_from_its_handle_to_its_outcome() -> None:
    job = record()
    connection = submitted(job)
    assert (job.handle, job.outcome, job.resolved, job.log) == (None, None, False, None)
    cursor = job.cursor()
    assert not cursor.fetch()
    assert cursor.take() is None
    assert pump(connection, JobCreated(H)) == [job]
    assert job.handle == H
    assert isinstance(job.handle, JobHandle)
    assert job.handle.server == SERVER
    assert not job.resolved
    assert pump(connection, WorkData(H, b"a"), WorkStatus(H, 1, 2), WorkWarning(H, b"w")) == [job] * 3
    assert job.progress == (1, 2)
    assert pump(connection, WorkComplete(H, b"b")) == [job]
    assert job.outcome == Completed(b"b")
    assert job.resolved
    assert job.result_data() == b"ab"
    assert job.packet is None
    one = RequestId(1)
    expected = [Data(one, b"a"), Progress(one, 1, 2), Warned(one, b"w"), Completed(b"b")]
    assert events(cursor) == events(job.cursor()) == expected
    assert cursor.fetch()
    assert cursor.take() is None


def test_result_without_pieces_is_the_data_of_the_end() -> None:
    job = record()
    pump(submitted(job), JobCreated(H), WorkComplete(H, b"r"))
    assert job.result_data() == b"r"


@pytest.mark.parametrize(("outcome", "error", "text"), OUTCOMES)
def test_outcome_is_raised_as_its_exception(outcome: Outcome, error: type[Exception], text: str) -> None:
    job = record()
    job.end(outcome)
    with pytest.raises(error, match=text):
        job.result_data()
    assert type(outcome_error(outcome)) is error


@pytest.mark.parametrize("end", [(JobCreated(H),), (Error(b"QUEUE_FULL", b""),), (JobCreated(H), WorkFail(H))])
def test_job_is_taken_or_has_ended(end: tuple[Packet, ...]) -> None:
    job = record()
    connection = submitted(job)
    assert not job.taken_or_ended
    assert connection.open == [job]
    pump(connection, *end)
    assert job.taken_or_ended
    assert (job.handle == H) == isinstance(end[0], JobCreated)
    assert connection.open == ([] if job.outcome else [job])


def test_job_of_which_nothing_but_its_end_is_told_has_one_event() -> None:
    job = record()
    job.end(Failed())
    for _ in range(2):
        cursor = job.cursor()
        assert events(cursor) == [Failed()]
        assert cursor.closed


@pytest.mark.parametrize(
    ("unique", "handle", "text"),
    [
        (b"", None, "job 'f'"),
        (b"u", None, "job 'f' (unique u)"),
        (b"", H, "job 'f' (handle H:a:1)"),
        (b"\xff", H, "job 'f' (unique \\xff, handle H:a:1)"),
    ],
)
def test_job_is_named_by_what_is_known_of_it(unique: bytes, handle: bytes | None, text: str) -> None:
    job = record(unique=unique)
    if handle is not None:
        pump(submitted(job), JobCreated(handle))
    assert str(job) == text


def test_completed_is_no_error() -> None:
    assert outcome_error(Completed(b"")) is None


def test_record_shows_what_is_known_of_it() -> None:
    job = record()
    assert repr(job) == "<JobRecord b'f' unsent handle=None outcome=None>"


# Background jobs


def test_background_job_is_resolved_when_a_server_has_taken_it() -> None:
    job = record(background=True)
    connection = connected()
    connection.submit([job])
    assert output(connection.conn) == [SubmitJobBg(b"f", b"", b"w")]
    resolved: list[JobRecord] = []
    job.watch(resolved.append)
    pump(connection, JobCreated(H))
    assert resolved == [job]
    assert job.resolved
    assert job.taken() == H
    assert job.outcome is None
    lose(connection)
    assert job.outcome is None


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda connection: pump(connection, Error(b"QUEUE_FULL", b"no room")), JobRejected),
        (lose, JobLost),
    ],
)
def test_background_job_that_was_not_taken_tells_why(
    end: Callable[[OpenRequests[JobRecord]], object], error: type[Exception]
) -> None:
    job = record(background=True)
    end(submitted(job))
    assert job.resolved
    with pytest.raises(error):
        job.taken()


# Submissions that come to nothing


def test_submission_of_which_no_byte_left_is_retryable() -> None:
    job = record()
    connection = connected()
    connection.submit([job])
    lose(connection)
    assert job.retryable == NotSent("gone")
    assert job.outcome is None
    assert not job.resolved
    assert job.packet is not None


def test_submission_that_has_left_is_lost() -> None:
    job = record()
    lose(submitted(job))
    assert job.outcome == Lost("gone")
    assert job.retryable is None


def test_lost_submission_is_retryable_if_it_may_be_sent_once_more() -> None:
    job = record(unique=b"u", resubmit=True)
    lose(submitted(job))
    assert job.retryable == Lost("gone")
    assert job.outcome is None


def test_lost_submission_is_sent_once_more_only_so_often() -> None:
    job = record(unique=b"u", resubmit=True)
    for _ in range(MAX_RESUBMISSIONS):
        lose(submitted(job))
        assert job.retryable == Lost("gone")
        job.prepare_retry(CHOOSER)
        assert job.retryable is None
    lose(submitted(job))
    assert job.outcome == Lost("gone")


def test_unsent_submissions_are_sent_once_more_without_end() -> None:
    job = record()
    for _ in range(3 * MAX_RESUBMISSIONS):
        connection = connected()
        connection.submit([job])
        lose(connection)
        assert job.retryable == NotSent("gone")
        job.prepare_retry(CHOOSER)
    assert job.outcome is None


@pytest.mark.parametrize("outcome", [NotSent("refused"), Rejected(b"QUEUE_FULL", b"no room"), Failed(), Lost("again")])
def test_job_that_was_lost_once_may_have_run_whatever_became_of_it_later(outcome: Outcome) -> None:
    job = record(unique=b"u", resubmit=True)
    lose(submitted(job))
    job.prepare_retry(CHOOSER)
    job.end(outcome)
    assert job.outcome == (Lost("gone") if isinstance(outcome, NotSent | Rejected) else outcome)


def test_unsent_submission_after_a_lost_one_is_no_proof_that_nothing_left() -> None:
    job = record(unique=b"u", resubmit=True)
    lose(submitted(job))
    job.prepare_retry(CHOOSER)
    connection = connected()
    connection.submit([job])
    lose(connection)
    job.prepare_retry(CHOOSER)
    job.end(NotSent("no server could be reached"))
    assert job.outcome == Lost("gone")


def test_resubmission_needs_a_unique() -> None:
    with pytest.raises(LocalProtocolError, match="resubmit needs a unique"):
        record(resubmit=True)


def test_restarted_job_knows_nothing_of_its_first_submission() -> None:
    job = record(unique=b"u", resubmit=True)
    connection = submitted(job)
    pump(connection, JobCreated(H), WorkData(H, b"half"), WorkStatus(H, 1, 2), WorkWarning(H, b"w"))
    lose(connection)
    job.prepare_retry(CHOOSER)
    assert (job.handle, job.progress) == (None, None)
    pump(submitted(job), JobCreated(b"H:b:1"), WorkComplete(b"H:b:1", b"whole"))
    assert job.result_data() == b"whole"
    assert job.handle == b"H:b:1"


def test_pieces_of_the_next_run_come_behind_the_event_that_says_so() -> None:
    job = record(unique=b"u", resubmit=True)
    connection = submitted(job)
    cursor = job.cursor()
    pump(connection, JobCreated(H), WorkData(H, b"ha"))
    assert [event.data for event in events(cursor) if isinstance(event, Data)] == [b"ha"]
    pump(connection, WorkData(H, b"lf"))
    lose(connection)
    job.prepare_retry(CHOOSER)
    connection = connected()
    connection.submit([job])
    lose(connection)  # this time nothing has left
    job.prepare_retry(CHOOSER)
    connection = submitted(job)
    pump(connection, JobCreated(H), WorkData(H, b"who"), WorkComplete(H, b"le"))
    told = events(job.cursor())
    assert told == events(cursor)
    resubmitted, piece, end = told
    assert resubmitted == Resubmitted("gone")
    assert isinstance(piece, Data)
    assert (piece.data, end) == (b"who", Completed(b"le"))


def test_pieces_of_a_lost_run_are_not_joined_with_those_of_the_next() -> None:
    job = record()
    connection = submitted(job)
    cursor = job.cursor()
    pump(connection, JobCreated(H), WorkData(H, b"FIRST-"), WorkStatus(H, 1, 2), WorkWarning(H, b"w"))
    assert cursor.fetch()
    assert cursor.take() == Data(RequestId(1), b"FIRST-")
    pump(connection, JobRequeued(H))
    assert (job.handle, job.progress, job.outcome) == (H, None, None)
    pump(connection, WorkData(H, b"second-"), WorkComplete(H, b"run"))
    assert job.result_data() == b"second-run"
    told = events(job.cursor())
    assert told == events(cursor)
    restarted, piece, end = told
    assert (restarted, piece) == (Restarted(RequestId(1)), Data(RequestId(1), b"second-"))
    assert end == Completed(b"run")


def test_submission_that_never_left_is_not_told_as_sent_once_more() -> None:
    job = record()
    connection = connected()
    connection.submit([job])
    lose(connection)
    job.prepare_retry(CHOOSER)
    assert job.log is None


def test_retryable_job_may_end_as_its_submission_did() -> None:
    job = record()
    job.mark_retryable(NotSent("gone"))
    job.give_up()
    assert job.retryable is None
    assert job.outcome == NotSent("gone")
    assert job.packet is None


# Watching


def test_watcher_is_called_once_when_the_job_ends() -> None:
    job = record()
    connection = submitted(job)
    seen: list[str] = []
    job.watch(lambda _job: seen.append("one"))
    job.watch(lambda _job: seen.append("two"))
    pump(connection, JobCreated(H), WorkStatus(H, 1, 2))
    assert seen == []
    pump(connection, WorkFail(H))
    assert seen == ["one", "two"]


def test_watcher_of_a_job_that_has_ended_is_called_at_once() -> None:
    job = record()
    job.end(Failed())
    seen: list[JobRecord] = []
    job.watch(seen.append)
    assert seen == [job]


def test_watcher_is_not_told_of_a_job_that_is_retried_but_of_its_end() -> None:
    job = record()
    seen: list[Outcome | None] = []
    job.watch(lambda job: seen.append(job.outcome))
    job.mark_retryable(NotSent("gone"))
    job.watch(lambda job: seen.append(job.outcome))
    assert seen == []
    job.prepare_retry(CHOOSER)
    job.end(Failed())
    assert seen == [Failed(), Failed()]


def test_watcher_that_watches_no_more_is_not_called() -> None:
    job = record()
    seen: list[str] = []

    def one(_job: JobRecord) -> None:
        seen.append("one")

    def two(_job: JobRecord) -> None:
        seen.append("two")

    job.unwatch(one)
    job.watch(one)
    job.watch(two)
    job.unwatch(one)
    job.unwatch(one)
    job.end(Failed())
    job.unwatch(two)
    assert seen == ["two"]


# Requests


def test_submission_that_breaks_a_rule_keeps_all_others_back() -> None:
    connection: OpenRequests[JobRecord] = OpenRequests(ClientConnection(max_packet_size=10), SERVER)
    jobs = [JobRecord(JobRequest("f", b"x" * size).packet(), NOWHERE) for size in (1, 10)]
    with pytest.raises(LocalProtocolError, match="limit 10"):
        connection.submit(jobs)
    assert output(connection.conn) == []
    lose(connection)
    assert all(job.outcome is None and job.retryable is None for job in jobs)


def test_answer_is_the_event_of_its_request() -> None:
    connection = connected()
    first, second = Answer(), Answer()
    connection.ask(lambda conn: conn.get_status(H), first)
    connection.ask(lambda conn: conn.echo(b"x"), second)
    assert first.event is None
    assert pump(connection, StatusRes(H, True, False, 1, 2)) == [first]
    assert pump(connection, EchoRes(b"x")) == [second]
    assert first.event is not None
    assert connection.status(first.event) == StatusReceived(RequestId(1), True, False, 1, 2, None)
    assert second.event is not None
    assert connection.echoed(second.event) == b"x"


def test_request_that_breaks_a_rule_is_not_kept() -> None:
    connection = connected()
    answer = Answer()
    with pytest.raises(LocalProtocolError):
        connection.ask(lambda conn: conn.get_status(b""), answer)
    lose(connection)
    assert answer.event is None


@pytest.mark.parametrize(
    "read", [OpenRequests.status, OpenRequests.echoed, lambda records, event: records.reply(Version(), event)]
)
def test_refused_and_lost_requests_are_errors(read: Callable[..., object]) -> None:
    connection = connected()
    refused, lost = Answer(), Answer()
    connection.ask(lambda conn: conn.get_status(H), refused)
    connection.ask(lambda conn: conn.get_status(H), lost)
    connection.conn.data_to_send()
    pump(connection, Error(b"CODE", b"the text"))
    with pytest.raises(ServerError, match="the text") as caught:
        read(connection, refused.event)
    assert caught.value.code == b"CODE"
    assert connection.reason == ""
    lose(connection)
    assert connection.reason == "gone"
    with pytest.raises(ConnectionLost, match=r"^a\.example:4730: gone$"):
        read(connection, lost.event)


def test_answer_to_a_text_command_is_what_it_tells() -> None:
    connection = connected()
    answer = Answer()
    connection.ask(lambda conn: conn.admin(Status()), answer)
    connection.conn.receive_data(b"f\t1\t0\t2\n.\n")
    pump(connection)
    assert answer.event is not None
    assert connection.reply(Status(), answer.event) == (FunctionStatus(b"f", 1, 0, 2),)


def test_server_is_asked_for_exceptions_and_reruns_unless_told_otherwise() -> None:
    connection = connected()
    connection.introduce(exceptions=False)
    assert output(connection.conn) == []
    connection.introduce(exceptions=True)
    assert output(connection.conn) == [OptionReq(b"exceptions"), OptionReq(b"reruns")]


def test_end_of_a_connection_costs_what_is_open_its_answer() -> None:
    for unsent in (0, 10_000):
        job = record()
        connection = connected()
        connection.submit([job])
        left = len(connection.conn.data_to_send())
        assert not connection.idle
        lose(connection, unsent=min(unsent, left))
        assert (connection.cost, connection.idle) == (True, True)
    asked = connected()
    asked.ask(lambda conn: conn.echo(b"x"), Answer())
    lose(asked)
    assert asked.cost
    done = submitted(record())
    pump(done, JobCreated(H), WorkComplete(H, b""))
    lose(done)
    assert not done.cost


def test_event_that_belongs_to_no_request_is_nobodys() -> None:
    job = record()
    connection = submitted(job)
    pump(connection, JobCreated(H), WorkComplete(H, b""))
    assert pump(connection, WorkComplete(H, b"again")) == [None]
    connection.conn.connection_lost("gone")
    event = connection.conn.next_event()
    assert event == ConnectionClosed("gone")
    assert connection.on_event(event) is None


def test_old_handle_matches_nothing_on_a_new_connection() -> None:
    old, new = record(), record()
    first = submitted(old)
    pump(first, JobCreated(H))
    lose(first)
    second = submitted(new)
    assert pump(second, JobCreated(b"H:a:2"), WorkComplete(H, b"stale")) == [new, None]
    assert old.outcome == Lost("gone")
    assert new.outcome is None


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8),
    st.integers(0, 8),
    st.booleans(),
    st.integers(0, 400),
)
def test_every_record_is_resolved_or_retryable_at_the_end(
    kinds: list[tuple[bool, bool]], answered: int, left: bool, unsent: int
) -> None:
    jobs = [record(unique=b"u%d" % n, background=bg, resubmit=resubmit) for n, (bg, resubmit) in enumerate(kinds)]
    connection = connected()
    connection.submit(jobs)
    size = len(connection.conn.data_to_send()) if left else 0
    if left:
        for number, job in enumerate(jobs[:answered]):
            handle = b"H:%d" % number
            pump(connection, JobCreated(handle))
            if number % 2 and not job.background:
                pump(connection, WorkComplete(handle, b"r"))
    lose(connection, unsent=min(unsent, size))
    assert all(job.resolved is (job.retryable is None) for job in jobs)
    if not left:
        assert {type(job.retryable) for job in jobs} == {NotSent}


def test_all_who_share_a_job_get_its_result() -> None:
    jobs = [record(unique=b"u") for _ in range(3)]
    connection = submitted(*jobs)
    ends = pump(connection, *[JobCreated(H)] * 3, WorkComplete(H, b"r"))
    assert ends[-3:] == jobs
    assert [job.result_data() for job in jobs] == [b"r"] * 3
    assert output(connection.conn) == []


# What KeyboardInterrupt leaves behind


def test_event_of_a_request_that_was_not_recorded_is_nobodys() -> None:
    connection = connected()
    connection.conn.get_status(H)
    assert pump(connection, StatusRes(H, True, False, 1, 2)) == [None]


def test_what_is_open_still_may_be_abandoned() -> None:
    job, again, answer = record(), record(unique=b"u", resubmit=True), Answer()
    connection = submitted(job, again)
    connection.ask(lambda conn: conn.echo(b""), answer)
    assert job in connection
    assert connection.abandon("interrupted") == [job, again, answer]
    assert job not in connection
    assert job.outcome == Lost("interrupted")
    assert again.retryable == Lost("interrupted")
    assert answer.event is not None
    with pytest.raises(ConnectionLost, match="interrupted"):
        connection.echoed(answer.event)
    assert connection.abandon("again") == []
    assert connection.reason == "interrupted"


def test_abandoned_job_that_has_ended_keeps_its_outcome_and_tells_its_watchers() -> None:
    job = record()
    connection = submitted(job)
    pump(connection, JobCreated(H))
    seen: list[JobRecord] = []
    job.watch(seen.append)
    job.outcome = Completed(b"r")  # and no further
    connection.abandon("interrupted")
    assert job.outcome == Completed(b"r")
    assert seen == [job]
