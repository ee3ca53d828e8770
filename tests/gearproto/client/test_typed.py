"""Submissions of typed functions, among those of others."""

from __future__ import annotations

from typing import Any

import pytest

from gearproto.client import JobRequest
from gearproto.client.typed import requests_of, unpacked
from gearproto.functions import JSON, TEXT, CodecError, Function
from gearproto.packets import Priority

COUNT: Function[str, Any] = Function("count", takes=TEXT, returns=JSON)


def test_value_of_a_typed_function_becomes_its_workload_and_the_result_a_value() -> None:
    name, workload, decode = unpacked(COUNT, "é")
    assert (name, workload) == (COUNT.name, "é".encode())
    assert decode is not None
    assert decode(b"[1]") == [1]
    with pytest.raises(CodecError):
        unpacked(COUNT, 5)


def test_other_workloads_and_results_stay_bytes() -> None:
    assert unpacked("f", b"w") == ("f", b"w", None)


def test_values_of_a_typed_function_become_requests() -> None:
    requests, decode = requests_of(COUNT, ["a", "b"], "high")
    assert [request.packet() for request in requests] == [
        JobRequest("count", value, priority=Priority.HIGH).packet() for value in (b"a", b"b")
    ]
    assert decode is not None
    assert decode(b"2") == 2


def test_other_requests_stay_as_they_are() -> None:
    request = JobRequest("f")
    requests, decode = requests_of([request], (), Priority.NORMAL)
    assert list(requests) == [request]
    assert decode is None
