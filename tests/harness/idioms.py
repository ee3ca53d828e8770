"""Clients and workers in each idiom, under the names and types of `gear_anyio`: one suite tests them all.

`gear_sync` takes part through facades that run each call that blocks in a thread.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial, wraps
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

import gear_anyio
import gear_sync
from gear_sync.job import JobEvents
from gearproto import Outcome, Priority
from gearproto.addresses import Address
from gearproto.client import JobEvent, JobHandle

from . import loops
from .loops import LOOPS, STRICT_LOOPS, Loop
from .threads import LIMIT

__all__ = [
    "IDIOMS",
    "STRICT_IDIOMS",
    "AnyClient",
    "AnyJob",
    "AnyWorker",
    "Gate",
    "Idiom",
    "anyio_backend_of",
    "checkpoints",
    "make_client",
    "make_worker",
    "until",
    "working",
]

Idiom = Loop | Literal["gear_sync"]
IDIOMS: Final[tuple[Idiom, ...]] = (*LOOPS, "gear_sync")
STRICT_IDIOMS: Final[tuple[Idiom, ...]] = (*STRICT_LOOPS, "gear_sync")

_P = ParamSpec("_P")
_T = TypeVar("_T")
_END: Final = object()
_POLL: Final = 0.002
_RETRY_PAUSES: Final = (0.005, 0.05)  # seconds; clients and workers that come back soon spare the tests time


def anyio_backend_of(idiom: Idiom) -> Any:
    """Return what the fixture ``anyio_backend`` has to be for tests of an idiom."""
    return loops.anyio_backend_of("asyncio" if idiom == "gear_sync" else idiom)


async def in_thread(call: Callable[[], _T]) -> _T:
    """Run a call that blocks in a thread; who is cancelled leaves it there."""
    return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf))


def _threaded(method: Callable[_P, _T]) -> Callable[_P, Awaitable[_T]]:
    @wraps(method)
    async def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await in_thread(partial(method, *args, **kwargs))

    return call


async def _iterate(items: Iterator[_T]) -> AsyncIterator[_T]:
    while (item := await in_thread(partial(next, items, _END))) is not _END:
        yield item


class Gate:
    """An event that functions set or wait for in their threads or tasks, and tests in theirs."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def open(self) -> None:
        """Let those pass who wait, and who come later."""
        self._event.set()

    @property
    def is_open(self) -> bool:
        """Whether `open` has been called."""
        return self._event.is_set()

    def wait(self) -> None:
        """Wait in a thread."""
        assert self._event.wait(LIMIT)

    async def reached(self) -> None:
        """Wait in a task."""
        if not self.is_open:
            await in_thread(self.wait)


class ThreadedEvents(AsyncIterator[JobEvent]):
    """`gear_sync.job.JobEvents` with coroutines."""

    def __init__(self, events: JobEvents) -> None:
        self._events = events

    async def __anext__(self) -> JobEvent:
        event: JobEvent | None = await in_thread(partial(next, self._events, None))
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        self._events.close()


class ThreadedJob:
    """`gear_sync.Job` with coroutines."""

    def __init__(self, job: gear_sync.Job) -> None:
        self.job = job
        self.wait = _threaded(job.wait)
        self.wait_queued = _threaded(job.wait_queued)
        self.status = _threaded(job.status)
        self.cancel = _threaded(job.cancel)
        self.result = _threaded(job.result)

    @property
    def function(self) -> bytes:
        return self.job.function

    @property
    def unique(self) -> bytes:
        return self.job.unique

    @property
    def handle(self) -> JobHandle | None:
        return self.job.handle

    @property
    def server(self) -> Address | None:
        return self.job.server

    @property
    def outcome(self) -> Outcome | None:
        return self.job.outcome

    @property
    def progress(self) -> tuple[int, int] | None:
        return self.job.progress

    def events(self, timeout: float | None = None) -> ThreadedEvents:
        return ThreadedEvents(self.job.events(timeout))

    def __aiter__(self) -> ThreadedEvents:
        return ThreadedEvents(iter(self.job))


class ThreadedAdmin:
    """`gear_sync`'s text commands with coroutines."""

    def __init__(self, admin: Any) -> None:
        self._admin = admin

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return _threaded(getattr(self._admin, name))


