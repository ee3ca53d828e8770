"""`gear_sync` with every server that misbehaves: outcomes are true, nothing waits for ever, and nothing leaks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from gear_sync import Client, JobRequest, Worker
from gearproto import ConnectionLost, JobError, JobLost, JobNotSent, JobRejected, Lost, NotSent, Rejected, ServerError
from gearproto.outcomes import Outcome
from gearproto.packets import WorkComplete
from gearproto.server import Report
from tests.harness.hostile import (
    CONVERSATIONS,
    MISDEEDS,
    HostileServer,
    Peer,
    Script,
    comes_back_with_the_same_handles,
    give_one_job,
    serve_clients,
)
from tests.harness.ports import HeldPort
from tests.harness.servers import full_listener, poll_until
from tests.harness.threads import LIMIT, Call, nothing_left_open, working


def client_of(address: tuple[str, int] | str, *, probes: bool = True) -> Client:
    """Return a client that is soon tired of servers that say nothing; with probes even of a good one that is slow."""
    return Client(
        address,
        timeout=LIMIT,
        connect_timeout=0.1,
        retry_pauses=(0.001, 0.001),
        probe_interval=0.005 if probes else None,
        probe_timeout=0.01,
    )


def worker_of(address: tuple[str, int] | str, threads: int = 0) -> Worker:
    worker = Worker(
        address,
        threads=threads,
        connect_timeout=0.1,
        retry_pauses=(0.001, 0.001),
        probe_interval=0.005,
        probe_timeout=0.01,
    )
    worker.register("reverse", lambda job: job.workload[::-1])
    return worker


def check_records(client: Client) -> None:
    """Nothing is kept of requests that have ended."""
    for session in client._servers.sessions:
        assert session.records._open == {}
    assert client._servers.retryable == {}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_outcome_is_true(name: str) -> None:
    script, expected = CONVERSATIONS[name]
    with (
        nothing_left_open(),
        HostileServer(script) as server,
        client_of(server.address, probes=expected is Lost) as client,
    ):
        job = client.submit("f")
        assert job.wait(LIMIT)
        assert (type(job.outcome) if expected is Lost else job.outcome) == expected
        check_records(client)


def submit(client: Client) -> Outcome | None:
    job = client.submit("f")
    assert job.wait(LIMIT)
    return job.outcome


CALLS: dict[str, Callable[[Client], object]] = {
    "submit": submit,
    "submit_background": lambda client: client.submit_background("f"),
    "submit_background_many": lambda client: client.submit_background_many([JobRequest("f")] * 3),
    "echo": lambda client: client.echo(b"x"),
    "status": lambda client: client.status(b"H:1"),
    "admin": lambda client: client.admin.status(),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_call_ends_with_a_true_error_and_the_client_goes_on(misdeed: str, call: str) -> None:
    with (
        nothing_left_open(),
        HostileServer(MISDEEDS[misdeed], then=serve_clients) as server,
        client_of(server.address) as client,
    ):
        result: object = None
        with contextlib.suppress(ConnectionLost, ServerError, JobNotSent, JobLost, JobRejected):
            result = Call(lambda: CALLS[call](client)).result()
        if call == "submit":
            assert isinstance(result, Lost | NotSent | Rejected | None)
        elif call == "submit_background_many":
            assert isinstance(result, list)
            assert all(isinstance(item, JobLost | JobNotSent | JobRejected) for item in result)
        else:
            assert result is None
        poll_until(lambda: is_served(client), "the client is back")
        check_records(client)


def is_served(client: Client) -> bool:
    with contextlib.suppress(JobError, ConnectionLost):
        return client.echo(b"y") == b"y" and client.submit("f").result(LIMIT) == b"result"
    return False


def test_handles_of_a_server_that_came_back_are_not_those_of_before() -> None:
    with (
        nothing_left_open(),
        HostileServer(*comes_back_with_the_same_handles) as server,
        client_of(server.address, probes=False) as client,
    ):
        first = client.submit("f")
        assert first.wait(LIMIT)
        second = client.submit("f")
        assert second.result(LIMIT) == b"new result"
        assert isinstance(first.outcome, Lost)
        assert list(first.events(LIMIT))[-1] == first.outcome
        check_records(client)


def test_server_that_refuses_or_hangs_in_connect_is_told_as_not_sent() -> None:
    with nothing_left_open(), HeldPort() as absent, full_listener() as listener:
        for address in (absent.address, listener.getsockname()):
            with client_of(address) as client:
                for name, call in CALLS.items():
                    if name == "submit_background_many":
                        results = client.submit_background_many([JobRequest("f")] * 3)
                        assert [type(result) for result in results] == [JobNotSent] * 3
                        continue
                    with pytest.raises((JobNotSent, ConnectionLost), match="no server could be reached"):
                        Call(lambda call=call: call(client)).result()  # type: ignore[misc]
                check_records(client)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_worker_leaves_a_server_that_misbehaves_and_comes_back(misdeed: str, threads: int) -> None:
    reports: list[Report] = []
    reported = threading.Event()

    def good(peer: Peer) -> None:
        reports.append(give_one_job(peer))
        reported.set()

    with nothing_left_open(), HostileServer(MISDEEDS[misdeed], then=good) as server:
        with worker_of(server.address, threads) as worker:
            with working(worker):
                assert reported.wait(LIMIT)
            assert worker._grabber.running == 0
            assert not list(worker._grabber._turns)
            assert worker._running == {}
            assert not worker._jobs.waiting
        poll_until(no_threads, "the threads have ended")
    assert {(report.packet, report.body) for report in reports} == {(WorkComplete, b"H:good\0cba")}


def no_threads() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("gear worker")]


def test_close_comes_soon_whatever_the_server_does() -> None:
    scripts: list[Script] = [script for name, script in MISDEEDS.items() if name.endswith("waits")]
    with nothing_left_open(), HostileServer(*scripts) as server:
        for _ in scripts:
            client = Client(server.address)
            job = None
            with contextlib.suppress(JobNotSent):  # a server may be quick to break the protocol
                job = client.submit("f")
            Call(client.close).result()
            assert job is None or job.outcome is not None
            server.wait_for_scripts(1)
