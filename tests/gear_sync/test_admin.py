"""`gear_sync.Client.admin`: every command against our server, and answers that make no sense."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gearproto
from gear_sync import Client, Server, Worker
from gear_sync.admin import Admin
from gearproto import ConnectionLost, JobFailed, JobRejected, LocalProtocolError, Priority, ServerError
from gearproto.admin import FunctionPriorities, FunctionStatus, JobListed, UniqueListed
from gearproto.events import Line
from tests.harness.hostile import HostileServer, Peer
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT, Call, working

COMMANDS: dict[str, Callable[[Admin], object]] = {
    "status": lambda admin: admin.status(),
    "prioritystatus": lambda admin: admin.priority_status(),
    "workers": lambda admin: admin.workers(),
    "show jobs": lambda admin: admin.jobs(),
    "show unique jobs": lambda admin: admin.unique_jobs(),
    "version": lambda admin: admin.version(),
    "verbose": lambda admin: admin.verbose(),
    "getpid": lambda admin: admin.pid(),
    "cancel job H:1": lambda admin: admin.cancel(b"H:1"),
    "create function f": lambda admin: admin.create_function("f"),
    "drop function f": lambda admin: admin.drop_function(b"f"),
    "maxqueue f": lambda admin: admin.max_queue("f"),
    "maxqueue f 1 2 3": lambda admin: admin.max_queue("f", 1, 2, 3),
    "shutdown": lambda admin: admin.shutdown(),
    "shutdown graceful": lambda admin: admin.shutdown(graceful=True),
}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(port=0, allow_shutdown=True) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, timeout=LIMIT) as client:
        yield client


# Every command


def test_status_and_priority_status_count_jobs_and_workers(client: Client) -> None:
    assert client.admin.status() == ()
    for priority in (Priority.HIGH, Priority.LOW, Priority.LOW):
        client.submit_background("f\tg", priority=priority)
    assert client.admin.status() == (FunctionStatus(b"f\tg", 3, 0, 0),)
    assert client.admin.priority_status() == (FunctionPriorities(b"f\tg", 1, 0, 2, 0),)


def test_workers_lists_connections_with_names_and_functions(server: Server, client: Client) -> None:
    (row,) = client.admin.workers()
    assert (row.address, row.client_id, row.functions) == (b"127.0.0.1", b"", ())
    with Worker(server.address, client_id="a b") as worker:
        worker.register("f", lambda job: None)
        with working(worker):
            poll_until(
                lambda: [(row.client_id, row.functions) for row in client.admin.workers()][1:] == [(b"a b", (b"f",))],
                "the worker is listed",
            )


def test_jobs_and_unique_jobs_list_what_is_queued(client: Client) -> None:
    handle = client.submit_background("f", unique="\x7f ü")
    assert client.admin.jobs() == (JobListed(handle, 0, False, True),)
    assert client.admin.unique_jobs() == (UniqueListed("\x7f ü".encode()),)


def test_version_level_and_process_are_told(client: Client) -> None:
    assert client.admin.version() == gearproto.__version__
    assert client.admin.verbose()
    assert client.admin.pid() == os.getpid()


def test_cancelled_job_fails_for_who_waits_and_is_gone(client: Client) -> None:
    job = client.submit("f")
    client.echo(b"")
    assert job.handle is not None
    client.admin.cancel(job.handle)
    with pytest.raises(JobFailed):
        job.result(LIMIT)
    with pytest.raises(ServerError, match="UNKNOWN_JOB"):
        client.admin.cancel(job.handle)


def test_functions_are_created_and_dropped(client: Client) -> None:
    client.admin.create_function("a b")
    assert [row.function for row in client.admin.status()] == [b"a b"]
    client.admin.drop_function("a b")
    assert client.admin.status() == ()
    with pytest.raises(ServerError, match="function: not found"):
        client.admin.drop_function("a b")


def test_max_queue_limits_and_is_lifted(client: Client) -> None:
    client.submit_background("f")
    client.admin.max_queue("f", 1)
    with pytest.raises(JobRejected, match="QUEUE_ERROR"):
        client.submit_background("f")
    client.admin.max_queue("f", 0, 1, 0)
    client.submit_background("f", priority=Priority.HIGH)
    with pytest.raises(JobRejected, match="QUEUE_ERROR"):
        client.submit_background("f")
    client.admin.max_queue("f")
    client.submit_background("f")


def test_shutdown_ends_the_server(client: Client, server: Server) -> None:
    client.admin.shutdown()
    assert server._thread is not None
    server._thread.join(LIMIT)
    assert not server._thread.is_alive()


def test_graceful_shutdown_lets_the_running_job_end(client: Client, server: Server) -> None:
    def f(job: object) -> bytes:
        client.admin.shutdown(graceful=True)
        return b"the last"

    with Worker(server.address) as worker:
        worker.register("f", f)
        with working(worker):
            assert client.submit("f").result(LIMIT) == b"the last"
            assert server._thread is not None
            server._thread.join(LIMIT)
            assert not server._thread.is_alive()


def test_wrong_arguments_are_errors_and_nothing_is_sent(client: Client) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: client.admin.max_queue("f", 1, 2),
        lambda: client.admin.create_function(""),
        lambda: client.admin.cancel(b""),
    ]
    for call in calls:
        with pytest.raises(LocalProtocolError):
            call()
    assert client.admin.status() == ()


# Answers of any kind


def ask(command: Callable[[Admin], object], answer: bytes) -> list[bytes]:
    """Send a command to a server that gives this answer; return the lines that it was sent."""
    lines: list[bytes] = []

    def script(peer: Peer) -> None:
        line = peer.receive()
        assert isinstance(line, Line)
        lines.append(line.text)
        peer.send(answer)

    with HostileServer(script) as server, Client(server.address, exceptions=False, timeout=LIMIT) as client:
        call = Call(lambda: command(client.admin))
        server.join()
        call.result()
    return lines


ROWS = ("status", "prioritystatus", "workers", "show jobs", "show unique jobs")
VALUES = {"version": b"OK 1\n", "verbose": b"OK 1\n", "getpid": b"OK 1\n"}


@pytest.mark.parametrize("line", COMMANDS)
def test_method_is_one_line(line: str) -> None:
    answer = b".\n" if line in ROWS else VALUES.get(line, b"OK\r\n")
    assert ask(COMMANDS[line], answer) == [line.encode()]


@pytest.mark.parametrize("line", COMMANDS)
def test_error_is_raised_with_the_server_s_code_and_words(line: str) -> None:
    with pytest.raises(ServerError) as caught:
        ask(COMMANDS[line], b"ERR UNKNOWN_COMMAND Unknown+server+command\r\n")
    assert (caught.value.code, caught.value.text) == (b"UNKNOWN_COMMAND", b"Unknown server command")


@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.parametrize("answer", [b"", b"O", b"half a row"])
def test_end_before_the_answer_is_connection_lost(line: str, answer: bytes) -> None:
    with pytest.raises(ConnectionLost):
        ask(COMMANDS[line], answer)


@pytest.mark.parametrize("line", COMMANDS)
def test_packet_instead_of_an_answer_is_connection_lost(line: str) -> None:
    with pytest.raises(ConnectionLost, match="ECHO_RES"):
        ask(COMMANDS[line], b"\0RES\0\0\0\x11\0\0\0\0")


@pytest.mark.parametrize("line", [line for line in COMMANDS if line != "show unique jobs"])  # any line is a unique
def test_answer_without_sense_is_a_server_error_that_shows_it(line: str) -> None:
    with pytest.raises(ServerError, match="MALFORMED_REPLY: nonsense"):
        ask(COMMANDS[line], b"nonsense\n.\n" if line in ROWS else b"nonsense\n")


def test_process_id_that_is_no_number_is_a_server_error_that_shows_it() -> None:
    with pytest.raises(ServerError, match="MALFORMED_REPLY: many"):
        ask(COMMANDS["getpid"], b"OK many\n")


def test_rows_that_never_end_are_a_timeout() -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"f\t1\t1\t1\n")
        peer.wait_for_end()

    with (
        HostileServer(script) as server,
        Client(server.address, exceptions=False, timeout=0.05) as client,
        pytest.raises(TimeoutError),
    ):
        client.admin.status()


def test_answer_over_the_limit_is_connection_lost() -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"f\t1\t1\t1\n" * 1000)
        peer.wait_for_end()

    with (
        HostileServer(script) as server,
        Client(server.address, exceptions=False, max_packet_size=1000, timeout=LIMIT) as client,
        pytest.raises(ConnectionLost, match="answer to status: limit 1000 bytes"),
    ):
        client.admin.status()
