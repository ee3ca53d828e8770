"""The lists of queued jobs that `gear.Server` shows, and what programs change in them."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import pytest

from gear_sync import gear
from gearproto.packets import CanDo, GrabJobUniq, SubmitJob, SubmitJobBg, SubmitJobHigh, SubmitJobLow
from tests.harness.gear_api import GearServer, Shop
from tests.harness.raw import RawConnection
from tests.harness.servers import poll_until
from tests.harness.threads import Call

Open = Callable[[], RawConnection]


def workloads(jobs: list[gear.ServerJob]) -> list[bytes]:
    return [bytes(job.arguments) for job in jobs]


def taken(worker: RawConnection, count: int) -> list[bytes]:
    return [worker.grab(GrabJobUniq()).workload for _ in range(count)]


@pytest.fixture
def client(raw: Open) -> RawConnection:
    return raw()


@pytest.fixture
def worker(raw: Open) -> RawConnection:
    worker = raw()
    worker.send(CanDo(b"f"), CanDo(b"g"))
    worker.expect_nothing()
    return worker


def test_the_queues_are_lists(server: gear.Server, client: RawConnection) -> None:
    client.submit(SubmitJobLow(b"f", b"", b"low"))
    client.submit(SubmitJobHigh(b"f", b"", b"high"))
    for number in range(3):
        client.submit(SubmitJob(b"f", b"u%d" % number, b"%d" % number))
    queue = server.normal_queue
    assert isinstance(queue, list)
    assert workloads(server.high_queue + queue + server.low_queue) == [b"high", b"0", b"1", b"2", b"low"]
    assert workloads(server.getQueue()) == [b"high", b"0", b"1", b"2", b"low"]
    first, second, third = queue
    assert queue == [first, second, third]
    assert (first.client_connection, first.unique, first.name) == (server.active_connections[0], b"u0", b"f")
    queue.remove(second)
    assert [first, third] == queue
    assert server.total_jobs == 5
    for action in (lambda: queue.remove(second), lambda: queue.index(second)):
        with pytest.raises(ValueError, match="not in list"):
            action()
    for jobs, index in ((queue, 2), (server.high_queue, -2)):
        with pytest.raises(IndexError):
            jobs.pop(index)
    assert queue.index(third, 1) == 1


@pytest.mark.parametrize("copied", [copy.copy, lambda jobs: jobs.copy(), lambda jobs: jobs[:]])
def test_copies_of_a_list_are_of_the_programs_own(
    server: gear.Server, client: RawConnection, copied: Callable[[list[gear.ServerJob]], list[gear.ServerJob]]
) -> None:
    client.submit(SubmitJob(b"f", b"", b"x"))
    other = copied(server.normal_queue)
    other.clear()
    assert workloads(server.normal_queue) == [b"x"]


def test_a_list_that_is_held_on_to_stays_true(
    server: gear.Server, client: RawConnection, worker: RawConnection
) -> None:
    queue = server.normal_queue
    client.submit(SubmitJob(b"f", b"", b"x"))
    assert workloads(queue) == [b"x"]
    worker.grab()
    assert queue == []


def test_jobs_that_are_not_queued_cannot_be_put_in(
    server: gear.Server, client: RawConnection, worker: RawConnection
) -> None:
    client.submit(SubmitJob(b"f", b"", b"running"))
    running = server.normal_queue[0]
    worker.grab()
    client.submit(SubmitJob(b"f", b"", b"waiting"))
    waiting = server.normal_queue[0]
    server.normal_queue.extend([running, waiting, gear.ServerJob(b"H:9", b"f", b"", None)])
    assert server.normal_queue == [waiting]


def test_a_failed_change_leaves_the_list_as_it_is(server: gear.Server, client: RawConnection) -> None:
    for number in range(3):
        client.submit(SubmitJob(b"f", b"", b"%d" % number))
    with pytest.raises(ZeroDivisionError):
        server.normal_queue.sort(key=lambda job: 1 / (len(job.arguments) - 1))
    assert workloads(server.normal_queue) == [b"0", b"1", b"2"]


def test_the_order_of_a_list_decides_whatever_the_functions(
    server: gear.Server, client: RawConnection, worker: RawConnection
) -> None:
    for number in range(6):
        client.submit(SubmitJobBg((b"f", b"g")[number % 2], b"", b"%d" % number))
    server.normal_queue.sort(key=lambda job: bytes(job.arguments), reverse=True)
    assert taken(worker, 2) == [b"5", b"4"]
    job = server.normal_queue.pop()
    server.normal_queue.insert(0, job)
    assert taken(worker, 4) == [b"0", b"3", b"2", b"1"]
    assert server.normal_queue.reordered is False


def test_a_job_may_be_moved_to_another_queue(server: gear.Server, client: RawConnection, worker: RawConnection) -> None:
    for number in range(3):
        client.submit(SubmitJobBg(b"f", b"", b"%d" % number))
    server.high_queue.append(server.normal_queue.pop(1))
    server.low_queue += [server.normal_queue.pop(0)]
    assert taken(worker, 3) == [b"1", b"2", b"0"]


def test_a_list_may_be_assigned(server: gear.Server, client: RawConnection, worker: RawConnection) -> None:
    for number in range(3):
        client.submit(SubmitJobBg(b"f", b"", b"%d" % number))
    jobs = server.getQueue()
    queue = server.normal_queue
    server.normal_queue = []
    server.low_queue = jobs[1:]
    server.high_queue = jobs[:1]
    assert server.normal_queue is queue
    assert taken(worker, 3) == [b"0", b"1", b"2"]
    assert server.total_jobs == 3


def test_jobs_of_lost_workers_come_first_in_a_list(
    server: gear.Server, client: RawConnection, worker: RawConnection, raw: Open
) -> None:
    for number in range(4):
        client.submit(SubmitJobBg((b"f", b"g")[number % 2], b"", b"%d" % number))
    lost = raw()
    lost.send(CanDo(b"f"), CanDo(b"g"))
    taken(lost, 3)
    lost.close()
    poll_until(lambda: len(server.normal_queue) == 4, "they are back")
    assert workloads(server.normal_queue) == [b"0", b"1", b"2", b"3"]
    assert taken(worker, 4) == [b"0", b"1", b"2", b"3"]


def test_an_ended_server_leaves_its_lists(shop: Shop) -> None:
    server = gear.Server(0)
    with RawConnection(GearServer(server)) as client:
        client.submit(SubmitJobBg(b"f", b"", b"x"))
    server.shutdown()
    assert workloads([server.normal_queue.pop()]) == [b"x"]
    assert server.normal_queue == []


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_program_does_workers_get_what_the_lists_show(
    server: gear.Server, client: RawConnection, worker: RawConnection, seed: int
) -> None:
    chance = random.Random(seed)
    queue, model, out = server.normal_queue, list[gear.ServerJob](), list[gear.ServerJob]()

    def submit() -> None:
        client.submit(SubmitJobBg(chance.choice([b"f", b"g"]), b"", b"%d" % chance.randrange(100)))
        model.append(queue[-1])

    def take_out() -> None:
        if model:
            index = chance.randrange(-len(model), len(model))
            out.append(model.pop(index))
            way = chance.randrange(3)
            if way == 0:
                assert queue.pop(index) is out[-1]
            elif way == 1:
                queue.remove(out[-1])
            else:
                del queue[index]

    def put_in() -> None:
        if out:
            job, index = out.pop(), chance.randrange(len(model) + 1)
            model.insert(index, job)
            queue.insert(index, job)

    def replace() -> None:
        start = chance.randrange(len(model) + 1)
        new = list(out)
        out[:] = model[start : start + 2]
        model[start : start + 2] = new
        queue[start : start + 2] = new

    def work() -> None:
        if model:
            assert taken(worker, 1) == workloads([model.pop(0)])

    def rearrange() -> None:
        for jobs in (model, queue):
            jobs.sort(key=lambda job: bytes(job.arguments))
        for jobs in (model, queue):
            jobs.reverse()

    actions = [submit, submit, submit, take_out, put_in, replace, work, work]
    for _ in range(200):
        chance.choice(actions if chance.random() < 0.95 else [rearrange])()
        assert queue == model
    queue *= 2
    assert taken(worker, len(model)) == workloads(model)
    worker.expect_no_job()
    assert server.total_jobs == server.running_jobs + len(out)


def test_lists_may_be_changed_from_several_threads(server: gear.Server, client: RawConnection) -> None:
    for number in range(100):
        client.submit(SubmitJobBg(b"f", b"", b"%d" % number))

    def take_out(count: int) -> list[gear.ServerJob]:
        return [server.normal_queue.pop(0) for _ in range(count)]

    calls = [Call(lambda: take_out(25)) for _ in range(4)]
    jobs = [job for call in calls for job in call.result()]
    assert (len(set(jobs)), server.normal_queue) == (100, [])
