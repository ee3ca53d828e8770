"""`gear_net.handshakes`: how many steps a turn takes, and who has had time enough."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gear_net.handshakes import Handshakes


def begun(timeout: float, *times: float, **options: Any) -> Handshakes[int]:
    """Return handshakes of peers 0, 1, ... that have begun at these times."""
    handshakes: Handshakes[int] = Handshakes(timeout, **options)
    for peer, when in enumerate(times):
        handshakes.begin(peer, when)
    return handshakes


def test_without_handshakes_there_is_no_deadline() -> None:
    handshakes = begun(10.0)
    assert handshakes.next_deadline() is None
    assert list(handshakes.pop_overdue(1e9)) == []


@given(st.lists(st.integers(0, 100), min_size=1).map(sorted), st.integers(1, 20), st.integers(0, 130))
def test_each_has_its_time_and_the_oldest_go_first(times: list[int], timeout: int, now: int) -> None:
    handshakes = begun(timeout, *times)
    assert handshakes.next_deadline() == times[0] + timeout
    overdue = [peer for peer, when in enumerate(times) if when + timeout <= now]
    assert list(handshakes.pop_overdue(now)) == [(peer, timeout) for peer in overdue]
    assert list(handshakes.begun) == [peer for peer in range(len(times)) if peer not in overdue]


def test_handshake_that_is_over_is_not_overdue_and_ends_once() -> None:
    handshakes = begun(10.0, 1.0, 2.0)
    assert handshakes.end(0)
    assert not handshakes.end(0)
    assert handshakes.next_deadline() == 12.0
    assert list(handshakes.pop_overdue(100.0)) == [(1, 10.0)]


@pytest.mark.parametrize(("timeout", "shortened"), [(10.0, 1.0), (0.5, 0.5)])
def test_very_many_have_less_time_until_there_are_fewer(timeout: float, shortened: float) -> None:
    handshakes = begun(timeout, 0.0, 0.0, most=3)
    assert not handshakes.crowded
    handshakes.begin(2, 0.0)
    handshakes.begin(3, 0.0)
    assert handshakes.crowded
    assert handshakes.next_deadline() == shortened
    now = shortened
    expected = [(0, shortened), (1, shortened)] if timeout > now else [(peer, shortened) for peer in range(4)]
    assert list(handshakes.pop_overdue(now)) == expected


def test_turn_takes_so_many_steps_and_no_more() -> None:
    handshakes = begun(10.0, steps_per_turn=2)
    for _turn in range(2):
        handshakes.new_turn()
        assert [handshakes.may_step() for _ in range(4)] == [True, True, False, False]
