from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gear_testing import strategies
from gearproto import ClientConnection, LocalProtocolError, RemoteProtocolError, admin
from gearproto.client import submission
from gearproto.codec import RESPONSE, Packet, Route
from gearproto.event import Event
from gearproto.events import (
    AdminReplied,
    ConnectionClosed,
    Data,
    Echoed,
    JobEnded,
    JobQueued,
    MalformedPacket,
    Progress,
    RequestFailed,
    RequestId,
    RequestLost,
    Restarted,
    StatusReceived,
    UnmatchedReport,
    Warned,
)
from gearproto.outcomes import Completed, Failed, Lost, NotSent, Outcome, Raised, Rejected
from gearproto.packets import (
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GetStatusUnique,
    JobAssign,
    JobCreated,
    JobRequeued,
    NoJob,
    Priority,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    SubmitReduceJob,
    SubmitReduceJobBackground,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.harness.connections import drain, drain_to_error, output, receive, received_by_server, sent

ONE, TWO, THREE, FOUR = map(RequestId, range(1, 5))
H = b"H:a:1"
EOF_REASON = "the server closed the connection"

WorkReport = WorkStatus | WorkData | WorkWarning | WorkComplete | WorkFail | WorkException | JobRequeued

ENDS: list[tuple[WorkReport, Outcome]] = [
    (WorkComplete(H, b"r\0"), Completed(b"r\0")),
    (WorkFail(H), Failed()),
    (WorkException(H, b"e\0"), Raised(b"e\0")),
]
PIECES: list[tuple[WorkReport, Callable[[RequestId], Event]]] = [
    (WorkStatus(H, 1, 2), lambda request: Progress(request, 1, 2)),
    (WorkData(H, b""), lambda request: Data(request, b"")),
    (WorkWarning(H, b"w\0"), lambda request: Warned(request, b"w\0")),
    (JobRequeued(H), Restarted),
]


def client_with(*handles: bytes, background: bool = False) -> ClientConnection:
    """Return a client that has submitted jobs, and has been told these handles."""
    client = ClientConnection()
    for handle in handles:
        request = client.submit_job(b"f", b"w", background=background)
        client.data_to_send()
        assert receive(client, JobCreated(handle)) == [JobQueued(request, handle)]
    return client


# Submissions


@pytest.mark.parametrize(
    ("arguments", "packet"),
    [
        ({}, SubmitJob(b"f", b"", b"w\0")),
        ({"unique": b"u"}, SubmitJob(b"f", b"u", b"w\0")),
        ({"background": True}, SubmitJobBg(b"f", b"", b"w\0")),
        ({"priority": Priority.HIGH}, SubmitJobHigh(b"f", b"", b"w\0")),
        ({"priority": Priority.HIGH, "background": True}, SubmitJobHighBg(b"f", b"", b"w\0")),
        ({"priority": Priority.LOW}, SubmitJobLow(b"f", b"", b"w\0")),
        ({"priority": Priority.LOW, "background": True}, SubmitJobLowBg(b"f", b"", b"w\0")),
        ({"run_at": 0, "background": True, "unique": b"u"}, SubmitJobEpoch(b"f", b"u", 0, b"w\0")),
        ({"reducer": b"", "unique": b"u"}, SubmitReduceJob(b"f", b"u", b"", b"", b"w\0")),
        ({"reducer": b"r", "background": True}, SubmitReduceJobBackground(b"f", b"", b"r", b"", b"w\0")),
    ],
)
def test_submission_is_the_packet_of_its_arguments(
    arguments: dict[str, bytes | bool | int | Priority], packet: Packet
) -> None:
    client = ClientConnection()
    assert client.submit_job(b"f", b"w\0", **arguments) == ONE  # type: ignore[arg-type]
    assert output(client) == [packet]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.submit_job(b"", b""), "SUBMIT_JOB: function must not be empty"),
        (lambda c: c.submit_job(b"f" * 8192, b""), "SUBMIT_JOB: function has 8192 bytes, limit 8191"),
        (lambda c: c.submit_job(b"f\0", b""), "SUBMIT_JOB: function must not hold NUL bytes"),
        (lambda c: c.submit_job(b"f", b"", unique=b"u" * 65), "SUBMIT_JOB: unique has 65 bytes, limit 64"),
        (lambda c: c.submit_job(b"f", b"x" * 8200), "SUBMIT_JOB: 8203 bytes, limit 8200"),
        (
            lambda c: c.submit_job(b"f", b"", run_at=5, background=True, priority=Priority.LOW),
            "client: a delayed or reduce job has normal priority, not LOW",
        ),
        (
            lambda c: c.submit_job(b"f", b"", reducer=b"r", priority=Priority.HIGH),
            "client: a delayed or reduce job has normal priority, not HIGH",
        ),
        (
            lambda c: c.submit_job(b"f", b"", run_at=5),
            "client: SUBMIT_JOB_EPOCH is for background jobs without a reducer",
        ),
        (
            lambda c: c.submit_job(b"f", b"", run_at=5, background=True, reducer=b"r"),
            "client: SUBMIT_JOB_EPOCH is for background jobs without a reducer",
        ),
        (
            lambda c: c.submit_job(b"f", b"", run_at=10**19, background=True),
            "SUBMIT_JOB_EPOCH: run_at has over 19 digits",
        ),
        (
            lambda c: c.submit_job(b"f", b"", run_at=1.5, background=True),
            "SUBMIT_JOB_EPOCH: run_at must be int, not float",
        ),
        (lambda c: c.get_status(b""), "GET_STATUS: handle must not be empty"),
        (lambda c: c.get_status(b"h" * 64), "GET_STATUS: handle has 64 bytes, limit 63"),
        (lambda c: c.get_status_unique(b"u" * 65), "GET_STATUS_UNIQUE: unique has 65 bytes, limit 64"),
        (lambda c: c.get_status_unique(b"\0"), "GET_STATUS_UNIQUE: unique must not hold NUL bytes"),
    ],
)
def test_refused_call_leaves_the_client_as_it_was(call: Callable[[ClientConnection], object], message: str) -> None:
    client = ClientConnection(max_packet_size=8200)
    client.submit_job(b"f", b"before")
    with pytest.raises(LocalProtocolError) as caught:
        call(client)
    assert str(caught.value) == message
    assert client.submit_job(b"f", b"after") == TWO
    assert output(client) == [SubmitJob(b"f", b"", b"before"), SubmitJob(b"f", b"", b"after")]
    assert receive(client, JobCreated(b"1"), JobCreated(b"2"), WorkFail(b"3")) == [
        JobQueued(ONE, b"1"),
        JobQueued(TWO, b"2"),
        UnmatchedReport("WORK_FAIL", b"3"),
    ]


