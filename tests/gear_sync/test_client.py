"""`gear_sync.Client` with servers that misbehave, with many threads, and at its end."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest

from gear_sync import Client, JobRequest, Server, Worker
from gear_sync.pump import Pump
from gearproto import (
    Completed,
    ConnectionLost,
    Failed,
    GearmanError,
    JobLost,
    JobNotSent,
    JobRejected,
    LocalProtocolError,
    Lost,
    NotSent,
    Outcome,
    Priority,
    Rejected,
    ServerError,
)
from gearproto.codec import Packet
from gearproto.packets import (
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GetStatusUnique,
    JobAssign,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
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
    WorkFail,
)
from tests.harness.hostile import HostileServer, Peer
from tests.harness.ports import HeldPort
from tests.harness.servers import OurServer, full_listener, poll_until
from tests.harness.threads import LIMIT, Call, nothing_left_open, working


def taken(peer: Peer, handle: bytes = b"H:1") -> None:
    """Take the option and a foreground job."""
    peer.receive_until(OptionReq)
    peer.send(OptionRes(b"exceptions"))
    peer.receive_until(SubmitJob)
    peer.send(JobCreated(handle))


def taken_in_silence(peer: Peer) -> None:
    """Take a foreground job, and say nothing more."""
    taken(peer)
    peer.wait_for_end()


def outcome_with(script: Callable[[Peer], None]) -> Outcome:
    """Submit a job to a hostile server, and return its outcome."""
    with HostileServer(script) as server, Client(server.address) as client:
        job = client.submit("f", b"w")
        assert job.wait(LIMIT)
        assert job.outcome is not None
        return job.outcome


def test_close_before_an_answer_is_lost() -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJob)

    assert isinstance(outcome_with(script), Lost)


def test_close_while_the_job_runs_is_lost() -> None:
    assert isinstance(outcome_with(taken), Lost)


def test_garbage_is_lost_and_says_what_came() -> None:
    def script(peer: Peer) -> None:
        taken(peer)
        peer.send(b"\0XXX\0\0\0\0\0\0\0\0")
        peer.wait_for_end()

    outcome = outcome_with(script)
    assert isinstance(outcome, Lost)
    assert "bad magic" in outcome.cause


def test_text_that_nobody_asked_for_is_lost() -> None:
    def script(peer: Peer) -> None:
        taken(peer)
        peer.send(b"hello\n")
        peer.wait_for_end()

    assert isinstance(outcome_with(script), Lost)


def test_packets_for_workers_are_lost() -> None:
    def script(peer: Peer) -> None:
        taken(peer)
        peer.send(NoJob())
        peer.wait_for_end()

    outcome = outcome_with(script)
    assert isinstance(outcome, Lost)
    assert "NO_JOB" in outcome.cause


def test_reports_for_other_handles_harm_nobody() -> None:
    def script(peer: Peer) -> None:
        taken(peer)
        peer.send(WorkComplete(b"H:other", b"x"), WorkFail(b"H:2"), WorkComplete(b"H:1", b"mine"))
        peer.wait_for_end()

    assert outcome_with(script) == Completed(b"mine")


def test_result_before_job_created_is_the_job_s() -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(OptionReq)
        peer.receive_until(SubmitJob)
        peer.send(WorkComplete(b"H:1", b"early"), OptionRes(b"exceptions"), JobCreated(b"H:1"))
        peer.wait_for_end()

    assert outcome_with(script) == Completed(b"early")


def test_result_that_came_before_the_close_is_not_lost() -> None:
    def script(peer: Peer) -> None:
        taken(peer)
        peer.send(WorkFail(b"H:1"))

    assert outcome_with(script) == Failed()


def test_error_is_rejected_with_the_server_s_words() -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(OptionReq)
        peer.send(OptionRes(b"exceptions"))
        peer.receive_until(SubmitJob)
        peer.send(Error(b"NO_WAY", b"not today"))
        peer.wait_for_end()

    assert outcome_with(script) == Rejected(b"NO_WAY", b"not today")


CONVERSATION = b"".join(
    packet.encode(b"\0RES") for packet in (OptionRes(b"exceptions"), JobCreated(b"H:1"), WorkComplete(b"H:1", b"done"))
)


@pytest.mark.parametrize("size", range(len(CONVERSATION) + 1))
def test_close_at_any_byte_is_told_truly(size: int) -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        peer.send(CONVERSATION[:size])

    outcome = outcome_with(script)
    if size == len(CONVERSATION):
        assert outcome == Completed(b"done")
    else:
        assert isinstance(outcome, Lost)


BACKGROUND = b"".join(packet.encode(b"\0RES") for packet in (OptionRes(b"exceptions"), JobCreated(b"H:1")))


def test_close_at_any_byte_of_a_background_submission_is_lost() -> None:
    def cut_at(size: int) -> Callable[[Peer], None]:
        def script(peer: Peer) -> None:
            peer.receive_until(SubmitJobBg)
            peer.send(BACKGROUND[:size])

        return script

    with (
        HostileServer(*map(cut_at, range(len(BACKGROUND) + 1))) as server,
        Client(server.address, retry_pauses=(0.001, 0.001)) as client,
    ):
        for _ in range(len(BACKGROUND)):
            with pytest.raises(JobLost):
                client.submit_background("f")
        assert client.submit_background("f") == b"H:1"


@pytest.mark.parametrize(
    "packet",
    [
        JobCreated(b"H:2"),
        StatusRes(b"H:1", True, True, 1, 2),
        StatusResUnique(b"u", True, True, 1, 2, 3),
        EchoRes(b"x"),
        OptionRes(b"exceptions"),
        Noop(),
        JobAssign(b"H:1", b"f", b""),
    ],
)
def test_packet_that_nobody_asked_for_is_lost_and_named(packet: Packet) -> None:
    def script(peer: Peer) -> None:
        taken(peer)
        peer.send(packet)
        peer.wait_for_end()

    outcome = outcome_with(script)
    assert isinstance(outcome, Lost)
    assert packet.spec.name in outcome.cause


def test_answer_over_the_packet_limit_is_lost_at_its_header() -> None:
    def script(peer: Peer) -> None:
        taken(peer)
        peer.send(b"\0RES\0\0\0\x0d\xff\xff\xff\xff")  # and not a byte more
        peer.wait_for_end()

    outcome = outcome_with(script)
    assert isinstance(outcome, Lost)
    assert "limit" in outcome.cause


def test_server_that_does_not_know_the_option_serves_all_the_same() -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(OptionReq)
        peer.send(Error(b"UNKNOWN_OPTION", b""))
        peer.receive_until(SubmitJob)
        peer.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"done"))
        peer.wait_for_end()

    assert outcome_with(script) == Completed(b"done")


def test_option_is_not_asked_for_unless_wanted() -> None:
    seen: list[object] = []

    def script(peer: Peer) -> None:
        seen.append(peer.receive())

    with (
        HostileServer(script) as server,
        Client(server.address, exceptions=False) as client,
        pytest.raises(JobLost),
    ):
        client.submit("f", b"w").result(LIMIT)
    assert seen == [SubmitJob(b"f", b"", b"w")]


RUN_AT = datetime(2030, 1, 2, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("submit", "packet"),
    [
        (lambda c: c.submit("ü", b"w", unique="ü"), SubmitJob("ü".encode(), "ü".encode(), b"w")),
        (lambda c: c.submit(b"\xff", unique=b"\xff"), SubmitJob(b"\xff", b"\xff", b"")),
        (lambda c: c.submit("f", priority=Priority.HIGH), SubmitJobHigh(b"f", b"", b"")),
        (lambda c: c.submit("f", priority=Priority.LOW), SubmitJobLow(b"f", b"", b"")),
        (lambda c: c.submit("f", b"w", reducer="r"), SubmitReduceJob(b"f", b"", b"r", b"", b"w")),
        (lambda c: c.submit_many([JobRequest(function="f", unique="u")]), SubmitJob(b"f", b"u", b"")),
        (lambda c: c.submit_background("f", b"w"), SubmitJobBg(b"f", b"", b"w")),
        (lambda c: c.submit_background("f", priority=Priority.HIGH), SubmitJobHighBg(b"f", b"", b"")),
        (lambda c: c.submit_background("f", priority=Priority.LOW), SubmitJobLowBg(b"f", b"", b"")),
        (lambda c: c.submit_background("f", run_at=12.9), SubmitJobEpoch(b"f", b"", 12, b"")),
        (lambda c: c.submit_background("f", run_at=RUN_AT), SubmitJobEpoch(b"f", b"", 1893535200, b"")),
        (
            lambda c: c.submit_background("f", b"w", reducer="r"),
            SubmitReduceJobBackground(b"f", b"", b"r", b"", b"w"),
        ),
        (lambda c: c.status(b"H:1"), GetStatus(b"H:1")),
        (lambda c: c.status_unique("ü"), GetStatusUnique("ü".encode())),
        (lambda c: c.echo(b"\0"), EchoReq(b"\0")),
    ],
)
def test_call_is_one_packet(submit: Callable[[Client], object], packet: Packet) -> None:
    seen: list[object] = []

    def script(peer: Peer) -> None:
        seen.append(peer.receive())

    with HostileServer(script) as server, Client(server.address, exceptions=False) as client:
        with contextlib.suppress(ConnectionLost):
            submit(client)
        server.join()
    assert seen == [packet]


def test_time_without_a_zone_is_an_error() -> None:
    with Server(port=0) as server, Client(server.address) as client:
        with pytest.raises(LocalProtocolError, match="needs a time zone"):
            client.submit_background("f", run_at=datetime(2030, 1, 2))  # noqa: DTZ001
        with pytest.raises(LocalProtocolError, match="normal priority"):
            client.submit_background("f", run_at=1, priority=Priority.HIGH)
        assert client.admin.status() == ()


@pytest.fixture
def nobody() -> Iterator[tuple[str, int]]:
    """An address at which nobody listens."""
    with HeldPort() as port:
        yield port.address


def test_refused_connection_is_not_sent_and_names_the_server(nobody: tuple[str, int]) -> None:
    with Client(nobody) as client:
        for call in (lambda: client.submit("f"), lambda: client.submit_background("f")):
            with pytest.raises(JobNotSent, match=f"no server could be reached: 127.0.0.1:{nobody[1]}: "):
                call()
        with pytest.raises(ConnectionLost, match="no server could be reached"):
            client.status(b"H:1")


def test_second_server_is_used_if_the_first_cannot_be_reached(nobody: tuple[str, int]) -> None:
    with Server(port=0) as server, Client([nobody, server.address]) as client:
        assert client.echo(b"here") == b"here"


def test_next_call_after_a_loss_connects_again() -> None:
    def answer(peer: Peer) -> None:
        peer.receive_until(EchoReq)
        peer.send(OptionRes(b"exceptions"), EchoRes(b"again"))
        peer.wait_for_end()

    with HostileServer(taken, answer) as server, Client(server.address) as client:
        with pytest.raises(JobLost):
            client.submit("f").result(LIMIT)
        assert client.echo(b"again") == b"again"


def test_loss_while_nobody_waited_is_noticed_before_the_next_call() -> None:
    server = OurServer()
    try:
        with Client(server.address) as client:
            for _ in range(3):
                handle = client.submit_background("f")
                assert client.status(handle).known
                server.restart()
    finally:
        server.close()


def test_result_that_came_before_a_loss_while_nobody_waited_is_kept() -> None:
    sent = threading.Event()

    def script(peer: Peer) -> None:
        taken(peer)
        peer.send(WorkComplete(b"H:1", b"early"))

    def second(peer: Peer) -> None:
        sent.set()
        peer.receive_until(EchoReq)
        peer.send(OptionRes(b"exceptions"), EchoRes(b"x"))

    with HostileServer(script, second) as server, Client(server.address) as client:
        job = client.submit("f")
        server.wait_for_scripts(1)
        assert client.echo(b"x") == b"x"
        assert job.outcome == Completed(b"early")


def test_connection_that_ends_just_before_a_call_uses_it_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may see the end between the connecting and the use."""
    calls: list[Callable[[Client], object]] = [
        lambda client: client.echo(b""),
        lambda client: client.submit_background("f"),
        lambda client: client.status(b"H:1"),
        lambda client: client.admin.version(),
        lambda client: client.submit("f"),
        lambda client: client.submit_many(iter([JobRequest("f")]))[0],
    ]
    real = Pump.look

    def ends_once(pump: Pump) -> None:
        monkeypatch.setattr(Pump, "look", real)
        for source in pump._sources:
            source.close("ends")

    with Server(port=0) as server, Client(server.address, retry_pauses=(0.001, 0.001)) as client:
        for call in calls:
            monkeypatch.setattr(Pump, "look", ends_once)
            call(client)
        poll_until(lambda: len(client.admin.jobs()) == 2, "the job of the second last call is gone with its connection")
        assert {job.background for job in client.admin.jobs()} == {True, False}


