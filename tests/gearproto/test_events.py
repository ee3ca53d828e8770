import inspect
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto import events, outcomes

_MODULES = (events, outcomes)
CLASSES: list[type[Any]] = [
    cls
    for module in _MODULES
    for _name, cls in inspect.getmembers(module, inspect.isclass)
    if cls.__module__ == module.__name__ and cls is not events.Event
]
values = st.integers(0, 1) | st.binary(max_size=1)


def build(cls: type[Any], value: object) -> Any:
    return cls(*[value] * len(fields(cls)))


def test_all_classes_are_public() -> None:
    public = {name for module in _MODULES for name in module.__all__}
    assert {cls.__name__ for cls in CLASSES} <= public


@pytest.mark.parametrize("cls", CLASSES)
def test_event_is_slotted_true_and_documents_its_fields(cls: type[Any]) -> None:
    event = build(cls, b"x")
    assert not hasattr(event, "__dict__")
    assert bool(event)
    text = inspect.getdoc(cls)  # without the indentation, which Python 3.13 takes off by itself
    assert text is not None
    for field in fields(cls):
        assert f"\n    {field.name}: " in text


@given(st.sampled_from(CLASSES), st.sampled_from(CLASSES), values, values)
def test_events_are_equal_only_within_a_type(one: type[Any], other: type[Any], value: object, more: object) -> None:
    first, second = build(one, value), build(other, more)
    assert (first == second) == (one is other and (value == more or not fields(one)))
    assert len({first, second, build(one, value)}) == 1 + (first != second)


def test_outcomes_are_a_closed_union() -> None:
    assert {cls for cls in CLASSES if cls.__module__ == outcomes.__name__} == set(outcomes.Outcome.__args__)