def test_many_submissions_are_queued_together() -> None:
    client = ClientConnection()
    requests = client.submit_jobs([submission(b"f", b"a"), submission(b"f", b"b", background=True)])
    assert requests == [ONE, TWO]
    assert output(client) == [SubmitJob(b"f", b"", b"a"), SubmitJobBg(b"f", b"", b"b")]
    assert receive(client, JobCreated(b"1"), JobCreated(b"2"), WorkComplete(b"1", b"r"), WorkFail(b"2")) == [
        JobQueued(ONE, b"1"),
        JobQueued(TWO, b"2"),
        JobEnded(ONE, b"1", Completed(b"r")),
        UnmatchedReport("WORK_FAIL", b"2"),
    ]


def test_no_submissions_are_nothing() -> None:
    client = ClientConnection()
    assert client.submit_jobs([]) == []
    assert client.data_to_send() == b""


@pytest.mark.parametrize(
    ("submissions", "message"),
    [
        ([submission(b"f", b""), submission(b"", b"")], "SUBMIT_JOB: function must not be empty"),
        ([submission(b"f", b""), submission(b"f", b"x" * 900)], "SUBMIT_JOB: 903 bytes, limit 900"),
        (
            [submission(b"f", b"x" * 400), submission(b"f", b"x" * 400)],
            "client: submissions of 830 bytes, output has 21 of 850",
        ),
    ],
)
def test_many_submissions_are_refused_together(submissions: list[Packet], message: str) -> None:
    client = ClientConnection(max_packet_size=900, max_output_size=850)
    client.submit_job(b"f", b"before")
    with pytest.raises(LocalProtocolError) as caught:
        client.submit_jobs(submissions)
    assert str(caught.value) == message
    assert client.submit_jobs([submission(b"f", b"after")]) == [TWO]
    assert output(client) == [SubmitJob(b"f", b"", b"before"), SubmitJob(b"f", b"", b"after")]


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=20)), min_size=1, max_size=6), st.data())
def test_many_submissions_are_lost_from_the_first_byte_that_left(
    jobs: list[tuple[bool, bytes]], data: st.DataObject
) -> None:
    client = ClientConnection()
    packets = [submission(b"f", workload, background=background) for background, workload in jobs]
    requests = client.submit_jobs(packets)
    size = len(client.data_to_send())
    left = data.draw(st.integers(0, size))
    client.data_sent(left)
    client.connection_lost("gone")
    starts = [sum(len(packet.encode()) for packet in packets[:index]) for index in range(len(packets))]
    assert drain(client) == [
        *(
            JobEnded(request, None, Lost("gone") if left > start else NotSent("gone"))
            for request, start in zip(requests, starts, strict=True)
        ),
        ConnectionClosed("gone"),
    ]


def test_nothing_is_submitted_after_the_end() -> None:
    client = ClientConnection()
    client.connection_lost("gone")
    calls: list[Callable[[], object]] = [
        lambda: client.submit_job(b"f", b""),
        lambda: client.submit_jobs([submission(b"f", b"")]),
        lambda: client.get_status(b"h"),
        lambda: client.get_status_unique(b"u"),
    ]
    for call in calls:
        with pytest.raises(LocalProtocolError, match=r"on a connection that has ended$"):
            call()
    assert drain(client) == [ConnectionClosed("gone")]


@pytest.mark.parametrize("background", [False, True])
def test_answers_are_matched_by_order(background: bool) -> None:
    client = ClientConnection()
    client.submit_job(b"f", b"", background=background)
    client.get_status(b"H:9")
    client.submit_job(b"f", b"", background=background)
    client.get_status_unique(b"u")
    assert [type(packet) for packet in output(client)][1::2] == [GetStatus, GetStatusUnique]
    answers = [
        JobCreated(b"H:1"),
        StatusRes(b"H:9", True, False, 1, 2),
        JobCreated(b"H:2"),
        StatusResUnique(b"u", True, True, 3, 4, 5),
    ]
    assert receive(client, *answers) == [
        JobQueued(ONE, b"H:1"),
        StatusReceived(TWO, known=True, running=False, numerator=1, denominator=2, clients=None),
        JobQueued(THREE, b"H:2"),
        StatusReceived(FOUR, known=True, running=True, numerator=3, denominator=4, clients=5),
    ]


