"""`gear.Client`, with our server and with gearmand."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from gear_sync import gear
from gear_sync.gear import constants
from gearproto.packets import Error, JobCreated, SubmitJob, SubmitJobBg, WorkComplete
from tests.harness.gear_api import Shop, WatchedClient
from tests.harness.hostile import HostileServer, Peer
from tests.harness.servers import RunningServer, poll_until, running
from tests.harness.threads import LIMIT, Call


@pytest.fixture(params=["ours", pytest.param("gearmand", marks=pytest.mark.interop("gearmand"))])
def any_server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with running(request.param) as server:
        yield server


@pytest.fixture
def address(any_server: RunningServer) -> tuple[str, int]:
    return any_server.host, any_server.port


def test_loggers_and_threads_bear_the_documented_names(shop: Shop, server: gear.Server) -> None:
    before = set(threading.enumerate())
    client, worker = shop.client(server), shop.worker(server, kind=gear.TextWorker)
    assert (client.log.name, worker.log.name) == ("gear.Client.client", "gear.Worker.worker")
    assert client.getConnection().log.name == "gear.Connection.client"
    assert {thread.name for thread in set(threading.enumerate()) - before} == {
        "Gearman client poll",
        "Gearman client connect",
    }


def test_cancelling_a_job_is_reported_to_its_submitter_as_a_failure(shop: Shop, server: gear.Server) -> None:
    client = shop.client(server)
    job = gear.Job("f", b"")
    client.submitJob(job)
    request = gear.CancelJobAdminRequest(job.handle or b"")
    assert job.connection is not None
    job.connection.sendAdminRequest(request, timeout=LIMIT)
    client.finish(job)
    assert (request.response, job.failure) == (b"OK\n", True)
    client.until(lambda: client.seen.count(gear.constants.WORK_FAIL) == 1)


def test_a_job_is_kept_up_to_date(shop: Shop, address: tuple[str, int]) -> None:
    client, worker = shop.client(address), shop.worker(address, functions=("f",))
    job = gear.Job("f", b"x", unique="u")
    client.submitJob(job)
    taken = worker.getJob()
    assert (taken.handle, taken.name, taken.arguments, taken.unique) == (job.handle, "f", b"x", b"u")
    taken.sendWorkStatus(1, 4)
    taken.sendWorkData(b"a\0b")
    taken.sendWorkWarning(b"w")
    taken.sendWorkData()
    taken.sendWorkComplete(b"r")
    client.finish(job)
    assert (job.data, job.warning, job.complete, job.failure) == ([b"a\0b", b"w", b"r"], True, True, False)
    assert (job.numerator, job.denominator, job.fraction_complete) == (b"1", b"4", 0.25)
    assert job.connection is client.getConnection()
    assert b"H:" in (job.handle or b"")


def test_jobs_without_unique_reach_the_worker_without(shop: Shop, address: tuple[str, int]) -> None:
    shop.client(address).submitJob(gear.Job("f", b"x"))
    assert shop.worker(address, functions=("f",)).getJob().unique is None


def test_uniques_of_64_bytes_are_warned_of_once(
    shop: Shop, address: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    client = shop.client(address)
    for number in range(3):
        client.submitJob(gear.Job("f", b"", unique=f"{number:064}"), background=True)
        client.submitJob(gear.Job("f", b"", unique=f"{number:063}"), background=True)
    warnings = [text for text in caplog.messages if "gearmand 1.1.20 corrupts the arguments" in text]
    assert len(warnings) == 1


def test_failures(shop: Shop, address: tuple[str, int]) -> None:
    client, worker = shop.client(address), shop.worker(address, functions=("f",))
    assert client.setOption("exceptions", timeout=LIMIT)
    assert client.getConnection().options == {b"exceptions"}
    failed, raised = gear.Job("f", b""), gear.Job("f", b"")
    client.submitJob(failed)
    worker.getJob().sendWorkFail()
    client.submitJob(raised)
    worker.getJob().sendWorkException(b"oops")
    client.finish(failed)
    client.finish(raised)
    assert (failed.failure, failed.exception, raised.failure, raised.exception) == (True, None, True, b"oops")


@pytest.mark.parametrize("background", [False, True])
def test_precedences_go_first(shop: Shop, address: tuple[str, int], background: bool) -> None:
    client, worker = shop.client(address), shop.worker(address)
    for precedence in (gear.PRECEDENCE_LOW, gear.PRECEDENCE_NORMAL, gear.PRECEDENCE_HIGH):
        client.submitJob(gear.Job("f", b"%d" % precedence), background=background, precedence=precedence)
    worker.registerFunction("f")
    assert [worker.getJob().arguments for _ in range(3)] == [b"2", b"0", b"1"]


def test_a_status_query_is_made_by_hand(shop: Shop, address: tuple[str, int]) -> None:
    client, worker = shop.client(address), shop.worker(address, functions=("f",))
    job = gear.Job("f", b"")
    client.submitJob(job, background=True)

    def ask(handle: bytes) -> None:
        count = client.seen.count(constants.STATUS_RES)
        connection = client.getConnection()
        connection.sendPacket(gear.Packet(constants.REQ, constants.GET_STATUS, handle))
        client.until(lambda: client.seen.count(constants.STATUS_RES) > count)

    ask(job.handle or b"")
    assert (job.known, job.running) == (True, False)
    taken = worker.getJob()
    taken.sendWorkStatus(3, 9)
    worker.getConnection().echo(timeout=LIMIT)
    ask(job.handle or b"")
    assert (job.known, job.running, job.numerator, job.denominator) == (True, True, b"3", b"9")
    taken.sendWorkComplete()
    worker.getConnection().echo(timeout=LIMIT)
    ask(job.handle or b"")
    assert (job.known, job.running) == (False, False)
    ask(b"H:nobody:1")  # raises UnknownJobError in the hook


def test_administrative_requests(shop: Shop, address: tuple[str, int]) -> None:
    client = shop.client(address)
    job = gear.Job("f", b"", unique="u")
    client.submitJob(job)
    connection = client.getConnection()
    answers = {}
    for kind in (
        gear.StatusAdminRequest,
        gear.ShowJobsAdminRequest,
        gear.ShowUniqueJobsAdminRequest,
        gear.WorkersAdminRequest,
        gear.VersionAdminRequest,
    ):
        request = kind()
        connection.sendAdminRequest(request, timeout=LIMIT)
        answers[kind] = request.response or b""
    assert answers[gear.StatusAdminRequest] == b"f\t1\t0\t0\n.\n"
    assert job.handle is not None
    assert answers[gear.ShowJobsAdminRequest].startswith(job.handle + b"\t")
    assert answers[gear.ShowUniqueJobsAdminRequest] == b"u\n.\n"
    assert answers[gear.WorkersAdminRequest].endswith(b"\n.\n")
    assert answers[gear.VersionAdminRequest].startswith(b"OK ")
    cancel = gear.CancelJobAdminRequest(job.handle)
    connection.sendAdminRequest(cancel, timeout=LIMIT)
    assert cancel.response == b"OK\r\n"
    client.finish(job)
    assert job.failure


def test_a_blocked_get_job_outlives_its_server(shop: Shop, any_server: RunningServer, address: tuple[str, int]) -> None:
    client, worker = shop.client(address), shop.worker(address, functions=("f",))
    waiting = Call(worker.getJob)
    poll_until(lambda: worker.getConnection().state == "SLEEP", "the worker sleeps")
    any_server.restart()
    job = gear.Job("f", b"x")

    def submitted() -> bool:
        try:
            client.submitJob(job)
        except gear.GearmanError:
            return False
        return True

    poll_until(submitted, "the server is back")
    waiting.result().sendWorkComplete(b"y")
    client.finish(job)
    assert job.data == [b"y"]


def test_servers_take_turns(shop: Shop) -> None:
    servers = [shop.server(gear.Server(0)) for _ in range(3)]
    client = shop.client(*servers)
    for _ in range(6):
        client.submitJob(gear.Job("f", b""))
    assert [server.total_jobs for server in servers] == [2, 2, 2]


def test_a_server_that_refuses_is_passed_over(shop: Shop, server: gear.Server) -> None:
    def refuse(peer: Peer) -> None:
        with contextlib.suppress(EOFError):
            while True:
                refusals.append(peer.receive_until(SubmitJob))
                peer.send(Error(b"QUEUE_ERROR", b"full"))

    refusals: list[object] = []
    with HostileServer(refuse) as full:
        client = shop.client(full.address, server)
        for _ in range(4):
            client.submitJob(gear.Job("f", b""))
        client.shutdown()
    assert server.max_handle == 4
    assert refusals


def test_a_server_that_has_closed_the_connection_is_passed_over(
    shop: Shop, server: gear.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gear_sync.gear.transport.FRESH", 0.0)
    in_hook, go_on = threading.Event(), threading.Event()

    class Busy(WatchedClient):
        def handleNoop(self, packet: gear.Packet) -> None:
            in_hook.set()
            go_on.wait(LIMIT)

    with HostileServer(lambda peer: peer.send(b"\0RES\0\0\0\x06\0\0\0\0")) as closing:
        client = Busy()
        for host, port in (closing.address, ("localhost", server.port)):
            client.addServer(host, port)
        assert in_hook.wait(LIMIT)  # the thread that reads does not see the end yet
        poll_until(lambda: any(c.port == server.port for c in client.active_connections), "both are connected")
        closing.join()

        def submit() -> None:
            for _ in range(2):
                client.submitJob(gear.Job("f", b""))

        client.connection_index = [c.port for c in client.active_connections].index(server.port)
        submission = Call(submit)
        try:
            poll_until(lambda: server.max_handle >= 1, "the other server gets the job")
        finally:
            go_on.set()
        submission.result()
        client.shutdown()
    assert server.max_handle == 2


def test_a_result_may_overtake_the_answer_to_its_submission(shop: Shop) -> None:
    def hasty(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        result = WorkComplete(b"H:1", b"early").encode(constants.RES)
        peer.send(result, JobCreated(b"H:1"))
        peer.wait_for_end()

    with HostileServer(hasty) as server:
        client = shop.client(server.address)
        job = gear.Job("f", b"")
        client.submitJob(job)
        client.finish(job)
        client.shutdown()
    assert job.data == [b"early"]


def test_an_unasked_for_answer_is_no_harm(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    def chatter(peer: Peer) -> None:
        peer.send(JobCreated(b"H:9"))
        peer.receive_until(SubmitJobBg)
        peer.send(JobCreated(b"H:1"))
        peer.wait_for_end()

    with HostileServer(chatter) as server:
        client = shop.client(server.address)
        client.until(lambda: client.seen)
        job = gear.Job("f", b"")
        client.submitJob(job, background=True)
        client.shutdown()
    assert job.handle == b"H:1"
    assert "Unasked for" in caplog.text


def test_hooks_must_not_wait_for_answers(shop: Shop, server: gear.Server) -> None:
    caught: list[Exception] = []

    class Impatient(WatchedClient):
        def handleJobCreated(self, packet: gear.Packet) -> gear.Job | None:
            connection = packet.connection
            assert connection is not None
            for request in (
                lambda: self.submitJob(gear.Job("f", b"")),
                lambda: connection.sendAdminRequest(gear.VersionAdminRequest()),
                connection.echo,
                lambda: self.setOption("exceptions"),
            ):
                try:
                    request()
                except gear.GearmanError as error:
                    caught.append(error)
            return super().handleJobCreated(packet)

    client = Impatient()
    client.addServer("localhost", server.port)
    client.waitForServer(LIMIT)
    client.submitJob(gear.Job("f", b""))
    client.shutdown()
    assert len(caught) == 4
    assert server.max_handle == 1


def test_a_hook_may_shut_its_client_down(server: gear.Server) -> None:
    class Leaving(WatchedClient):
        def handleWorkComplete(self, packet: gear.Packet) -> gear.Job:
            job = super().handleWorkComplete(packet)
            self.shutdown()
            return job

    client, worker = Leaving(), gear.Worker("w")
    for end in (client, worker):
        end.addServer("localhost", server.port)
        end.waitForServer(LIMIT)
    worker.registerFunction("f")
    client.submitJob(gear.Job("f", b""))
    worker.getJob().sendWorkComplete()
    client.poll_thread.join(LIMIT)
    assert not client.poll_thread.is_alive()
    worker.shutdown()


def test_private_packet_types_reach_handle_packet(shop: Shop) -> None:
    def private(peer: Peer) -> None:
        peer.send(b"\0RES\0\0\0\x65\0\0\0\x01x\0RES\0\0\0\x06\0\0\0\0")
        peer.wait_for_end()

    with HostileServer(private) as server:
        client = shop.client(server.address)
        client.until(lambda: client.seen == [101, constants.NOOP])
        assert client.active_connections
        client.shutdown()


def test_options_are_asked_for_on_every_new_connection(shop: Shop, server: gear.Server) -> None:
    client = shop.client()
    assert client.setOption("exceptions") is True  # no server refuses
    client.addServer("localhost", server.port)
    client.waitForServer(LIMIT)
    client.until(lambda: constants.OPTION_RES in client.seen)
    assert client.options == client.getConnection().options == {b"exceptions"}


def test_the_same_server_is_added_once(shop: Shop) -> None:
    client = shop.client()
    client.addServer("localhost", 4)
    with pytest.raises(gear.ConfigurationError, match="localhost:4 has been added already"):
        client.addServer("localhost", 4)
    client.addServer("localhost", "4")
    client.addServer("127.0.0.1", 4)


def test_there_are_three_precedences(shop: Shop) -> None:
    with pytest.raises(gear.ConfigurationError, match="there is no precedence 3"):
        shop.client().submitJob(gear.Job("f", b""), precedence=3)


def test_waiting_for_a_server_takes_as_long_as_it_is_told(shop: Shop) -> None:
    client = shop.client()
    for timeout in (0, 0.01):
        with pytest.raises(gear.TimeoutError):
            client.waitForServer(timeout)
    waiting = Call(client.waitForServer)
    client.shutdown()
    with contextlib.suppress(gear.GearmanError):  # it may not have begun
        waiting.result()
    client.shutdown()


def test_a_connection_that_is_taken_for_lost_is_opened_again(shop: Shop, server: gear.Server) -> None:
    client = shop.client(server)
    connection = client.getConnection()
    session = connection.session
    client._lostConnection(connection)
    client._lostConnection(connection)
    client.waitForServer(LIMIT)
    assert client.active_connections == [connection]
    assert connection.session is not session
    assert client.inactive_connections == []


def test_names_and_threads(shop: Shop) -> None:
    client = gear.Client("näme")
    assert client.client_id == "näme".encode()
    assert client.log.name == "gear.Client.näme"
    assert repr(client) == f"<gear.Client 0x{id(client):x}>"
    threads = (client.poll_thread, client.connect_thread)
    assert [thread.name for thread in threads] == ["Gearman client poll", "Gearman client connect"]
    assert all(thread.daemon for thread in threads)
    client.shutdown()
    assert not any(thread.is_alive() for thread in threads)


def test_broadcasting_and_sending(shop: Shop, server: gear.Server) -> None:
    second = shop.server(gear.Server(0))
    client = shop.client(server, second)
    with client.broadcast_lock:
        client.broadcast(gear.Packet(constants.REQ, constants.SUBMIT_JOB_BG, b"f\0\0"))
    for each in (server, second):
        poll_until(lambda each=each: each.total_jobs == 1, "each has it")  # type: ignore[misc]
    connection = client.getConnection()
    connection.disconnect()
    with pytest.raises(gear.DisconnectError):
        client.sendPacket(gear.Packet(constants.REQ, constants.NOOP, b""), connection)
    client.broadcast(gear.Packet(constants.REQ, constants.NOOP, b""))


def test_progress_of_any_length_is_not_kept(shop: Shop) -> None:
    longest = b"1." + b"0" * 30

    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        peer.send(JobCreated(b"H:1"))
        for numerator, denominator in ((b"1", longest), (b"2", longest + b"0"), (b"3" * 10**6, b"7")):
            body = b"\0".join((b"H:1", numerator, denominator))
            peer.send(bytes(gear.Packet(constants.RES, constants.WORK_STATUS, body).toBinary()))
        peer.send(WorkComplete(b"H:1", b"r"))
        peer.wait_for_end()

    with HostileServer(script) as server:
        client, job = shop.client(server.address), gear.Job("f", b"")
        client.submitJob(job)
        client.finish(job)
        client.shutdown()
    assert (job.numerator, job.denominator) == (b"1", longest)
