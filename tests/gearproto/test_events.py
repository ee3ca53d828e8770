import inspect
from types import ModuleType

import pytest

from gearproto import events, outcomes
from gearproto.event import Event


def classes(module: ModuleType) -> set[type]:
    return {cls for _name, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == module.__name__}


@pytest.mark.parametrize("module", [events, outcomes])
def test_all_classes_are_public(module: ModuleType) -> None:
    assert {cls.__name__ for cls in classes(module)} <= set(module.__all__)


def test_everything_in_events_is_an_event() -> None:
    for name in set(events.__all__) - {"RequestId"}:
        assert issubclass(getattr(events, name), Event)


def test_outcomes_are_a_closed_union() -> None:
    assert classes(outcomes) == set(outcomes.Outcome.__args__)