@pytest.mark.parametrize("used", [False, True])
def test_without_room_for_another_descriptor_a_job_is_not_sent(used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with Server(port=0) as server, nothing_left_open(server_goes_on=True), Client(server.address) as client:
        if used:
            client._servers.pump.open()
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", no_room)
            patch.setattr(socket, "socketpair", no_room)
            with pytest.raises(JobNotSent, match="Too many open files"):
                client.submit("f")
            with pytest.raises(ConnectionLost, match="Too many open files"):
                client.echo(b"")
        assert client.echo(b"x") == b"x"


def test_server_that_takes_no_connection_is_given_up_after_the_time_for_connecting() -> None:
    with (
        full_listener() as listener,
        Client(listener.getsockname(), connect_timeout=0.05) as client,
        pytest.raises(JobNotSent, match=r"no answer within 0\.05 s"),
    ):
        client.submit("f")


def test_silent_server_is_found_by_probes() -> None:
    def script(peer: Peer) -> None:
        taken(peer)
        peer.receive_until(EchoReq)
        peer.wait_for_end()

    with (
        HostileServer(script) as server,
        Client(server.address, probe_interval=0.05, probe_timeout=0.05) as client,
        pytest.raises(JobLost, match="no answer to ECHO_REQ"),
    ):
        client.submit("f").result(LIMIT)


def test_every_query_has_its_time_limit() -> None:
    def script(peer: Peer) -> None:
        peer.wait_for_end()

    with HostileServer(script) as server, Client(server.address, timeout=0.01) as client:
        for call in (
            lambda: client.echo(b""),
            lambda: client.status(b"H:1"),
            lambda: client.status_unique("u"),
            lambda: client.submit_background("f"),
            client.admin.version,
            client.admin.status,
        ):
            with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
                call()


def test_lost_query_is_connection_lost_and_refused_query_server_error() -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(GetStatus)
        peer.send(OptionRes(b"exceptions"), Error(b"NO", b"never"))
        peer.receive_until(GetStatus)

    with HostileServer(script) as server, Client(server.address) as client:
        with pytest.raises(ServerError, match="NO: never"):
            client.status(b"H:1")
        with pytest.raises(ConnectionLost, match="the server closed the connection"):
            client.status(b"H:1")


def test_silent_server_is_a_timeout_and_late_answers_match_their_requests() -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJobBg)
        assert go.wait(LIMIT)
        peer.send(OptionRes(b"exceptions"), JobCreated(b"H:1"))
        peer.receive_until(GetStatus)
        peer.send(StatusRes(b"H:9", True, False, 0, 0))
        peer.wait_for_end()

    with HostileServer(script) as server, Client(server.address, timeout=0.05) as client:
        with pytest.raises(TimeoutError):
            client.submit_background("f")
        go.set()
        client._servers.settings.timeout = LIMIT
        assert client.status(b"H:9").known


