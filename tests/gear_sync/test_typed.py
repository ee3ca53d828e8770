"""Typed functions of `gear_sync`: one declaration for the caller and the worker, and raw jobs beside it."""

from __future__ import annotations

import pytest

from gear_sync import Client, Server, Worker, WorkerJob
from gearproto import JobRaised
from gearproto.functions import JSON, TEXT, CodecError, Function
from tests.harness.threads import LIMIT, working

count = Function("count", takes=TEXT, returns=JSON)


def test_value_and_result_are_what_the_declaration_says() -> None:
    with Server(port=0) as server, Worker(server.address) as worker, Client(server.address) as client:

        @worker.serve(count)
        def count_words(text: str, job: WorkerJob) -> dict[str, int]:
            job.progress(1, 1)
            return {"words": len(text.split())}

        with working(worker):
            assert client.call(count, "one two", timeout=LIMIT) == {"words": 2}
            assert client.submit("count", b"three").result(LIMIT) == b'{"words":1}'
            with pytest.raises(JobRaised, match="CodecError: count: the workload is not valid UTF-8 text"):
                client.submit("count", b"\xff").result(LIMIT)
            worker.register("count", lambda job: b"not JSON")
            with pytest.raises(CodecError, match="count: the result is not valid JSON"):
                client.call(count, "", timeout=LIMIT)


def test_coroutine_cannot_be_served() -> None:
    async def coroutine(text: str, job: WorkerJob) -> object:
        return text

    with Worker("127.0.0.1:1") as worker, pytest.raises(TypeError, match="coroutine is asynchronous"):
        worker.serve(count)(coroutine)