def test_status_by_unique_may_name_the_handle() -> None:
    # The protocol document says handle; gearmand sends the unique.
    client = ClientConnection()
    client.get_status_unique(b"u")
    assert receive(client, StatusResUnique(H, True, False, 0, 0, 1)) == [StatusReceived(ONE, True, False, 0, 0, 1)]


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (JobCreated(H), "client: JOB_CREATED while awaiting STATUS_RES"),
        (StatusResUnique(b"u", False, False, 0, 0, 0), "client: STATUS_RES_UNIQUE while awaiting STATUS_RES"),
        (StatusRes(b"H:2", False, False, 0, 0), "client: STATUS_RES for b'H:2', asked for b'H:a:1'"),
        (NoJob(), "client: NO_JOB is not a response that a client receives"),
        (JobAssign(H, b"f", b"w"), "client: JOB_ASSIGN is not a response that a client receives"),
    ],
)
def test_answer_to_another_question_ends_the_connection(packet: Packet, message: str) -> None:
    client = client_with(b"H:7")
    client.get_status(H)
    client.submit_job(b"f", b"")
    client.receive_data(sent(packet))
    assert drain_to_error(client) == (
        [],
        message,
        [
            RequestLost(TWO, sent=False),
            JobEnded(THREE, None, NotSent(message)),
            JobEnded(ONE, b"H:7", Lost(message)),
            ConnectionClosed(message),
        ],
    )
    assert client.closed


@pytest.mark.parametrize("packet", [JobCreated(H), StatusRes(H, False, False, 0, 0)])
def test_answer_to_nothing_ends_the_connection(packet: Packet) -> None:
    client = ClientConnection()
    with pytest.raises(RemoteProtocolError, match=r"while no request is open$"):
        receive(client, packet)


@pytest.mark.parametrize("background", [False, True])
@given(handle=st.binary(max_size=70).map(lambda handle: handle.replace(b"\0", b"")))
def test_job_whose_handle_no_packet_can_name_ends_the_connection(background: bool, handle: bytes) -> None:
    client = ClientConnection()
    client.submit_job(b"f", b"", background=background)
    client.data_to_send()
    client.receive_data(sent(JobCreated(handle)))
    if 0 < len(handle) <= 63:
        assert drain(client) == [JobQueued(ONE, handle)]
        client.get_status(handle)
        return
    message = f"client: JOB_CREATED: handle has {len(handle)} bytes, limit 1 to 63"
    assert drain_to_error(client) == ([], message, [JobEnded(ONE, None, Lost(message)), ConnectionClosed(message)])


@pytest.mark.parametrize("background", [False, True])
def test_refused_submission_is_rejected(background: bool) -> None:
    client = ClientConnection()
    client.submit_job(b"f", b"", background=background)
    client.submit_job(b"f", b"", background=background)
    assert receive(client, Error(b"QUEUE_ERROR", b"Job queue is full"), JobCreated(H)) == [
        JobEnded(ONE, None, Rejected(b"QUEUE_ERROR", b"Job queue is full")),
        JobQueued(TWO, H),
    ]


def test_error_answers_each_kind_of_request() -> None:
    client = ClientConnection()
    client.submit_job(b"f", b"")
    client.get_status(H)
    client.get_status_unique(b"u")
    client.set_option(b"o")
    client.echo(b"e")
    client.admin(admin.Version())
    client.submit_job(b"f", b"", background=True)
    codes = [b"%d" % number for number in range(1, 8)]
    assert receive(client, *(Error(code, b"t") for code in codes)) == [
        JobEnded(ONE, None, Rejected(b"1", b"t")),
        *(RequestFailed(RequestId(int(code)), code, b"t") for code in codes[1:-1]),
        JobEnded(RequestId(7), None, Rejected(b"7", b"t")),
    ]


# Reports


@pytest.mark.parametrize(("end", "outcome"), ENDS)
def test_job_ends_once_with_its_outcome(end: WorkReport, outcome: Outcome) -> None:
    client = client_with(H)
    pieces = [piece for piece, _event in PIECES]
    assert receive(client, *pieces, end) == [*(event(ONE) for _piece, event in PIECES), JobEnded(ONE, H, outcome)]
    assert receive(client, end) == [UnmatchedReport(end.spec.name, H)]
    client.receive_eof()
    assert drain(client) == [ConnectionClosed(EOF_REASON)]


def test_work_fail_behind_work_exception_is_unmatched() -> None:
    client = client_with(H)
    assert receive(client, WorkException(H, b"e"), WorkFail(H)) == [
        JobEnded(ONE, H, Raised(b"e")),
        UnmatchedReport("WORK_FAIL", H),
    ]


@pytest.mark.parametrize("report", [report for report, _event in (*PIECES, *ENDS)])
def test_report_on_a_job_of_nobody_is_unmatched(report: WorkReport) -> None:
    for client in (ClientConnection(), client_with(b"H:other"), client_with(H, background=True)):
        assert receive(client, report) == [UnmatchedReport(report.spec.name, H)]


def test_background_submission_ends_when_it_is_taken() -> None:
    client = client_with(H, background=True)
    client.receive_eof()
    assert drain(client) == [ConnectionClosed(EOF_REASON)]


def test_jobs_are_told_apart_by_their_handles() -> None:
    client = client_with(b"H:1", b"H:2")
    assert receive(client, WorkData(b"H:2", b"b"), WorkData(b"H:1", b"a"), WorkFail(b"H:1")) == [
        Data(TWO, b"b"),
        Data(ONE, b"a"),
        JobEnded(ONE, b"H:1", Failed()),
    ]
    assert receive(client, WorkComplete(b"H:2", b"")) == [JobEnded(TWO, b"H:2", Completed(b""))]


