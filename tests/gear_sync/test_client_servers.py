"""`gear_sync.Client` with several servers, and with many jobs at once."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

import pytest

import gear_sync.client_servers
from gear_sync import Client, Job, JobRequest, Policy, Server, Worker
from gear_sync.client_servers import ClientServers
from gearproto import (
    Completed,
    Failed,
    GearmanError,
    JobLost,
    JobNotSent,
    JobRejected,
    LocalProtocolError,
    Lost,
    NotSent,
)
from gearproto.addresses import Address, parse_address
from gearproto.client import JobHandle, JobRecord, record_of
from gearproto.packets import (
    Error,
    GetStatus,
    JobCreated,
    OptionReq,
    OptionRes,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkFail,
)
from tests.harness.hostile import HostileServer, Peer
from tests.harness.ports import HOST, HeldPort
from tests.harness.servers import OurServer, full_listener, poll_until
from tests.harness.threads import LIMIT, Call, nothing_left_open, working

MIB = 1024 * 1024


def greeted(peer: Peer) -> None:
    """Answer the client's option."""
    peer.receive_until(OptionReq)
    peer.send(OptionRes(b"exceptions"))


def taken(peer: Peer, handle: bytes = b"H:1") -> None:
    """Take a foreground job."""
    peer.receive_until(SubmitJob)
    peer.send(JobCreated(handle))


def loses_a_job(peer: Peer) -> None:
    """Take a job, send a part of its result, and go."""
    greeted(peer)
    taken(peer)
    peer.send(WorkData(b"H:1", b"half"))


def completes_a_job(peer: Peer) -> None:
    """Take a job, complete it, and wait for the end."""
    greeted(peer)
    taken(peer)
    peer.send(WorkData(b"H:1", b"whole "), WorkComplete(b"H:1", b"result"))
    peer.wait_for_end()


def silent(peer: Peer) -> None:
    """Take what comes, and say nothing."""
    peer.wait_for_end()


def address_of(server: HostileServer) -> str:
    host, port = server.address
    return f"{host}:{port}"


@pytest.fixture
def absent() -> Iterator[str]:
    """An address at which nobody listens."""
    with HeldPort() as port:
        yield f"{HOST}:{port.number}"


@pytest.fixture
def servers() -> Iterator[list[OurServer]]:
    """Three servers."""
    servers = [OurServer() for _ in range(3)]
    yield servers
    for server in servers:
        server.close()


def uniques(client: Client, server: OurServer) -> set[bytes]:
    """Return the uniques of the jobs that a server has."""
    return {row.unique for row in client.admin_of(server.address).unique_jobs()}


# Which server a job goes to


