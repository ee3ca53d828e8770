"""`gearproto.timeouts`: what users may say in seconds."""

from __future__ import annotations

import doctest
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gearproto.timeouts
from gearproto import ClientConnection, WorkerConnection
from gearproto.timeouts import checked_timeout, deadline, setting

numbers = st.floats(allow_nan=False) | st.integers(-(10**300), 10**300)


def test_examples_are_true() -> None:
    assert doctest.testmod(gearproto.timeouts, extraglobs={"math": math}).failed == 0


@given(numbers, st.floats(0, 1e9))
def test_any_number_is_a_timeout_of_a_wait(seconds: float, now: float) -> None:
    checked = checked_timeout(seconds)
    assert checked is None or 0 <= checked < math.inf
    assert now <= deadline(seconds, now)
    assert (checked is None) is (seconds == math.inf)


def test_no_limit_is_never_over() -> None:
    assert checked_timeout(None) is None
    assert deadline(None, 5.0) == deadline(math.inf, 5.0) == deadline(10**400, 5.0) == math.inf
    assert deadline(-(10**400), 5.0) == 5.0


@pytest.mark.parametrize("seconds", ["5", b"5", [5], object(), 1j, Decimal(5)])
def test_what_is_not_a_number_is_refused(seconds: Any) -> None:
    for check in (checked_timeout, lambda value: deadline(value, 0.0), lambda value: setting("timeout", value)):
        with pytest.raises(ValueError, match=r"timeout is .*, which is not a number of seconds"):
            check(seconds)
    half: Any = Fraction(1, 2)
    assert checked_timeout(half) == 0.5


def test_nan_is_refused() -> None:
    for check in (checked_timeout, lambda value: deadline(value, 0.0), lambda value: setting("timeout", value)):
        with pytest.raises(ValueError, match="timeout is nan, which is not a number of seconds"):
            check(math.nan)


@given(numbers)
def test_setting_is_0_or_more_or_above_0(seconds: float) -> None:
    for above_0, wants in ((False, "0 or more"), (True, "above 0")):
        if seconds > 0 or (seconds == 0 and not above_0):
            assert setting("pause", seconds, above_0=above_0) == pytest.approx(float(seconds))
        else:
            with pytest.raises(ValueError, match=f"pause is .* s, which has to be {wants}"):
                setting("pause", seconds, above_0=above_0)


@pytest.mark.parametrize("kind", [ClientConnection, WorkerConnection])
@pytest.mark.parametrize("name", ["probe_interval", "probe_timeout"])
def test_connection_refuses_times_that_make_no_sense(kind: Any, name: str) -> None:
    for wrong in (0, -1, math.nan):
        with pytest.raises(ValueError, match=f"{name} is "):
            kind(**{name: wrong})
    assert kind(**{"probe_interval": 30, name: math.inf}).next_deadline() == (
        30 if name == "probe_timeout" else math.inf
    )