def test_malformed_status_of_a_worker_leaves_other_jobs_alone() -> None:
    client = client_with(H)
    client.receive_data(b"\0RES\0\0\0\x0c\0\0\0\x09H:a:1\0x\x001")
    assert drain(client) == [MalformedPacket("WORK_STATUS", "b'x' is not a number of at most 19 digits")]
    assert receive(client, WorkFail(H)) == [JobEnded(ONE, H, Failed())]


def test_any_other_malformed_packet_ends_the_connection() -> None:
    client = client_with(H)
    client.receive_data(b"\0RES\0\0\0\x0d\0\0\0\x01H")
    message = "client: WORK_COMPLETE: 1 arguments, not 2"
    assert drain_to_error(client) == ([], message, [JobEnded(ONE, H, Lost(message)), ConnectionClosed(message)])


# Submissions that share a job


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize(("end", "outcome"), ENDS)
def test_each_report_comes_once_to_each_sharer_and_the_end_to_all(
    count: int, end: WorkReport, outcome: Outcome
) -> None:
    client = client_with(*[H] * count)
    requests = [RequestId(number) for number in range(1, count + 1)]
    for piece, event in PIECES * 2:
        events = receive(client, *[piece] * count)
        assert len(events) == count
        assert set(events) == {event(request) for request in requests}
    assert receive(client, end) == [JobEnded(request, H, outcome) for request in requests]
    assert receive(client, *[end] * (count - 1)) == [UnmatchedReport(end.spec.name, H)] * (count - 1)


@given(st.lists(st.sampled_from(["join", "piece"]), min_size=1, max_size=20))
def test_submission_that_joins_a_job_later_gets_the_later_reports(steps: list[str]) -> None:
    client = client_with(H)
    expected: dict[RequestId, list[Event]] = {ONE: []}
    received: dict[RequestId, list[Event]] = {ONE: []}
    for number, step in enumerate(steps):
        if step == "join":
            request = client.submit_job(b"f", b"w", unique=b"u")
            assert receive(client, JobCreated(H)) == [JobQueued(request, H)]
            expected[request], received[request] = [], []
            continue
        for event in receive(client, *[WorkData(H, b"%d" % number)] * len(expected)):
            assert isinstance(event, Data)
            received[event.request].append(event)
        for request, events in expected.items():
            events.append(Data(request, b"%d" % number))
    assert received == expected


def test_background_submission_shares_no_reports() -> None:
    client = client_with(H)
    request = client.submit_job(b"f", b"w", unique=b"u", background=True)
    assert receive(client, JobCreated(H)) == [JobQueued(request, H)]
    assert receive(client, WorkData(H, b"1"), WorkData(H, b"2"), WorkFail(H)) == [
        Data(ONE, b"1"),
        Data(ONE, b"2"),
        JobEnded(ONE, H, Failed()),
    ]


def test_copies_of_the_end_are_not_kept_for_another_submission() -> None:
    client = ClientConnection(max_packet_size=100)
    for number in range(1, 5):
        client.submit_job(b"f", b"w", unique=b"u")
        assert receive(client, JobCreated(H)) == [JobQueued(RequestId(number), H)]
    client.submit_job(b"g", b"")  # unanswered, so that a result might be an early one of its own
    end = WorkComplete(H, b"x" * 60)
    ends = [JobEnded(RequestId(number), H, Completed(b"x" * 60)) for number in range(1, 5)]
    assert receive(client, end, end, end, end) == [*ends, *[UnmatchedReport("WORK_COMPLETE", H)] * 3]
    assert receive(client, JobCreated(b"H:2")) == [JobQueued(RequestId(5), b"H:2")]


def test_copies_that_never_came_swallow_nothing_later() -> None:
    # Some servers send one copy to a connection.
    client = client_with(H, H)
    assert len(receive(client, WorkFail(H))) == 2
    client.submit_job(b"f", b"")
    assert receive(client, JobCreated(b"H:2")) == [JobQueued(THREE, b"H:2")]
    client.submit_job(b"f", b"")
    assert receive(client, WorkComplete(H, b"r"), JobCreated(H)) == [
        JobQueued(FOUR, H),
        JobEnded(FOUR, H, Completed(b"r")),
    ]


def test_submission_that_joins_while_copies_of_the_end_arrive_gets_its_own() -> None:
    client = client_with(H, H)
    client.submit_job(b"f", b"w", unique=b"u")
    end = WorkComplete(H, b"r")
    assert receive(client, end) == [JobEnded(request, H, Completed(b"r")) for request in (ONE, TWO)]
    receive(client, end, end)
    assert receive(client, JobCreated(H)) == [JobQueued(THREE, H), JobEnded(THREE, H, Completed(b"r"))]


def test_all_sharers_are_lost_with_the_connection() -> None:
    client = client_with(H, b"H:2", H)
    client.receive_eof()
    lost = Lost(EOF_REASON)
    assert drain(client) == [
        JobEnded(ONE, H, lost),
        JobEnded(THREE, H, lost),
        JobEnded(TWO, b"H:2", lost),
        ConnectionClosed(EOF_REASON),
    ]


# Reports before JOB_CREATED


@pytest.mark.parametrize(("end", "outcome"), ENDS)
def test_reports_before_job_created_come_behind_it(end: WorkReport, outcome: Outcome) -> None:
    client = ClientConnection()
    client.submit_job(b"f", b"")
    assert receive(client, *(piece for piece, _event in PIECES), end) == []
    assert receive(client, JobCreated(H)) == [
        JobQueued(ONE, H),
        *(event(ONE) for _piece, event in PIECES),
        JobEnded(ONE, H, outcome),
    ]
    client.receive_eof()
    assert drain(client) == [ConnectionClosed(EOF_REASON)]


