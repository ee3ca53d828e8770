"""The job queue without packets."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.packets import Priority
from gearproto.server.jobs import Job, JobState, PeerId, Worker
from gearproto.server.queue import JobQueue, QueueFull


def new_queue(
    *,
    job_retries: int = -1,
    max_jobs: int = 10**6,
    max_queue_size: int = 10**9,
    max_idle_functions: int = 10,
    max_kept_functions: int = 10,
) -> JobQueue:
    return JobQueue(
        job_retries=job_retries,
        max_jobs=max_jobs,
        max_queue_size=max_queue_size,
        max_idle_functions=max_idle_functions,
        max_kept_functions=max_kept_functions,
        round_robin=True,
    )


def add(
    queue: JobQueue,
    number: int,
    *,
    function: bytes = b"f",
    key: object = None,
    workload: bytes = b"",
    priority: int = Priority.NORMAL,
    due: float | None = None,
) -> Job:
    return queue.new_job(b"H:%d" % number, queue.table.function(function), b"", key, workload, priority, True, due=due)


def worker_for(queue: JobQueue, *functions: bytes, limit: float | None = None) -> Worker:
    worker = Worker(PeerId(1))
    for name in functions:
        queue.register(worker, queue.table.function(name), limit)
    return worker


def taken(queue: JobQueue, worker: Worker) -> list[Job]:
    return list(iter(lambda: queue.take(worker, 0.0), None))


@given(st.data())
def test_removed_jobs_are_never_handed_out_and_never_pile_up(data: st.DataObject) -> None:
    queue = new_queue()
    jobs = [add(queue, number, workload=b"w") for number in range(300)]
    kept = set(data.draw(st.lists(st.sampled_from(range(300)), unique=True)))
    for number in data.draw(st.permutations(range(300))):
        if number not in kept:
            queue.end(jobs[number])
            (waiting,) = filter(None, queue.table.function(b"f").queues)
            assert len(waiting) <= 2 * queue.table.function(b"f").waiting + 130
            assert len(waiting) == queue.table.function(b"f").waiting + sum(queue.table.function(b"f").removed)
    assert queue.size == sum(len(job.workload) + len(job.unique) + len(b"f") for job in queue.jobs.values())
    assert len(queue.jobs) == len(kept)
    assert taken(queue, worker_for(queue, b"f")) == [jobs[number] for number in sorted(kept)]


def test_removed_job_holds_no_workload() -> None:
    queue = new_queue()
    job = add(queue, 1, workload=b"w" * 1000)
    queue.end(job)
    assert (queue.size, job.workload, job.state) == (0, b"", JobState.ENDED)


def test_given_back_job_is_first_again_even_before_removed_ones() -> None:
    queue = new_queue()
    one, two, three = (add(queue, number) for number in range(3))
    worker = worker_for(queue, b"f")
    assert queue.take(worker, 0.0) is one
    queue.end(two)
    assert queue.give_back(one, 0.0)
    assert taken(queue, worker) == [one, three]


@given(st.data())
def test_jobs_come_out_in_their_order_whenever_their_workers_are_lost(data: st.DataObject) -> None:
    queue = new_queue()
    jobs = [add(queue, number) for number in range(12)]
    workers = [worker_for(queue, b"f") for _ in range(3)]
    here = list(jobs)
    gone: set[Job] = set()
    for _ in range(data.draw(st.integers(0, 60))):
        running = [job for job in jobs if job.state is JobState.RUNNING]
        move = data.draw(st.sampled_from(["take", "lose", "end"]))
        if move == "take" and here:
            assert queue.take(data.draw(st.sampled_from(workers)), 0.0) is here.pop(0)
        elif move == "lose" and running:
            lost = data.draw(st.sampled_from(running))
            assert queue.give_back(lost, 0.0)
            list(queue.queue_due(60.0, 0.0))  # where it has to wait, it has waited
            here = sorted([*here, lost], key=jobs.index)
        elif move == "end" and len(gone) < len(jobs):
            job = data.draw(st.sampled_from([job for job in jobs if job not in gone]))
            queue.end(job)
            gone.add(job)
            if job in here:
                here.remove(job)
    assert taken(queue, workers[0]) == here
    assert queue.table.function(b"f").returned == {}


@pytest.mark.parametrize("retries", [0, 2])
def test_job_is_given_back_as_often_as_retries_allow(retries: int) -> None:
    queue = new_queue(job_retries=retries)
    job, worker = add(queue, 1), worker_for(queue, b"f")
    for count in range(1, retries + 1):
        assert queue.take(worker, 0.0) is job
        assert queue.give_back(job, 0.0)
        assert job.losses == count
    assert queue.take(worker, 0.0) is job
    assert not queue.give_back(job, 0.0)
    queue.end(job)
    assert (queue.jobs, queue.table.function(b"f").total) == ({}, 0)


def test_job_that_loses_its_workers_waits_longer_and_longer_from_the_third_time_on() -> None:
    queue = new_queue()
    job, later, worker = add(queue, 1), add(queue, 2), worker_for(queue, b"f")
    pauses = []
    for _ in range(1200):
        assert queue.take(worker, 1.0) is job
        assert queue.give_back(job, 1.0)
        if job.state is JobState.DELAYED:
            assert queue.table.function(b"f").delayed == [0, 1, 0]
            deadline = queue.next_deadline(0.0)
            assert deadline is not None
            assert list(queue.queue_due(deadline - 0.01, 0.0)) == []
            assert list(queue.queue_due(deadline, 0.0)) == [job]
            pauses.append(deadline - 1.0)
        else:
            pauses.append(0.0)
    assert pauses[:10] == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert set(pauses[10:]) == {60}
    assert taken(queue, worker) == [job, later]
    assert queue.next_deadline(0.0) is None


def test_job_that_nobody_wants_is_not_given_back() -> None:
    queue = new_queue()
    job, worker = add(queue, 1), worker_for(queue, b"f")
    job.background = False
    assert queue.take(worker, 0.0) is job
    assert not queue.give_back(job, 0.0)


def test_room_is_limited_by_jobs_by_bytes_and_by_function() -> None:
    queue = new_queue(max_jobs=4, max_queue_size=14)  # with the names
    add(queue, 1, workload=b"1234")
    with pytest.raises(QueueFull, match="Job queue is full"):
        add(queue, 2, workload=b"1234567890")
    add(queue, 2, workload=b"123456")
    queue.table.limit(b"f", (0, 2, 3))
    with pytest.raises(QueueFull, match="Job queue is full"):
        add(queue, 3, priority=Priority.NORMAL)
    add(queue, 3, priority=Priority.LOW)
    with pytest.raises(QueueFull, match="Job queue is full"):
        add(queue, 4, priority=Priority.LOW)
    add(queue, 4, priority=Priority.HIGH)
    with pytest.raises(QueueFull, match="Job queue is full"):
        add(queue, 5, function=b"g", priority=Priority.HIGH)
    queue.accepting = False
    with pytest.raises(QueueFull, match="Server is shutting down"):
        add(queue, 5, priority=Priority.HIGH)
    assert list(queue.jobs) == [b"H:1", b"H:2", b"H:3", b"H:4"]
    assert queue.size == 14


def test_names_and_uniques_of_jobs_count_as_their_workloads_do() -> None:
    queue = new_queue(max_queue_size=3000)
    queue.new_job(b"H:1", queue.table.function(b"f" * 1000), b"u" * 1000, None, b"w" * 1000, Priority.HIGH, True)
    with pytest.raises(QueueFull, match="Job queue is full"):
        add(queue, 2, function=b"f")
    queue.end(queue.jobs[b"H:1"])
    assert queue.size == 0
    add(queue, 2, function=b"f")


def test_tables_are_made_small_again_once_they_are_nearly_empty() -> None:
    queue = new_queue()
    jobs = [add(queue, number, key=b"%d" % number) for number in range(20_000)]
    tables = queue.jobs, queue._by_key
    full = [sys.getsizeof(table) for table in tables]
    for job in jobs[100:]:
        queue.end(job)
    queue.compact()
    assert all(sys.getsizeof(table) < size / 10 for table, size in zip(tables, full, strict=True))
    assert list(queue.jobs.values()) == jobs[:100]
    assert all(queue.find_unique(b"%d" % number) is job for number, job in enumerate(jobs[:100]))
    many = [add(queue, 100 + number) for number in range(20_000)]
    queue.compact()  # it would take too long
    assert list(queue.jobs.values()) == [*jobs[:100], *many]


def test_full_queue_takes_no_jobs_and_no_functions_of_administrators() -> None:
    queue = new_queue()
    job = add(queue, 1)
    queue.full = True
    with pytest.raises(QueueFull, match="memory limit"):
        add(queue, 2)
    assert not queue.table.create(b"g", full=queue.full)
    assert queue.table.create(b"f", full=queue.full)
    queue.end(job)
    queue.full = False
    add(queue, 3)


def test_jobs_are_found_by_function_and_key_while_they_exist() -> None:
    queue = new_queue()
    jobs = {name: add(queue, index, function=name, key=b"u") for index, name in enumerate((b"f", b"g", b"h"))}
    for name in (b"g", b"f", b"h"):
        assert queue.find_unique(b"u") in jobs.values()
        for other in (b"f", b"g", b"h", b"i"):
            assert queue.find(queue.table.function(other), b"u") is jobs.get(other)
        queue.end(jobs.pop(name))
    assert queue.find_unique(b"u") is None
    again = add(queue, 9, function=b"g", key=b"u")
    assert queue.find_unique(b"u") is queue.find(queue.table.function(b"g"), b"u") is again
    assert queue.find(queue.table.function(b"f"), b"u") is None


def test_deadline_is_the_earliest_of_all_kinds() -> None:
    queue = new_queue()
    assert queue.next_deadline(100.0) is None
    assert list(queue.queue_due(1.0, 100.0)) == []  # the clock is to be looked at again a second later
    worker = worker_for(queue, b"f", limit=3.0)
    add(queue, 1)
    job = queue.take(worker, 0.0)
    assert job is not None
    assert queue.next_deadline(100.0) == 3.0
    add(queue, 2, due=102.5)
    assert queue.next_deadline(100.0) == 2.0
    assert queue.next_deadline(100.75) == 1.75
    assert list(queue.queue_due(2.0, 100.0)) == []
    assert [job.handle for job in queue.queue_due(2.0, 100.5)] == [b"H:2"]
    assert list(queue.overrun(2.9)) == []
    assert list(queue.overrun(3.0)) == [job]
    assert queue.next_deadline(100.0) is None


def test_functions_to_be_remembered_are_limited() -> None:
    queue = new_queue(max_idle_functions=1, max_kept_functions=2)
    worker_for(queue, b"working")
    assert queue.table.create(b"one", full=False)
    assert queue.table.limit(b"working", (1, 1, 1))
    assert not queue.table.create(b"two", full=False)
    queue.table.function(b"two")
    assert not queue.table.create(b"two", full=False)
    assert not queue.table.limit(b"two", (1, 0, 0))
    assert queue.functions[b"two"].limits == (0, 0, 0)
    assert queue.table.limit(b"two", (0, 0, 0))
    assert queue.table.create(b"one", full=False)
    assert queue.table.limit(b"working", (2, 2, 2))
    assert queue.table.drop(queue.functions[b"one"])
    assert queue.table.create(b"two", full=False)


def test_function_is_forgotten_only_without_jobs_workers_and_an_administrators_wish() -> None:
    queue = new_queue(max_idle_functions=0)
    worker = worker_for(queue, b"worker", b"gone")
    add(queue, 1, function=b"job")
    queue.table.create(b"created", full=False)
    worker_for(queue, b"limited")
    queue.table.limit(b"limited", (1, 1, 1))
    queue.table.limit(b"unknown", (1, 1, 1))
    queue.unregister(worker, queue.table.function(b"gone"))
    assert list(queue.functions) == [b"worker", b"job", b"created", b"limited"]
    assert not queue.table.drop(queue.functions[b"worker"])
    assert not queue.table.drop(queue.functions[b"job"])
    assert queue.table.drop(queue.functions[b"created"])
    queue.end(queue.jobs[b"H:1"])
    assert list(queue.functions) == [b"worker", b"limited"]
