"""`gearproto.functions`: values survive the wire, and what does not fit says which function and why."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.functions import BYTES, JSON, TEXT, Codec, CodecError, Function, structured

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@dataclasses.dataclass
class Order:
    item: str
    count: int = 1


order: Codec[Order] = structured(Order)


@given(st.binary())
def test_bytes_stay_as_they_are(data: bytes) -> None:
    assert BYTES.decode(BYTES.encode(data)) == data == BYTES.encode(data)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_utf_8(text: str) -> None:
    assert TEXT.encode(text) == text.encode()
    assert TEXT.decode(text.encode()) == text


@given(json_values)
def test_json_survives(value: Any) -> None:
    data = JSON.encode(value) if "\\ud" not in ascii(value) else JSON.encode(None)
    assert JSON.encode(JSON.decode(data)) == data


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**63), 2**63 - 1))
def test_types_are_checked_and_survive(item: str, count: int) -> None:
    assert order.decode(order.encode(Order(item, count))) == Order(item, count)


@pytest.mark.parametrize(
    ("codec", "value", "text"),
    [
        (BYTES, "text", "value cannot be written as bytes: memoryview: a bytes-like object is required"),
        (TEXT, "\ud800", "value cannot be written as UTF-8 text: 'utf-8' codec can't encode"),
        (JSON, {1, 2}, "value cannot be written as JSON: Object of type set is not JSON serializable"),
        (JSON, math.nan, "value cannot be written as JSON: Out of range float values"),
        (order, object(), "value cannot be written as JSON of Order"),
    ],
)
def test_value_that_cannot_be_encoded_is_told(codec: Codec[Any], value: Any, text: str) -> None:
    with pytest.raises(CodecError) as caught:
        codec.encode(value)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("codec", "data", "text"),
    [
        (TEXT, b"\xff", "value is not valid UTF-8 text: 'utf-8' codec can't decode"),
        (JSON, b"{", "value is not valid JSON: Expecting property name"),
        (JSON, b"\xff", "value is not valid JSON: 'utf-8' codec can't decode"),
        (order, b'{"item": 1}', "value is not valid JSON of Order: Expected `str`, got `int`"),
    ],
)
def test_bytes_that_cannot_be_decoded_are_told(codec: Codec[Any], data: bytes, text: str) -> None:
    with pytest.raises(CodecError) as caught:
        codec.decode(data)
    assert str(caught.value).startswith(text)


def test_function_names_itself_in_errors() -> None:
    count = Function("count", takes=TEXT, returns=JSON, timeout=5)
    assert repr(count) == "<Function count: UTF-8 text -> JSON>"
    assert (count.name, count.timeout) == ("count", 5)
    assert count.value(count.workload("abc")) == "abc"
    assert count.result(count.result_data([3])) == [3]
    with pytest.raises(CodecError, match="count: the workload is not valid UTF-8 text"):
        count.value(b"\xff")
    with pytest.raises(CodecError, match="count: the value cannot be written as UTF-8 text"):
        count.workload("\ud800")
    with pytest.raises(CodecError, match="count: the result is not valid JSON"):
        count.result(b"")
    with pytest.raises(CodecError, match="count: the result cannot be written as JSON"):
        count.result_data(object())