def test_reports_before_and_after_job_created_are_joined() -> None:
    client = ClientConnection()
    client.submit_job(b"f", b"")
    assert receive(client, WorkData(H, b"1"), JobCreated(H), WorkData(H, b"2"), WorkFail(H)) == [
        JobQueued(ONE, H),
        Data(ONE, b"1"),
        Data(ONE, b"2"),
        JobEnded(ONE, H, Failed()),
    ]


def test_early_reports_on_several_jobs_find_their_submissions() -> None:
    client = ClientConnection()
    for _ in range(3):
        client.submit_job(b"f", b"")
    early = [WorkComplete(b"H:3", b"3"), WorkData(b"H:1", b"1"), WorkFail(b"H:2"), WorkComplete(b"H:1", b"")]
    assert receive(client, *early) == []
    assert receive(client, JobCreated(b"H:1"), JobCreated(b"H:2"), JobCreated(b"H:3")) == [
        JobQueued(ONE, b"H:1"),
        Data(ONE, b"1"),
        JobEnded(ONE, b"H:1", Completed(b"")),
        JobQueued(TWO, b"H:2"),
        JobEnded(TWO, b"H:2", Failed()),
        JobQueued(THREE, b"H:3"),
        JobEnded(THREE, b"H:3", Completed(b"3")),
    ]


@given(st.integers(1, 4), st.integers(0, 4))
def test_early_reports_are_dealt_to_all_who_share_the_job(sharers: int, pieces: int) -> None:
    client = ClientConnection()
    for _ in range(sharers):
        client.submit_job(b"f", b"", unique=b"u")
    reports: list[WorkReport] = [*(WorkData(H, b"%d" % number) for number in range(pieces)), WorkComplete(H, b"r")]
    assert receive(client, *(report for report in reports for _ in range(sharers))) == []
    for number in range(1, sharers + 1):
        request = RequestId(number)
        assert receive(client, JobCreated(H)) == [
            JobQueued(request, H),
            *(Data(request, b"%d" % piece) for piece in range(pieces)),
            JobEnded(request, H, Completed(b"r")),
        ]


@given(st.lists(st.integers(1, 3), max_size=4).map(sorted), st.integers(1, 3))
def test_everyone_who_shares_a_job_that_ended_early_is_told(copies: list[int], sharers: int) -> None:
    # Those who joined later have no copies of the first reports.
    client = ClientConnection()
    for _ in range(sharers):
        client.submit_job(b"f", b"", unique=b"u")
    pieces = [WorkData(H, b"%d" % number) for number, count in enumerate(copies) for _ in range(min(count, sharers))]
    assert receive(client, *pieces, *[WorkFail(H)] * sharers) == []
    for number in range(1, sharers + 1):
        events = receive(client, JobCreated(H))
        assert events[0] == JobQueued(RequestId(number), H)
        assert events[-1] == JobEnded(RequestId(number), H, Failed())


@pytest.mark.parametrize("sharers", [1, 2])
def test_early_reports_end_with_the_end(sharers: int) -> None:
    client = ClientConnection()
    for _ in range(sharers):
        client.submit_job(b"f", b"", unique=b"u")
    late = [WorkData(H, b"nonsense")] * sharers
    assert receive(client, *[WorkData(H, b"d")] * sharers, *[WorkFail(H)] * sharers, *late) == []
    for number in range(1, sharers + 1):
        request = RequestId(number)
        assert receive(client, JobCreated(H)) == [
            JobQueued(request, H),
            Data(request, b"d"),
            JobEnded(request, H, Failed()),
        ]


def test_early_end_whose_copies_come_on_both_sides_of_job_created() -> None:
    client = ClientConnection()
    client.submit_job(b"f", b"", unique=b"u")
    client.submit_job(b"f", b"", unique=b"u")
    end = WorkComplete(H, b"r")
    assert receive(client, end, JobCreated(H), end, JobCreated(H)) == [
        JobQueued(ONE, H),
        JobEnded(ONE, H, Completed(b"r")),
        JobQueued(TWO, H),
        JobEnded(TWO, H, Completed(b"r")),
    ]


def test_background_submission_takes_no_early_reports() -> None:
    client = ClientConnection()
    client.submit_job(b"f", b"", unique=b"u", background=True)
    client.submit_job(b"f", b"", unique=b"u")
    assert receive(client, WorkData(H, b"1"), JobCreated(H), JobCreated(H)) == [
        JobQueued(ONE, H),
        JobQueued(TWO, H),
        Data(TWO, b"1"),
    ]


def test_early_reports_stay_within_the_packet_limit() -> None:
    client = ClientConnection(max_packet_size=100)
    client.submit_job(b"f", b"")
    report = WorkData(H, b"x" * 32)  # 50 bytes with its header
    assert len(report.encode()) == 50
    assert receive(client, report, report) == []
    client.receive_data(sent(WorkFail(b"H")))
    message = "client: WORK_FAIL: 113 bytes of results before JOB_CREATED, limit 100"
    assert drain_to_error(client) == ([], message, [JobEnded(ONE, None, NotSent(message)), ConnectionClosed(message)])


@pytest.mark.parametrize("answer", [JobCreated(b"H:2"), Error(b"QUEUE_ERROR", b"")])
@pytest.mark.parametrize("queries", [0, 1])
def test_early_reports_that_no_submission_can_mean_are_dropped(answer: Packet, queries: int) -> None:
    client = ClientConnection(max_packet_size=100)
    report = WorkData(H, b"x" * 62)
    for _ in range(3):  # each time they would not fit, if the last ones were still there
        client.submit_job(b"f", b"")
        for _ in range(queries):
            client.get_status(H)
        assert receive(client, report) == []
        assert len(receive(client, answer, *[StatusRes(H, False, False, 0, 0)] * queries)) == 1 + queries
    client.submit_job(b"f", b"")
    request = client.submit_job(b"f", b"") - 1
    assert receive(client, JobCreated(H)) == [JobQueued(RequestId(request), H)]