def test_job_can_be_waited_for_again_after_a_timeout() -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        taken(peer)
        assert release.wait(LIMIT)
        peer.send(WorkComplete(b"H:1", b"late"))
        peer.wait_for_end()

    with HostileServer(script) as server, Client(server.address) as client:
        job = client.submit("f")
        with pytest.raises(TimeoutError, match="it has not been cancelled"):
            job.result(0.01)
        with pytest.raises(TimeoutError, match="it has not been cancelled"):
            next(job.events(0.01))
        assert not job.wait(0)
        release.set()
        assert job.result(LIMIT) == b"late"
        assert list(job.events(LIMIT)) == [Completed(b"late")]


def test_close_ends_the_waits_of_other_threads() -> None:
    with HostileServer(taken_in_silence) as server:
        client = Client(server.address)
        jobs = [client.submit("f"), client.submit("f")]
        calls = [Call(job.wait) for job in jobs]
        poll_until(lambda: jobs[0].handle is not None, "somebody pumps")
        client.close()
        client.close()
        assert [call.result() for call in calls] == [True, True]
        assert [type(job.outcome) for job in jobs] == [Lost, Lost]
        with pytest.raises(GearmanError, match="this client is closed"):
            client.submit("f")


def test_close_ends_queries_of_other_threads() -> None:
    def script(peer: Peer) -> None:
        peer.wait_for_end()

    with HostileServer(script) as server:
        client = Client(server.address, timeout=None)
        calls: list[Call[object]] = [
            Call(lambda: client.echo(b"")),
            Call(lambda: client.status(b"H:1")),
            Call(client.admin.status),
            Call(lambda: client.submit_background("f")),
        ]
        poll_until(lambda: len(client._servers.sessions[0].records._open) == 5, "all wait")
        client.close()
        for call in calls:
            with pytest.raises(ConnectionLost, match="closed by the client"):
                call.result()


