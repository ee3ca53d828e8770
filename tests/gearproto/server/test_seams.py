"""What hooks, schedulers and other users of the engine may call, and when it does nothing."""

from __future__ import annotations

from typing import Any

import pytest

from gearproto.event import Event
from gearproto.packets import EchoReq, EchoRes, SetClientId, SubmitJobBg, WorkComplete
from gearproto.server import JobObserver, PeerFailed, PeerId
from gearproto.server.deadlines import Deadlines
from gearproto.server.jobs import QUEUED, Job, JobState
from tests.harness.engine import Bench, check_books


def test_requests_that_hooks_pass_on_are_answered_as_usual() -> None:
    seen: list[Any] = []

    def pass_on(_peer: int, request: Any) -> bool:
        seen.append(request)
        return False

    bench = Bench(on_request=pass_on, on_line=pass_on, version=b"7")
    peer = bench.connect()
    assert peer.ask(EchoReq(b"x")) == EchoRes(b"x")
    assert peer.command(b"version") == b"OK 7\n"
    assert seen == [EchoReq(b"x"), b"version"]


@pytest.mark.parametrize("hook", ["on_request", "on_line"])
def test_what_stands_behind_a_request_at_which_a_hook_raises_is_counted_and_served(hook: str) -> None:
    def fail(_peer: PeerId, request: Any) -> bool:
        if request in (EchoReq(b"bad"), b"bad"):
            raise KeyError("a fault of the program")
        return False

    options: dict[str, Any] = {hook: fail}
    bench = Bench(**options)
    client = bench.connect()
    bad = EchoReq(b"bad").encode() if hook == "on_request" else b"bad\n"
    with pytest.raises(KeyError):
        client.send(EchoReq(b"1"), bad, EchoReq(b"2"))
    check_books(bench.engine)
    assert list(bench.engine.paused_peers()) == [client.id]
    bench.engine.resume(client.id, bench.now)
    bench.settle()
    assert client.received() == [EchoRes(b"1"), EchoRes(b"2")]


@pytest.mark.parametrize("limit", [1, 100])
def test_peer_that_a_hook_has_closed_is_not_heard_any_more(limit: int) -> None:
    seen: list[Event] = []

    def close(peer: PeerId, request: Event) -> bool:
        seen.append(request)
        bench.engine.fail(peer, "enough")
        return True

    bench = Bench(on_request=close, work_limit=limit)
    bench.connect().send(EchoReq(b"1"), EchoReq(b"2"))
    assert seen == [EchoReq(b"1")]
    assert bench.failure() == "enough"


def test_calls_for_peers_that_are_gone_do_nothing() -> None:
    bench = Bench()
    peer = bench.worker(b"f")
    peer.leave()
    engine = bench.engine
    engine.perform(peer.id, EchoReq(b""))
    engine.wake(peer.id)
    engine.send(peer.id, b"data")
    engine.fail(peer.id, "gone")
    assert engine.worker(peer.id) is None
    assert engine.take(peer.id) is None
    assert not engine.cancel(b"H:1")
    assert not engine.waits(peer.id)
    bench.settle()
    assert not any(isinstance(event, PeerFailed) for event in bench.events())


def test_work_limit_may_be_set_at_any_time() -> None:
    engine = Bench(work_limit=7).engine
    assert engine.work_limit == 7
    engine.work_limit = 9
    assert engine.work_limit == 9


def test_compacted_engine_keeps_its_jobs() -> None:
    bench = Bench()
    handle = bench.connect().submit(SubmitJobBg(b"f", b"", b""))
    bench.engine.compact()
    assert bench.worker(b"f").grabbed() == handle


def test_traced_engine_passes_names_of_clients_on() -> None:
    bench = Bench(trace=True)
    assert bench.connect().send(SetClientId(b"me")).received() == []
    assert b" me " in bench.connect().command(b"workers")


def test_traced_engine_passes_on_who_sleeps() -> None:
    asleep: list[PeerId] = []

    class Observer(JobObserver):
        def worker_asleep(self, worker: PeerId) -> None:
            asleep.append(worker)

    worker = Bench(trace=True, observer=Observer()).worker(b"f").fall_asleep()
    assert asleep == [worker.id]


def test_worker_may_be_told_of_one_cancelled_job_after_the_other() -> None:
    bench = Bench()
    client, worker = bench.connect(), bench.worker(b"f")
    for _ in range(3):
        client.submit(SubmitJobBg(b"f", b"", b""))
        handle = worker.grabbed()
        assert client.command(b"cancel job " + handle).startswith(b"OK")
        worker.send(WorkComplete(handle, b""))
    assert not bench.engine.queue.jobs


def test_job_is_withdrawn_once() -> None:
    bench = Bench()
    handle = bench.connect().submit(SubmitJobBg(b"f", b"", b""))
    queue = bench.engine.queue
    job = queue.jobs[handle]
    queue.withdraw(job)
    withdrawn = job.state
    assert withdrawn is not JobState.QUEUED
    queue.withdraw(job)
    assert job.state is withdrawn
    queue.restore(job)
    assert bench.worker(b"f").grabbed() == handle


class _Oldest:
    def next_job(self, queue: Any, worker: Any, *, peek: bool) -> Job | None:
        return next(
            (job for job in queue.jobs.values() if job.state is QUEUED and job.function in worker.abilities), None
        )


def test_twice_as_many_are_woken_beside_a_scheduler_when_the_first_does_not_come() -> None:
    bench = Bench(scheduler=_Oldest(), worker_wakeup=1, wakeup_timeout=1.0, checked=False)
    sleepers = [bench.worker(b"f").fall_asleep() for _ in range(4)]
    bench.connect().submit(SubmitJobBg(b"f", b"", b""))
    assert [len(sleeper.received()) for sleeper in sleepers] == [1, 0, 0, 0]
    bench.advance(1.5)
    assert sum(len(sleeper.received()) for sleeper in sleepers) == 2


def test_earliest_item_comes_first_while_cancelled_ones_are_swept() -> None:
    deadlines: Deadlines[int] = Deadlines()
    entries = [deadlines.add(float(number), number) for number in range(400)]
    for entry in entries[100:]:
        deadlines.cancel(entry)
    assert deadlines.old
    popped = []
    while (item := deadlines.pop_due(1000.0)) is not None:
        popped.append(item)
    assert popped == list(range(100))
