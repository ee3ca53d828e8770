from collections import Counter, deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from gear_testing import strategies
from gearproto import Grab, LocalProtocolError, RemoteProtocolError, WorkerConnection, admin
from gearproto.codec import RESPONSE, Packet, Route
from gearproto.event import Event
from gearproto.events import (
    AdminReplied,
    ConnectionClosed,
    Echoed,
    JobAssigned,
    OptionSet,
    ReportRefused,
    RequestFailed,
    RequestId,
    RequestLost,
)
from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    ResetAbilities,
    SetClientId,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from gearproto.server import Report
from gearproto.worker import MAX_UNASKED
from tests.harness.connections import drain, drain_to_error, output, receive, received_by_server, sent

ONE, TWO = RequestId(1), RequestId(2)
H = b"H:a:1"
EOF_REASON = "the server closed the connection"

Assignment = JobAssign | JobAssignUniq | JobAssignAll
ASSIGNMENTS: list[tuple[Assignment, JobAssigned]] = [
    (JobAssign(H, b"f", b"w\0"), JobAssigned(H, b"f", b"", b"", b"w\0")),
    (JobAssignUniq(H, b"f", b"u", b"w\0"), JobAssigned(H, b"f", b"u", b"", b"w\0")),
    (JobAssignAll(H, b"f", b"u", b"r", b"w\0"), JobAssigned(H, b"f", b"u", b"r", b"w\0")),
]
FLAVOURS = [GrabJob, GrabJobUniq, GrabJobAll]
flavour = pytest.mark.parametrize("grab", FLAVOURS)
any_assignment = pytest.mark.parametrize(("assignment", "assigned"), ASSIGNMENTS)
Flavour = type[GrabJob | GrabJobUniq | GrabJobAll]
ASSIGN, ASSIGNED = ASSIGNMENTS[1]

Call = Callable[[WorkerConnection], object]
ABILITIES: list[tuple[Call, Packet]] = [
    (lambda worker: worker.can_do(b"f"), CanDo(b"f")),
    (lambda worker: worker.can_do(b"f", timeout_ms=1), CanDoTimeout(b"f", 1)),
    (lambda worker: worker.cant_do(b"f"), CantDo(b"f")),
    (lambda worker: worker.reset_abilities(), ResetAbilities()),
    (lambda worker: worker.set_client_id(b""), SetClientId(b"")),
    (lambda worker: worker.set_client_id(b"my id"), SetClientId(b"my id")),
]
REPORTS: list[tuple[Call, Packet]] = [
    (lambda worker: worker.work_status(H, 1, 2), WorkStatus(H, 1, 2)),
    (lambda worker: worker.work_data(H, b"d\0"), WorkData(H, b"d\0")),
    (lambda worker: worker.work_warning(H, b"w\0"), WorkWarning(H, b"w\0")),
]
ENDS: list[tuple[Call, Packet]] = [
    (lambda worker: worker.work_complete(H, b"r\0"), WorkComplete(H, b"r\0")),
    (lambda worker: worker.work_fail(H), WorkFail(H)),
    (lambda worker: worker.work_exception(H, b"e\0"), WorkException(H, b"e\0")),
]


def reported(packet: Packet) -> Report:
    """Return a report as a server sees it."""
    return Report(type(packet), H, packet.encode()[12:])


def state_of(worker: WorkerConnection) -> Grab:
    """Return the state; unlike the property itself, type checkers do not take it as settled by an assertion."""
    return worker.state


def worker_in(state: Grab) -> WorkerConnection:
    """Return a worker that has come into a state; its output has been taken."""
    worker = WorkerConnection()
    if state is not Grab.IDLE:
        worker.grab_job()
        if state is Grab.ASLEEP:
            assert receive(worker, NoJob()) == []
    worker.data_to_send()
    assert state_of(worker) is state
    return worker


def worker_with(*handles: bytes) -> WorkerConnection:
    """Return a worker that has these jobs in hand."""
    worker = WorkerConnection(max_packet_size=9000)
    for handle in handles:
        worker.grab_job()
        assert len(receive(worker, JobAssign(handle, b"f", b""))) == 1
    worker.data_to_send()
    return worker


# Abilities