def test_close_tells_what_has_left_from_what_has_not() -> None:
    closed = threading.Event()

    def script(peer: Peer) -> None:
        assert closed.wait(LIMIT)  # and reads nothing

    with HostileServer(script) as server, Client(server.address, timeout=0.05) as client:
        jobs = client.submit_many(
            [JobRequest(function="f", workload=bytes(16 * 1024 * 1024)), JobRequest(function="f")]
        )
        jobs.append(client.submit("f"))
        client.close()
        closed.set()
        assert [type(job.outcome) for job in jobs] == [Lost, NotSent, NotSent]
        with pytest.raises(JobNotSent, match="closed by the client"):
            jobs[1].result()


def test_threads_that_do_different_things_get_their_own_answers() -> None:
    def ask(name: int) -> None:
        for number in range(10):
            token = b"%d %d" % (name, number)
            handle = client.submit_background("nobody", unique=token)
            assert client.echo(token) == token
            assert client.status(handle).known
            assert client.status_unique(token).clients == 0
            assert token in {row.unique for row in client.admin.unique_jobs()}
            assert client.submit("reverse", token).result(LIMIT) == token[::-1]

    with Server(port=0) as server, Worker(server.address) as worker, Client(server.address) as client:
        worker.register("reverse", lambda job: job.workload[::-1])
        with working(worker):
            for call in [Call(lambda name=name: ask(name)) for name in range(10)]:  # type: ignore[misc]
                call.result()


