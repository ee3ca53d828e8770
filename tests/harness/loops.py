"""The event loops of tests: asyncio and trio as anyio starts them, and asyncio as `asyncio.run` does.

`anyio.run`, and its runner of tests, note which library runs where sniffio finds it. `asyncio.run` does not, so that
sniffio, and anyio with it, tells nothing in callbacks of the loop.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Final, Literal, TypeVar

import anyio
import pytest
import sniffio

__all__ = ["LOOPS", "RUN", "STRICT_LOOPS", "Loop", "anyio_backend_of", "asking_nothing_in_callbacks", "run"]

Loop = Literal["asyncio", "asyncio.run", "trio"]
LOOPS: Final[tuple[Loop, ...]] = ("asyncio", "asyncio.run", "trio")
STRICT_LOOPS: Final[tuple[Loop, ...]] = ("asyncio.run", "trio")
"""For tests that do not start or end the loop: what runs in ``asyncio.run`` runs in ``asyncio``, which notes more."""

RUN: Final = """
import sys, asyncio, anyio
def run(main, loop=sys.argv[2]):
    if loop == "asyncio.run":
        asyncio.run(main())
    else:
        anyio.run(main, backend=loop)
"""
"""Python source of `run`, for programs of tests, whose second argument is the loop."""

_T = TypeVar("_T")


class _PlainLoop(asyncio.SelectorEventLoop):
    """A loop in which nothing is noted, whatever the runner of tests has noted before."""

    def create_task(self, coro: Any, **options: Any) -> Any:
        context = copy_context()
        context.run(sniffio.current_async_library_cvar.set, None)
        return context.run(lambda: super(_PlainLoop, self).create_task(coro, **options))


def anyio_backend_of(loop: Loop) -> Any:
    """Return what the fixture ``anyio_backend`` has to be for tests in a loop."""
    return ("asyncio", {"loop_factory": _PlainLoop}) if loop == "asyncio.run" else loop


def run(loop: Loop, main: Callable[[], Awaitable[_T]]) -> _T:
    """Run a coroutine function in a loop of its own."""
    if loop != "asyncio.run":
        return anyio.run(main, backend=loop)

    async def plain() -> _T:
        return await main()

    with asking_nothing_in_callbacks():
        return asyncio.run(plain())


@contextmanager
def asking_nothing_in_callbacks() -> Iterator[None]:
    """Check that no callback of an asyncio loop asks which library runs, where that may be unknown."""
    asked: list[str] = []
    ask = sniffio.current_async_library

    def note() -> str:
        if asyncio._get_running_loop() is not None and asyncio.current_task() is None:
            asked.append("".join(traceback.format_stack()))
        return ask()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sniffio, "current_async_library", note)
        yield
    assert not asked, f"a callback asks which library runs:\n{asked[0]}"
