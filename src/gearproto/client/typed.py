"""Submissions of typed functions, among those of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gearproto.functions import Function
from gearproto.packets import Priority

from .job_request import JobRequest

__all__ = ["requests_of", "unpacked"]


def unpacked(
    function: str | bytes | bytearray | Function[Any, Any], workload: Any
) -> tuple[str | bytes | bytearray, Any, Callable[[bytes], Any] | None]:
    """Return name, workload, and what makes the result of its bytes, of a job of a typed function or of another.

    Args:
        function: the declaration, or a name.
        workload: the value; or the workload, of which nothing is changed.

    Raises:
        CodecError: the value cannot be encoded.
    """
    if isinstance(function, Function):
        return function.name, function.workload(workload), function.result
    return function, workload, None


def requests_of(
    requests: Iterable[JobRequest] | Function[Any, Any], values: Iterable[Any], priority: Priority | str
) -> tuple[Iterable[JobRequest], Callable[[bytes], Any] | None]:
    """Return many requests, and what makes the results of their bytes.

    Args:
        requests: the requests, which are returned as they are; or a declaration.
        values: the values, for a declaration.
        priority: their priority.

    Raises:
        CodecError: a value cannot be encoded.
    """
    if isinstance(requests, Function):
        name = requests.name
        return [JobRequest(name, requests.workload(value), priority=priority) for value in values], requests.result
    return requests, None
