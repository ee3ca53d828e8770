"""The exceptions of the documented API."""

from __future__ import annotations

import builtins
import itertools

import pytest

import gearproto
from gear_sync import gear

ERRORS = [
    gear.ConfigurationError,
    gear.ConnectionError,
    gear.DisconnectError,
    gear.GearmanError,
    gear.InterruptedError,
    gear.InvalidDataError,
    gear.NoConnectedServersError,
    gear.RetryIOError,
    gear.TimeoutError,
    gear.UnknownJobError,
    gear.ACLError,
]


def test_none_derives_from_another_but_for_having_no_server() -> None:
    related = [(a, b) for a, b in itertools.permutations(ERRORS, 2) if issubclass(a, b)]
    assert related == [(gear.NoConnectedServersError, gear.GearmanError)]


@pytest.mark.parametrize("error", ERRORS)
def test_all_are_errors_of_this_project(error: type[Exception]) -> None:
    assert issubclass(error, gearproto.GearmanError)


@pytest.mark.parametrize("name", ["ConnectionError", "TimeoutError", "InterruptedError"])
def test_three_are_not_the_builtins_of_their_names(name: str) -> None:
    assert not issubclass(getattr(gear, name), getattr(builtins, name))


def test_a_lost_connection_is_an_error_of_the_system_too() -> None:
    assert issubclass(gear.DisconnectError, OSError)
