"""`gear_sync.Job`: what it tells while it runs and how it ends, whoever looks, and however often."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from gear_sync import Client, Job
from gearproto import (
    Completed,
    ConnectionLost,
    Failed,
    JobError,
    JobFailed,
    JobLost,
    JobNotSent,
    JobRaised,
    JobRejected,
    Lost,
    NotSent,
    Outcome,
    Raised,
    Rejected,
    ServerError,
)
from gearproto.client import JobEvent, outcome_error
from gearproto.codec import Packet
from gearproto.events import Data, Progress, Warned
from gearproto.packets import (
    EchoReq,
    EchoRes,
    Error,
    JobCreated,
    SubmitJob,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.harness.hostile import HostileServer, Peer
from tests.harness.threads import LIMIT, Call

HANDLE = b"H:1"


class Scripted:
    """A server that takes one job, and then says what the test tells it."""

    def __init__(self) -> None:
        self._peers: list[Peer] = []
        self._taken = threading.Event()
        self._done = threading.Event()

    def script(self, peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        self._peers.append(peer)
        self._taken.set()
        assert self._done.wait(LIMIT)

    def say(self, *packets: Packet | bytes) -> None:
        assert self._taken.wait(LIMIT)
        self._peers[0].send(*packets)

    def deliver(self, client: Client, *packets: Packet) -> None:
        """Say something, and let the client take it in."""
        self.say(*packets)
        call = Call(lambda: client.echo(b"barrier"))
        self._peers[0].receive_until(EchoReq)
        self.say(EchoRes(b"barrier"))
        call.result()

    def end(self) -> None:
        self._done.set()


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.end()


@pytest.fixture
def client(server: Scripted) -> Iterator[Client]:
    with HostileServer(server.script) as hostile:
        with Client(hostile.address, exceptions=False, timeout=LIMIT) as client:
            yield client
        server.end()


@pytest.fixture
def job(client: Client) -> Job:
    return client.submit("f", b"w", unique="u")


def plain(events: Iterator[JobEvent]) -> list[object]:
    """Return events without the numbers of requests."""
    return [
        (event.numerator, event.denominator)
        if isinstance(event, Progress)
        else event.data
        if isinstance(event, Data)
        else ("warning", event.data)
        if isinstance(event, Warned)
        else event
        for event in events
    ]


# Outcomes


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        (Failed(), JobFailed, "the worker reported WORK_FAIL"),
        (Raised(b"ValueError: \xff"), JobRaised, "ValueError: \\xff"),
        (Rejected(b"CODE", b"why"), JobRejected, "CODE: why"),
        (Rejected(b"CODE", b""), JobRejected, "CODE"),
        (NotSent("refused"), JobNotSent, "refused"),
        (Lost("gone"), JobLost, "gone"),
    ],
)
def test_each_outcome_has_an_exception_that_says_the_same(outcome: Outcome, kind: type[JobError], text: str) -> None:
    error = outcome_error(outcome)
    assert type(error) is kind
    assert str(error) == text


def test_success_has_no_exception() -> None:
    assert outcome_error(Completed(b"")) is None


def test_exceptions_can_be_caught_by_what_they_have_in_common() -> None:
    for kind in (JobFailed, JobRaised, JobRejected, JobNotSent, JobLost):
        assert issubclass(kind, JobError)
    assert issubclass(JobLost, ConnectionLost)
    assert issubclass(JobRejected, ServerError)
    assert not issubclass(JobNotSent, ConnectionLost)


ENDS: list[tuple[list[Packet], Outcome, type[Exception] | None]] = [
    ([JobCreated(HANDLE), WorkComplete(HANDLE, b"r")], Completed(b"r"), None),
    ([JobCreated(HANDLE), WorkFail(HANDLE)], Failed(), JobFailed),
    ([JobCreated(HANDLE), WorkException(HANDLE, b"x")], Raised(b"x"), JobRaised),
    ([Error(b"QUEUE_ERROR", b"full")], Rejected(b"QUEUE_ERROR", b"full"), JobRejected),
]


@pytest.mark.parametrize(("packets", "outcome", "error"), ENDS)
def test_job_ends_in_one_outcome_for_all_who_look(
    server: Scripted, job: Job, packets: list[Packet], outcome: Outcome, error: type[Exception] | None
) -> None:
    server.say(*packets)
    assert job.wait(LIMIT)
    assert job.wait(0)
    assert job.outcome == outcome
    for _ in range(2):
        if error is None:
            assert job.result(LIMIT) == b"r"
        else:
            with pytest.raises(error):
                job.result(LIMIT)
        assert list(job) == [outcome]


def test_second_end_of_a_job_changes_nothing(server: Scripted, client: Client, job: Job) -> None:
    end = [WorkComplete(HANDLE, b"r"), WorkFail(HANDLE), WorkComplete(HANDLE, b"other"), WorkData(HANDLE, b"more")]
    server.deliver(client, JobCreated(HANDLE), *end)
    assert job.result(LIMIT) == b"r"
    assert plain(iter(job)) == [Completed(b"r")]


# What the job tells while it runs


def test_handle_is_there_once_the_server_has_told_it(server: Scripted, client: Client, job: Job) -> None:
    assert (job.function, job.unique, job.handle, job.outcome, job.progress) == (b"f", b"u", None, None, None)
    server.deliver(client, JobCreated(HANDLE))
    assert (job.handle, job.outcome) == (HANDLE, None)
    assert repr(job) == "<Job b'f' queued handle=b'H:1' outcome=None>"


def test_latest_progress_is_kept_and_what_nobody_fetched_dropped(server: Scripted, client: Client, job: Job) -> None:
    server.deliver(client, JobCreated(HANDLE), *(WorkStatus(HANDLE, number, 9) for number in range(9)))
    assert job.progress == (8, 9)
    server.deliver(client, WorkData(HANDLE, b"x"), WorkStatus(HANDLE, 9, 9), WorkComplete(HANDLE, b""))
    assert job.progress == (9, 9)
    assert plain(iter(job)) == [(8, 9), b"x", (9, 9), Completed(b"")]


def test_events_come_in_order_each_once_and_the_outcome_last(server: Scripted, client: Client, job: Job) -> None:
    events = job.events(LIMIT)
    server.deliver(client, JobCreated(HANDLE), WorkData(HANDLE, b"one"), WorkWarning(HANDLE, b"careful"))
    assert plain(iter([next(events), next(events)])) == [b"one", ("warning", b"careful")]
    server.say(WorkStatus(HANDLE, 1, 2), WorkData(HANDLE, b""), WorkFail(HANDLE))
    assert plain(events) == [(1, 2), b"", Failed()]
    assert list(events) == []


def test_two_who_iterate_each_get_all_events(server: Scripted, client: Client, job: Job) -> None:
    server.deliver(client, JobCreated(HANDLE), WorkData(HANDLE, b"one"), WorkData(HANDLE, b"two"), WorkFail(HANDLE))
    first, second = job.events(LIMIT), job.events(LIMIT)
    assert plain(iter([next(first), next(second), next(first)])) == [b"one", b"one", b"two"]
    assert plain(second) == [b"two", Failed()]
    assert plain(first) == [Failed()]
    assert list(first) == list(second) == []


def test_result_joins_all_pieces_though_they_were_fetched(server: Scripted, job: Job) -> None:
    server.say(JobCreated(HANDLE), WorkData(HANDLE, b"a"), WorkData(HANDLE, b"b"), WorkComplete(HANDLE, b"c"))
    assert plain(job.events(LIMIT)) == [b"a", b"b", Completed(b"c")]
    assert job.result() == b"abc"
    assert job.result() == b"abc"


def test_jobs_of_another_client_are_refused_at_the_call(client: Client, job: Job) -> None:
    with (
        Client("127.0.0.1:1") as other,
        pytest.raises(ValueError, match=r"^job 'f' .* belongs to another client; only that client can wait for it"),
    ):
        other.as_completed([job])


# Waiting


@pytest.mark.parametrize("timeout", [0, -1, 0.001])
def test_wait_without_end_says_so_and_the_job_goes_on(server: Scripted, job: Job, timeout: float) -> None:
    assert not job.wait(timeout)
    with pytest.raises(TimeoutError, match="it has not been cancelled"):
        job.result(timeout)
    with pytest.raises(TimeoutError, match="it has not been cancelled"):
        next(job.events(timeout))
    server.say(JobCreated(HANDLE), WorkComplete(HANDLE, b"r"))
    assert job.result() == b"r"


def test_time_that_is_over_takes_no_event_from_a_later_iteration(server: Scripted, job: Job) -> None:
    server.say(JobCreated(HANDLE), WorkData(HANDLE, b"one"))
    fetched: list[object] = []
    with pytest.raises(TimeoutError):
        _fetch_until_timeout(job, fetched)
    assert plain(iter(fetched)) == [b"one", b"one"]  # type: ignore[arg-type]
    server.say(WorkComplete(HANDLE, b"end"))
    assert plain(job.events(LIMIT)) == [b"one", Completed(b"end")]


def _fetch_until_timeout(job: Job, fetched: list[object]) -> None:
    """Fetch the first event however long it takes, and then all again, waiting a moment for the next."""
    fetched.append(next(job.events(LIMIT)))
    for event in job.events(0.01):
        fetched.append(event)  # noqa: PERF402  (also if the iteration ends with an exception)


def test_many_threads_can_wait_for_one_job(server: Scripted, job: Job) -> None:
    waits: list[Callable[[], object]] = [lambda: job.result(LIMIT), lambda: job.wait(LIMIT) and b"r"]
    calls = [Call(wait) for wait in waits * 5]
    server.say(JobCreated(HANDLE), WorkComplete(HANDLE, b"r"))
    assert [call.result() for call in calls] == [b"r"] * 10
