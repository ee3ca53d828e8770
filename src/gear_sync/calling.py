"""Which functions a blocking worker can call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from gear_net.worker_jobs import is_kind

__all__ = ["check"]


def check(handler: Callable[..., Any]) -> None:
    """Make sure that a worker can call a function.

    Raises:
        TypeError: it is not callable, or it is asynchronous, which only `gear_anyio.Worker` runs.
    """
    if not callable(handler):
        raise TypeError(f"{handler!r} cannot be called")
    if is_kind(handler, inspect.iscoroutinefunction, inspect.isasyncgenfunction):
        name = getattr(handler, "__qualname__", repr(handler))
        raise TypeError(f"{name} is asynchronous: only gear_anyio.Worker runs it")
