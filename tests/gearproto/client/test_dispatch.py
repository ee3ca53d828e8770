"""Jobs on their way to servers: where they go next, and what becomes of those that can go nowhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto import ConnectionLost, LocalProtocolError, Lost, NotSent, ServerError
from gearproto.addresses import Address
from gearproto.client import (
    NO_ANSWER,
    Dispatch,
    JobRecord,
    JobRequest,
    Policy,
    ServerChooser,
    check_submissions,
    status_of_all,
    unreachable,
)
from gearproto.events import RequestId, StatusReceived

CONNECT_TIMEOUT = 5.0
A, B, C = (Address(name) for name in ("a", "b", "c"))
UNKNOWN = StatusReceived(RequestId(1), False, False, 0, 0, None)
KNOWN = StatusReceived(RequestId(2), True, False, 0, 0, None)
REFUSED = ConnectionRefusedError(111, "Connection refused")


@dataclass
class Server:
    """A server as a choice sees it, and whether it can be reached once it is tried."""

    connected: bool = False
    retry_at: float = 0.0
    suspect: bool = False
    reachable: bool = True
    taken: list[JobRecord] = field(default_factory=list)


ANY = ServerChooser([Server()], Policy.ORDERED)  # for jobs that ask for no other servers

uniques = st.binary(max_size=3).filter(lambda unique: 0 not in unique)
servers = st.lists(
    st.one_of(
        st.builds(Server, st.booleans(), st.sampled_from([0.0, 1.0, 4.0, 6.0]), reachable=st.booleans()),
        st.builds(Server, retry_at=st.sampled_from([0.0, 4.0]), suspect=st.just(True), reachable=st.booleans()),
    ),
    min_size=1,
    max_size=4,
)


def jobs_for(chooser: ServerChooser, *uniques: bytes) -> list[JobRecord]:
    return [JobRecord(JobRequest("f", b"", unique).packet(), chooser.candidates(unique)) for unique in uniques]


def one_job(*standings: Server) -> JobRecord:
    return jobs_for(ServerChooser(standings, Policy.ORDERED), b"")[0]


def drive(dispatch: Dispatch[JobRecord], standings: list[Server]) -> None:
    """Do what an adapter does, with a clock that jumps."""
    now = 0.0
    while dispatch.left:
        groups = dispatch.plan(now)
        for index, group in groups.items():
            server = standings[index]
            assert server.connected or server.retry_at <= now
            if server.connected or server.reachable:
                server.connected = True
                server.taken += group
            else:
                server.retry_at = now + 60
                dispatch.failed(Address(f"s{index}"), REFUSED, group)
        if dispatch.left and not groups:
            assert now < dispatch.retry_at <= now + CONNECT_TIMEOUT
            now = dispatch.retry_at


# Every job gets somewhere, or is told that it does not


@given(servers, st.sampled_from(Policy), st.lists(uniques, max_size=8))
def test_every_job_is_taken_by_one_server_in_order_or_has_ended(
    standings: list[Server], policy: Policy, uniques: list[bytes]
) -> None:
    jobs = jobs_for(ServerChooser(standings, policy), *uniques)
    dispatch = Dispatch(jobs, ANY, CONNECT_TIMEOUT)
    drive(dispatch, standings)
    places = Counter(job for server in standings for job in server.taken)
    for job in jobs:
        assert places[job] == (job.outcome is None)
        assert isinstance(job.outcome, NotSent | None)
    if policy is Policy.ORDERED:
        assert all(server.taken in ([], jobs) for server in standings)


@given(servers, st.lists(uniques, min_size=1, max_size=8))
def test_job_ends_only_if_no_server_can_be_had_in_time(standings: list[Server], uniques: list[bytes]) -> None:
    could_be_had = any(server.connected or (server.reachable and server.retry_at == 0) for server in standings)
    jobs = jobs_for(ServerChooser(standings, Policy.ROUND_ROBIN), *uniques)
    drive(Dispatch(jobs, ANY, CONNECT_TIMEOUT), standings)
    assert not could_be_had or all(job.outcome is None for job in jobs)


def test_jobs_for_one_server_go_together() -> None:
    standings = [Server(), Server()]
    jobs = jobs_for(ServerChooser(standings, Policy.ROUND_ROBIN), b"", b"", b"", b"")
    assert Dispatch(jobs, ANY, CONNECT_TIMEOUT).plan(0.0) == {0: jobs[::2], 1: jobs[1::2]}


@given(st.lists(st.booleans()))
def test_job_that_has_ended_meanwhile_goes_nowhere(ended: list[bool]) -> None:
    chooser = ServerChooser([Server()], Policy.ORDERED)
    jobs = jobs_for(chooser, *[b""] * len(ended))
    dispatch = Dispatch(jobs, ANY, CONNECT_TIMEOUT)
    for job, has_ended in zip(jobs, ended, strict=True):
        if has_ended:
            job.end(NotSent("closed"))
    left = [job for job in jobs if job.outcome is None]
    assert dispatch.plan(0.0) == ({0: left} if left else {})
    assert dispatch.left == []


def test_wait_is_for_the_server_that_may_be_tried_first() -> None:
    late, soon, later = Server(retry_at=3.0), Server(retry_at=2.0), Server(retry_at=4.0)
    jobs = [one_job(late), one_job(soon), one_job(later)]
    dispatch = Dispatch(jobs, ANY, CONNECT_TIMEOUT)
    assert dispatch.plan(0.0) == {}
    assert (dispatch.left, dispatch.retry_at) == (jobs, 2.0)


def test_wait_begins_anew_with_each_plan() -> None:
    soon, late = Server(retry_at=1.0), Server(retry_at=3.0)
    jobs = [one_job(soon), one_job(late)]
    dispatch = Dispatch(jobs, ANY, CONNECT_TIMEOUT)
    assert dispatch.plan(0.0) == {}
    assert dispatch.plan(1.0) == {0: jobs[:1]}
    assert (dispatch.left, dispatch.retry_at) == (jobs[1:], 3.0)


# What is told of the failure


def test_job_without_a_server_tells_why_each_failed() -> None:
    standings = [Server(reachable=False), Server(reachable=False)]
    job = one_job(*standings)
    drive(Dispatch([job], ANY, CONNECT_TIMEOUT), standings)
    assert job.outcome == NotSent(
        "no server could be reached: s0:4730: Connection refused; s1:4730: Connection refused"
    )


def test_servers_that_are_not_tried_any_more_are_told_by_their_last_failure() -> None:
    job = one_job(Server(retry_at=100.0))
    dispatch = Dispatch([job], ANY, CONNECT_TIMEOUT, failures=[(A, TimeoutError("no answer within 5 s"))])
    assert dispatch.plan(0.0) == {}
    assert job.outcome == NotSent("no server could be reached: a:4730: no answer within 5 s")


def test_failures_of_now_are_told_rather_than_those_before() -> None:
    job = one_job(Server())
    dispatch = Dispatch([job], ANY, CONNECT_TIMEOUT, failures=[(A, TimeoutError("long ago"))])
    dispatch.failed(B, REFUSED, dispatch.plan(0.0)[0])
    assert dispatch.plan(0.0) == {}
    assert job.outcome == NotSent("no server could be reached: b:4730: Connection refused")


def test_failure_that_nobody_knows_the_reason_of_is_left_out() -> None:
    job = one_job(Server())
    dispatch = Dispatch([job], ANY, CONNECT_TIMEOUT, failures=[(A, REFUSED)])
    dispatch.failed(B, None, dispatch.plan(0.0)[0])
    assert dispatch.plan(0.0) == {}
    assert job.outcome == NotSent("no server could be reached: a:4730: Connection refused")


@given(
    st.lists(st.sampled_from([(A, REFUSED), (B, TimeoutError("no answer")), (C, ConnectionError("gone"))]), min_size=1)
)
def test_reasons_are_told_in_the_systems_words_or_in_ours(failures: list[tuple[Address, OSError]]) -> None:
    words = {A: "a:4730: Connection refused", B: "b:4730: no answer", C: "c:4730: gone"}
    assert unreachable(failures) == "no server could be reached: " + "; ".join(words[server] for server, _ in failures)


# Leaving off


def test_stopped_jobs_may_go_anywhere_again() -> None:
    chooser = ServerChooser([Server(), Server()], Policy.ORDERED)
    (job,) = jobs_for(chooser, b"")
    dispatch = Dispatch([job], chooser, CONNECT_TIMEOUT)
    for index, server in enumerate((A, B)):
        assert dispatch.plan(0.0) == {index: [job]}
        dispatch.failed(server, REFUSED, [job])
    assert dispatch.stop() == [job]
    assert (dispatch.left, job.outcome) == ([], None)
    assert Dispatch([job], chooser, CONNECT_TIMEOUT).plan(0.0) == {0: [job]}


def test_retryable_job_that_was_never_under_way_is_not_sent() -> None:
    chooser = ServerChooser([Server()], Policy.ORDERED)
    (job,) = jobs_for(chooser, b"")
    dispatch = Dispatch([job], chooser, CONNECT_TIMEOUT)
    dispatch.failed(A, REFUSED, dispatch.plan(0.0)[0])
    dispatch.stop()
    assert job.retryable == NotSent("no server could be reached: a:4730: Connection refused")


# Submitting once more what was lost


def lost_job(chooser: ServerChooser, until: float) -> JobRecord:
    job = JobRecord(JobRequest("f", unique="u").packet(), chooser.candidates(b"u"), resubmit=True)
    job.mark_retryable(Lost("gone"))
    job.search(until)
    job.prepare_retry(chooser)
    return job


@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=3),
    st.floats(0.05, 10),
    st.floats(0, 60),
    st.one_of(st.none(), st.floats(0, 100)),
    st.sampled_from(Policy),
)
def test_lost_submission_looks_for_a_server_as_long_as_it_may_and_tries_once_at_least(
    retry_at: list[float], pause: float, until: float, back_at: float | None, policy: Policy
) -> None:
    standings = [Server(retry_at=when) for when in retry_at]
    chooser = ServerChooser(standings, policy)
    job = lost_job(chooser, until)
    dispatch = Dispatch([job], chooser, CONNECT_TIMEOUT)
    now = 0.0
    tries: list[float] = []
    while dispatch.left:
        groups = dispatch.plan(now)
        for index, group in groups.items():
            tries.append(now)
            standings[index].retry_at = now + pause
            if back_at is None or now < back_at:
                dispatch.failed(A, REFUSED, group)
        if dispatch.left and not groups:
            assert now < dispatch.retry_at
            now = dispatch.retry_at
    assert bool(tries) == (min(retry_at) <= max(until, CONNECT_TIMEOUT))
    assert all(when <= until for when in tries[len(standings) :])
    if job.outcome is not None:
        assert job.outcome == Lost("gone")
        assert until <= now or min(server.retry_at for server in standings) > until
        assert back_at is None or not tries or tries[-1] < back_at
    else:
        assert back_at is not None
        assert back_at <= tries[-1]


def test_job_for_which_no_server_was_tried_in_time_is_told_so() -> None:
    assert unreachable([]) == "no server could be reached: the time was up before one could be tried"


def test_submission_that_was_never_lost_tries_each_server_once() -> None:
    chooser = ServerChooser([Server()], Policy.ORDERED)
    (job,) = jobs_for(chooser, b"u")
    job.mark_retryable(NotSent("gone"))
    job.search(100.0)
    dispatch = Dispatch([job], chooser, CONNECT_TIMEOUT)
    dispatch.failed(A, REFUSED, dispatch.plan(0.0)[0])
    assert dispatch.plan(0.0) == {}
    assert isinstance(job.outcome, NotSent)


# Other rules of clients


def test_jobs_for_several_servers_are_all_checked_before_one_is_submitted() -> None:
    job = one_job(Server())
    check_submissions([job, job], {})
    with pytest.raises(LocalProtocolError, match=r"submissions of \d+ bytes, limit 20"):
        check_submissions([job, job], {"max_output_size": 20})
    with pytest.raises(LocalProtocolError, match=r"limit 1$"):
        check_submissions([job], {"max_packet_size": 1})


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([UNKNOWN], UNKNOWN),
        ([UNKNOWN, UNKNOWN], UNKNOWN),
        ([UNKNOWN, KNOWN], KNOWN),
        ([ConnectionLost("away"), KNOWN], KNOWN),
    ],
)
def test_status_is_that_of_the_server_that_knows_the_job(
    answers: list[StatusReceived | Exception], expected: StatusReceived
) -> None:
    assert status_of_all(answers) is expected


@pytest.mark.parametrize("error", [ConnectionLost("away"), ServerError(b"NO", b"never"), TimeoutError("silent")])
def test_job_is_not_called_unknown_while_a_server_might_know_it(error: Exception) -> None:
    assert isinstance(error, NO_ANSWER)
    for answers in ([error], [error, UNKNOWN], [UNKNOWN, error], [error, ConnectionLost("another"), UNKNOWN]):
        with pytest.raises(type(error)) as caught:
            status_of_all(answers)
        assert caught.value is error