def test_early_reports_wait_for_the_newest_submission_that_can_be_meant() -> None:
    client = ClientConnection()
    for _ in range(3):
        client.submit_job(b"f", b"")
    assert receive(client, WorkFail(H), Error(b"QUEUE_ERROR", b""), JobCreated(b"H:0")) == [
        JobEnded(ONE, None, Rejected(b"QUEUE_ERROR", b"")),
        JobQueued(TWO, b"H:0"),
    ]
    assert receive(client, JobCreated(H)) == [JobQueued(THREE, H), JobEnded(THREE, H, Failed())]


def test_submission_after_early_reports_is_not_meant_by_them() -> None:
    client = ClientConnection()
    client.submit_job(b"f", b"")
    assert receive(client, WorkFail(H)) == []
    client.submit_job(b"f", b"")
    assert receive(client, JobCreated(b"H:0"), JobCreated(H)) == [JobQueued(ONE, b"H:0"), JobQueued(TWO, H)]


# The end


@dataclass
class Script:
    """A conversation: what the client does, and what the server says, in turn."""

    steps: list[Callable[[ClientConnection], object] | bytes] = field(default_factory=list)

    def run(self, client: ClientConnection, limit: int | None = None) -> list[Event]:
        """Run until this many bytes of the server have arrived."""
        events: list[Event] = []
        for step in self.steps:
            if isinstance(step, bytes):
                client.data_to_send()
                part = step if limit is None else step[:limit]
                client.receive_data(part)
                events += drain(client)
                if limit is not None and (limit := limit - len(step)) <= 0:
                    break
            else:
                step(client)
        return events


CONVERSATION = Script(
    [
        lambda client: client.submit_job(b"f", b"1", unique=b"u"),
        lambda client: client.get_status(H),
        lambda client: client.submit_job(b"f", b"2", background=True),
        sent(JobCreated(H), StatusRes(H, True, True, 0, 0)),
        lambda client: client.submit_job(b"f", b"1", unique=b"u"),
        lambda client: client.submit_job(b"g", b"3"),
        lambda client: client.admin(admin.Version()),
        sent(JobCreated(b"H:2"), WorkFail(b"H:3"), JobCreated(H), WorkData(H, b"d"), WorkData(H, b"d")),
        lambda client: client.submit_job(b"g", b"4"),
        sent(JobCreated(b"H:3")) + b"OK 2.0\n" + sent(Error(b"QUEUE_ERROR", b"full"), WorkComplete(H, b"r")),
        sent(WorkComplete(H, b"r")),
    ]
)
FOREGROUND = {1, 4, 5, 7}
BACKGROUND = {3}
QUERIES = {2, 6}
CONVERSATION_SIZE = sum(len(step) for step in CONVERSATION.steps if isinstance(step, bytes))


@pytest.mark.parametrize("how", ["eof", "lost", "garbage"])
def test_every_request_ends_once_wherever_the_input_ends(how: str) -> None:
    for limit in range(1, CONVERSATION_SIZE + 1):
        check_end_after(limit, how)


def check_end_after(limit: int, how: str) -> None:
    client = ClientConnection()
    events = CONVERSATION.run(client, limit)
    asked = range(1, client._last_request + 1)
    ends_before = {event.request for event in events if isinstance(event, JobEnded)}
    if how == "lost":
        client.connection_lost("reset")
    elif how == "garbage":
        client.receive_data(b"\0bad" * 40)
    else:
        client.receive_eof()
    before, _error, after = drain_to_error(client)
    events += before + after
    if not client.closed:  # the garbage went into the payload of a message
        client.receive_eof()
        before, _error, after = drain_to_error(client)
        events += before + after
    assert client.closed
    assert isinstance(events[-1], ConnectionClosed)
    assert sum(isinstance(event, ConnectionClosed) for event in events) == 1
    queued = [event.request for event in events if isinstance(event, JobQueued)]
    ended = [event.request for event in events if isinstance(event, JobEnded)]
    answered = [event.request for event in events if isinstance(event, StatusReceived | AdminReplied | RequestLost)]
    assert len(set(queued)) == len(queued)
    assert sorted(ended) == [
        request for request in asked if request in FOREGROUND or (request in BACKGROUND and request not in queued)
    ]
    assert sorted(answered) == [request for request in asked if request in QUERIES]
    for event in events:
        if isinstance(event, JobEnded) and event.request not in ends_before:
            # All of these had left.
            assert not isinstance(event.outcome, NotSent)
            assert (event.handle is None) == (event.request not in queued)


@given(st.data())
def test_submission_is_lost_as_soon_as_one_byte_of_it_has_left(data: st.DataObject) -> None:
    client = ClientConnection()
    starts = []
    position = 0
    workloads = data.draw(st.lists(st.binary(max_size=10), min_size=1, max_size=6))
    for workload in workloads:
        starts.append(position)
        background = data.draw(st.booleans())
        client.submit_job(b"f", workload, background=background)
        position = client.output_size
    taken = len(client.data_to_send())
    late = client.submit_job(b"f", b"never taken")
    unsent = data.draw(st.integers(0, taken))
    reason = EOF_REASON
    client.data_sent(taken - unsent)
    if data.draw(st.booleans()):
        client.receive_eof()
    else:
        reason = "reset"
        client.connection_lost(reason)
    expected = [
        JobEnded(RequestId(number), None, Lost(reason) if start < taken - unsent else NotSent(reason))
        for number, start in enumerate(starts, 1)
    ]
    assert drain(client) == [*expected, JobEnded(late, None, NotSent(reason)), ConnectionClosed(reason)]


