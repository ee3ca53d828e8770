"""Which code of a program a signal may interrupt: that of functions, and nothing of the event loop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import anyio
import pytest

from gear_anyio.calling import is_blocking
from gear_anyio.worker import Worker
from gear_net.signals import receiving_signals
from tests.harness.idioms import make_client
from tests.harness.loops import LOOPS, Loop, run
from tests.harness.servers import OurServer
from tests.harness.threads import LIMIT


@pytest.mark.parametrize("loop", LOOPS)
def test_only_a_function_in_a_task_is_blocking(loop: Loop) -> None:
    seen: dict[str, bool] = {}

    def look(name: str) -> None:
        seen[name] = is_blocking(sys._getframe())

    def calling(module: str, call: Callable[[str], None]) -> Callable[[str], None]:
        """Return what makes a call as a module would."""
        names: dict[str, Any] = {"__name__": module, "call": call}
        exec("def function(name): call(name)", names)
        function: Callable[[str], None] = names["function"]
        return function

    within_worker = calling("gear_anyio.worker", look)
    in_handler = calling(receiving_signals.__module__, within_worker)

    async def main() -> None:
        look("no function")
        server = OurServer()
        worker = Worker(server.address)

        @worker.function("f")
        async def f(job: object) -> None:
            look("function")
            list(map(look, ["below it"]))
            within_worker("within the worker")
            in_handler("in a handler of another signal")
            calling("asyncio.events", look)("within the event loop")

        @worker.function("plain")
        def plain(job: object) -> None:
            look("in a thread")

        async with make_client(loop, server.address) as client, anyio.create_task_group() as group:
            group.start_soon(worker.run)
            for name in ("f", "plain"):
                await (await client.submit(name)).result(LIMIT)
            worker.stop()
        server.close()

    run(loop, main)
    assert seen == {
        "no function": False,
        "function": True,
        "below it": True,
        "within the worker": False,
        "in a handler of another signal": True,
        "within the event loop": False,
        "in a thread": False,
    }


def test_no_frame_is_not_blocking() -> None:
    frame: FrameType | None = None
    assert not is_blocking(frame)
