"""Calls of other threads into the event loop of a worker: each is made, or refused."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from gear_anyio import ThreadJob, Worker
from gear_anyio.threadsafe import ClosedError, ThreadsafeCalls
from gearproto.addresses import Address
from tests.harness.idioms import in_thread, make_client, until
from tests.harness.loops import LOOPS, Loop, run
from tests.harness.servers import OurServer
from tests.harness.threads import LIMIT, Call


@pytest.fixture
def server() -> Iterator[OurServer]:
    server = OurServer()
    yield server
    server.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_every_call_is_made_or_refused(loop: Loop) -> None:
    made: list[int] = []
    refused: list[int] = []

    def call_often(calls: ThreadsafeCalls, number: int) -> None:
        async def coroutine() -> None:
            await anyio.lowlevel.checkpoint()
            made.append(number)

        for kind in (coroutine, lambda: made.append(number)):
            while True:
                try:
                    calls.wait(kind)
                except ClosedError:
                    refused.append(number)
                    break

    async def main() -> None:
        calls = ThreadsafeCalls()
        threads = [Call(lambda number=number: call_often(calls, number)) for number in range(3)]  # type: ignore[misc]
        async with anyio.create_task_group() as group:
            group.start_soon(calls.run, group)
            await until(lambda: {*made} == {0, 1, 2})
            group.cancel_scope.cancel()
        calls.close()
        for thread in threads:
            await in_thread(thread.result)

    run(loop, main)
    assert sorted(refused) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_call_raises_is_raised_in_its_thread(loop: Loop) -> None:
    async def coroutine() -> None:
        await anyio.lowlevel.checkpoint()
        raise KeyError("coroutine")

    def plain() -> None:
        raise KeyError("plain")

    async def main() -> None:
        calls = ThreadsafeCalls()
        async with anyio.create_task_group() as group:
            group.start_soon(calls.run, group)
            for call in (coroutine, plain):
                with pytest.raises(KeyError, match=call.__name__):
                    await in_thread(lambda call=call: calls.wait(call))  # type: ignore[misc]
            group.cancel_scope.cancel()
        calls.close()

    run(loop, main)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("own", [True, False])
def test_worker_takes_calls_from_any_thread(loop: Loop, own: bool, server: OurServer) -> None:
    """From functions in threads, and from threads of the application."""

    def change(job: ThreadJob | None) -> bytes:
        worker.register("g", lambda job: b"g")
        worker.unregister("change")
        with pytest.raises(Exception, match="was not offered"):
            worker.unregister("change")
        return b"done"

    def stop(job: ThreadJob | None) -> bytes:
        worker.stop()
        return b"done"

    async def main() -> None:
        async with make_client(loop, server.address) as client, anyio.create_task_group() as group:
            await group.start(worker.run)
            for name, call in {"change": change, "stop": stop}.items():
                if own:
                    assert await (await client.submit(name)).result(LIMIT) == b"done"
                else:
                    thread = Call(lambda call=call: call(None))  # type: ignore[misc]
                    await in_thread(thread.result)
                if name == "change":
                    assert await (await client.submit("g")).result(LIMIT) == b"g"

    worker = Worker(server.address)
    worker.register("change", change)
    worker.register("stop", stop)
    run(loop, main)
    worker.register("after", change)  # nobody is there to be told
    worker.stop()
    worker.abort()


@pytest.mark.parametrize("loop", LOOPS)
def test_function_in_a_thread_may_abort_its_worker(loop: Loop, server: OurServer) -> None:
    worker = Worker(server.address)
    raised: list[BaseException] = []

    @worker.function("f")
    def f(job: ThreadJob) -> None:
        worker.abort()
        while True:
            try:
                job.progress(1, 2)
            except BaseException as error:
                raised.append(error)
                raise

    async def main() -> None:
        async with make_client(loop, server.address) as client:
            await client.submit("f")
            await worker.run()
            await until(lambda: raised)

    run(loop, main)
    assert [type(error).__name__ for error in raised] == ["ConnectionLost"]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ["stop", "abort"])
def test_signal_handler_of_the_application_may_end_a_worker_that_sleeps(
    loop: Loop, end: str, server: OurServer
) -> None:
    worker = Worker(server.address)
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: getattr(worker, end)())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            await group.start(lambda task_status: worker.run(handle_signals=False, task_status=task_status))
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    try:
        run(loop, main)
    finally:
        signal.signal(signal.SIGALRM, before)


class SignalledSocket(socket.socket):
    """A socket on which each call is interrupted by a signal, from a certain one on."""

    sent = 0

    def send(self, *arguments: Any) -> int:
        size = super().send(*arguments)
        SignalledSocket.sent += 1
        if SignalledSocket.sent > 1:
            signal.raise_signal(signal.SIGALRM)
        return size


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ["stop", "abort"])
def test_signal_handler_of_the_application_may_end_a_worker_that_sends(loop: Loop, end: str, server: OurServer) -> None:
    async def connect(address: Address) -> socket.socket:
        sock = SignalledSocket()
        sock.connect((address.host, address.port))
        return sock

    SignalledSocket.sent = 0
    worker = Worker(server.address, connect=connect)  # type: ignore[arg-type]
    worker.register("f", lambda _job: b"done")
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: getattr(worker, end)())

    async def main() -> None:
        async with make_client(loop, server.address) as client:
            await client.submit("f")
            await worker.run(handle_signals=False)

    try:
        run(loop, main)
    finally:
        signal.signal(signal.SIGALRM, before)
