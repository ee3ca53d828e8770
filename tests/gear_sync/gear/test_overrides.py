"""Methods that programs override besides the hooks: they are called, and what they raise does little harm."""

from __future__ import annotations

import threading

import pytest

from gear_sync import gear
from gear_sync.gear import constants
from gearproto.packets import GrabJobUniq, JobAssignUniq, NoJob, PreSleep
from tests.harness.gear_api import Shop, WatchedClient
from tests.harness.hostile import HostileServer, Peer
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT, Call


class RecordingWorker(gear.Worker):
    """A worker that records what it sends."""

    def __init__(self, client_id: str | bytes | None = None, worker_id: str | bytes | None = None) -> None:
        self.sent: list[int] = []
        super().__init__(client_id, worker_id)

    def sendPacket(self, packet: gear.Packet, connection: gear.Connection) -> None:
        self.sent.append(packet.ptype)
        super().sendPacket(packet, connection)


class RecordingClient(WatchedClient):
    """A client that records what it sends."""

    def __init__(self, client_id: str | bytes = "unknown") -> None:
        self.sent: list[int] = []
        super().__init__(client_id)

    def sendPacket(self, packet: gear.Packet, connection: gear.Connection) -> None:
        self.sent.append(packet.ptype)
        super().sendPacket(packet, connection)


def test_all_that_a_worker_says_passes_through_sendpacket(shop: Shop, server: gear.Server) -> None:
    worker = shop.worker(server, kind=RecordingWorker)
    assert isinstance(worker, RecordingWorker)
    worker.registerFunction("f")
    waiting = Call(worker.getJob)
    poll_until(lambda: worker.getConnection().state == "SLEEP", "it sleeps")
    shop.client(server).submitJob(gear.Job("f", b""))
    waiting.result()
    grab = constants.GRAB_JOB_UNIQ
    assert worker.sent == [constants.CAN_DO, grab, constants.PRE_SLEEP, grab]


def test_all_that_a_client_asks_for_passes_through_sendpacket(shop: Shop, server: gear.Server) -> None:
    client = shop.client(server, kind=RecordingClient)
    assert isinstance(client, RecordingClient)
    client.submitJob(gear.Job("f", b""))
    client.submitJob(gear.Job("f", b""), background=True, precedence=gear.PRECEDENCE_LOW)
    assert client.setOption("exceptions", timeout=LIMIT)
    assert client.sent == [constants.SUBMIT_JOB, constants.SUBMIT_JOB_LOW_BG, constants.OPTION_REQ]


@pytest.mark.parametrize("sends", [False, True], ids=["before", "after"])
def test_what_sendpacket_raises_means_that_a_job_was_not_sent_unless_it_was(
    shop: Shop, server: gear.Server, sends: bool
) -> None:
    class Failing(WatchedClient):
        def sendPacket(self, packet: gear.Packet, connection: gear.Connection) -> None:
            if sends:
                super().sendPacket(packet, connection)
            raise ZeroDivisionError("oops")

    client = shop.client(server, kind=Failing)
    with pytest.raises(gear.GearmanError, match="oops: the job may be queued" if sends else "no server took .*: oops"):
        client.submitJob(gear.Job("f", b""))
    assert client.getConnection().connected


def test_a_packet_that_sendpacket_drops_is_not_answered(shop: Shop, server: gear.Server) -> None:
    class Dropping(WatchedClient):
        def sendPacket(self, packet: gear.Packet, connection: gear.Connection) -> None:
            pass

    client = shop.client(server, kind=Dropping)
    with pytest.raises(gear.GearmanError, match="did not answer within"):
        client.submitJob(gear.Job("f", b""), timeout=0.01)
    assert server.total_jobs == 0


def test_a_worker_may_ask_for_jobs_by_itself(shop: Shop, server: gear.Server) -> None:
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    for connection in (None, worker.getConnection()):
        client.submitJob(gear.Job("f", b"x"))
        worker._sendGrabJobUniq(connection)
        poll_until(lambda: worker.job_queue.qsize() == 1, "it has come")
        assert worker.getJob().arguments == b"x"
        assert worker.getConnection().state == "IDLE"


def test_a_worker_that_asks_by_itself_when_it_is_woken_gets_one_job(shop: Shop, server: gear.Server) -> None:
    class Asking(gear.Worker):
        def handleNoop(self, packet: gear.Packet) -> None:
            assert packet.connection is not None
            self._sendGrabJobUniq(packet.connection)

    client, worker = shop.client(server), shop.worker(server, functions=("f",), kind=Asking)
    for number in range(2):
        waiting = Call(worker.getJob)
        poll_until(lambda: worker.getConnection().state == "SLEEP", "it sleeps")
        client.submitJob(gear.Job("f", b"%d" % number))
        assert waiting.result().arguments == b"%d" % number
        assert (worker.getConnection().state, worker.job_queue.qsize()) == ("IDLE", 0)