@pytest.mark.parametrize(("call", "packet"), ABILITIES)
def test_ability_is_one_packet(call: Call, packet: Packet) -> None:
    worker = WorkerConnection()
    call(worker)
    assert output(worker) == [packet]
    assert state_of(worker) is Grab.IDLE


REFUSED: list[tuple[Call, str]] = [
    (lambda w: w.can_do(b""), "CAN_DO: function must not be empty"),
    (lambda w: w.can_do(b"f\0"), "CAN_DO: function must not hold NUL bytes"),
    (lambda w: w.can_do(b"f" * 8192), "CAN_DO: function has 8192 bytes, limit 8191"),
    (lambda w: w.can_do(b"f", timeout_ms=0), "worker: CAN_DO_TIMEOUT: timeout is 0 ms, minimum is 1"),
    (lambda w: w.can_do(b"f", timeout_ms=-5), "worker: CAN_DO_TIMEOUT: timeout is -5 ms, minimum is 1"),
    (lambda w: w.can_do(b"", timeout_ms=5), "CAN_DO_TIMEOUT: function must not be empty"),
    (lambda w: w.can_do(b"f", timeout_ms=10**19), "CAN_DO_TIMEOUT: timeout has over 19 digits"),
    (lambda w: w.cant_do(b""), "CANT_DO: function must not be empty"),
    (lambda w: w.set_client_id(b"\0"), "SET_CLIENT_ID: client_id must not hold NUL bytes"),
    (lambda w: w.set_client_id(b"x" * 8192), "SET_CLIENT_ID: client_id has 8192 bytes, limit 8191"),
    (lambda w: w.work_complete(b"H:2", b""), "worker: WORK_COMPLETE for b'H:2', which is not in hand"),
    (lambda w: w.work_data(H, b"x" * 8995), "WORK_DATA: 9001 bytes, limit 9000"),
    (lambda w: w.work_complete(H, b"x" * 8995), "WORK_COMPLETE: 9001 bytes, limit 9000"),
    (lambda w: w.work_status(H, 10**19, 0), "WORK_STATUS: numerator has over 19 digits"),
    (lambda w: w.work_exception(H, "x"), "WORK_EXCEPTION: data must be bytes, not str"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused_call_leaves_the_worker_as_it_was(call: Call, message: str) -> None:
    worker = worker_with(H)
    worker.can_do(b"before")
    with pytest.raises(LocalProtocolError) as caught:
        call(worker)
    assert str(caught.value) == message
    assert worker.in_hand == {H: 1}
    assert state_of(worker) is Grab.IDLE
    assert output(worker) == [CanDo(b"before")]
    worker.work_complete(H, b"")
    assert output(worker) == [reported(WorkComplete(H, b""))]


def test_nothing_can_be_done_after_the_end() -> None:
    for state in Grab:
        worker = worker_in(state)
        receive(worker, ASSIGN)
        worker.connection_lost("gone")
        grab: tuple[Call, Packet] = (lambda worker: worker.grab_job(), GrabJobAll())
        for call, packet in (*ABILITIES, *REPORTS, *ENDS, grab):
            with pytest.raises(LocalProtocolError) as caught:
                call(worker)
            assert str(caught.value) == f"worker: {packet.spec.name} on a connection that has ended"
        assert worker.in_hand == {H: 1}
        assert worker.data_to_send() == b""
        assert drain(worker) == [ConnectionClosed("gone")]


def test_grabbing_is_refused_once_the_server_sends_no_more() -> None:
    for state in Grab:
        worker = worker_in(state)
        worker.receive_eof()
        with pytest.raises(LocalProtocolError, match=r"^worker: GRAB_JOB_ALL on a connection that has ended$"):
            worker.grab_job()
        assert state_of(worker) is state
        assert worker.data_to_send() == b""


# The cycle of grabbing and sleeping


@flavour
@any_assignment
def test_worker_asks_sleeps_wakes_and_gets_its_job(
    grab: Flavour, assignment: Assignment, assigned: JobAssigned
) -> None:
    worker = WorkerConnection(grab=grab)
    assert state_of(worker) is Grab.IDLE
    worker.grab_job()
    assert output(worker) == [grab()]
    for _ in range(2):
        assert state_of(worker) is Grab.ASKED
        assert receive(worker, NoJob()) == []
        assert output(worker) == [PreSleep()]
        assert state_of(worker) is Grab.ASLEEP
        assert receive(worker, Noop()) == []
        assert output(worker) == [grab()]
    assert receive(worker, assignment) == [assigned]
    assert state_of(worker) is Grab.IDLE
    assert worker.in_hand == {H: 1}
    assert worker.data_to_send() == b""
    worker.grab_job()
    assert output(worker) == [grab()]


def test_worker_grabs_all_unless_told_otherwise() -> None:
    worker = WorkerConnection()
    worker.grab_job()
    assert output(worker) == [GrabJobAll()]


def test_worker_is_silent_until_it_grabs() -> None:
    worker = WorkerConnection()
    assert receive(worker, Noop(), NoJob(), Noop()) == []
    assert worker.data_to_send() == b""
    assert state_of(worker) is Grab.IDLE


def test_grabbing_twice_asks_once() -> None:
    worker = WorkerConnection()
    worker.grab_job()
    worker.grab_job()
    assert output(worker) == [GrabJobAll()]
    receive(worker, ASSIGN)
    assert worker.data_to_send() == b""


def test_wake_up_that_crosses_a_grab_changes_nothing() -> None:
    worker = worker_in(Grab.ASKED)
    assert receive(worker, Noop(), Noop()) == []
    assert worker.data_to_send() == b""
    assert state_of(worker) is Grab.ASKED
    receive(worker, NoJob())
    assert output(worker) == [PreSleep()]


def test_second_wake_up_asks_no_second_time() -> None:
    worker = worker_in(Grab.ASLEEP)
    assert receive(worker, Noop(), Noop()) == []
    assert output(worker) == [GrabJobAll()]
    assert receive(worker, ASSIGN) == [ASSIGNED]
    assert receive(worker, Noop()) == []
    assert worker.data_to_send() == b""


def test_second_no_job_puts_to_sleep_once() -> None:
    worker = worker_in(Grab.ASKED)
    assert receive(worker, NoJob(), NoJob()) == []
    assert output(worker) == [PreSleep()]
    assert state_of(worker) is Grab.ASLEEP


def test_sleeping_worker_that_grabs_asks_at_once() -> None:
    worker = worker_in(Grab.ASLEEP)
    worker.grab_job()
    assert output(worker) == [GrabJobAll()]
    assert receive(worker, Noop(), NoJob()) == []
    assert output(worker) == [PreSleep()]


@pytest.mark.parametrize("state", Grab)
@any_assignment
def test_assignment_in_any_state_is_a_job_in_hand(state: Grab, assignment: Assignment, assigned: JobAssigned) -> None:
    worker = worker_in(state)
    assert receive(worker, assignment) == [assigned]
    assert worker.in_hand == {H: 1}
    assert state_of(worker) is (Grab.ASLEEP if state is Grab.ASLEEP else Grab.IDLE)
    worker.work_fail(H)
    assert output(worker) == [reported(WorkFail(H))]


def test_second_assignment_to_one_grab_is_a_second_job_in_hand() -> None:
    worker = worker_in(Grab.ASKED)
    assert len(receive(worker, JobAssign(b"H:1", b"f", b""), JobAssign(b"H:2", b"f", b""))) == 2
    assert worker.in_hand == {b"H:1": 1, b"H:2": 1}
    assert state_of(worker) is Grab.IDLE


@given(st.lists(st.booleans(), max_size=60), st.sampled_from([Grab.IDLE, Grab.ASLEEP]))
def test_jobs_that_nobody_asked_for_are_bounded(ends: list[bool], state: Grab) -> None:
    worker = worker_in(state)
    handles = [b"H:%d" % number for number in range(MAX_UNASKED)]
    receive(worker, *[JobAssign(handle, b"f", b"") for handle in handles])
    for number, ended in enumerate(ends):  # as many as before, if one ends for each that comes
        if ended:
            worker.work_fail(handles.pop(0))
            handles.append(b"again %d" % number)
            receive(worker, JobAssign(handles[-1], b"f", b""))
        elif state is Grab.IDLE:  # those that it asks for do not count
            worker.grab_job()
            assert len(receive(worker, JobAssign(b"asked %d" % number, b"f", b""))) == 1
    assert len(worker.in_hand) == MAX_UNASKED + (ends.count(False) if state is Grab.IDLE else 0)
    worker.receive_data(JobAssign(b"H:one more", b"f", b"").encode())
    with pytest.raises(RemoteProtocolError, match="JOB_ASSIGN: over 16 jobs that were not asked for"):
        worker.next_event()


def test_several_jobs_may_be_in_hand() -> None:
    worker = worker_with(b"H:1", b"H:2", b"H:3")
    assert worker.in_hand == {b"H:1": 1, b"H:2": 1, b"H:3": 1}
    worker.work_fail(b"H:2")
    assert worker.in_hand == {b"H:1": 1, b"H:3": 1}
    worker.work_data(b"H:1", b"")
    with pytest.raises(LocalProtocolError):
        worker.work_data(b"H:2", b"")


def test_worker_with_a_job_in_hand_may_sleep_and_wake() -> None:
    worker = worker_with(H)
    worker.grab_job()
    receive(worker, NoJob())
    worker.work_complete(H, b"")
    receive(worker, Noop())
    expected = [GrabJobAll(), PreSleep(), reported(WorkComplete(H, b"")), GrabJobAll()]
    assert output(worker) == expected


def test_event_in_hand_tells_the_state() -> None:
    worker = worker_in(Grab.ASKED)
    worker.receive_data(sent(NoJob(), Noop(), ASSIGN, JobAssign(b"H:2", b"f", b"")))
    assert state_of(worker) is Grab.ASKED
    assert worker.next_event() == ASSIGNED
    assert worker.in_hand == {H: 1}
    worker.grab_job()
    assert output(worker) == [PreSleep(), GrabJobAll(), GrabJobAll()]


def test_jobs_in_hand_cannot_be_changed_from_outside() -> None:
    worker = worker_with(H)
    with pytest.raises(TypeError):
        worker.in_hand[b"H:2"] = 1  # type: ignore[index]


# Asking by the caller's leave only


def test_worker_that_does_not_ask_when_woken_is_idle_until_it_grabs() -> None:
    worker = WorkerConnection(asks_when_woken=False)
    worker.grab_job()
    assert output(worker) == [GrabJobAll()]
    assert receive(worker, NoJob()) == []
    assert output(worker) == [PreSleep()]
    assert state_of(worker) is Grab.ASLEEP
    assert receive(worker, Noop(), Noop()) == []
    assert state_of(worker) is Grab.IDLE
    assert worker.data_to_send() == b""
    worker.grab_job()
    assert output(worker) == [GrabJobAll()]
    assert receive(worker, ASSIGN) == [ASSIGNED]


def test_wake_up_that_crosses_a_grab_changes_nothing_if_the_worker_asks_by_leave_only() -> None:
    worker = WorkerConnection(asks_when_woken=False)
    worker.grab_job()
    assert receive(worker, Noop()) == []
    assert state_of(worker) is Grab.ASKED
    assert output(worker) == [GrabJobAll()]


# Wanting no job any more


def test_idle_worker_that_stops_stays_idle() -> None:
    worker = WorkerConnection()
    worker.stop_grabbing()
    assert state_of(worker) is Grab.IDLE
    assert worker.data_to_send() == b""
    worker.grab_job()
    assert output(worker) == [GrabJobAll()]


def test_worker_that_stops_after_asking_takes_the_answer_and_does_not_sleep() -> None:
    worker = worker_in(Grab.ASKED)
    worker.stop_grabbing()
    assert state_of(worker) is Grab.ASKED
    assert receive(worker, Noop(), NoJob()) == []
    assert state_of(worker) is Grab.IDLE
    assert worker.data_to_send() == b""


def test_worker_that_stops_after_asking_still_gets_the_job_that_comes() -> None:
    worker = worker_in(Grab.ASKED)
    worker.stop_grabbing()
    assert receive(worker, ASSIGN) == [ASSIGNED]
    assert state_of(worker) is Grab.IDLE
    assert worker.in_hand == {H: 1}


def test_sleeping_worker_that_stops_ignores_its_wake_up() -> None:
    worker = worker_in(Grab.ASLEEP)
    worker.stop_grabbing()
    assert state_of(worker) is Grab.IDLE
    assert receive(worker, Noop()) == []
    assert worker.data_to_send() == b""
    assert state_of(worker) is Grab.IDLE


def test_worker_that_stops_and_grabs_again_asks_no_second_time() -> None:
    worker = worker_in(Grab.ASKED)
    worker.stop_grabbing()
    worker.grab_job()
    assert worker.data_to_send() == b""
    receive(worker, NoJob())
    assert output(worker) == [PreSleep()]
    assert state_of(worker) is Grab.ASLEEP


# Reports


@pytest.mark.parametrize(("call", "packet"), REPORTS)
def test_report_leaves_the_job_in_hand(call: Call, packet: Packet) -> None:
    worker = worker_with(H)
    call(worker)
    call(worker)
    assert output(worker) == [reported(packet)] * 2
    assert worker.in_hand == {H: 1}


@pytest.mark.parametrize(("call", "packet"), ENDS)
def test_end_takes_the_job_out_of_hand(call: Call, packet: Packet) -> None:
    worker = worker_with(H)
    call(worker)
    assert output(worker) == [reported(packet)]
    assert worker.in_hand == {}
    for again, late in (*REPORTS, *ENDS):
        with pytest.raises(LocalProtocolError) as caught:
            again(worker)
        assert str(caught.value) == f"worker: {late.spec.name} for b'H:a:1', which is not in hand"
    assert worker.data_to_send() == b""


@pytest.mark.parametrize(("call", "packet"), ENDS)
def test_job_that_was_assigned_twice_ends_twice(call: Call, packet: Packet) -> None:
    worker = worker_with(H, H)
    assert worker.in_hand == {H: 2}
    call(worker)
    assert worker.in_hand == {H: 1}
    worker.work_data(H, b"")
    call(worker)
    assert worker.in_hand == {}
    assert output(worker) == [reported(packet), reported(WorkData(H, b"")), reported(packet)]


def test_job_that_is_given_up_is_out_of_hand_without_a_report() -> None:
    worker = worker_with(H, H)
    worker.give_up(H)
    assert worker.in_hand == {H: 1}
    worker.give_up(H)
    assert worker.in_hand == {}
    assert worker.data_to_send() == b""
    with pytest.raises(LocalProtocolError, match=r"^worker: giving up b'H:a:1', which is not in hand$"):
        worker.give_up(H)
    assert worker.in_hand == {}


def test_job_may_be_given_up_after_the_end() -> None:
    worker = worker_with(H)
    worker.connection_lost("gone")
    worker.give_up(H)
    assert worker.in_hand == {}


@given(st.binary(max_size=70).map(lambda handle: handle.replace(b"\0", b"")))
def test_job_that_could_not_be_reported_on_ends_the_connection(handle: bytes) -> None:
    worker = worker_in(Grab.ASKED)
    worker.receive_data(sent(JobAssign(handle, b"f", b"")))
    if 0 < len(handle) <= 63:
        assert len(drain(worker)) == 1
        worker.work_fail(handle)
        return
    with pytest.raises(
        RemoteProtocolError, match=f"^worker: JOB_ASSIGN: handle has {len(handle)} bytes, limit 1 to 63$"
    ):
        drain(worker)
    assert worker.in_hand == {}


# Errors


@pytest.mark.parametrize("state", Grab)
def test_job_not_found_refuses_a_report(state: Grab) -> None:
    worker = worker_in(state)
    error = Error(b"JOB_NOT_FOUND", b"Job given in work result not found")
    assert receive(worker, error) == [ReportRefused(error.code, error.text)]
    assert state_of(worker) is state


def test_refused_report_answers_no_request() -> None:
    worker = worker_with(H)
    worker.work_complete(H, b"")
    worker.set_option(b"o")
    worker.grab_job()
    answers = [Error(b"JOB_NOT_FOUND", b""), OptionRes(b"o"), ASSIGN]
    assert receive(worker, *answers) == [ReportRefused(b"JOB_NOT_FOUND", b""), OptionSet(ONE, b"o"), ASSIGNED]


@flavour
def test_server_that_does_not_know_the_grab_ends_the_connection(grab: Flavour) -> None:
    worker = WorkerConnection(grab=grab)
    worker.grab_job()
    worker.receive_data(sent(Error(b"INVALID_COMMAND", b"Command not expected")))
    message = f"worker: the server refused {grab.spec.name}: b'Command not expected'"
    assert drain_to_error(worker) == ([], message, [ConnectionClosed(message)])


@pytest.mark.parametrize("state", [Grab.IDLE, Grab.ASLEEP])
def test_invalid_command_while_nothing_was_grabbed_is_an_event(state: Grab) -> None:
    worker = worker_in(state)
    error = Error(b"INVALID_COMMAND", b"Command not expected")
    assert receive(worker, error) == [error]
    assert state_of(worker) is state


@pytest.mark.parametrize("state", Grab)
def test_other_error_is_an_event_and_changes_no_state(state: Grab) -> None:
    worker = worker_in(state)
    error = Error(b"INVALID_ARGUMENTS", b"")
    assert receive(worker, error) == [error]
    assert state_of(worker) is state
    receive(worker, ASSIGN)
    assert worker.in_hand == {H: 1}


def test_refused_ability_is_no_answer_to_an_echo_or_a_text_command() -> None:
    worker = WorkerConnection(probe_interval=10)
    worker.can_do(b"one function too many")
    worker.echo(b"e")
    worker.handle_timeout(10)
    worker.admin(admin.Version())
    error = Error(b"TOO_MANY_FUNCTIONS", b"")
    assert receive(worker, error, EchoRes(b"e"), error, EchoRes(b"probe"), error) == [
        error,
        Echoed(ONE, b"e"),
        error,
        error,
    ]
    worker.receive_data(b"OK 1\n")
    assert drain(worker) == [AdminReplied(TWO, admin.Ok(b"1"))]


def test_error_answers_an_option() -> None:
    worker = WorkerConnection()
    worker.set_option(b"o")
    worker.grab_job()
    assert receive(worker, Error(b"UNKNOWN_OPTION", b"t"), ASSIGN) == [
        RequestFailed(ONE, b"UNKNOWN_OPTION", b"t"),
        ASSIGNED,
    ]


# Order of answers


def test_requests_around_a_grab_are_answered_in_order() -> None:
    worker = WorkerConnection()
    worker.echo(b"1")
    worker.grab_job()
    worker.set_option(b"2")
    assert output(worker) == [EchoReq(b"1"), GrabJobAll(), OptionReq(b"2")]
    assert receive(worker, EchoRes(b"1"), NoJob(), OptionRes(b"2")) == [Echoed(ONE, b"1"), OptionSet(TWO, b"2")]


@pytest.mark.parametrize("answer", [NoJob(), *(assignment for assignment, _assigned in ASSIGNMENTS)])
def test_answer_to_a_grab_before_its_turn_ends_the_connection(answer: Packet) -> None:
    worker = WorkerConnection()
    worker.echo(b"1")
    worker.grab_job()
    worker.receive_data(sent(answer))
    message = f"worker: {answer.spec.name} while awaiting ECHO_RES"
    assert drain_to_error(worker) == ([], message, [RequestLost(ONE, sent=False), ConnectionClosed(message)])
    assert worker.in_hand == {}


def test_answer_behind_an_unanswered_grab_ends_the_connection() -> None:
    worker = worker_in(Grab.ASKED)
    worker.echo(b"1")
    with pytest.raises(RemoteProtocolError, match=r"^worker: ECHO_RES while awaiting GRAB_JOB_ALL$"):
        receive(worker, EchoRes(b"1"))


def test_wake_up_comes_between_any_answers() -> None:
    worker = worker_in(Grab.ASLEEP)
    worker.echo(b"1")
    assert receive(worker, Noop(), EchoRes(b"1"), NoJob()) == [Echoed(ONE, b"1")]
    assert output(worker) == [EchoReq(b"1"), GrabJobAll(), PreSleep()]


def test_packet_for_clients_ends_the_connection() -> None:
    worker = WorkerConnection()
    worker.receive_data(sent(JobCreated(H)))
    message = "worker: JOB_CREATED is not a response that a worker receives"
    assert drain_to_error(worker) == ([], message, [ConnectionClosed(message)])


def test_malformed_assignment_ends_the_connection() -> None:
    worker = worker_in(Grab.ASKED)
    worker.receive_data(b"\0RES\0\0\0\x0b\0\0\0\x03H\0f")
    message = "worker: JOB_ASSIGN: 2 arguments, not 3"
    assert drain_to_error(worker) == ([], message, [ConnectionClosed(message)])


# The end


@pytest.mark.parametrize("state", Grab)
def test_grab_that_is_open_at_the_end_is_no_lost_request(state: Grab) -> None:
    worker = worker_in(state)
    worker.receive_eof()
    assert drain(worker) == [ConnectionClosed(EOF_REASON)]


@pytest.mark.parametrize("packets", [[NoJob()], [NoJob(), Noop()], [NoJob(), Noop(), NoJob(), Noop(), ASSIGN]])
def test_what_came_before_the_end_of_stream_is_still_understood(packets: list[Packet]) -> None:
    worker = worker_in(Grab.ASKED)
    worker.receive_data(sent(*packets))
    worker.receive_eof()
    assert drain(worker) == [*[ASSIGNED] * (ASSIGN in packets), ConnectionClosed(EOF_REASON)]


def test_wake_up_is_answered_even_if_output_is_full() -> None:
    worker = WorkerConnection(max_output_size=30)
    worker.grab_job()
    worker.data_to_send()
    receive(worker, NoJob())
    worker.echo(b"123456")
    assert worker.output_size == 30
    assert receive(worker, Noop()) == []
    assert output(worker) == [PreSleep(), EchoReq(b"123456"), GrabJobAll()]


def test_grab_that_does_not_fit_into_the_output_is_refused() -> None:
    worker = WorkerConnection(max_output_size=30)
    worker.echo(b"1234567")
    with pytest.raises(LocalProtocolError):
        worker.grab_job()
    assert state_of(worker) is Grab.IDLE
    assert output(worker) == [EchoReq(b"1234567")]
    worker.grab_job()
    assert state_of(worker) is Grab.ASKED
    assert receive(worker, EchoRes(b"1234567"), ASSIGN) == [Echoed(ONE, b"1234567"), ASSIGNED]


# Any bytes

_likely = st.one_of(
    st.sampled_from([Noop(), NoJob()]),
    st.sampled_from([assignment for assignment, _assigned in ASSIGNMENTS]),
    st.builds(Error, st.sampled_from([b"JOB_NOT_FOUND", b"INVALID_COMMAND", b"x"]), st.just(b"")),
    strategies.packets(Route.FROM_SERVER),
).map(lambda packet: packet.encode(RESPONSE))
_server_bytes = st.lists(_likely, max_size=12).map(b"".join)


@given(
    st.sampled_from(FLAVOURS),
    _server_bytes | strategies.mutations(_server_bytes) | st.binary(max_size=100),
    st.data(),
)
def test_any_bytes_give_events_or_a_protocol_error(grab: Flavour, stream: bytes, data: st.DataObject) -> None:
    worker = WorkerConnection(grab=grab, max_packet_size=300)
    assigned: Counter[bytes] = Counter()
    for chunk in data.draw(strategies.splits(stream)):
        if data.draw(st.booleans()) and not worker.closed:
            worker.grab_job()
        if data.draw(st.booleans()):
            worker.stop_grabbing()
        worker.receive_data(chunk)
        was_closed = worker.closed
        before, error, _after = drain_to_error(worker)
        assert worker.closed == (was_closed or error is not None)
        assigned.update(event.handle for event in before if isinstance(event, JobAssigned))
        assert worker.in_hand == assigned
        received_by_server(worker.data_to_send())
    worker.receive_eof()
    drain_to_error(worker)
    assert worker.closed
    for handle in list(worker.in_hand):  # what was assigned can be named, but nothing leaves any more
        with pytest.raises(LocalProtocolError, match=r"on a connection that has ended$"):
            worker.work_fail(handle)


# A worker against a naive server


class WorkerMachine(RuleBasedStateMachine):
    """A worker and a naive server with one queue, with latency either way."""

    def __init__(self) -> None:
        super().__init__()
        self.worker = WorkerConnection()
        self.queue: deque[bytes] = deque()
        self.running: Counter[bytes] = Counter()
        self.asleep = False
        self.handles = 0
        self.done: list[bytes] = []
        self.inbox: deque[Event] = deque()  # packets on their way to the server
        self.link = bytearray()  # bytes on their way to the worker
        self.wanted = False
        self.in_hand: Counter[bytes] = Counter()
        self.finished: list[bytes] = []
        self.given_back: set[bytes] = set()

    @rule()
    def enqueue(self) -> None:
        self.handles += 1
        self.queue.append(b"H:%d" % self.handles)
        self.wake()

    def wake(self) -> None:
        if self.asleep:
            self.link += sent(Noop())

    @rule()
    def needless_wake_up(self) -> None:
        self.link += sent(Noop())

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def time_limit_runs_out(self, data: st.DataObject) -> None:
        """Give a job back that the worker has, or is about to get."""
        handle = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[handle]
        self.given_back.add(handle)
        self.queue.append(handle)
        self.wake()

    @rule()
    def grab(self) -> None:
        self.worker.grab_job()
        self.wanted = True

    @rule()
    def stop(self) -> None:
        self.worker.stop_grabbing()
        self.wanted = False

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from(sorted(self.in_hand)))
        self.worker.work_complete(handle, b"r")
        self.finished.append(handle)
        self.in_hand[handle] -= 1
        self.in_hand += Counter()  # forgets those that are 0
        assert self.worker.in_hand == self.in_hand

    @rule()
    def flush(self) -> None:
        self.inbox += received_by_server(self.worker.data_to_send())

    @precondition(lambda self: self.inbox)
    @rule()
    def serve(self) -> None:
        packet = self.inbox.popleft()
        if isinstance(packet, GrabJobAll):
            self.asleep = False
            if self.queue:
                handle = self.queue.popleft()
                self.running[handle] = 1
                self.link += sent(JobAssignUniq(handle, b"f", b"", b"w"))
            else:
                self.link += sent(NoJob())
        elif isinstance(packet, PreSleep):
            self.asleep = not self.queue
            if self.queue:
                self.link += sent(Noop())
        else:
            assert isinstance(packet, Report)
            if packet.handle in self.running:
                del self.running[packet.handle]
                self.done.append(packet.handle)
            else:
                self.link += sent(Error(b"JOB_NOT_FOUND", b""))

    @rule(size=st.integers(1, 40))
    def arrive(self, size: int) -> None:
        self.worker.receive_data(bytes(self.link[:size]))
        del self.link[:size]
        for event in drain(self.worker):
            if isinstance(event, JobAssigned):
                self.in_hand[event.handle] += 1
                self.wanted = False
            else:
                assert isinstance(event, ReportRefused)
        assert self.worker.in_hand == self.in_hand

    def settle(self) -> None:
        while self.link or self.inbox or self.worker.output_size:
            self.flush()
            while self.inbox:
                self.serve()
            self.arrive(len(self.link))

    @rule()
    def come_to_rest(self) -> None:
        """Let everything arrive: a worker that wants a job sleeps, as there is none, or has got one."""
        self.settle()
        if self.wanted:
            assert state_of(self.worker) is Grab.ASLEEP
            assert self.asleep
            assert not self.queue
        else:
            assert state_of(self.worker) is Grab.IDLE
        assert set(self.running) <= set(self.in_hand)

    def teardown(self) -> None:
        """Work until all is done: no job is lost, and none but those given back is run twice."""
        self.settle()
        while self.queue or self.in_hand:
            self.grab()
            self.settle()
            for handle in list(self.in_hand.elements()):
                self.worker.work_complete(handle, b"r")
                self.finished.append(handle)
            self.in_hand.clear()
            self.settle()
        assert Counter(self.done) == Counter(b"H:%d" % (number + 1) for number in range(self.handles))
        doubled = {handle for handle, count in Counter(self.finished).items() if count > 1}
        assert doubled <= self.given_back


TestWorkerAgainstServer = WorkerMachine.TestCase
