"""Functions that raise, return and yield what no function should: the job ends so, and the worker goes on."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest

from gearproto import JobFailed, Outcome, Raised
from tests.adapters.conftest import StartWorker
from tests.harness.idioms import AnyClient, Idiom
from tests.harness.network import Network, NetworkServer
from tests.harness.threads import LIMIT

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("backend", ["pipes"])]


class Unprintable(Exception):
    """An exception whose message cannot be had."""

    def __str__(self) -> str:
        text: str = self.args[1]
        return text


class Leaving(Unprintable):
    """One that ends the program of those who print it."""

    def __str__(self) -> str:
        raise SystemExit(3)


class UnprintableFailure(JobFailed):
    """A failure that cannot be printed."""

    def __str__(self) -> str:
        raise ValueError


class Unknown(BaseException):
    """Nothing that programs catch."""


RAISED: Final[dict[str, tuple[Callable[[], BaseException], str]]] = {
    "unprintable": (lambda: Unprintable("one"), "Unprintable"),
    "leaving": (Leaving, "Leaving"),
    "exit": (lambda: SystemExit(7), "SystemExit: 7"),
    "close": (GeneratorExit, "GeneratorExit: "),
    "cancelled": (lambda: asyncio.CancelledError("stray"), "CancelledError: stray"),
    "unknown": (lambda: Unknown("why"), "Unknown: why"),
    "stop": (lambda: StopIteration(1), "StopIteration: 1"),
    "group": (
        lambda: BaseExceptionGroup("all", [Unknown(), SystemExit()]),
        "BaseExceptionGroup: all (2 sub-exceptions)",
    ),
    "interrupt": (KeyboardInterrupt, "KeyboardInterrupt: "),
    "surrogate": (lambda: OSError("\udcff"), r"OSError: \udcff"),
}


def plain(job: Any) -> bytes:
    raise RAISED[job.workload.decode()][0]()


def generator(job: Any) -> Iterator[bytes]:
    yield b"piece"
    plain(job)


async def coroutine(job: Any) -> bytes:
    await anyio.lowlevel.checkpoint()
    return plain(job)


async def async_generator(job: Any) -> AsyncIterator[bytes]:
    yield b"piece"
    plain(job)


IN_TASKS: Final = ("coroutine", "async_generator")


def kinds(idiom: Idiom) -> list[Callable[[Any], Any]]:
    return [plain, generator] if idiom == "gear_sync" else [plain, generator, coroutine, async_generator]


async def outcome_of(client: AnyClient, function: str, workload: bytes = b"") -> Outcome | None:
    job = await client.submit(function, workload)
    assert await job.wait(LIMIT)
    return job.outcome


@pytest.mark.parametrize("concurrency", [None, 2])
async def test_whatever_a_function_raises_ends_its_job_and_the_worker_goes_on(
    idiom: Idiom, client: AnyClient, start: StartWorker, concurrency: int | None
) -> None:
    functions = {function.__name__: function for function in kinds(idiom)}
    await start({"concurrency": concurrency}, **functions)
    for function in functions:
        for name, (_, text) in RAISED.items():
            if name == "interrupt" and function in IN_TASKS:
                continue  # it is meant for the main thread
            told = text
            if name == "stop" and function != "plain":  # Python does not let it out of these
                told = f"RuntimeError: {function.replace('_', ' ')} raised StopIteration"
            elif name == "cancelled" and idiom in ("asyncio", "asyncio.run") and function in IN_TASKS:
                told = "RuntimeError: CancelledError: what the function awaited was cancelled"
            assert await outcome_of(client, function, name.encode()) == Raised(told.encode())


async def test_failure_that_cannot_be_printed_is_a_failure(
    idiom: Idiom, client: AnyClient, start: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(job: Any) -> bytes:
        raise UnprintableFailure

    async def fail_in_task(job: Any) -> bytes:
        raise UnprintableFailure

    caplog.set_level(logging.INFO)
    for number, function in enumerate([fail] if idiom == "gear_sync" else [fail, fail_in_task]):
        await start(**{f"f{number}": function})
        job = await client.submit(f"f{number}")
        with pytest.raises(JobFailed):
            await job.result(LIMIT)
    assert sum("UnprintableFailure" in record.getMessage() for record in caplog.records) == number + 1


@pytest.mark.parametrize("result", ["text", 1, [b"one", b"two"], object(), iter([b"one"])])
async def test_result_that_is_not_bytes_is_an_exception_that_names_the_function(
    idiom: Idiom, client: AnyClient, start: StartWorker, result: object
) -> None:
    async def in_task(job: Any) -> object:
        return result

    text = f"reverse returned {type(result).__name__}; a result has to be bytes or None"
    for function in [lambda job: result] if idiom == "gear_sync" else [lambda job: result, in_task]:
        worker = await start(reverse=function)
        assert await outcome_of(client, "reverse") == Raised(f"TypeError: {text}".encode())
        worker.stop()


async def test_piece_that_is_not_bytes_is_an_exception_that_names_the_function(
    idiom: Idiom, client: AnyClient, start: StartWorker
) -> None:
    def pieces(job: Any) -> Iterator[object]:
        yield bytearray(b"one ")
        yield memoryview(b"two")
        yield "text"

    async def async_pieces(job: Any) -> AsyncIterator[object]:
        for data in pieces(job):
            yield data

    for function in [pieces] if idiom == "gear_sync" else [pieces, async_pieces]:
        worker = await start(reverse=function)
        job = await client.submit("reverse")
        data, more, outcome = [event async for event in job.events(LIMIT)]
        assert (data.data, more.data) == (b"one ", b"two")  # type: ignore[union-attr]
        assert outcome == Raised(b"TypeError: reverse yielded str; a piece has to be bytes")
        worker.stop()


@pytest.mark.parametrize(("numerator", "denominator"), [(-1, 10), (1, -10), (10**30, 1)])
async def test_progress_that_makes_no_sense_is_an_error_of_the_function(
    idiom: Idiom, client: AnyClient, start: StartWorker, numerator: int, denominator: int
) -> None:
    def plain(job: Any) -> None:
        job.progress(numerator, denominator)

    async def in_task(job: Any) -> None:
        await job.progress(numerator, denominator)

    for function in [plain] if idiom == "gear_sync" else [plain, in_task]:
        worker = await start(f=function)
        outcome = await outcome_of(client, "f")
        assert isinstance(outcome, Raised)
        assert re.match(rb"LocalProtocolError: WORK_STATUS: (num|denom)", outcome.data)
        worker.stop()


async def test_each_end_of_a_job_is_one_line_of_the_log_with_its_time(
    idiom: Idiom, client: AnyClient, start: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    def ends(job: Any) -> bytes:
        if job.workload:
            raise {b"fail": JobFailed("out of ink"), b"raise": KeyError("x")}[job.workload]
        return b""

    async def ends_in_task(job: Any) -> bytes:
        return ends(job)

    caplog.set_level(logging.INFO)
    for function in [ends] if idiom == "gear_sync" else [ends, ends_in_task]:
        worker = await start(f=function)
        for workload in (b"", b"fail", b"raise"):
            await outcome_of(client, "f", workload)
        worker.stop()
    done = r"job b'H:.*' of b'f' (done in|failed after|raised after) \d+\.\d{3} s(: JobFailed: out of ink)?"
    lines = [record for record in caplog.records if re.fullmatch(done, record.getMessage())]
    levels = [logging.INFO, logging.INFO, logging.ERROR]
    assert [record.levelno for record in lines] == levels * (len(lines) // 3)
    assert len(lines) == (3 if idiom == "gear_sync" else 6)


async def test_function_that_returns_a_coroutine_is_told_of_without_a_warning(
    client: AnyClient, start: StartWorker
) -> None:
    async def forgotten(job: Any) -> bytes:
        return b""

    await start(f=lambda job: forgotten(job))  # noqa: PLW0108  (a plain function)
    text = b"TypeError: f returned coroutine; a result has to be bytes or None"
    assert await outcome_of(client, "f") == Raised(text)


class Plain:
    def __call__(self, job: Any) -> bytes:
        return b"result"


class Generating:
    def __call__(self, job: Any) -> Iterator[bytes]:
        yield b"result"


class Coroutine:
    async def __call__(self, job: Any) -> bytes:
        return b"result"


class AsyncGenerating:
    async def __call__(self, job: Any) -> AsyncIterator[bytes]:
        yield b"result"


@pytest.mark.parametrize("kind", [Plain, Generating, Coroutine, AsyncGenerating])
async def test_function_may_be_an_object_a_method_or_partial(
    idiom: Idiom, client: AnyClient, start: StartWorker, kind: type[Any]
) -> None:
    worker = await start()
    called = kind()
    for number, function in enumerate([called, called.__call__, partial(called), partial(partial(called.__call__))]):
        if idiom == "gear_sync" and kind in (Coroutine, AsyncGenerating):
            with pytest.raises(TypeError, match=r"is asynchronous: only gear_anyio\.Worker runs it"):
                worker.register("f", function)
        else:
            worker.register(f"f{number}", function)
            job = await client.submit(f"f{number}")
            assert await job.result(LIMIT) == b"result"


async def test_what_cannot_be_called_is_refused_at_once(idiom: Idiom, network: Network, server: NetworkServer) -> None:
    worker = network.worker(server)
    for wrong in (None, b"bytes", [plain]):
        with pytest.raises(TypeError, match="cannot be called"):
            worker.register("f", wrong)  # type: ignore[arg-type]
    assert not worker._jobs.functions if idiom != "gear_sync" else not worker.worker._jobs.functions  # type: ignore[union-attr]