def test_what_raises_while_a_worker_asks_is_logged_and_tried_again_after_a_while(
    shop: Shop, server: gear.Server, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(gear.Worker):
        tries = 0

        def _sendGrabJobUniq(self, connection: gear.Connection | None = None) -> None:
            self.tries += 1
            if self.tries < 3:
                raise ZeroDivisionError
            super()._sendGrabJobUniq(connection)

    worker = shop.worker(server, functions=("f",), kind=Failing)
    shop.client(server).submitJob(gear.Job("f", b"x"))
    assert worker.getJob().arguments == b"x"
    assert caplog.text.count("No connection to") == 2


def test_lostconnection_is_called_with_one_argument_and_may_raise(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(WatchedClient):
        def _lostConnection(self, conn: gear.Connection) -> None:
            lost.append(conn)
            raise ZeroDivisionError

    lost: list[gear.Connection] = []
    again = threading.Event()

    def come_back(peer: Peer) -> None:
        again.set()
        peer.wait_for_end()

    with HostileServer(lambda _peer: None, come_back) as server:
        client = shop.client(server.address, wait=False, kind=Failing)
        assert again.wait(LIMIT)
        poll_until(lambda: lost == client.active_connections, "it is connected again")
        client.shutdown()
        server.join()
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


def test_lostconnection_need_not_call_the_inherited_one(shop: Shop) -> None:
    class Silent(WatchedClient):
        def _lostConnection(self, conn: gear.Connection) -> None:
            pass

    again = threading.Event()

    def come_back(peer: Peer) -> None:
        again.set()
        peer.wait_for_end()

    with HostileServer(lambda _peer: None, come_back) as server:
        client = shop.client(server.address, wait=False, kind=Silent)
        assert again.wait(LIMIT)
        client.shutdown()
        server.join()


@pytest.mark.parametrize("method", ["_onConnect", "_onActiveConnection"])
def test_what_a_method_for_new_connections_raises_does_not_stop_a_client(
    shop: Shop, server: gear.Server, method: str
) -> None:
    def fail(self: WatchedClient, conn: gear.Connection) -> None:
        calls.append(conn)
        if len(calls) == 1:
            raise ZeroDivisionError

    calls: list[gear.Connection] = []
    client = shop.client(server, kind=type("Failing", (WatchedClient,), {method: fail}))
    client.submitJob(gear.Job("f", b""))


def test_after_waiting_was_stopped_the_state_is_idle(shop: Shop, server: gear.Server) -> None:
    worker = shop.worker(server, functions=("f",))
    for _ in range(2):
        waiting = Call(worker.getJob)
        poll_until(lambda: worker.getConnection().state == "SLEEP", "it sleeps")
        worker.stopWaitingForJobs()
        with pytest.raises(gear.InterruptedError):
            waiting.result()
        assert worker.getConnection().state == "IDLE"
    shop.client(server).submitJob(gear.Job("f", b"x"))
    assert worker.getJob().arguments == b"x"


def test_the_queue_of_jobs_is_a_queue(shop: Shop, server: gear.Server) -> None:
    worker = shop.worker(server, functions=("f",))
    waiting = Call(worker.getJob)
    poll_until(lambda: worker.waiting_for_jobs == 1, "it waits")
    job = gear.WorkerJob(b"H:1", "f", b"x")
    worker.job_queue.put(job)
    assert waiting.result() is job
    worker.job_queue.put_nowait(None)
    with pytest.raises(gear.InterruptedError):
        worker.getJob()
    assert worker.job_queue.empty()


def test_a_server_that_assigns_a_job_to_a_worker_that_asked_by_itself_is_asked_again(shop: Shop) -> None:
    def converse(peer: Peer) -> None:
        peer.receive_until(GrabJobUniq)
        peer.send(NoJob())
        assert peer.receive() == PreSleep()
        assert peer.receive() == GrabJobUniq()
        peer.send(JobAssignUniq(b"H:1", b"f", b"", b"1"))
        assert peer.receive() == GrabJobUniq()
        peer.send(JobAssignUniq(b"H:2", b"f", b"", b"2"))
        peer.wait_for_end()

    with HostileServer(converse) as server:
        worker = shop.worker(server.address, functions=("f",))
        waiting = Call(worker.getJob)
        poll_until(lambda: worker.getConnection().state == "SLEEP", "it sleeps")
        worker._sendGrabJobUniq(worker.getConnection())
        assert [waiting.result().arguments, worker.getJob().arguments] == [b"1", b"2"]
        worker.shutdown()
        server.join()