@pytest.mark.parametrize(
    ("policy", "places"),
    [
        ("ordered", [0, 0, 0, 0, 0, 0]),
        ("round_robin", [0, 1, 2, 0, 1, 2]),
        (Policy.UNIQUE_HASH, [(crc32(b"u%d" % number) >> 16 & 0x7FFF) % 3 for number in range(6)]),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_jobs_go_to_the_servers_of_the_policy(
    servers: list[OurServer], policy: Policy | str, places: list[int], many: bool
) -> None:
    tasks = [JobRequest("f", unique=b"u%d" % number) for number in range(6)]
    with Client([server.address for server in servers], policy=policy) as client:
        if many:
            handles = client.submit_background_many(tasks)
        else:
            handles = [client.submit_background(task.function, unique=task.unique) for task in tasks]
        assert [handle.server for handle in handles if isinstance(handle, JobHandle)] == [
            parse_address(servers[place].address) for place in places
        ]
        for index, server in enumerate(servers):
            assert uniques(client, server) == {b"u%d" % number for number in range(6) if places[number] == index}


def test_results_of_jobs_on_several_servers_come_back(servers: list[OurServer]) -> None:
    addresses = [server.address for server in servers]
    with Worker(addresses) as worker, Client(addresses, policy="round_robin") as client:
        worker.register("reverse", lambda job: job.workload[::-1])
        with working(worker):
            jobs = client.submit_many([JobRequest("reverse", b"%d!" % number) for number in range(30)])
            assert [job.result(LIMIT) for job in jobs] == [(b"%d!" % number)[::-1] for number in range(30)]
    assert {job.server for job in jobs} == {parse_address(address) for address in addresses}


def test_ordered_stays_with_the_second_server_until_that_is_lost(servers: list[OurServer]) -> None:
    first, second, _third = servers
    first.close()
    with Client([first.address, second.address], retry_pauses=(0.001, 0.001)) as client:
        assert client.submit_background("f").server == parse_address(second.address)
        first.restart()
        assert client.submit_background("f").server == parse_address(second.address)
        standing = client._servers.sessions[0].standing  # who is slow to refuse is left alone for longer
        poll_until(lambda: standing.retry_at <= time.monotonic(), "the first may be tried again")
        second.close()
        assert client.submit_background("f").server == parse_address(first.address)


@pytest.mark.parametrize("policy", Policy)
def test_one_server_down_is_passed_over(absent: str, servers: list[OurServer], policy: Policy) -> None:
    with Client([absent, servers[0].address], policy=policy) as client:
        for number in range(4):
            handle = client.submit_background("f", unique=b"%d" % number)
            assert handle.server == parse_address(servers[0].address)
        jobs = client.submit_many([JobRequest("f", unique=b"%d" % number) for number in range(4)])
        assert [job.outcome for job in jobs] == [None] * 4


def test_where_no_server_can_be_reached_each_is_named_with_its_reason(absent: str) -> None:
    other = "127.0.0.1:9"
    with Client([absent, other]) as client:
        with pytest.raises(JobNotSent, match=f"{absent}: Connection refused; {other}: Connection refused"):
            client.submit("f")
        (job,) = client.submit_many([JobRequest("f")])
        assert isinstance(job.outcome, NotSent)


def test_server_that_hangs_in_connect_is_given_up_for_the_next(servers: list[OurServer]) -> None:
    with full_listener() as listener:
        host, port = listener.getsockname()
        with Client([(host, port), servers[0].address], connect_timeout=0.05) as client:
            assert client.submit_background("f").server == parse_address(servers[0].address)


# What moves on to another server, and what does not


def test_job_that_is_lost_goes_to_no_other_server(servers: list[OurServer]) -> None:
    with HostileServer(loses_a_job) as lossy, Client([lossy.address, servers[0].address]) as client:
        job = client.submit("f", unique="u")
        with pytest.raises(JobLost):
            job.result(LIMIT)
        assert client.echo(b"x") == b"x"
        assert uniques(client, servers[0]) == set()


def test_lost_background_job_goes_to_no_other_server(servers: list[OurServer]) -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJobBg)

    with HostileServer(script) as lossy, Client([lossy.address, servers[0].address]) as client:
        with pytest.raises(JobLost):
            client.submit_background("f", unique="u")
        assert uniques(client, servers[0]) == set()


def test_rejected_job_goes_to_no_other_server(servers: list[OurServer]) -> None:
    def script(peer: Peer) -> None:
        greeted(peer)
        peer.receive_until(SubmitJob)
        peer.send(Error(b"NO", b"never"))
        peer.wait_for_end()

    with HostileServer(script) as server, Client([server.address, servers[0].address]) as client:
        job = client.submit("f")
        with pytest.raises(JobRejected):
            job.result(LIMIT)
        assert uniques(client, servers[0]) == set()


def waits(waiting: str, client: Client, job: Job) -> bytes:
    """Wait for a result in one of the ways there are."""
    if waiting == "events":
        *_pieces, end = job.events(LIMIT)
        assert isinstance(end, Completed)
    if waiting == "as_completed":
        assert list(client.as_completed([job], LIMIT)) == [job]
    return job.result(LIMIT)


ways = pytest.mark.parametrize("waiting", ["result", "events", "as_completed"])


def takes_the_beginning(peer: Peer) -> None:
    """Take a part of a large submission, and go."""
    taken = 0
    while taken < 1000:  # more than what the client says first
        taken += len(peer.receive_some())


@ways
def test_job_of_which_no_byte_was_taken_moves_to_the_next_server(waiting: str) -> None:
    with (
        HostileServer(takes_the_beginning) as deaf,
        HostileServer(completes_a_job) as good,
        Client([deaf.address, good.address]) as client,
    ):
        stuck, job = client.submit_many([JobRequest("f", bytes(16 * MIB)), JobRequest("f")])
        assert waits(waiting, client, job) == b"whole result"
        assert job.server == parse_address(address_of(good))
        with pytest.raises(JobLost):
            stuck.result(LIMIT)


@ways
def test_job_that_may_be_submitted_again_gets_the_result_of_the_second_server(waiting: str) -> None:
    with (
        HostileServer(loses_a_job) as lossy,
        HostileServer(completes_a_job) as good,
        Client([lossy.address, good.address]) as client,
    ):
        job = client.submit("f", unique="u", resubmit=True)
        lossy.wait_for_scripts(1)
        assert waits(waiting, client, job) == b"whole result"
        assert job.server == parse_address(address_of(good))


def test_job_that_may_be_submitted_again_is_so_to_the_same_server_too() -> None:
    with (
        HostileServer(loses_a_job, loses_a_job, completes_a_job) as server,
        Client(server.address, retry_pauses=(0.001, 0.001)) as client,
    ):
        job = client.submit("f", unique="u", resubmit=True)
        assert job.result(LIMIT) == b"whole result"


def test_job_that_is_lost_again_and_again_is_lost_in_the_end() -> None:
    with HostileServer(*[loses_a_job] * 6) as server, Client(server.address, retry_pauses=(0.001, 0.001)) as client:
        job = client.submit("f", unique="u", resubmit=True)
        with pytest.raises(JobLost):
            job.result(LIMIT)


def test_job_that_was_lost_and_cannot_be_submitted_again_is_lost_and_not_called_unsent() -> None:
    with HostileServer(loses_a_job) as server, Client(server.address, resubmit_timeout=0) as client:
        job = client.submit("f", unique="u", resubmit=True)
        with pytest.raises(JobLost):
            job.result(LIMIT)


def test_retryable_job_ends_when_the_client_is_closed() -> None:
    with HostileServer(takes_the_beginning) as deaf, Client(deaf.address) as client:
        stuck, job = client.submit_many([JobRequest("f", bytes(16 * MIB)), JobRequest("f")])
        assert isinstance(stuck.outcome, Lost)
        assert record_of(job).retryable is not None
        client.close()
        assert isinstance(job.outcome, NotSent)
        with pytest.raises(JobNotSent):
            job.result()


@ways
def test_retryable_job_keeps_nobody_waiting_longer_than_asked(waiting: str) -> None:
    with (
        HostileServer(loses_a_job) as lossy,
        Client(lossy.address, retry_pauses=(60, 60), connect_timeout=120) as client,
    ):
        job = client.submit("f", unique="u", resubmit=True)
        poll_until(lambda: job.wait(0) or record_of(job).retryable is not None, "the loss is noticed")
        calls: dict[str, Callable[[], object]] = {
            "result": lambda: job.result(0.01),
            "events": lambda: list(job.events(0.01)),
            "as_completed": lambda: next(client.as_completed([job], 0.01)),
        }
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"not been cancelled$"):
                Call(calls[waiting]).result()
        assert job.outcome is None
        client.close()
        assert isinstance(job.outcome, Lost)


