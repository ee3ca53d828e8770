"""Faults of the server that `gear` 0.16 has: none of them is here. The numbers are those of its list of weaknesses."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from functools import partial

import pytest

import gear_sync.gear.serving.reactor
from gear_sync import gear
from gear_sync.gear import constants
from gearproto.packets import (
    CanDo,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GrabJobUniq,
    JobAssignUniq,
    JobCreated,
    Noop,
    PreSleep,
    SetClientId,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkFail,
    WorkStatus,
)
from gearproto.server import Endpoint, PeerId
from tests.harness.counting import calls
from tests.harness.gear_api import GearServer, Shop, tls_files
from tests.harness.raw import RawConnection, packet_bytes
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT, Call

Open = Callable[[], RawConnection]

REQ, RES = constants.REQ, constants.RES


def header(magic: bytes, ptype: int, size: int) -> bytes:
    return struct.pack("!4sII", magic, ptype, size & 0xFFFFFFFF)


def worker_for(raw: Open, *functions: bytes) -> RawConnection:
    worker = raw()
    worker.send(*map(CanDo, functions))
    return worker


def grab(worker: RawConnection) -> JobAssignUniq:
    worker.send(GrabJobUniq())
    return worker.receive(JobAssignUniq)


def refused(peer: RawConnection, code: bytes) -> None:
    assert peer.receive(Error).code == code


def check_length(raw: Open, size: int) -> None:
    """Check that an impossible length closes that connection, and no other."""
    hostile, other = raw(), raw()
    hostile.send_bytes(header(REQ, constants.ECHO_REQ, size))
    refused(hostile, b"PACKET_TOO_LARGE")
    hostile.expect_closed()
    other.expect_nothing()


def test_s1_a_negative_length_does_not_stop_the_server(raw: Open) -> None:
    check_length(raw, -12)


def test_s2_a_length_of_minus_one_is_no_packet(raw: Open) -> None:
    check_length(raw, -1)


def test_s3_announcing_two_gibibytes_is_refused_by_the_header_alone(raw: Open) -> None:
    hostile, other = raw(), raw()
    hostile.send_bytes(header(REQ, constants.SUBMIT_JOB, 2**31) + b"f\0\0")
    refused(hostile, b"PACKET_TOO_LARGE")
    hostile.expect_closed()
    other.expect_nothing()


def test_s4_big_jobs_pass_whole(raw: Open) -> None:
    data = bytes(range(256)) * 4096 * 16  # 16 MiB
    client, worker = raw(), worker_for(raw, b"f")
    client.submit(SubmitJob(b"f", b"", data))
    assert grab(worker).workload == data


def test_s5_text_without_end_is_refused_at_the_limit(raw: Open) -> None:
    hostile, other = raw(), raw()
    hostile.send_bytes(b"x" * 8193)
    hostile.expect_closed()
    other.expect_nothing()


def test_s6_bad_magic_closes_the_connection_and_a_response_is_no_request(server: gear.Server, raw: Open) -> None:
    hostile, confused = raw(), raw()
    hostile.send_bytes(packet_bytes(b"\0XYZ", constants.SUBMIT_JOB, b"f\0\0"))
    hostile.expect_closed()
    confused.send_bytes(packet_bytes(RES, constants.SUBMIT_JOB, b"f\0\0"))
    refused(confused, b"INVALID_MAGIC")
    confused.expect_nothing()
    assert server.jobs == {}


def test_s7_incomplete_requests_are_answered_and_the_connection_goes_on(raw: Open) -> None:
    peer = raw()
    peer.send_bytes(packet_bytes(REQ, constants.SUBMIT_JOB, b"f"))
    refused(peer, b"INVALID_ARGUMENTS")
    peer.send(CantDo(b"never registered"))
    peer.expect_nothing()
    for line in (b"cancel job", b"acl grant", b"acl revoke", b"acl self-revoke"):
        assert peer.ask(line).startswith(b"ERR ")
    peer.expect_nothing()


def test_s8_a_bad_status_harms_neither_worker_nor_job(raw: Open) -> None:
    client, worker = raw(), worker_for(raw, b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    grab(worker)
    worker.send_bytes(packet_bytes(REQ, constants.WORK_STATUS, handle))
    refused(worker, b"INVALID_ARGUMENTS")
    worker.send(WorkComplete(handle, b"done"))
    client.expect(WorkComplete(handle, b"done"))


def test_s9_function_names_need_not_be_text(server: gear.Server, raw: Open) -> None:
    admin, worker = raw(), worker_for(raw, b"\xff\xfe")
    worker.expect_nothing()
    assert admin.ask_rows(b"status") == [b"\\xff\\xfe\t0\t0\t1\n"]
    worker.close()
    poll_until(lambda: len(server.active_connections) == 1, "the worker is gone")
    assert admin.ask_rows(b"status") == [b"\\xff\\xfe\t0\t0\t0\n"]


def test_s10_names_cannot_forge_or_end_answers(raw: Open) -> None:
    admin, worker = raw(), worker_for(raw, b"f\n.\ng\t9")
    worker.send(SetClientId(b"a b\n.\nc"))
    worker.expect_nothing()
    assert admin.ask_rows(b"status") == [b"f\\x0a.\\x0ag\\x099\t0\t0\t1\n"]
    (row,) = (row for row in admin.ask_rows(b"workers") if b"a" in row.split()[2])
    assert row.split(b" ", 2)[2] == b"a\\x20b\\x0a.\\x0ac : f\\x0a.\\x0ag\\x099\n"


class CountingBytes(bytes):
    """Bytes that know into how many parts they have been split."""

    most = 0

    def split(self, sep: bytes | None = None, maxsplit: int = -1) -> list[bytes]:  # type: ignore[override]
        parts = super().split(sep, maxsplit)
        CountingBytes.most = max(CountingBytes.most, len(parts))
        return parts


def test_s11_payloads_of_nuls_are_not_split(server: gear.Server) -> None:
    packet = gear.Packet(REQ, constants.SUBMIT_JOB, CountingBytes(b"f\0u\0" + bytes(1000)))
    assert packet.getArgument(0) == b"f"
    assert packet.getArgument(2, last=True) == bytes(1000)
    repr(packet)
    assert CountingBytes.most == 4


def test_s12_background_jobs_survive_their_workers(raw: Open) -> None:
    client, lost = raw(), worker_for(raw, b"f")
    handle = client.submit(SubmitJobBg(b"f", b"", b"x"))
    grab(lost)
    lost.close()
    heir = worker_for(raw, b"f")
    poll_until(lambda: client.ask_rows(b"status")[0].split(b"\t")[2] == b"0", "the job is back in its queue")
    assert grab(heir).handle == handle


def test_s13_foreground_jobs_survive_their_workers_and_clients_see_nothing_of_it(raw: Open) -> None:
    client, lost = raw(), worker_for(raw, b"f")
    handle = client.submit(SubmitJob(b"f", b"", b"x"))
    grab(lost)
    lost.close()
    heir = worker_for(raw, b"f")
    heir.send(GrabJobUniq())
    while not isinstance(got := heir.receive_any(), JobAssignUniq):  # perhaps the loss has not been noticed yet
        heir.send(GrabJobUniq())
    heir.send(WorkComplete(handle, b"done"))
    client.expect(WorkComplete(handle, b"done"))
    assert got.handle == handle


def test_s14_only_the_worker_of_a_job_reports_on_it(raw: Open) -> None:
    client, worker, forger = raw(), worker_for(raw, b"f"), raw()
    handle = client.submit(SubmitJob(b"f", b"", b""))
    grab(worker)
    forger.send(WorkComplete(handle, b"forged"))
    refused(forger, b"JOB_NOT_FOUND")
    worker.send(WorkComplete(handle, b"real"))
    client.expect(WorkComplete(handle, b"real"))


def test_s15_nobody_reports_on_a_queued_job(server: gear.Server, raw: Open) -> None:
    client, forger = raw(), raw()
    handle = client.submit(SubmitJob(b"f", b"", b""))
    forger.send(WorkComplete(handle, b"forged"))
    refused(forger, b"JOB_NOT_FOUND")
    client.expect_nothing()
    assert (server.total_jobs, server.running_jobs, server.waiting_jobs) == (1, 0, 1)


def test_s16_a_client_that_resets_its_connection_costs_its_worker_nothing(server: gear.Server, raw: Open) -> None:
    leaver, stayer, worker = raw(), raw(), worker_for(raw, b"f")
    first, second = leaver.submit(SubmitJob(b"f", b"", b"")), stayer.submit(SubmitJob(b"f", b"", b""))
    grab(worker)
    grab(worker)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(LIMIT)

    holding = Call(lambda: server._call(hold))
    assert held.wait(LIMIT)  # nothing is read: reset and report arrive together
    leaver.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    leaver.close()
    worker.send(WorkData(first, b"for nobody"), WorkComplete(second, b"done"))
    go_on.set()
    holding.result()
    stayer.expect(WorkComplete(second, b"done"))
    worker.expect_nothing()


def test_s17_submissions_are_taken_though_nobody_reads_the_answers(server: gear.Server, raw: Open) -> None:
    client = raw()
    client.send(*[SubmitJobBg(b"f", b"", b"x")] * 500)
    client.close()
    poll_until(lambda: len(server.getQueue()) == 500, "all 500 are queued")


def test_s18_a_client_that_sends_no_more_still_gets_its_results(raw: Open) -> None:
    client, worker = raw(), worker_for(raw, b"f")
    client.send(SubmitJob(b"f", b"", b"x"))
    client.sock.shutdown(socket.SHUT_WR)
    handle = client.receive(JobCreated).handle
    assert grab(worker).handle == handle
    worker.send(WorkComplete(handle, b"done"))
    client.expect(WorkComplete(handle, b"done"))
    client.expect_closed()


def test_s19_jobs_of_one_unique_are_one_job(server: gear.Server, raw: Open) -> None:
    client = raw()
    assert len({client.submit(SubmitJob(b"f", b"unique", b"x")) for _ in range(3)}) == 1
    assert server.total_jobs == 1


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers keep little of what clients do not read."""
    limited = partial(Endpoint, pause_at=2**20, max_unsent=2**20, max_behind=2**20)
    monkeypatch.setattr(gear_sync.gear.serving.reactor, "Endpoint", limited)


