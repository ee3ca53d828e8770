"""`gear_sync.Client` with servers that misbehave, with many threads, and at its end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

import gear_sync
from gear_sync import Client, Server, Task, Worker
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
    Outcome,
    Rejected,
    ServerError,
)
from gearproto.packets import (
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    JobCreated,
    NoJob,
    OptionReq,
    OptionRes,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkFail,
)
from tests.harness.hostile import HostileServer, Peer
from tests.harness.servers import poll_until

LIMIT = 20.0  # seconds; only a hang reaches it


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


@pytest.mark.parametrize("size", range(0, len(CONVERSATION) + 1, 3))
def test_close_at_any_byte_is_told_truly(size: int) -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        peer.send(CONVERSATION[:size])

    outcome = outcome_with(script)
    if size == len(CONVERSATION):
        assert outcome == Completed(b"done")
    else:
        assert isinstance(outcome, Lost)


@pytest.fixture
def nobody() -> Iterator[tuple[str, int]]:
    """An address at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        yield host, port


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
        client._timeout = LIMIT
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
        with pytest.raises(TimeoutError, match="it goes on"):
            job.result(0.01)
        with pytest.raises(TimeoutError, match="it goes on"):
            next(job.events(0.01))
        assert not job.wait(0)
        release.set()
        assert job.result(LIMIT) == b"late"
        assert list(job.events(LIMIT)) == [Completed(b"late")]
        assert list(job.events(LIMIT)) == []


def test_close_ends_the_waits_of_other_threads() -> None:
    with HostileServer(taken_in_silence) as server:
        client = Client(server.address)
        jobs = [client.submit("f"), client.submit("f")]
        threads = [threading.Thread(target=job.wait) for job in jobs]
        for thread in threads:
            thread.start()
        poll_until(lambda: jobs[0].handle is not None, "somebody pumps")
        client.close()
        client.close()
        for thread in threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        assert [type(job.outcome) for job in jobs] == [Lost, Lost]
        with pytest.raises(GearmanError, match="this client is closed"):
            client.submit("f")


def test_wrong_arguments_change_nothing() -> None:
    with Server(port=0) as server, Client(server.address) as client:
        with pytest.raises(LocalProtocolError, match="SUBMIT_JOB: function must not be empty"):
            client.submit("")
        with pytest.raises(LocalProtocolError, match="unique has 65 bytes, limit 64"):
            client.submit_many([Task(function="f"), Task(function="f", unique=b"u" * 65)])
        assert client.echo(b"still there") == b"still there"
        assert [row.total for row in client.admin.status()] == [1]
        with pytest.raises(ValueError, match="no address"):
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
        runner = threading.Thread(target=worker.run)
        threads = [runner, *(threading.Thread(target=submit, args=(name,)) for name in range(100))]
        for thread in threads:
            thread.start()
        for thread in threads[1:]:
            thread.join(LIMIT)
            assert not thread.is_alive()
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
        results: list[bytes] = []
        pumping = threading.Thread(target=lambda: results.append(first.result(LIMIT)))
        waiting = threading.Thread(target=lambda: results.append(second.result(LIMIT)))
        pumping.start()
        waiting.start()
        pumping.join(LIMIT)
        release.set()
        waiting.join(LIMIT)
        assert results == [b"first", b"second"]


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


def test_client_of_the_parent_process_is_an_error_after_fork() -> None:
    with Server(port=0) as server, Client(server.address) as client:
        assert client.echo(b"") == b""
        client._pid -= 1  # what a child of this process would see
        with pytest.raises(GearmanError, match="belongs to the parent process"):
            client.echo(b"")
        client._pid = os.getpid()
        assert client.echo(b"x") == b"x"


def test_nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for script in (taken, lambda peer: None, taken_in_silence):
        with HostileServer(script) as server, Client(server.address) as client:
            job = client.submit("f")
            if script is taken:
                assert job.wait(LIMIT)
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_rejected_background_job_raises() -> None:
    with Server(port=0, max_jobs=1) as server, Client(server.address) as client:
        client.submit_background("f")
        with pytest.raises(JobRejected) as caught:
            client.submit_background("f")
        assert (caught.value.code, caught.value.text) == (b"QUEUE_ERROR", b"Job queue is full")


def test_package_names_what_is_public() -> None:
    assert set(gear_sync.__all__) == {"Client", "Job", "Server", "Task", "Worker", "WorkerJob"}