def test_job_whose_handle_is_known_is_lost_even_if_other_output_is_stuck() -> None:
    client = client_with(H)
    client.data_sent(len(client.data_to_send()))
    client.submit_job(b"f", b"")
    client.data_to_send()
    client.receive_eof()
    assert drain(client) == [
        JobEnded(TWO, None, NotSent(EOF_REASON)),
        JobEnded(ONE, H, Lost(EOF_REASON)),
        ConnectionClosed(EOF_REASON),
    ]


@pytest.mark.parametrize("ends", ["garbage", "silence"])
def test_connection_that_ends_by_itself_tells_what_never_left(ends: str) -> None:
    client = ClientConnection(probe_interval=1.0, probe_timeout=1.0)
    client.submit_job(b"f", b"left")
    client.data_sent(len(client.data_to_send()))
    client.submit_job(b"f", b"stays")
    client.data_to_send()
    if ends == "garbage":
        client.receive_data(b"\0RES\xff\xff\xff\xff\0\0\0\0")
        with pytest.raises(RemoteProtocolError):
            client.next_event()
    else:
        client.handle_timeout(1.0)
        client.handle_timeout(2.0)
    outcomes = [event.outcome for event in iter(client.next_event, None) if isinstance(event, JobEnded)]
    assert [type(outcome) for outcome in outcomes] == [Lost, NotSent]


def test_result_that_was_not_pulled_before_the_connection_was_lost_is_lost() -> None:
    client = client_with(H)
    client.receive_data(sent(WorkComplete(H, b"r")))
    client.connection_lost("reset")
    assert drain(client) == [JobEnded(ONE, H, Lost("reset")), ConnectionClosed("reset")]


def test_silent_server_loses_its_jobs() -> None:
    client = ClientConnection(probe_interval=10, probe_timeout=2)
    client.submit_job(b"f", b"")
    client.data_to_send()
    client.handle_timeout(10)
    client.handle_timeout(12)
    reason = "no answer to ECHO_REQ within 2 s"
    assert drain(client) == [JobEnded(ONE, None, Lost(reason)), ConnectionClosed(reason, silent=True)]


def test_probe_between_requests_keeps_their_order() -> None:
    client = ClientConnection(probe_interval=10)
    client.submit_job(b"f", b"")
    client.handle_timeout(10)
    client.submit_job(b"g", b"")
    assert output(client) == [SubmitJob(b"f", b"", b""), EchoReq(b"probe"), SubmitJob(b"g", b"", b"")]
    assert receive(client, JobCreated(b"1"), EchoRes(b"probe"), JobCreated(b"2")) == [
        JobQueued(ONE, b"1"),
        JobQueued(TWO, b"2"),
    ]


# Any bytes

_handles = st.sampled_from([H, b"H:2"])
_likely = st.one_of(
    st.builds(JobCreated, _handles),
    st.builds(WorkData, _handles, strategies.payloads()),
    st.builds(WorkStatus, _handles, strategies.numbers(), strategies.numbers()),
    st.builds(WorkComplete, _handles, strategies.payloads()),
    st.builds(WorkFail, _handles),
    st.builds(Error, st.just(b"QUEUE_ERROR"), st.just(b"")),
    strategies.packets(Route.FROM_SERVER),
).map(lambda packet: packet.encode(RESPONSE))
_server_bytes = st.lists(_likely, max_size=12).map(b"".join)


@given(
    st.lists(st.booleans(), max_size=6),
    _server_bytes | strategies.mutations(_server_bytes) | st.binary(max_size=100),
    st.data(),
)
def test_any_bytes_give_events_or_a_protocol_error_and_every_submission_its_end(
    submissions: list[bool], stream: bytes, data: st.DataObject
) -> None:
    client = ClientConnection(max_packet_size=300)
    for background in submissions:
        client.submit_job(b"f", b"", background=background)
    client.data_to_send()
    events: list[Event] = []
    for chunk in data.draw(strategies.splits(stream)):
        client.receive_data(chunk)
        before, _error, after = drain_to_error(client)
        events += before + after
    client.receive_eof()
    before, _error, after = drain_to_error(client)
    events += before + after
    assert client.closed
    ended = [event.request for event in events if isinstance(event, JobEnded)]
    queued = [event.request for event in events if isinstance(event, JobQueued)]
    assert len(set(ended)) == len(ended)
    assert len(set(queued)) == len(queued)
    for number, background in enumerate(submissions, 1):
        request = RequestId(number)
        assert (request in ended) != (background and request in queued)
        if request in ended and request in queued:
            order = [type(event) for event in events if getattr(event, "request", None) == request]
            assert order[0] is JobQueued
            assert order[-1] is JobEnded


# A client against a naive server


@dataclass
class ServerJob:
    handle: bytes
    sharers: list[RequestId] = field(default_factory=list)


