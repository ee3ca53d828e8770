"""Signals reach workers, handlers of the application, and the children of functions, each what is meant for it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

import gear_anyio
import gear_sync
from gear_net.signals import SIGNALS
from tests.harness.idioms import IDIOMS, Gate, Idiom
from tests.harness.loops import LOOPS, Loop, run
from tests.harness.servers import OurServer
from tests.harness.threads import LIMIT


@pytest.fixture
def server() -> Iterator[OurServer]:
    server = OurServer()
    yield server
    server.close()


@pytest.fixture
def client(server: OurServer) -> Iterator[gear_sync.Client]:
    with gear_sync.Client(server.address) as client:
        yield client


@pytest.fixture(autouse=True)
def survive() -> Iterator[list[int]]:
    """A signal that nobody handles ends no test process: it is noted."""
    noted: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: noted.append(number)) for number in SIGNALS}
    yield noted
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    """Send a signal to this process; its handler has run when this returns, in the main thread."""
    signal.raise_signal(number)


class AnyRun:
    """A worker of any idiom, run in the main thread."""

    def __init__(self, idiom: Idiom, address: str) -> None:
        self.idiom = idiom
        self.worker: Any = gear_sync.Worker(address) if idiom == "gear_sync" else gear_anyio.Worker(address)

    def register(self, name: str, function: Callable[[], bytes], ends: Gate | None = None) -> None:
        """Register a function that runs in the main thread, and then waits for a gate if there is one."""

        async def coroutine(job: gear_anyio.WorkerJob) -> bytes:
            result = function()
            if ends is not None:
                await ends.reached()
            return result

        def plain(job: gear_sync.WorkerJob) -> bytes:
            result = function()
            if ends is not None:
                ends.wait()
            return result

        self.worker.register(name, plain if self.idiom == "gear_sync" else coroutine)

    def run(self, *, handle_signals: bool = True) -> None:
        if self.idiom == "gear_sync":
            with self.worker:
                self.worker.run(handle_signals=handle_signals)
        else:
            run(self.idiom, partial(self.worker.run, handle_signals=handle_signals))


@pytest.mark.parametrize("idiom", IDIOMS)
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_stops_the_worker_and_reaches_the_application(
    idiom: Idiom, number: int, server: OurServer, client: gear_sync.Client, survive: list[int]
) -> None:
    before = signal.getsignal(number)
    any_run = AnyRun(idiom, server.address)

    def f() -> bytes:
        assert signal.getsignal(number) is not before
        send(number)
        return b"to the end"

    any_run.register("f", f)
    job = client.submit("f")
    any_run.run()
    assert job.result(LIMIT) == b"to the end"
    assert survive == [number]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("idiom", IDIOMS)
def test_first_interrupt_from_a_terminal_says_what_the_worker_waits_for(
    idiom: Idiom, server: OurServer, client: gear_sync.Client
) -> None:
    told = Gate()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("stopping once 1 job has ended (1 of b'f')"):
                told.open()

    def f() -> bytes:
        send(signal.SIGINT)
        return b""

    any_run = AnyRun(idiom, server.address)
    any_run.register("f", f, ends=told)
    job = client.submit("f")
    logger = logging.getLogger("gear_sync.worker" if idiom == "gear_sync" else "gear_anyio.worker")
    logger.addHandler(handler := Handler(logging.WARNING))
    try:
        any_run.run()
    finally:
        logger.removeHandler(handler)
    assert job.result(LIMIT) == b""


@pytest.mark.parametrize("idiom", IDIOMS)
def test_application_that_exits_at_a_signal_does_so_after_the_jobs_in_hand(
    idiom: Idiom, server: OurServer, client: gear_sync.Client
) -> None:
    def leave(_number: int, _frame: object) -> None:
        raise SystemExit(7)

    def f() -> bytes:
        send(signal.SIGTERM)
        return b"to the end"

    signal.signal(signal.SIGTERM, leave)
    any_run = AnyRun(idiom, server.address)
    any_run.register("f", f)
    job = client.submit("f")
    with pytest.raises(SystemExit) as left:
        any_run.run()
    assert left.value.code == 7
    assert job.result(LIMIT) == b"to the end"


@pytest.mark.parametrize("idiom", IDIOMS)
def test_handler_that_the_application_installs_meanwhile_stays(
    idiom: Idiom, server: OurServer, client: gear_sync.Client
) -> None:
    def other(_number: int, _frame: object) -> None:
        """Do nothing."""

    any_run = AnyRun(idiom, server.address)

    def f() -> bytes:
        signal.signal(signal.SIGTERM, other)
        any_run.worker.stop()
        return b""

    any_run.register("f", f)
    job = client.submit("f")
    any_run.run()
    assert job.result(LIMIT) == b""
    assert signal.getsignal(signal.SIGTERM) is other


def test_handler_that_outlives_its_worker_leaves_signals_to_the_application(
    server: OurServer, client: gear_sync.Client, survive: list[int]
) -> None:
    """As where something begins while a worker runs, and puts the handlers back that it has found."""
    found: list[Any] = []

    def f() -> bytes:
        found.append(signal.getsignal(signal.SIGTERM))
        any_run.worker.stop()
        return b""

    for _ in range(2):
        any_run = AnyRun("gear_sync", server.address)
        any_run.register("f", f)
        client.submit("f")
        any_run.run()
        signal.signal(signal.SIGTERM, found[-1])
    send(signal.SIGTERM)
    send(signal.SIGTERM)
    assert survive == [signal.SIGTERM] * 2


@pytest.mark.parametrize("loop", LOOPS)
def test_handler_of_the_event_loop_is_called_during_the_run_and_after(
    loop: Loop, server: OurServer, client: gear_sync.Client, survive: list[int]
) -> None:
    called: list[int] = []

    async def watch(task_status: anyio.abc.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                called.append(number)  # noqa: PERF401  (each at once)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            if loop == "trio":
                await group.start(watch)
            else:
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, called.append, signal.SIGTERM)
            before = signal.getsignal(signal.SIGTERM)
            worker = gear_anyio.Worker(server.address)
            worker.register("f", f)
            await worker.run()
            assert signal.getsignal(signal.SIGTERM) is before
            with anyio.fail_after(LIMIT):
                while len(called) < 1:
                    await anyio.lowlevel.checkpoint()
                send(signal.SIGTERM)
                while len(called) < 2:
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        if loop != "trio":
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    async def f(job: gear_anyio.WorkerJob) -> bytes:
        send(signal.SIGTERM)
        return b"to the end"

    job = client.submit("f")
    run(loop, main)
    assert job.result(LIMIT) == b"to the end"
    assert called == [signal.SIGTERM] * 2


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("leaves", [0, 1])
def test_workers_that_run_side_by_side_all_get_a_signal(
    loop: Loop, leaves: int, server: OurServer, survive: list[int]
) -> None:
    async def main() -> None:
        workers = [gear_anyio.Worker(server.address) for _ in range(3)]
        async with anyio.create_task_group() as group:
            ended = anyio.Event()

            async def run_and_tell(worker: gear_anyio.Worker, *, task_status: anyio.abc.TaskStatus[None]) -> None:
                await worker.run(task_status=task_status)
                ended.set()

            for worker in workers:
                await group.start(run_and_tell, worker)
            workers[leaves].stop()
            await ended.wait()
            send(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    run(loop, main)
    assert survive == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("idiom", IDIOMS)
def test_worker_that_is_to_leave_signals_alone_does(
    idiom: Idiom, server: OurServer, client: gear_sync.Client, survive: list[int]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    any_run = AnyRun(idiom, server.address)

    def f() -> bytes:
        assert signal.getsignal(signal.SIGTERM) is before
        send(signal.SIGTERM)
        any_run.worker.stop()
        return b"alone"

    any_run.register("f", f)
    job = client.submit("f")
    any_run.run(handle_signals=False)
    assert job.result(LIMIT) == b"alone"
    assert survive == [signal.SIGTERM]
