"""Typed functions of `gear_anyio`: one declaration for the caller and the worker, in a task or in a thread."""

from __future__ import annotations

import anyio
import pytest

from gear_anyio import Client, Server, ThreadJob, Worker, WorkerJob
from gearproto import JobRaised
from gearproto.functions import JSON, TEXT, CodecError, Function
from tests.harness.loops import STRICT_LOOPS, Loop, run
from tests.harness.threads import LIMIT

count = Function("count", takes=TEXT, returns=JSON)
reverse = Function("reverse", takes=TEXT, returns=TEXT)


@pytest.mark.parametrize("backend", STRICT_LOOPS)
def test_value_and_result_are_what_the_declaration_says(backend: Loop) -> None:
    async def main() -> None:
        server = Server(port=0)
        worker = Worker(server.address)

        @worker.serve(count)
        async def count_words(text: str, job: WorkerJob) -> dict[str, int]:
            await job.progress(1, 1)
            return {"words": len(text.split())}

        @worker.serve(reverse)
        def reverse_text(text: str, job: ThreadJob) -> str:
            job.progress(1, 1)
            return text[::-1]

        async with anyio.create_task_group() as group, Client(server.address) as client:
            await group.start(server.serve)
            group.start_soon(worker.run)
            assert await client.call(count, "one two", timeout=LIMIT) == {"words": 2}
            assert await client.call(reverse, "déjà", timeout=LIMIT) == "àjéd"
            with pytest.raises(JobRaised, match="CodecError: count: the workload is not valid UTF-8 text"):
                await (await client.submit("count", b"\xff")).result(LIMIT)
            with pytest.raises(CodecError, match="count: the value cannot be written as UTF-8 text"):
                await client.call(count, "\ud800")
            group.cancel_scope.cancel()

    run(backend, main)