def test_close_ends_a_connect_that_hangs() -> None:
    with full_listener() as listener, nothing_left_open():
        client = Client(listener.getsockname(), connect_timeout=2 * LIMIT)
        call = Call(lambda: client.submit("f"))
        (session,) = client._servers.sessions
        poll_until(lambda: session.dialing, "it connects")
        client.close()
        with pytest.raises(JobNotSent, match="closed by the client"):
            call.result()


def test_client_starts_no_thread(servers: list[OurServer]) -> None:
    before = threading.active_count()
    with Client([server.address for server in servers], policy="round_robin") as client:
        client.submit_many([JobRequest("f")] * 10)
        client.echo(b"")
        assert threading.active_count() == before


@pytest.mark.parametrize("by_name", [False, True])
def test_client_that_is_closed_while_it_connects_leaves_nothing_open(
    by_name: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, closed = threading.Event(), threading.Event()

    def connect(address: Address) -> socket.socket:
        begun.set()
        assert closed.wait(LIMIT)
        return socket.create_connection((address.host, address.port))

    def resolve(address: Address) -> list[tuple[int, Any]]:
        begun.set()
        assert closed.wait(LIMIT)
        return [(socket.AF_INET, (address.host, address.port))]

    monkeypatch.setattr(gear_sync.client_servers, "resolve", resolve)
    with socket.create_server(("127.0.0.1", 0)) as listener, nothing_left_open():
        client = Client(listener.getsockname(), connect=None if by_name else connect)
        call = Call(lambda: client.submit("f"))
        assert begun.wait(LIMIT)
        client.close()
        closed.set()
        with pytest.raises(JobNotSent, match="closed by the client"):
            call.result()


def test_silent_server_does_not_keep_the_jobs_of_others_waiting(servers: list[OurServer]) -> None:
    with (
        HostileServer(silent) as blackhole,
        Worker(servers[0].address) as worker,
        Client([blackhole.address, servers[0].address], policy="round_robin") as client,
    ):
        worker.register("reverse", lambda job: job.workload[::-1])
        with working(worker):
            jobs = client.submit_many([JobRequest("reverse", b"%d!" % number) for number in range(10)])
            answered = jobs[1::2]
            done = client.as_completed(jobs, LIMIT)
            assert {next(done) for _ in answered} == set(answered)
            assert [job.outcome for job in jobs[::2]] == [None] * 5


def test_thread_that_waits_for_a_silent_server_does_not_keep_another_from_connecting(servers: list[OurServer]) -> None:
    with (
        HostileServer(silent) as blackhole,
        Client([blackhole.address, servers[0].address], policy="round_robin") as client,
    ):
        stuck = Call(client.submit("f").wait)
        poll_until(lambda: client._servers.pump._pumping, "it waits")
        handle = Call(lambda: client.submit_background("f")).result()
        assert handle.server == parse_address(servers[0].address)
        client.close()
        assert stuck.result()


# Questions


def test_status_of_a_handle_is_asked_of_the_server_that_gave_it() -> None:
    def knows(known: bool) -> Callable[[Peer], None]:
        def script(peer: Peer) -> None:
            greeted(peer)
            peer.receive_until(SubmitJobBg)
            peer.send(JobCreated(b"H:same"))
            peer.receive_until(GetStatus)
            peer.send(StatusRes(b"H:same", known, False, 0, 0))
            peer.wait_for_end()

        return script

    with (
        HostileServer(knows(False)) as first,
        HostileServer(knows(True)) as second,
        Client([first.address, second.address], policy="round_robin") as client,
    ):
        one, two = client.submit_background("f"), client.submit_background("f")
        assert one == two
        assert client.status(two).known
        assert not client.status(one).known


def test_status_of_a_plain_handle_or_unique_is_asked_of_each_server_until_one_knows_it(
    servers: list[OurServer],
) -> None:
    addresses = [server.address for server in servers]
    with Client(addresses[1]) as other:
        handle = other.submit_background("f", unique="u")
    with Client(addresses) as client:
        assert client.status(bytes(handle)).known
        assert client.status_unique("u").known
        assert not client.status(b"H:nobody:1").known
        assert not client.status_unique("v").known


def test_administrators_can_speak_to_each_server(servers: list[OurServer]) -> None:
    with Client([server.address for server in servers], policy="round_robin") as client:
        client.submit_background("f")
        client.submit_background("g")
        functions = [[row.function for row in client.admin_of(server.address).status()] for server in servers]
        assert functions == [[b"f"], [b"g"], []]
        client.admin_of(servers[1].address).create_function("h")
        assert {row.function for row in client.admin_of(servers[1].address).status()} == {b"g", b"h"}
        with pytest.raises(ValueError, match=r"^127\.0\.0\.1:9 is not one of this client's servers"):
            client.admin_of("127.0.0.1:9")


# Jobs as they end


def test_jobs_come_in_the_order_in_which_they_end() -> None:
    def script(peer: Peer) -> None:
        greeted(peer)
        for number in range(3):
            taken(peer, b"H:%d" % number)
        peer.send(WorkComplete(b"H:2", b"first"), WorkFail(b"H:0"), WorkComplete(b"H:1", b""))
        peer.wait_for_end()

    with HostileServer(script) as server, Client(server.address) as client:
        one, two, three = client.submit_many([JobRequest("f")] * 3)
        assert list(client.as_completed([one, two, three], LIMIT)) == [three, one, two]
        assert [job.outcome for job in (one, two, three)] == [Failed(), Completed(b""), Completed(b"first")]
        assert list(client.as_completed([two, one])) == [two, one]
    assert list(client.as_completed([])) == []


def test_jobs_that_have_not_ended_in_time_go_on() -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        greeted(peer)
        for number in range(3):
            taken(peer, b"H:%d" % number)
        peer.send(WorkComplete(b"H:0", b"early"))
        assert go.wait(LIMIT)
        peer.send(WorkComplete(b"H:2", b"late"))

    with HostileServer(script) as server, Client(server.address) as client:
        early, lost, late = jobs = client.submit_many([JobRequest("f")] * 3)
        assert early.wait(LIMIT)
        done = client.as_completed(jobs, 0.01)
        assert next(done) is early
        with pytest.raises(TimeoutError, match=r"^2 jobs have not ended within 0\.01 s; they have not been cancelled$"):
            next(done)
        go.set()
        assert list(client.as_completed(jobs, LIMIT)) == [early, late, lost]
        assert isinstance(lost.outcome, Lost)


def test_jobs_that_could_not_be_sent_come_at_once(absent: str) -> None:
    with Client(absent) as client:
        jobs = client.submit_many([JobRequest("f"), JobRequest("g")])
        assert list(client.as_completed(jobs, LIMIT)) == jobs


def test_two_threads_may_wait_for_the_same_jobs() -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        greeted(peer)
        for number in range(3):
            taken(peer, b"H:%d" % number)
        assert release.wait(LIMIT)
        peer.send(*(WorkComplete(b"H:%d" % number, b"") for number in range(3)))
        peer.wait_for_end()

    with HostileServer(script) as server, Client(server.address) as client:
        jobs = client.submit_many([JobRequest("f")] * 3)
        calls = [Call(lambda: list(client.as_completed(jobs, LIMIT))) for _ in range(3)]
        release.set()
        assert [call.result() for call in calls] == [jobs] * 3


def test_jobs_that_are_looked_at_again_and_again_remember_nobody() -> None:
    def script(peer: Peer) -> None:
        greeted(peer)
        taken(peer)
        peer.wait_for_end()

    with HostileServer(script) as server, Client(server.address) as client:
        job = client.submit("f")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                list(client.as_completed([job], 0))
        assert record_of(job)._watchers == []


@ways
def test_job_that_another_thread_submits_again_has_not_ended_for_those_who_wait(
    waiting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        HostileServer(loses_a_job, completes_a_job) as server,
        Client(server.address, retry_pauses=(0.001, 0.001)) as client,
    ):
        wait = client._servers.pump.wait

        def wait_and_be_late(done: Callable[[], bool], timeout: float | None) -> bool:
            is_done = wait(done, timeout)
            if record_of(job).retryable is not None:
                Call(lambda: client._servers.retry(record_of(job), math.inf)).result()
            return is_done

        job = client.submit("f", unique="u", resubmit=True)
        monkeypatch.setattr(client._servers.pump, "wait", wait_and_be_late)
        assert waits(waiting, client, job) == b"whole result"


def test_jobs_that_have_ended_do_not_wait_for_one_that_is_submitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[object] = []

    def takes_two_and_loses_one(peer: Peer) -> None:
        greeted(peer)
        taken(peer, b"H:1")
        taken(peer, b"H:2")
        peer.send(WorkComplete(b"H:2", b"done"))

    with (
        HostileServer(takes_two_and_loses_one) as server,
        Client(server.address, retry_pauses=(60, 60), connect_timeout=120) as client,
    ):

        def relaunch(job: JobRecord, until: float) -> None:
            order.append("again")
            client.close()

        lost, done = client.submit("f", unique="u", resubmit=True), client.submit("f")
        poll_until(lambda: record_of(lost).retryable is not None or lost.wait(0), "one is done, the other lost")
        monkeypatch.setattr(client._servers, "retry", relaunch)
        order.extend(client.as_completed([lost, done], LIMIT))
    assert order == [done, "again", lost]
    assert isinstance(done.outcome, Completed)


def test_close_while_another_thread_submits_a_job_again_ends_all_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    relaunching, go = threading.Event(), threading.Event()
    launch = ClientServers.launch

    def slow_launch(servers: ClientServers, *arguments: Any, again: bool = False) -> None:
        if again:
            relaunching.set()
            assert go.wait(LIMIT)
        launch(servers, *arguments, again=again)

    monkeypatch.setattr(ClientServers, "launch", slow_launch)
    with HostileServer(loses_a_job) as server, Client(server.address) as client:
        job = client.submit("f", unique="u", resubmit=True)
        first = Call(job.result)
        assert relaunching.wait(LIMIT)
        waits: list[Callable[[], object]] = [job.result, lambda: list(job), lambda: list(client.as_completed([job]))]
        calls = [Call(wait) for wait in waits]
        poll_until(lambda: bool(client._servers.pump._pumping) and len(client._servers.pump._waiters) == 2, "all wait")
        client.close()
        for call in calls:
            with pytest.raises(GearmanError, match="this client is closed"):
                call.result()
        go.set()
        with pytest.raises(GearmanError, match="this client is closed"):
            first.result()
        with pytest.raises(JobLost):
            job.result()


# Many background jobs


def test_many_background_jobs_give_handles_and_errors_in_their_order() -> None:
    def script(peer: Peer) -> None:
        greeted(peer)
        for _ in range(4):
            peer.receive_until(SubmitJobBg)
        peer.send(JobCreated(b"H:1"), Error(b"FULL", b"no room"), JobCreated(b"H:3"))

    with HostileServer(script) as server, Client(server.address) as client:
        one, two, three, four = client.submit_background_many([JobRequest("f")] * 4)
        assert (one, three) == (b"H:1", b"H:3")
        assert isinstance(one, JobHandle)
        assert one.server == parse_address(address_of(server))
        assert isinstance(two, JobRejected)
        assert (two.code, two.text) == (b"FULL", b"no room")
        assert isinstance(four, JobLost)


def test_many_background_jobs_that_are_not_answered_in_time_are_told_so() -> None:
    def script(peer: Peer) -> None:
        greeted(peer)
        peer.receive_until(SubmitJobBg)
        peer.send(JobCreated(b"H:1"))
        peer.wait_for_end()

    with HostileServer(script) as server, Client(server.address, timeout=0.2) as client:
        one, two = client.submit_background_many([JobRequest("f")] * 2)
        assert one == b"H:1"
        assert isinstance(two, TimeoutError)


def test_many_background_jobs_without_a_server_are_not_sent(absent: str) -> None:
    with Client(absent) as client:
        results = client.submit_background_many([JobRequest("f")] * 2)
        assert [type(result) for result in results] == [JobNotSent, JobNotSent]
        assert client.submit_background_many([]) == []


def test_task_that_breaks_a_rule_keeps_all_others_back(servers: list[OurServer]) -> None:
    addresses = [server.address for server in servers]
    for client in (Client(addresses, policy="round_robin"), Client(addresses[0])):
        with client:
            tasks = [JobRequest("f"), JobRequest("f", unique="u" * 65)]
            for submit in (client.submit_many, client.submit_background_many):
                with pytest.raises(LocalProtocolError, match="unique has 65 bytes"):
                    submit(tasks)
            for address in addresses[: len(client._servers.sessions)]:
                assert client.admin_of(address).jobs() == ()


# A thousand threads


def test_thousand_threads_that_submit_get_their_own_results() -> None:
    start = threading.Barrier(1001)

    def submit(number: int) -> bytes:
        start.wait(LIMIT)
        return client.submit("reverse", b"%d!" % number).result(LIMIT)

    with Server(port=0) as server, Worker(server.address) as worker, Client(server.address) as client:
        worker.register("reverse", lambda job: job.workload[::-1])
        with working(worker):
            calls = [Call(lambda number=number: submit(number)) for number in range(1000)]  # type: ignore[misc]
            start.wait(LIMIT)
            assert [call.result() for call in calls] == [(b"%d!" % number)[::-1] for number in range(1000)]


def test_nothing_is_left_open_with_several_servers(absent: str) -> None:
    with nothing_left_open():
        with (
            HostileServer(loses_a_job) as lossy,
            HostileServer(silent) as blackhole,
            full_listener() as listener,
            Client(
                [lossy.address, blackhole.address, absent, listener.getsockname()],
                policy="round_robin",
                connect_timeout=0.05,
            ) as client,
        ):
            jobs = client.submit_many([JobRequest("f")] * 4)
            with contextlib.suppress(TimeoutError):
                list(client.as_completed(jobs, 0.05))
        assert all(job.outcome is not None for job in jobs)
        assert client._servers.retryable == {}
