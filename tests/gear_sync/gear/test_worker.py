"""`gear.Worker`."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from gear_sync import gear
from gear_sync.gear import constants
from gearproto.packets import (
    CanDo,
    CantDo,
    GrabJobUniq,
    JobAssign,
    NoJob,
    Noop,
    PreSleep,
    ResetAbilities,
    SetClientId,
)
from tests.harness.gear_api import Shop
from tests.harness.hostile import HostileServer, Peer
from tests.harness.servers import poll_until
from tests.harness.threads import LIMIT, Call


def test_the_conversation_with_a_server(shop: Shop) -> None:
    def converse(peer: Peer) -> None:
        assert peer.receive() == SetClientId(b"worker")
        assert peer.receive() == CanDo(b"f")
        assert peer.receive() == GrabJobUniq()
        peer.send(Noop(), NoJob())  # the first one crosses the request
        assert peer.receive() == PreSleep()
        peer.send(NoJob(), Noop())  # and so does the first one here
        assert peer.receive() == GrabJobUniq()
        peer.send(JobAssign(b"H:1", b"f", b"a\0b"), Noop())
        assert peer.receive() == CantDo(b"f")
        assert peer.receive() == ResetAbilities()
        assert peer.receive() == CanDo(b"g")
        with pytest.raises(EOFError):
            peer.receive()

    with HostileServer(converse) as server:
        worker = shop.worker(server.address, functions=("f",))
        assert worker.getJob().arguments == b"a\0b"
        worker.unRegisterFunction("f")
        worker.setFunctions([gear.FunctionRecord("g")])
        worker.shutdown()


def test_jobs_that_were_queued_before_the_registration_are_found(shop: Shop, server: gear.Server) -> None:
    shop.client(server).submitJob(gear.Job("f", b"x"))
    worker = shop.worker(server)
    waiting = Call(worker.getJob)
    poll_until(lambda: worker.getConnection().state == "SLEEP", "the worker sleeps")
    worker.registerFunction("f")
    assert waiting.result().arguments == b"x"


def test_threads_share_a_worker(shop: Shop, server: gear.Server) -> None:
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    waiting = [Call(worker.getJob) for _ in range(3)]
    poll_until(lambda: worker.waiting_for_jobs == 3, "all wait")
    for number in range(3):
        client.submitJob(gear.Job("f", b"%d" % number))
    assert sorted(call.result().arguments for call in waiting) == [b"0", b"1", b"2"]
    assert worker.waiting_for_jobs == 0


def test_nothing_is_asked_for_unless_somebody_waits(shop: Shop, server: gear.Server) -> None:
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    client.submitJob(gear.Job("f", b""))
    worker.getConnection().echo(timeout=LIMIT)
    assert (server.waiting_jobs, worker.getConnection().state) == (1, "IDLE")


def test_waiting_can_be_stopped_and_begun_again(shop: Shop, server: gear.Server) -> None:
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    waiting = [Call(worker.getJob) for _ in range(2)]
    poll_until(lambda: worker.waiting_for_jobs == 2, "both wait")
    worker.stopWaitingForJobs()
    for call in waiting:
        with pytest.raises(gear.InterruptedError):
            call.result()
    client.submitJob(gear.Job("f", b"x"))
    assert worker.getJob().arguments == b"x"
    worker.shutdown()
    with pytest.raises(gear.InterruptedError):
        worker.getJob()


def test_a_server_that_does_not_answer_is_left_when_waiting_is_stopped(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gear_sync.gear.worker._LAST_WAIT", 0.01)

    def ignore(peer: Peer) -> None:
        peer.receive_until(GrabJobUniq)
        peer.wait_for_end()

    with HostileServer(ignore) as server:
        worker = shop.worker(server.address, functions=("f",))
        waiting = Call(worker.getJob)
        poll_until(lambda: worker.getConnection().state == "GRAB_WAIT", "the server has been asked")
        worker.stopWaitingForJobs()
        server.join()
        with pytest.raises(gear.InterruptedError):
            waiting.result()
        worker.shutdown()


def test_a_hook_before_noop_delays_the_grab(shop: Shop, server: gear.Server) -> None:
    go_on = threading.Event()
    woken: list[int] = []

    class Spread(gear.TextWorker):
        def handleNoop(self, packet: gear.Packet) -> None:
            woken.append(server.running_jobs)
            go_on.wait(LIMIT)
            woken.append(server.running_jobs)
            super().handleNoop(packet)

    worker = shop.worker(server, functions=("f",), kind=Spread)
    waiting = Call(worker.getJob)
    poll_until(lambda: worker.getConnection().state == "SLEEP", "the worker sleeps")
    shop.client(server).submitJob(gear.TextJob("f", "é"))
    poll_until(lambda: bool(woken), "it is woken")
    go_on.set()
    assert waiting.result().arguments == "é"
    assert woken == [0, 0]


def test_job_class(shop: Shop, server: gear.Server) -> None:
    class Mine(gear.BinaryWorkerJob):
        pass

    class Worker(gear.Worker):
        job_class = Mine

    worker = shop.worker(server, functions=("f",), kind=Worker)
    shop.client(server).submitJob(gear.Job("f", b"x"))
    job = worker.getJob()
    assert type(job) is Mine
    assert job.name == b"f"


@pytest.mark.parametrize("worker_id", [None, "old name"])
def test_a_worker_has_a_name(worker_id: str | None) -> None:
    worker = gear.Worker(worker_id=worker_id) if worker_id else gear.Worker("name")
    assert worker.client_id == (worker_id or "name").encode()
    assert worker.worker_id == (worker_id or "name")
    assert repr(worker) == f"<gear.Worker 0x{id(worker):x}>"
    worker.shutdown()


def test_a_worker_without_a_name_is_refused() -> None:
    with pytest.raises(Exception, match="a worker needs a client_id"):
        gear.Worker()


def test_functions_are_validated_before_anything_changes(shop: Shop) -> None:
    worker = shop.worker(functions=("f",))
    with pytest.raises(gear.InvalidDataError, match="has to be a FunctionRecord, not str"):
        worker.setFunctions([gear.FunctionRecord("g"), "h"])  # type: ignore[list-item]
    assert list(worker.functions) == [b"f"]
    with pytest.raises(KeyError):
        worker.unRegisterFunction("g")


@pytest.mark.parametrize(
    "forget",
    [lambda worker: worker.unRegisterFunction("f"), lambda worker: worker.setFunctions([])],
    ids=["unRegisterFunction", "setFunctions"],
)
def test_a_running_job_stays_with_a_worker_that_unregisters_its_function(
    shop: Shop, server: gear.Server, forget: Callable[[gear.Worker], None]
) -> None:
    client, worker = shop.client(server), shop.worker(server, functions=("f",))
    job = gear.Job("f", b"")
    client.submitJob(job)
    taken = worker.getJob()
    forget(worker)
    taken.sendWorkComplete(b"x")
    client.finish(job)
    assert (job.failure, job.data) == (False, [b"x"])


def test_functions_may_be_assigned(shop: Shop, server: gear.Server) -> None:
    worker = shop.worker()
    worker.functions = {b"f": gear.FunctionRecord("f")}
    worker.addServer("localhost", server.port)
    worker.waitForServer(LIMIT)
    poll_until(lambda: any(peer.functions == {b"f"} for peer in server.active_connections), "the server knows it")


def test_an_assignment_that_makes_no_sense_ends_in_the_log(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    def assign(peer: Peer) -> None:
        peer.receive_until(GrabJobUniq)
        peer.send(bytes(gear.Packet(constants.RES, constants.JOB_ASSIGN_UNIQ, b"H:1").toBinary()))
        peer.send(JobAssign(b"H:1", b"f", b"x"))
        peer.wait_for_end()

    with HostileServer(assign) as server:
        worker = shop.worker(server.address, functions=("f",))
        assert worker.getJob().arguments == b"x"
        worker.shutdown()
    assert "Error in a hook" in caplog.text