def test_wrong_arguments_change_nothing() -> None:
    with Server(port=0) as server, Client(server.address) as client:
        with pytest.raises(LocalProtocolError, match="SUBMIT_JOB: function must not be empty"):
            client.submit("")
        with pytest.raises(LocalProtocolError, match="unique has 65 bytes, limit 64"):
            client.submit_many([JobRequest(function="f"), JobRequest(function="f", unique=b"u" * 65)])
        assert client.echo(b"still there") == b"still there"
        assert client.admin.status() == ()
        with pytest.raises(ValueError, match="not a valid address"):
            Client("host:port")


def test_threads_that_share_a_client_get_their_own_results() -> None:
    wrong: list[bytes] = []

    def submit(name: int) -> None:
        for number in range(10):
            workload = b"%d %d" % (name, number)
            if client.submit("reverse", workload).result(LIMIT) != workload[::-1]:
                wrong.append(workload)

    with Server(port=0) as server, Worker(server.address) as worker, Client(server.address) as client:
        worker.register("reverse", lambda job: job.workload[::-1])
        with working(worker):
            for call in [Call(lambda name=name: submit(name)) for name in range(100)]:  # type: ignore[misc]
                call.result()
        assert wrong == []


def test_thread_that_leaves_hands_the_pump_over() -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        taken(peer, b"H:1")
        peer.receive_until(SubmitJob)
        peer.send(JobCreated(b"H:2"), WorkComplete(b"H:1", b"first"))
        assert release.wait(LIMIT)
        peer.send(WorkComplete(b"H:2", b"second"))
        peer.wait_for_end()

    with HostileServer(script) as server, Client(server.address) as client:
        first, second = client.submit("f"), client.submit("f")
        pumping, waiting = Call(lambda: first.result(LIMIT)), Call(lambda: second.result(LIMIT))
        assert pumping.result() == b"first"
        release.set()
        assert waiting.result() == b"second"


def test_two_full_buffers_do_not_wait_for_each_other() -> None:
    size = 16 * 1024 * 1024

    def script(peer: Peer) -> None:
        peer.receive_until(OptionReq)
        peer.send(OptionRes(b"exceptions"), WorkComplete(b"H:1", b"r" * size))  # before it reads on
        packet = peer.receive_until(SubmitJob)
        assert isinstance(packet, SubmitJob)
        assert len(packet.workload) == size
        peer.send(JobCreated(b"H:1"))
        peer.wait_for_end()

    with HostileServer(script) as server, Client(server.address) as client:
        assert len(client.submit("f", b"w" * size).result(LIMIT)) == size


def test_nothing_is_left_open() -> None:
    with nothing_left_open():
        for script in (taken, lambda peer: None, taken_in_silence):
            with (
                HostileServer(script) as server,
                Client(server.address) as client,
                contextlib.suppress(JobNotSent),  # the server may be quicker to close than the client to submit
            ):
                job = client.submit("f")
                if script is taken:
                    assert job.wait(LIMIT)


def test_rejected_background_job_raises() -> None:
    with Server(port=0, max_jobs=1) as server, Client(server.address) as client:
        client.submit_background("f")
        with pytest.raises(JobRejected) as caught:
            client.submit_background("f")
        assert (caught.value.code, caught.value.text) == (b"QUEUE_ERROR", b"Job queue is full")
