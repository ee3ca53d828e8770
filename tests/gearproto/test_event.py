import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from dataclasses import MISSING, fields, make_dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto import admin, events, outcomes
from gearproto.client import JobRequest

CLASSES: list[type[Any]] = [
    cls
    for module in (events, outcomes)
    for name, cls in inspect.getmembers(module, inspect.isclass)
    if name in module.__all__ and cls is not events.Event  # the base of all
]
values = st.integers(0, 1) | st.binary(max_size=1)


def build(cls: type[Any], value: object) -> Any:
    return cls(*[value] * len(fields(cls)))


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


@pytest.mark.parametrize("cls", [*CLASSES, admin.Ok, admin.Refused, JobRequest])
def test_event_is_a_dataclass_like_any_other(cls: type[Any]) -> None:
    own = [
        (
            each.name,
            each.type,
            dataclasses.field() if each.default is MISSING else dataclasses.field(default=each.default),
        )
        for each in fields(cls)
    ]
    usual = make_dataclass(cls.__name__, own)
    assert inspect.signature(cls) == inspect.signature(usual)
    values = {each.name: index for index, each in enumerate(fields(cls))}
    event = cls(**values)
    assert repr(event) == repr(usual(**values))
    assert event == copy.copy(event) == replace(event) == pickle.loads(pickle.dumps(event))
    for wrong in ({"nonsense": 1}, {**values, "nonsense": 1}):
        with pytest.raises(TypeError, match=r"__init__\(\) got an unexpected keyword argument"):
            cls(**wrong)


def test_import_compiles_less_than_one_method_for_each_class() -> None:
    script = """
import sys
compiled = []

def methods(code):  # from 3.13 on, dataclasses runs one function for each class, with or without methods in it
    inner = [const for const in code.co_consts if isinstance(const, type(code))]
    return sum(each.co_name.startswith("__") and each.co_name != "__create_fn__" for each in inner) + sum(
        map(methods, inner)
    )

def hook(name, details):
    if name == "exec" and details[0].co_filename == "<string>":
        compiled.extend(range(methods(details[0])))

sys.addaudithook(hook)
import gearproto
from gearproto import event
calls = event._init_code.cache_info()
assert len(compiled) < calls.hits + calls.misses, (len(compiled), calls)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
