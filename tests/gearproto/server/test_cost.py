"""What a job costs does not depend on how much else there is: shown by counting function calls, not by time.

Built-in functions count too, so a loop over many things shows unless it calls nothing. For that case the big tables
are replaced by ones that cannot be gone through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import pytest

from gearproto.packets import (
    CanDoTimeout,
    GrabJobUniq,
    PreSleep,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    WorkComplete,
)
from tests.harness.counting import calls
from tests.harness.engine import Bench, Peer

K = TypeVar("K")
V = TypeVar("V")


class Unscanned(dict[K, V]):
    """A dict that nobody goes through."""

    def __iter__(self) -> Iterator[K]:
        raise AssertionError("a table is gone through")

    def keys(self) -> NoReturn:
        raise AssertionError("a table is gone through")

    def values(self) -> NoReturn:
        raise AssertionError("a table is gone through")

    def items(self) -> NoReturn:
        raise AssertionError("a table is gone through")


def forbid_scans(bench: Bench) -> None:
    """Make every table whose size a peer decides one that cannot be gone through."""
    engine, queue = bench.engine, bench.engine.queue
    for function in queue.functions.values():
        function.workers = Unscanned(function.workers)
    for peer in engine._peers.values():
        peer.abilities = Unscanned(peer.abilities)
        peer.waiting = Unscanned(peer.waiting)
        peer.in_hand = Unscanned(peer.in_hand)
    queue.jobs = Unscanned(queue.jobs)
    queue.functions = queue.table.by_name = Unscanned(queue.functions)
    queue._by_key = Unscanned(queue._by_key)
    engine._peers = Unscanned(engine._peers)


def many_functions(bench: Bench, count: int) -> list[Peer]:
    return [bench.worker(b"f", *(b"other %d" % number for number in range(count))).fall_asleep()]


def many_sleepers(bench: Bench, count: int) -> list[Peer]:
    return [bench.worker(b"f").fall_asleep() for _ in range(count)]


def many_jobs_of_another_function(bench: Bench, count: int) -> list[Peer]:
    bench.connect().send(*[SubmitJobBg(b"other", b"", b"")] * count).raw()
    return [bench.worker(b"f").fall_asleep()]


def many_jobs_of_the_same_function(bench: Bench, count: int) -> list[Peer]:
    bench.connect().send(*[SubmitJobBg(b"f", b"", b"")] * count).raw()
    return [bench.worker(b"f")]


def many_running_jobs(bench: Bench, count: int) -> list[Peer]:
    bench.connect().send(*[SubmitJobBg(b"f", b"", b"")] * count).raw()
    bench.connect().send(CanDoTimeout(b"f", 10**9), *[GrabJobUniq()] * count).raw()
    return [bench.worker(b"f").fall_asleep()]


def many_delayed_jobs(bench: Bench, count: int) -> list[Peer]:
    bench.connect().send(*(SubmitJobEpoch(b"f", b"", 10**6 + number, b"") for number in range(count))).raw()
    return [bench.worker(b"f").fall_asleep()]


def many_uniques(bench: Bench, count: int) -> list[Peer]:
    bench.connect().send(*(SubmitJob(b"f", b"u%d" % number, b"") for number in range(count))).raw()
    return [bench.worker(b"f")]


def many_connections(bench: Bench, count: int) -> list[Peer]:
    for _ in range(count):
        bench.connect()
    return [bench.worker(b"f").fall_asleep()]


@pytest.mark.parametrize(
    ("crowd", "many"),
    [
        (many_functions, 10_000),
        (many_sleepers, 1_000),
        (many_jobs_of_another_function, 100_000),
        (many_jobs_of_the_same_function, 10_000),
        (many_running_jobs, 10_000),
        (many_delayed_jobs, 10_000),
        (many_uniques, 10_000),
        (many_connections, 1_000),
    ],
)
def test_cost_of_a_job_does_not_depend_on_how_much_else_there_is(
    crowd: Callable[[Bench, int], list[Peer]], many: int
) -> None:
    def cost(count: int) -> int:
        bench = Bench(checked=False)
        workers = crowd(bench, count)
        client = bench.connect()

        def run(job: int) -> None:
            """Submit a job, let the worker whose turn it is do it and go back to sleep."""
            client.submit(SubmitJob(b"f", b"", b"w"))
            worker = workers[job % len(workers)]
            worker.raw()
            worker.send(WorkComplete(worker.grabbed(), b"r"), GrabJobUniq(), PreSleep()).raw()
            client.raw()

        def run_all() -> None:
            for job in range(1, 21):
                run(job)

        run(0)  # the first may pay for the setting up, such as moving all sleepers from one table to another
        forbid_scans(bench)
        return calls(run_all)

    few = cost(50)
    assert few > 20 * 20
    assert cost(many) <= few * 1.05


def test_joining_and_losing_a_client_of_one_job_does_not_touch_the_others() -> None:
    def cost(count: int) -> int:
        bench = Bench(checked=False)
        many_uniques(bench, count)
        clients = [bench.connect() for _ in range(20)]
        bench.engine.queue.jobs = Unscanned(bench.engine.queue.jobs)

        def join() -> None:
            for client in clients:
                client.submit(SubmitJob(b"f", b"u7", b""))
                client.submit(SubmitJob(b"f", b"", b""))
                client.leave()

        return calls(join)

    assert cost(10_000) <= cost(20) * 1.05
