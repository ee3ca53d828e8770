"""No call of the engine takes long, however much is due at once or left behind: shown by counting function calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gearproto.packets import (
    CanDo,
    CanDoTimeout,
    GrabJobUniq,
    PreSleep,
    ResetAbilities,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
)
from tests.harness.counting import calls
from tests.harness.engine import Bench, Peer

Scene = Callable[[Bench, int], list[Callable[[], object]]]
"""Makes something much, and returns the calls with which it begins."""


def disconnecting(bench: Bench, *peers: Peer) -> list[Callable[[], object]]:
    def disconnect(peer: Peer) -> Callable[[], object]:
        return lambda: bench.engine.disconnect(peer.id, bench.now)

    return [disconnect(peer) for peer in peers]


def sending(bench: Bench, data: bytes, *peers: Peer) -> list[Callable[[], object]]:
    def send(peer: Peer) -> Callable[[], object]:
        return lambda: bench.engine.receive_data(peer.id, data, bench.now)

    return [send(peer) for peer in peers]


def waiting(bench: Bench, seconds: float) -> list[Callable[[], object]]:
    def wait() -> None:
        bench.now += seconds
        bench.engine.handle_timeout(bench.now)

    return [wait]


def jobs(bench: Bench, count: int, kind: type[SubmitJob | SubmitJobBg] = SubmitJobBg) -> Peer:
    client = bench.connect()
    client.send(*(kind(b"f", b"%d" % number, b"") for number in range(count))).raw()
    return client


def delayed_jobs_are_due(bench: Bench, count: int) -> list[Callable[[], object]]:
    for _ in range(10):
        bench.worker(b"f").fall_asleep()
    bench.connect().send(*[SubmitJobEpoch(b"f", b"", 1010, b"")] * count).raw()
    return waiting(bench, 10)


def jobs_are_late(bench: Bench, count: int) -> list[Callable[[], object]]:
    jobs(bench, count)
    bench.connect().send(CanDoTimeout(b"f", 1000), *[GrabJobUniq()] * count).raw()
    return waiting(bench, 1)


def jobs_of_a_client(bench: Bench, count: int) -> list[Callable[[], object]]:
    return disconnecting(bench, jobs(bench, count, SubmitJob))


def clients_of_one_job(bench: Bench, count: int) -> list[Callable[[], object]]:
    clients = [bench.connect() for _ in range(50)]
    for client in clients:
        client.send(*[SubmitJob(b"f", b"one", b"")] * (count // 50)).raw()
    return disconnecting(bench, *clients)


def jobs_of_a_worker(bench: Bench, count: int) -> list[Callable[[], object]]:
    jobs(bench, count)
    return disconnecting(bench, bench.connect().send(CanDo(b"f"), *[GrabJobUniq()] * count))


def functions_of_workers(bench: Bench, count: int) -> list[Callable[[], object]]:
    workers = [bench.worker(*(b"%d" % number for number in range(count // 20))) for _ in range(20)]
    return disconnecting(bench, *workers)


def functions_are_taken_back(bench: Bench, count: int) -> list[Callable[[], object]]:
    worker = bench.worker(*(b"%d" % number for number in range(count)))
    bench.engine.work_limit = 500
    return sending(bench, ResetAbilities().encode(), worker)


def sleepers_do_not_come(bench: Bench, count: int) -> list[Callable[[], object]]:
    for _ in range(count):
        bench.connect().send(CanDo(b"f"), GrabJobUniq(), PreSleep()).raw()
    jobs(bench, 1)
    bench.advance(3.0)
    return waiting(bench, 1)


def woken_workers_do_not_come(bench: Bench, count: int) -> list[Callable[[], object]]:
    for _ in range(count):
        bench.connect().send(CanDo(b"f"), GrabJobUniq(), PreSleep()).raw()
    jobs(bench, count)
    return waiting(bench, 1)


def lists(line: bytes) -> Scene:
    def scene(bench: Bench, count: int) -> list[Callable[[], object]]:
        bench.worker(*(b"function %d" % number for number in range(count // 2)))
        for _ in range(count // 2):
            bench.connect()
        jobs(bench, count // 2)
        bench.engine.work_limit = 500
        return sending(bench, line, *(bench.connect() for _ in range(3)))

    scene.__name__ = line.decode().strip()
    return scene


SCENES: list[Scene] = [
    delayed_jobs_are_due,
    jobs_are_late,
    jobs_of_a_client,
    clients_of_one_job,
    jobs_of_a_worker,
    functions_of_workers,
    functions_are_taken_back,
    sleepers_do_not_come,
    woken_workers_do_not_come,
    *map(lists, (b"workers\n", b"status\n", b"prioritystatus\n", b"show jobs\n", b"show unique jobs\n")),
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_no_call_does_more_than_its_share(scene: Scene) -> None:
    def longest(count: int) -> int:
        bench = Bench(checked=False, max_functions=10**6)
        engine = bench.engine
        begin = scene(bench, count)
        engine._chores.at_once, engine._chores.least = 300, 10
        most = 0
        spent = 0
        for call in begin:
            spent += calls(call)  # all at one time
        most = max(most, spent)
        for _ in range(20 * count):
            bench.settle()
            paused = list(engine.paused_peers())
            deadline = engine.next_deadline()
            if not paused and (deadline is None or deadline > bench.now):
                break
            for peer in paused:
                most = max(most, calls(lambda peer=peer: engine.resume(peer, bench.now)))  # type: ignore[misc]
            most = max(most, calls(lambda: engine.handle_timeout(bench.now)))
        else:
            raise AssertionError("it never ends")
        return most

    few = longest(2_000)
    assert few < 60_000  # as 300 steps, or 1,500 requests, make
    assert longest(8_000) <= few * 1.2