class ThreadedClient:
    """`gear_sync.Client` with coroutines."""

    def __init__(self, client: gear_sync.Client) -> None:
        self.client = client
        self.admin = ThreadedAdmin(client.admin)
        self.close = client.close  # does not block
        self.call = _threaded(client.call)
        self.echo = _threaded(client.echo)
        self.status = _threaded(client.status)
        self.status_unique = _threaded(client.status_unique)
        self.submit_background = _threaded(client.submit_background)
        self.submit_background_many = _threaded(client.submit_background_many)

    async def submit(
        self,
        function: str | bytes | bytearray,
        workload: bytes | bytearray = b"",
        *,
        unique: str | bytes | bytearray = b"",
        priority: Priority | str = Priority.NORMAL,
        reducer: str | bytes | None = None,
        resubmit: bool = False,
        stream: bool = False,
    ) -> ThreadedJob:
        options: dict[str, Any] = {"unique": unique, "priority": priority, "reducer": reducer}
        options |= {"resubmit": resubmit, "stream": stream}
        return ThreadedJob(await in_thread(partial(self.client.submit, function, workload, **options)))

    async def submit_many(self, tasks: Iterable[gear_sync.JobRequest], *, resubmit: bool = False) -> list[ThreadedJob]:
        jobs = await in_thread(partial(self.client.submit_many, tasks, resubmit=resubmit))
        return [ThreadedJob(job) for job in jobs]

    async def as_completed(
        self,
        jobs: Iterable[ThreadedJob],
        timeout: float | None = None,  # noqa: ASYNC109  (as in gear_anyio)
    ) -> AsyncIterator[ThreadedJob]:
        known = {job.job: job for job in jobs}  # as programs may pass it, with what they know of each job
        async for job in _iterate(self.client.as_completed(known, timeout)):
            yield known[job]

    def admin_of(self, server: str | tuple[str, int]) -> ThreadedAdmin:
        return ThreadedAdmin(self.client.admin_of(server))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ThreadedWorker:
    """`gear_sync.Worker` with coroutines."""

    def __init__(self, worker: gear_sync.Worker) -> None:
        self.worker = worker
        self.function = worker.function
        self.register: Callable[..., None] = worker.register  # handlers of both idioms
        self.unregister = worker.unregister
        self.stop = worker.stop
        self.abort = worker.abort

    async def run(self) -> None:
        try:
            await in_thread(self.worker.run)
        finally:
            self.worker.abort()  # nothing else ends a thread whose task is cancelled

    async def close(self) -> None:
        await in_thread(self.worker.close)


async def until(condition: Callable[[], object]) -> None:
    """Ask until a condition, plain or a coroutine, holds; for what gives no event to wait for."""
    with anyio.fail_after(LIMIT):
        while True:
            holds = condition()
            if inspect.isawaitable(holds):
                holds = await holds
            if holds:
                return
            await anyio.sleep(_POLL)


async def checkpoints() -> None:
    """Let other tasks run, so that they see what has happened by now."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


AnyClient = gear_anyio.Client | ThreadedClient
AnyJob = gear_anyio.Job | ThreadedJob
AnyWorker = gear_anyio.Worker | ThreadedWorker


def make_client(idiom: Idiom, servers: Any, **options: Any) -> AnyClient:
    """Make a client."""
    options = {"timeout": LIMIT, "retry_pauses": _RETRY_PAUSES, **options}
    if idiom == "gear_sync":
        return ThreadedClient(gear_sync.Client(servers, **options))
    return gear_anyio.Client(servers, **options)


def make_worker(idiom: Idiom, servers: Any, *, concurrency: int | None = None, **options: Any) -> AnyWorker:
    """Make a worker.

    Args:
        idiom: the package, and the event loop.
        servers: the servers.
        concurrency: how many jobs to run at once; None for what workers do unless told otherwise, which for `gear_sync`
            is to run jobs where it runs itself.
        **options: those of both packages.
    """
    options = {"retry_pauses": _RETRY_PAUSES, **options}
    if idiom == "gear_sync":
        return ThreadedWorker(gear_sync.Worker(servers, threads=concurrency or 0, **options))
    return gear_anyio.Worker(servers, concurrency=concurrency or 1, **options)


@asynccontextmanager
async def working(worker: AnyWorker) -> AsyncIterator[None]:
    """Run a worker for the time of a block, which ends once the worker has stopped, and is closed."""
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            try:
                yield
            finally:
                worker.stop()
                group.cancel_scope.deadline = anyio.current_time() + LIMIT  # a hang fails where the block ends
    finally:  # what a failed test leaves open would fail another one
        if isinstance(worker, ThreadedWorker):
            with anyio.CancelScope(shield=True):
                await worker.close()
    assert not group.cancel_scope.cancelled_caught, "the worker does not stop"
