"""What a worker keeps of a job in hand, and the report that ends it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gear_testing import strategies
from gearproto import Completed, Failed, JobFailed, JobLost, LocalProtocolError, Raised, WorkerConnection
from gearproto.events import JobAssigned
from gearproto.packets import CanDoTimeout, JobAssignAll, WorkComplete, WorkException, WorkFail
from gearproto.worker import (
    Assignment,
    completed,
    ended_by,
    is_interrupt,
    piece,
    server_timeout_ms,
    stopping,
    timed_out,
)
from tests.harness.connections import output, receive

H = b"H:a:1"
ENDS = st.builds(Completed, strategies.payloads()) | st.just(Failed()) | st.builds(Raised, strategies.payloads())

End = Completed | Failed | Raised


def report_of(end: End) -> WorkComplete | WorkFail | WorkException:
    """Return the packet that tells an end."""
    match end:
        case Completed(data):
            return WorkComplete(H, data)
        case Failed():
            return WorkFail(H)
        case Raised(data):
            return WorkException(H, data)


def in_hand(conn: WorkerConnection, assignments: int = 1) -> list[Assignment]:
    """Let a server assign one job so many times."""
    events = receive(conn, *[JobAssignAll(H, b"f", b"u", b"r", b"w")] * assignments)
    return [Assignment(event, conn) for event in events if isinstance(event, JobAssigned)]


# Time limits


def test_no_limit_in_the_worker_is_none_at_the_server() -> None:
    assert server_timeout_ms(None) is None


@pytest.mark.parametrize("limit", [math.inf, 1e300, 2**31 / 1000])
def test_limit_that_servers_cannot_count_is_the_workers_alone(limit: float) -> None:
    assert server_timeout_ms(limit) is None


@given(st.floats(1e-9, 2e6))
def test_server_waits_longer_than_the_worker_and_can_be_told_so(timeout: float) -> None:
    milliseconds = server_timeout_ms(timeout)
    assert milliseconds is not None
    assert timeout * 1000 + 999 <= milliseconds <= timeout * 1000 + 1001
    conn = WorkerConnection()
    conn.can_do(b"f", timeout_ms=milliseconds)
    assert output(conn) == [CanDoTimeout(b"f", milliseconds)]


@given(st.floats(max_value=0) | st.just(math.nan))
def test_limit_that_makes_no_sense_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"the timeout of a function is .*, which (has to be above|is not a number)"):
        server_timeout_ms(timeout)


# What became of a function


def test_time_limit_that_has_passed_is_an_exception() -> None:
    assert timed_out(1.5) == Raised(b"TimeoutError: the job has taken longer than 1.5 s")


def test_only_job_failed_is_a_failure() -> None:
    class OutOfPaper(JobFailed):
        pass

    assert ended_by(JobFailed("no ink")) == ended_by(OutOfPaper()) == Failed()


def test_group_of_nothing_but_job_failed_is_a_failure() -> None:
    failed = ExceptionGroup("tasks", [JobFailed(), ExceptionGroup("more", [JobFailed("no ink")])])
    assert ended_by(failed) == Failed()
    assert ended_by(ExceptionGroup("tasks", [failed, ValueError()])) == Raised(
        b"ExceptionGroup: tasks (2 sub-exceptions)"
    )


@given(st.sampled_from([ValueError, TimeoutError, JobLost, ExceptionGroup]), st.text(), st.booleans())
def test_any_other_exception_is_told_by_type_and_message(kind: type[Exception], text: str, surrogate: bool) -> None:
    message = text + "\udcff" * surrogate  # as in names of files that are no text
    error = kind(message, [OSError()]) if kind is ExceptionGroup else kind(message)
    told = (
        f"{kind.__name__}: {text}".encode() + rb"\udcff" * surrogate + b" (1 sub-exception)" * (kind is ExceptionGroup)
    )
    assert ended_by(error) == Raised(told)


def test_exception_whose_message_cannot_be_had_is_told_by_its_type() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise self.args[0]

    for error in (IndexError(), SystemExit(), KeyboardInterrupt()):
        assert ended_by(Odd(error)) == Raised(b"Odd")


@given(strategies.payloads())
def test_result_is_anything_that_has_the_form_of_bytes(data: bytes) -> None:
    for result in (data, bytearray(data), memoryview(data), memoryview(data * 2)[: len(data)]):
        assert completed(b"f", result) == Completed(data)
        assert piece(b"f", result) == data


def test_none_is_an_empty_result_and_no_piece() -> None:
    assert completed(b"f", None) == Completed(b"")
    with pytest.raises(TypeError, match=r"^f yielded NoneType; a piece has to be bytes$"):
        piece(b"f", None)


@given(strategies.payloads(), st.sampled_from(["text", 1, [b"x"], object()]))
def test_result_of_another_type_is_told_with_the_function_s_name(function: bytes, result: object) -> None:
    with pytest.raises(TypeError) as caught:
        completed(function, result)
    name = function.decode("utf-8", "backslashreplace")
    assert str(caught.value) == f"{name} returned {type(result).__name__}; a result has to be bytes or None"


def test_coroutine_that_nobody_has_awaited_is_closed() -> None:
    async def forgotten() -> bytes:
        return b""

    with pytest.raises(TypeError, match=r"^f returned coroutine; a result has to be bytes or None$"):
        completed(b"f", forgotten())


@given(
    st.recursive(
        st.sampled_from([SystemExit(), KeyError(), GeneratorExit()]),
        lambda inner: st.builds(BaseExceptionGroup, st.just("several"), st.lists(inner, min_size=1, max_size=3)),
        max_leaves=6,
    ),
    st.booleans(),
)
def test_keyboard_interrupt_is_found_in_groups_too(error: BaseException, interrupted: bool) -> None:
    if interrupted:
        error = BaseExceptionGroup("all", [error, BaseExceptionGroup("inner", [KeyboardInterrupt()])])
    assert is_interrupt(error) is interrupted


def job_of(function: bytes) -> Assignment:
    return Assignment(JobAssigned(H, function, b"", b"", b""), WorkerConnection())


@pytest.mark.parametrize(
    ("functions", "timeout", "said"),
    [
        ([], 3, "stopping"),
        ([b"f"], None, "stopping once 1 job has ended (1 of b'f'); a second signal leaves it to another worker"),
        (
            [b"f", b"g", b"f"],
            1.5,
            "stopping once 3 jobs have ended, or 1.5 s have passed (2 of b'f', 1 of b'g'); a second",
        ),
    ],
)
def test_worker_that_stops_says_what_it_waits_for(functions: list[bytes], timeout: float | None, said: str) -> None:
    assert stopping([job_of(function) for function in functions], timeout).startswith(said)


def test_worker_that_stops_names_some_of_many_functions() -> None:
    said = stopping([job_of(b"f%d" % number) for number in range(100)], None)
    assert "(1 of b'f0', 1 of b'f1', 1 of b'f2', 1 of b'f3', 1 of b'f4', ...)" in said


# Jobs in hand


@given(st.builds(JobAssigned, *[strategies.payloads()] * 5))
def test_assignment_keeps_all_that_the_server_has_told(assigned: JobAssigned) -> None:
    conn = WorkerConnection()
    job = Assignment(assigned, conn)
    assert (job.handle, job.function, job.assigned) == (assigned.handle, assigned.function, assigned)
    assert (job.conn, job.until, job.given_up) == (conn, None, False)


@given(ENDS)
def test_end_is_reported_once_and_puts_the_job_down(end: End) -> None:
    conn = WorkerConnection()
    (job,) = in_hand(conn)
    assert job.report_end(end) is None
    assert conn.data_to_send() == report_of(end).encode()
    assert not conn.in_hand


@given(st.lists(ENDS, min_size=2, max_size=4), st.data())
def test_only_the_newest_run_of_a_job_is_reported_whichever_ends_first(ends: list[End], data: st.DataObject) -> None:
    conn = WorkerConnection()
    *older, newest = in_hand(conn, len(ends))
    for job, end in data.draw(st.permutations(list(zip([*older, newest], ends, strict=True)))):
        assert job.superseded == (job is not newest)
        assert job.report_end(end) is None
        assert conn.data_to_send() == (report_of(end).encode() if job is newest else b"")
    assert not conn.in_hand
    (again,) = in_hand(conn)
    assert not again.superseded


@given(st.sampled_from([Completed, Raised]), st.integers(0, 100))
def test_end_over_the_packet_limit_is_told_as_an_exception(kind: type[Completed | Raised], more: int) -> None:
    conn = WorkerConnection(max_packet_size=100)
    (job,) = in_hand(conn)
    name = "WORK_COMPLETE" if kind is Completed else "WORK_EXCEPTION"
    size = len(H) + 1 + len(data := b"x" * (95 + more))
    assert job.report_end(kind(data)) == f"{name}: {size} bytes, limit 100"
    assert conn.data_to_send() == WorkException(H, b"%b: %d bytes, limit 100" % (name.encode(), size)).encode()
    assert not conn.in_hand


@given(ENDS)
def test_end_is_not_reported_on_a_connection_that_has_ended(end: End) -> None:
    conn = WorkerConnection()
    (job,) = in_hand(conn)
    conn.connection_lost("gone")
    with pytest.raises(LocalProtocolError, match="connection that has ended"):
        job.report_end(end)