@pytest.mark.usefixtures("small_limits")
def test_s20_what_a_client_does_not_read_is_limited(server: gear.Server, raw: Open) -> None:
    client, worker = raw(), worker_for(raw, b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    grab(worker)
    piece = WorkData(handle, bytes(2**18))
    for _ in range(200):
        worker.send(piece)
        if len(server.active_connections) == 1:
            break
    poll_until(lambda: len(server.active_connections) == 1, "the client that does not read is closed")


def on_server(server: gear.Server, action: Callable[[], object]) -> int:
    """Count the function calls of something that is done in the server's thread."""
    counts: list[int] = []
    server._call(lambda: counts.append(calls(action)))
    return counts[0]


def test_s21_a_grab_costs_the_same_however_many_other_jobs_wait(server: gear.Server, raw: Open) -> None:
    client, worker = raw(), worker_for(raw, b"f")
    client.submit(SubmitJobBg(b"f", b"", b""))
    worker.expect_nothing()
    connection = next(connection for connection in server.active_connections if connection.functions)

    def cost() -> int:
        return on_server(server, lambda: server.getJobForConnection(connection, peek=True))

    few = cost()
    client.send(*[SubmitJobBg(b"other", b"", b"")] * 3000)
    poll_until(lambda: server.total_jobs == 3001, "all are queued")
    assert cost() == few


def test_s22_leaving_costs_a_client_no_more_than_its_own_jobs(shop: Shop, raw: Open, server: gear.Server) -> None:
    def cost(count: int) -> int:
        own = gear.Server(0)
        other, leaver = (RawConnection(GearServer(shop.server(own))) for _ in range(2))
        for client in (other, leaver):
            client.send(*[SubmitJob(b"f", b"", b"")] * count)
        poll_until(lambda: own.total_jobs == 2 * count, "all are queued")
        id_ = own.active_connections[1].peer  # type: ignore[attr-defined]
        engine = own._engine.engine
        counted = on_server(own, lambda: engine.disconnect(id_, 0.0))
        assert own.total_jobs == count
        for client in (other, leaver):
            client.close()
        return counted

    assert cost(1000) <= 11 * cost(100)


def test_s23_one_job_wakes_one_sleeper(server: gear.Server, raw: Open) -> None:
    sleepers = [worker_for(raw, b"f") for _ in range(40)]
    for sleeper in sleepers:
        sleeper.send(PreSleep())
        sleeper.expect_nothing()
    raw().submit(SubmitJobBg(b"f", b"", b""))
    wakeups = 0
    for sleeper in sleepers:
        sleeper.send(EchoReq(b"end"))
        while isinstance(packet := sleeper.receive_any(), Noop):
            wakeups += 1
        assert packet == EchoRes(b"end")
    assert wakeups == 1


def test_s24_functions_that_nobody_uses_are_forgotten(server: gear.Server, raw: Open) -> None:
    client, worker = raw(), raw()
    for number in range(200):
        name = b"f%d" % number
        worker.send(CanDo(name))
        handle = client.submit(SubmitJobBg(name, b"", b""))
        grab(worker)
        worker.send(WorkComplete(handle, b""), CantDo(name))
    worker.expect_nothing()
    assert len(client.ask_rows(b"status")) == 100
    assert len(server.functions) == 100


def test_s25_who_waits_for_a_cancelled_job_is_told(raw: Open) -> None:
    client, admin = raw(), raw()
    handle = client.submit(SubmitJob(b"f", b"", b""))
    assert admin.ask(b"cancel job " + handle).startswith(b"OK")
    client.expect(WorkFail(handle))


def test_s26_a_silent_peer_of_a_tls_server_holds_nobody_up(shop: Shop) -> None:
    server = shop.server(gear.Server(0, *tls_files()))
    with socket.create_connection(("localhost", server.port)):
        shop.client(server, tls=tls_files()).getConnection()


def test_s27_failed_handshakes_hold_nobody_up_and_files_are_read_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = shop.server(gear.Server(0, *tls_files()))
    pauses: list[object] = []
    monkeypatch.setattr(type(server._reactor._listeners), "pause", lambda self, until: pauses.append(until))
    monkeypatch.setattr("gear_sync.gear.server.server_context", None)
    for _ in range(3):
        stranger = shop.standing(gear.Connection("localhost", server.port, *tls_files(ca="strangers")))
        with pytest.raises(gear.ConnectionError):
            stranger.connect()
    shop.client(server, tls=tls_files()).getConnection()
    assert pauses == []


def test_s28_many_connections_may_wait_to_be_accepted(server: gear.Server) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(LIMIT)

    holding = Call(lambda: server._call(hold))
    assert held.wait(LIMIT)
    waiting = [socket.socket() for _ in range(60)]
    for sock in waiting:
        sock.settimeout(LIMIT)
        sock.connect(("127.0.0.1", server.port))
    assert not server.active_connections
    go_on.set()
    holding.result()
    poll_until(lambda: len(server.active_connections) == 60, "all are accepted")
    for sock in waiting:
        sock.close()


def test_s29_patterns_are_text_and_can_be_changed(shop: Shop) -> None:
    acl = gear.ACL()
    acl.add(gear.ACLEntry("boss", register="f", invoke="f", grant=True))
    server = shop.server(gear.Server(0, *tls_files(), acl=acl))
    boss = shop.client(server, tls=tls_files("client", "boss"))
    boss.submitJob(gear.Job("f", b""))
    with pytest.raises(gear.GearmanError, match="Permission denied by ACL"):
        boss.submitJob(gear.Job("g", b""))
    assert ask(boss, b"acl grant invoke boss [fg]") == b"OK\n"
    boss.submitJob(gear.Job("g", b""))
    assert ask(boss, b"acl revoke invoke boss") == b"OK\n"
    with pytest.raises(gear.GearmanError, match="Permission denied by ACL"):
        boss.submitJob(gear.Job("f", b""))
    with pytest.raises(gear.ACLError, match="not a valid regular expression"):
        acl.grantInvoke("boss", "(")


class Ask(gear.AdminRequest):
    """Any command that is answered by one line."""

    def __init__(self, line: bytes) -> None:
        super().__init__()
        self.command = line

    def isComplete(self, data: bytes) -> tuple[bool, bytes | None]:
        line, newline, rest = data.partition(b"\n")
        self.response = line + newline
        return bool(newline), rest


def ask(client: gear.Client, line: bytes) -> bytes:
    request = Ask(line)
    client.getConnection().sendAdminRequest(request, timeout=LIMIT)
    assert request.response is not None
    return request.response


@pytest.mark.parametrize("kind", [gear.Server, gear.Client, gear.Worker])
def test_s30_threads_start_when_the_object_is_whole(kind: type[gear.BaseClientServer]) -> None:
    had: list[set[str]] = []

    class Half(kind):  # type: ignore[misc,valid-type]
        def _poll_loop(self) -> None:
            had.append(set(vars(self)))
            super()._poll_loop()

    whole = Half(0) if kind is gear.Server else Half("half")
    poll_until(lambda: bool(had), "the thread runs")
    assert had == [set(vars(whole))]
    whole.shutdown()


def test_results_pass_in_full(raw: Open) -> None:
    client, worker = raw(), worker_for(raw, b"f")
    handle = client.submit(SubmitJob(b"f", b"", b""))
    grab(worker)
    worker.send(WorkStatus(handle, 1, 2), WorkData(handle, b"\0"), WorkComplete(handle, b"r"))
    client.expect(WorkStatus(handle, 1, 2), WorkData(handle, b"\0"), WorkComplete(handle, b"r"))


def test_job_that_has_lost_three_workers_waits_before_it_is_handed_out_again(server: gear.Server, raw: Open) -> None:
    client, sleeper = raw(), raw()
    handle = client.submit(SubmitJob(b"f", b"", b"w"))
    for _ in range(3):
        with worker_for(raw, b"f") as worker:
            assert grab(worker).handle == handle
        poll_until(lambda: not server.jobs[handle].running, "the server knows that the worker has gone")
    sleeper.send(CanDo(b"f"))
    sleeper.sleep()
    assert (list(server.normal_queue), server.waiting_jobs) == ([], 1)
    sleeper.expect(Noop())
    assert grab(sleeper).handle == handle


def test_peer_may_be_disconnected_twice(server: gear.Server, raw: Open) -> None:
    peer = raw()
    handle = peer.submit(SubmitJobBg(b"f", b"", b"w"))
    peer.close()
    poll_until(lambda: not server.active_connections, "the server knows that the peer has gone")
    server._call(lambda: server._engine.engine.disconnect(PeerId(1), 0.0))
    assert grab(worker_for(raw, b"f")).handle == handle
