"""The tasks in which a worker of `gear_anyio` runs its jobs."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextvars import ContextVar
from functools import partial

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gear_anyio.task_pool import TaskPool
from tests.harness.idioms import checkpoints, until
from tests.harness.loops import STRICT_LOOPS, Loop, run

pytestmark = pytest.mark.anyio

_var: ContextVar[str] = ContextVar("_var", default="nothing")


@pytest.mark.parametrize("backend", STRICT_LOOPS)
@given(steps=st.lists(st.integers(0, 3), max_size=12))
def test_each_job_runs_once_and_at_once_in_no_more_tasks_than_jobs_at_one_time(backend: Loop, steps: list[int]) -> None:
    async def main() -> None:
        running: dict[int, anyio.Event] = {}
        ended: list[int] = []
        tasks: set[int] = set()
        most = 0

        async def work(job: int) -> None:
            tasks.add(anyio.get_current_task().id)
            running[job] = anyio.Event()
            await running[job].wait()
            del running[job]
            ended.append(job)

        async with anyio.create_task_group() as group:
            pool = TaskPool(group, work)
            for job, ends in enumerate(steps):
                pool.give(job)
                await checkpoints()
                assert job in running
                most = max(most, len(running))
                for one in list(running)[:ends]:
                    running[one].set()
                await checkpoints()
            for one in list(running):
                running[one].set()
            await checkpoints()
            group.cancel_scope.cancel()
        assert sorted(ended) == list(range(len(steps)))
        assert len(tasks) == most

    run(backend, main)


async def test_what_a_job_sets_in_its_context_stays_with_it() -> None:
    seen: list[tuple[str, str]] = []

    async def work(job: str) -> None:
        before = _var.get()
        _var.set(job)
        await anyio.lowlevel.checkpoint()
        seen.append((before, _var.get()))

    _var.set("outside")
    async with anyio.create_task_group() as group:
        pool = TaskPool(group, work)
        for job in ("a", "b"):
            pool.give(job)
            await checkpoints()
        group.cancel_scope.cancel()
    assert seen == [("outside", "a"), ("outside", "b")]
    assert _var.get() == "outside"


async def test_what_is_thrown_into_a_job_is_thrown_in_its_context() -> None:
    seen: list[str] = []

    async def work(job: str) -> None:
        _var.set(job)
        try:
            await anyio.sleep_forever()
        finally:
            seen.append(_var.get())

    async with anyio.create_task_group() as group:
        pool = TaskPool(group, work)
        pool.give("a")
        await checkpoints()
        group.cancel_scope.cancel()
    assert seen == ["a"]


async def test_time_limit_inside_a_job_ends_what_it_is_around_and_no_more() -> None:
    ended: list[str] = []

    async def work(job: str) -> None:
        with anyio.move_on_after(0):
            await anyio.sleep_forever()
        ended.append(job)

    async with anyio.create_task_group() as group:
        pool = TaskPool(group, work)
        for job in ("a", "b"):
            pool.give(job)
            await until(partial(ended.count, job))
        group.cancel_scope.cancel()
    assert ended == ["a", "b"]


async def test_job_that_has_ended_takes_no_memory() -> None:
    class Job:
        """Something that tells when it is gone."""

    async def work(job: Job) -> None:
        await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        pool = TaskPool(group, work)
        for _ in range(2):  # in a new task, and in one that was there
            job = Job()
            seen = weakref.ref(job)
            pool.give(job)
            del job
            await checkpoints()
            gc.collect()
            assert seen() is None
        group.cancel_scope.cancel()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_job_that_cancels_its_own_task_spoils_no_other() -> None:
    done: list[str] = []

    async def work(job: str) -> None:
        done.append(job)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        task.cancel()

    async with anyio.create_task_group() as group:
        pool = TaskPool(group, work)
        for job in ("a", "b", "c"):
            pool.give(job)
            await checkpoints()
        group.cancel_scope.cancel()
    assert done == ["a", "b", "c"]


async def test_error_of_the_work_itself_ends_the_group() -> None:
    async def work(job: str) -> None:
        raise KeyError(job)

    with pytest.raises(ExceptionGroup) as raised:
        async with anyio.create_task_group() as group:
            TaskPool(group, work).give("a")
    assert [type(error) for error in raised.value.exceptions] == [KeyError]