class ClientMachine(RuleBasedStateMachine):
    """A client and a naive server, with latency either way.

    `expected` is what the client has to be told about each request, all in all, once everything has arrived.
    """

    def __init__(self) -> None:
        super().__init__()
        self.client = ClientConnection()
        self.asked: dict[RequestId, tuple[bool, bytes]] = {}  # what is not answered: background, unique
        self.starts: dict[RequestId, int] = {}
        self.position = 0
        self.taken = 0
        self.inbox: deque[Event] = deque()  # requests on their way to the server
        self.pending: deque[RequestId] = deque()
        self.link = bytearray()  # bytes on their way to the client
        self.jobs: dict[bytes, ServerJob] = {}  # by unique
        self.handles = 0
        self.expected: dict[RequestId, list[Event]] = {}
        self.seen: dict[RequestId, list[Event]] = {}

    @initialize()
    def start(self) -> None:
        assert drain(self.client) == []

    @rule(background=st.booleans(), unique=st.sampled_from([b"", b"u", b"v"]))
    def submit(self, background: bool, unique: bytes) -> None:
        before = self.client.output_size
        request = self.client.submit_job(b"f", b"w", background=background, unique=unique)
        self.starts[request] = self.position
        self.position += self.client.output_size - before
        self.pending.append(request)
        self.asked[request] = background, unique
        self.expected[request] = []
        self.seen[request] = []

    @rule(data=strategies.payloads())
    def echo(self, data: bytes) -> None:
        before = self.client.output_size
        request = self.client.echo(data)
        self.position += self.client.output_size - before
        self.pending.append(request)
        self.expected[request] = []
        self.seen[request] = []

    @rule()
    def flush(self) -> None:
        data = self.client.data_to_send()
        self.taken += len(data)
        self.inbox += received_by_server(data)

    @precondition(lambda self: self.inbox)
    @rule(early=st.lists(st.binary(max_size=3), max_size=3), ends=st.booleans())
    def answer(self, early: list[bytes], ends: bool) -> None:
        packet, request = self.inbox.popleft(), self.pending.popleft()
        if isinstance(packet, EchoReq):
            self.link += sent(EchoRes(packet.data))
            self.expected[request].append(Echoed(request, packet.data))
            return
        background, unique = self.asked.pop(request)
        job = self.jobs.get(unique) if unique else None
        new = job is None
        if job is None:
            self.handles += 1
            job = ServerJob(b"H:%d" % self.handles)
            self.jobs[unique or job.handle] = job
        self.expected[request].append(JobQueued(request, job.handle))
        if background:
            self.link += sent(JobCreated(job.handle))
            return
        job.sharers.append(request)
        if new:  # only then is the job unknown to the client, so that reports can be early
            for data in early:
                self.report(job, data)
            if ends:
                self.end(job, WorkComplete(job.handle, b"r"), Completed(b"r"))
        self.link += sent(JobCreated(job.handle))

    @precondition(lambda self: self.inbox)
    @rule()
    def reject(self) -> None:
        packet, request = self.inbox.popleft(), self.pending.popleft()
        self.link += sent(Error(b"CODE", b"text"))
        if isinstance(packet, EchoReq):
            self.expected[request].append(RequestFailed(request, b"CODE", b"text"))
        else:
            del self.asked[request]
            self.expected[request].append(JobEnded(request, None, Rejected(b"CODE", b"text")))

    def report(self, job: ServerJob, data: bytes) -> None:
        for request in job.sharers:
            self.link += sent(WorkData(job.handle, data))
            self.expected[request].append(Data(request, data))

    def end(self, job: ServerJob, packet: WorkReport, outcome: Outcome) -> None:
        for request in job.sharers:
            self.link += sent(packet)
            self.expected[request].append(JobEnded(request, job.handle, outcome))
        self.jobs = {unique: other for unique, other in self.jobs.items() if other is not job}

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), piece=st.binary(max_size=3))
    def work(self, data: st.DataObject, piece: bytes) -> None:
        self.report(self.jobs[data.draw(st.sampled_from(sorted(self.jobs)))], piece)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), kind=st.integers(0, 2))
    def finish(self, data: st.DataObject, kind: int) -> None:
        job = self.jobs[data.draw(st.sampled_from(sorted(self.jobs)))]
        packets: list[tuple[WorkReport, Outcome]] = [
            (WorkComplete(job.handle, b"r"), Completed(b"r")),
            (WorkFail(job.handle), Failed()),
            (WorkException(job.handle, b"e"), Raised(b"e")),
        ]
        self.end(job, *packets[kind])

    def collect(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, JobQueued | JobEnded | Data | Echoed | RequestFailed | RequestLost):
                self.seen[event.request].append(event)
            else:
                assert isinstance(event, UnmatchedReport | ConnectionClosed)

    @rule(size=st.integers(1, 60))
    def arrive(self, size: int) -> None:
        self.client.receive_data(bytes(self.link[:size]))
        del self.link[:size]
        self.collect(drain(self.client))
        for request, events in self.seen.items():
            assert events == self.expected[request][: len(events)]

    @rule()
    def arrive_all(self) -> None:
        self.arrive(len(self.link))
        assert self.seen == self.expected

    def teardown(self) -> None:
        """Cut the connection anywhere: what was told stays true, and everything else ends honestly."""
        unsent = self.taken // 3
        self.client.data_sent(self.taken - unsent)
        self.client.receive_eof()
        before, _error, after = drain_to_error(self.client)
        self.collect(before + after)
        assert self.client.closed
        for request, events in self.seen.items():
            if request not in self.starts:
                assert len(events) == 1
                continue
            told, last = events[:-1], events[-1]
            assert told == self.expected[request][: len(told)]
            if isinstance(last, JobEnded) and isinstance(last.outcome, NotSent):
                assert not told
                assert self.starts[request] >= self.taken - unsent
            elif isinstance(last, JobEnded) and isinstance(last.outcome, Lost):
                assert told or self.starts[request] < self.taken - unsent
            else:
                assert events == self.expected[request][: len(events)]


TestClientAgainstServer = ClientMachine.TestCase
