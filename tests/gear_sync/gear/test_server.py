"""`gear.Server` as test programs use it."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable

import pytest

from gear_sync import gear
from gear_sync.gear import constants
from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    EchoReq,
    Error,
    GetStatus,
    GetStatusUnique,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobRequeued,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobSched,
    SubmitReduceJob,
    WorkComplete,
    WorkStatus,
)
from tests.harness.gear_api import GearServer, Shop
from tests.harness.raw import RawConnection, packet_bytes
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT, Call, nothing_left_open

Open = Callable[[], RawConnection]


class HoldingServer(gear.Server):
    """A server whose jobs stay in their queue until a test releases them, as test programs write it."""

    def __init__(self) -> None:
        self.hold = True
        self.looks = 0
        super().__init__(0)

    def getJobForConnection(self, connection: gear.ServerConnection, peek: bool = False) -> gear.ServerJob | None:
        for job_queue in [self.high_queue, self.normal_queue, self.low_queue]:
            for job in job_queue:
                self.looks += 1
                if not hasattr(job, "waiting"):
                    job.waiting = self.hold  # type: ignore[attr-defined]
                if job.waiting:  # type: ignore[attr-defined]
                    continue
                if job.name in connection.functions:
                    if not peek:
                        job_queue.remove(job)
                        connection.related_jobs[job.handle or b""] = job
                        job.worker_connection = connection
                    job.running = True
                    return job
        return None

    def release(self, pattern: bytes = b"") -> None:
        released = False
        for job in self.getQueue():
            if re.match(pattern, bytes(job.arguments)):
                job.waiting = False  # type: ignore[attr-defined]
                released = True
        if released:
            self.wakeConnections()


def test_jobs_can_be_held_back_and_released(shop: Shop) -> None:
    server = shop.server(HoldingServer())
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    waiting = Call(worker.getJob)
    poll_until(lambda: worker.getConnection().state == "SLEEP", "the worker sleeps")
    for number in range(3):
        client.submitJob(gear.Job("f", b"%d" % number))
    client.getConnection().echo(timeout=LIMIT)
    worker.getConnection().echo(timeout=LIMIT)
    assert (waiting.running, len(server.getQueue()), server.running_jobs) == (True, 3, 0)
    looks = server.looks
    worker.getConnection().echo(timeout=LIMIT)
    assert server.looks == looks  # nobody asks again and again
    server.release(b"1")
    job = waiting.result()
    assert job.arguments == b"1"
    assert [held.arguments for held in server.normal_queue] == [b"0", b"2"]
    assert server.jobs[job.handle].running
    job.sendWorkComplete()
    server.release()
    assert [worker.getJob().arguments for _ in range(2)] == [b"0", b"2"]
    assert server.getQueue() == []


def test_a_worker_that_sleeps_when_a_job_may_go_is_woken(shop: Shop, raw: Open) -> None:
    server = shop.server(HoldingServer())
    server.hold = False
    with RawConnection(GearServer(server)) as worker, RawConnection(GearServer(server)) as client:
        worker.send(PreSleep())
        worker.expect_nothing()
        worker.send(CanDo(b"f"))
        worker.expect_nothing()
        handle = client.submit(SubmitJob(b"f", b"", b"x"))
        worker.expect(Noop())
        worker.send(GrabJobUniq())
        worker.expect(JobAssignUniq(handle, b"f", b"", b"x"))
        worker.send(GrabJobUniq())
        worker.expect(NoJob())


def test_a_job_that_is_held_back_goes_to_another_worker_when_its_worker_is_lost(shop: Shop) -> None:
    server = shop.server(HoldingServer())
    server.hold = False
    with RawConnection(GearServer(server)) as lost, RawConnection(GearServer(server)) as heir:
        client = shop.client(server)
        job = gear.Job("f", b"x")
        client.submitJob(job)
        for worker in (lost, heir):
            worker.send(CanDo(b"f"))
        assert lost.grab(GrabJobUniq()).workload == b"x"
        heir.sleep()
        lost.close()
        heir.expect(Noop())
        assert heir.grab(GrabJobUniq()).workload == b"x"


def test_what_raises_while_choosing_means_that_there_is_no_job(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    class Raising(gear.Server):
        def getJobForConnection(self, connection: gear.ServerConnection, peek: bool = False) -> gear.ServerJob | None:
            raise ZeroDivisionError

    server = shop.server(Raising(0))
    with RawConnection(GearServer(server)) as peer:
        peer.send(CanDo(b"f"), SubmitJobBg(b"f", b"", b""), GrabJobUniq())
        peer.receive_any()
        peer.expect(NoJob())
    assert "Error in getJobForConnection" in caplog.text


def test_only_a_queued_job_of_the_workers_functions_can_be_chosen(shop: Shop) -> None:
    chosen: list[gear.ServerJob] = []

    class Choosing(gear.Server):
        def getJobForConnection(self, connection: gear.ServerConnection, peek: bool = False) -> gear.ServerJob | None:
            return chosen[0] if chosen else super().getJobForConnection(connection, peek)

    server = shop.server(Choosing(0))
    with RawConnection(GearServer(server)) as peer:
        peer.submit(SubmitJobBg(b"g", b"", b""))
        peer.submit(SubmitJobBg(b"f", b"", b""))
        peer.send(CanDo(b"f"))
        chosen.append(gear.ServerJob(b"H:9", b"f", b"", None))
        peer.expect_no_job()
        chosen[0] = server.getQueue()[0]
        peer.expect_no_job()
        chosen[0] = server.getQueue()[1]
        peer.grab()
        peer.expect_no_job()
        chosen.clear()
        peer.expect_no_job()


def test_counters_and_functions(server: gear.Server, raw: Open) -> None:
    client, worker = raw(), raw()
    worker.send(CanDo(b"f"), CanDoTimeout(b"g", 1000))
    first, _second = client.submit(SubmitJob(b"f", b"", b"")), client.submit(SubmitJobBg(b"f", b"", b""))
    worker.grab(GrabJobUniq())
    assert (server.total_jobs, server.running_jobs, server.waiting_jobs, server.max_handle) == (2, 1, 1, 2)
    assert server.functions == {b"f", b"g"}
    job = server.jobs[first]
    owner = job.worker_connection
    assert isinstance(owner, gear.ServerConnection)
    assert owner.functions == {b"f", b"g"}
    assert dict(owner.related_jobs) == {first: job}
    assert job.client_connection is not None
    assert dict(job.client_connection.related_jobs) == {first: job}
    worker.send(WorkStatus(first, 1, 2))
    client.receive_any()
    assert (job.numerator, job.denominator) == (b"1", b"2")
    worker.send(WorkComplete(first, b""))
    client.receive_any()
    assert (server.total_jobs, dict(owner.related_jobs), dict(job.client_connection.related_jobs)) == (1, {}, {})


def test_jobs_go_by_age_whatever_their_functions(raw: Open) -> None:
    client, worker = raw(), raw()
    order = [b"f", b"f", b"g", b"h", b"f", b"g"]
    for name in order:
        client.submit(SubmitJobBg(name, b"", b""))
    worker.send(*(CanDo(name) for name in (b"h", b"g", b"f")))
    assert [worker.grab(GrabJobUniq()).function for _ in order] == order
    worker.expect_no_job()


def test_jobs_of_lost_workers_go_first_in_their_order(server: gear.Server, raw: Open) -> None:
    client, lost, heir = raw(), raw(), raw()
    for number in range(4):
        client.submit(SubmitJobBg(b"fg"[number % 2 : number % 2 + 1], b"", b"%d" % number))
    for worker in (lost, heir):
        worker.send(CanDo(b"f"), CanDo(b"g"))
    for _ in range(3):
        lost.grab(GrabJobUniq())
    lost.close()
    poll_until(lambda: server.waiting_jobs == 4, "they are back")
    assert [heir.grab(GrabJobUniq()).workload for _ in range(4)] == [b"0", b"1", b"2", b"3"]


def test_every_request_is_answered(raw: Open) -> None:
    peer = raw()
    peer.send(OptionReq(b"exceptions"))
    peer.expect(OptionRes(b"exceptions"))
    handle = peer.submit(SubmitJobEpoch(b"f", b"u", 1, b"x"))
    peer.send(GetStatus(handle), GetStatusUnique(b"u"))
    peer.expect(StatusRes(handle, True, False, 0, 0), StatusResUnique(b"u", True, False, 0, 0, 0))
    peer.send(CanDo(b"f"))
    assert isinstance(peer.grab(GrabJob()), JobAssign)
    peer.submit(SubmitReduceJob(b"f", b"", b"r", b"", b"x"))
    assert isinstance(peer.grab(GrabJobAll()), JobAssignAll)
    peer.send(SubmitJobSched(b"f", b"", b"", b"", b"", b"", b"", b"x"))
    assert peer.receive(Error).code == b"INVALID_COMMAND"
    peer.send_bytes(packet_bytes(constants.REQ, constants.JOB_CREATED, b"H"))
    assert peer.receive(Error).code == b"INVALID_COMMAND"


def test_clients_that_ask_for_reruns_are_told_of_them_and_others_are_not(server: gear.Server, raw: Open) -> None:
    plain, asking, lost, heir = raw(), raw(), raw(), raw()
    asking.send(OptionReq(b"reruns"))
    asking.expect(OptionRes(b"reruns"))
    handle = plain.submit(SubmitJob(b"f", b"u", b"w"))
    assert asking.submit(SubmitJob(b"f", b"u", b"w")) == handle
    lost.send(CanDo(b"f"))
    lost.grab(GrabJobUniq())
    lost.close()
    poll_until(lambda: server.waiting_jobs == 1, "it is back")
    heir.send(CanDo(b"f"))
    heir.grab(GrabJobUniq())
    heir.send(WorkComplete(handle, b"r"))
    asking.expect(JobRequeued(handle), WorkComplete(handle, b"r"))
    plain.expect(WorkComplete(handle, b"r"))


def test_exceptions_reach_clients_that_have_not_asked_for_them(shop: Shop, server: gear.Server) -> None:
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    job = gear.Job("f", b"")
    client.submitJob(job)
    worker.getJob().sendWorkException(b"oops")
    client.finish(job)
    assert job.exception == b"oops"


def test_private_packet_types_can_be_served(shop: Shop) -> None:
    class Private(gear.Server):
        def handlePacket(self, packet: gear.Packet) -> None:
            if packet.ptype != 101:
                super().handlePacket(packet)
                return
            assert packet.connection is not None
            packet.connection.sendPacket(gear.Packet(constants.RES, 101, packet.data + b"!"))

    server = shop.server(Private(0))
    with RawConnection(GearServer(server)) as peer:
        peer.send_bytes(packet_bytes(constants.REQ, 101, b"hello"))
        assert peer.receive_raw() == packet_bytes(constants.RES, 101, b"hello!")
        peer.send_bytes(packet_bytes(constants.REQ, 102, b"unknown"))
        peer.expect_nothing()


def test_hooks_decide_what_is_done(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    class Deaf(gear.Server):
        def handleSubmitJob(self, packet: gear.Packet) -> None:
            if packet.getArgument(0) == b"refuse":
                assert packet.connection is not None
                self.sendError(packet.connection, b"NO", "not here")
            elif packet.getArgument(0) == b"raise":
                raise ZeroDivisionError
            else:
                super().handleSubmitJob(packet)

        def sendNoJob(self, connection: gear.Connection) -> None:
            connection.sendPacket(gear.Packet(constants.RES, constants.NOOP, b""))

    server = shop.server(Deaf(0))
    with RawConnection(GearServer(server)) as peer:
        peer.send(SubmitJob(b"refuse", b"", b""), SubmitJob(b"raise", b"", b""), GrabJobUniq())
        peer.expect(Error(b"NO", b"not here"), Noop())
        peer.submit(SubmitJob(b"f", b"", b""))
        assert server.total_jobs == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_program_may_serve_workers_itself(shop: Shop) -> None:
    class Serving(gear.Server):
        def handleGrabJobUniq(self, packet: gear.Packet) -> None:
            assert isinstance(packet.connection, gear.ServerConnection)
            job = self.getJobForConnection(packet.connection)
            if job is None:
                self.sendNoJob(packet.connection)
            else:
                self.sendJobAssignUniq(packet.connection, job)

        def handlePreSleep(self, packet: gear.Packet) -> None:
            assert isinstance(packet.connection, gear.ServerConnection)
            packet.connection.changeState("SLEEP")
            if self.getJobForConnection(packet.connection, peek=True):
                self.wakeConnection(packet.connection)

    server = shop.server(Serving(0))
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    jobs = [gear.Job("f", b"%d" % number) for number in range(3)]
    client.submitJob(jobs[0])
    first = worker.getJob()
    waiting = Call(worker.getJob)
    poll_until(lambda: any(peer.state == "SLEEP" for peer in server.active_connections), "it sleeps")
    for job in jobs[1:]:
        client.submitJob(job)
    for taken in (first, waiting.result(), worker.getJob()):
        taken.sendWorkComplete(taken.arguments)
    for job in jobs:
        client.finish(job)
    assert [job.data for job in jobs] == [[b"0"], [b"1"], [b"2"]]


def test_waking_can_be_overridden(shop: Shop) -> None:
    woken: list[gear.ServerJob | None] = []

    class Quiet(gear.Server):
        def wakeConnections(self, job: gear.ServerJob | None = None) -> None:
            woken.append(job)

    server = shop.server(Quiet(0))
    with RawConnection(GearServer(server)) as worker, RawConnection(GearServer(server)) as client:
        worker.send(CanDo(b"f"))
        worker.sleep()
        (sleeper,) = (peer for peer in server.active_connections if peer.state == "SLEEP")
        handle = client.submit(SubmitJobBg(b"f", b"", b""))
        worker.expect_nothing()
        assert woken == [server.jobs[handle]]
        server.wakeConnection(sleeper)
        worker.expect(Noop())
        assert sleeper.state == "AWAKE"
        gear.Server.wakeConnections(server)
        worker.expect_nothing()


def test_queued_foreground_jobs_of_a_client_that_left_are_dropped(server: gear.Server, raw: Open) -> None:
    client = raw()
    client.submit(SubmitJob(b"f", b"", b"foreground"))
    client.submit(SubmitJobBg(b"f", b"", b"background"))
    client.close()
    poll_until(lambda: server.total_jobs == 1, "the foreground job is dropped")
    assert server.getQueue()[0].arguments == b"background"


def test_an_answer_through_the_socket_of_a_connection_is_heard(shop: Shop) -> None:
    class Answering(gear.Server):
        def handleStatus(self, request: gear.ServerAdminRequest) -> None:
            sock = request.connection.conn
            assert sock is not None
            descriptors.append(sock.fileno())
            sent.append(sock.send(bytearray(b"f\t1\t0\t")))
            sock.sendall(b"0\n.\n")
            names.append(sock.getpeername())

    descriptors: list[int] = []
    sent: list[int] = []
    names: list[tuple[str, int]] = []
    server = shop.server(Answering(0))
    with RawConnection(GearServer(server)) as peer:
        assert peer.ask_rows(b"status") == [b"f\t1\t0\t0\n"]
        assert peer.ask(b"version").startswith(b"OK ")
        assert names[0][1] == peer.sock.getsockname()[1]
        (connection,) = server.active_connections
        (peer_sock,) = server._reactor.sockets().values()
        assert (descriptors, sent) == ([peer_sock.fileno()], [6])
        sock = connection.conn
        assert sock is not None
        sock.close()
        peer.expect_closed()
    poll_until(lambda: connection.conn is None, "it is gone")
    with pytest.raises(gear.DisconnectError):
        sock.send(b"x")
    assert sock.fileno() == -1


def test_cancelling(server: gear.Server, raw: Open) -> None:
    peer = raw()
    handle = peer.submit(SubmitJobBg(b"f", b"", b""))
    assert peer.ask(b"cancel job H:nobody:1") == b"ERR UNKNOWN_JOB\n"
    assert peer.ask(b"cancel job " + handle) == b"OK\n"
    assert server.jobs == {}
    running = peer.submit(SubmitJobBg(b"f", b"", b""))
    peer.send(CanDo(b"f"))
    peer.grab()
    assert peer.ask(b"cancel job " + running) == b"ERR UNKNOWN_JOB\n"
    assert server.running_jobs == 1


def test_where_it_listens(shop: Shop) -> None:
    for host in (None, "127.0.0.1"):
        server = shop.server(gear.Server("0", host=host))
        assert server.port == server.socket.getsockname()[1]
        with socket.create_connection(("127.0.0.1", server.port)):
            pass
        with pytest.raises(OSError, match="in use"):
            gear.Server(server.port, host=host)


def test_keepalive(shop: Shop) -> None:
    server = shop.server(gear.Server(0, keepalive=True, tcp_keepidle=11))
    shop.client(server).getConnection().echo(timeout=LIMIT)
    (peer_sock,) = server._reactor.sockets().values()
    assert peer_sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 11


def test_an_administrator_may_not_stop_it(server: gear.Server, raw: Open) -> None:
    assert raw().ask(b"shutdown").startswith(b"ERR UNKNOWN_COMMAND ")
    raw().expect_nothing()
    assert server.running
    server.shutdown()
    server.normal_queue.clear()
    server.shutdown()


def test_a_hook_may_stop_it() -> None:
    class Ending(gear.Server):
        def handleEchoReq(self, packet: gear.Packet) -> None:
            self.shutdown()

    server = Ending(0)
    with RawConnection(GearServer(server)) as peer:
        peer.send(EchoReq(b""))
        peer.expect_closed()
    server.poll_thread.join(LIMIT)
    assert not server.poll_thread.is_alive()


def test_calls_from_a_hook_are_made_at_once(shop: Shop) -> None:
    seen: list[int] = []

    class Emptying(gear.Server):
        def handleEchoReq(self, packet: gear.Packet) -> None:
            self.normal_queue.clear()
            seen.append(len(self.normal_queue))
            super().handleEchoReq(packet)

    server = shop.server(Emptying(0))
    with RawConnection(GearServer(server)) as peer:
        peer.submit(SubmitJobBg(b"f", b"", b""))
        peer.expect_nothing()
    assert seen == [0]


def test_names_and_logs(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    server = shop.server(gear.Server(0, server_id="me"))
    assert server.log.name == "gear.Server.me"
    assert (server.acl, server.statsd, server.use_ssl, server.host) == (None, None, False, None)
    caplog.set_level(logging.INFO, "gear")
    with RawConnection(GearServer(server)) as peer:
        peer.expect_nothing()
        (connection,) = server.active_connections
        assert (connection.log.name, server.poll_thread.name) == ("gear.ServerConnection.me", "Gearman client poll")
    assert "type: ECHO_REQ" in caplog.text


def test_nothing_is_left_behind() -> None:
    with nothing_left_open():
        for _ in range(3):
            gear.Server(0).shutdown()


def test_calls_of_many_threads_at_once_are_all_done(shop: Shop) -> None:
    """Each waits until the server's thread has done it; a wake-up must not be taken for another's."""
    server = shop.server(gear.Server(0))
    done: list[int] = []

    def call_often(name: int) -> None:
        for _ in range(500):
            server._call(lambda: done.append(name))

    for call in [Call(lambda name=name: call_often(name)) for name in range(4)]:  # type: ignore[misc]
        call.result()
    assert len(done) == 2000
