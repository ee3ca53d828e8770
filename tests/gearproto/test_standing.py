"""When a server is tried again, whether it is trusted, and what is logged of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.standing import DEFAULT_PAUSES, Failure, Standing

GONE, SILENT, REFUSED = Failure
chances = st.floats(0, 1)


def standing_of(chance: float = 0.0, pauses: tuple[float, float] = (1.0, 5.0)) -> Standing:
    """Return what is known of a server, with a chance that is always the same."""
    return Standing(lambda: chance, pauses)


def pauses_of(standing: Standing, kind: Failure, count: int) -> list[float]:
    """Return the pauses after some failures."""
    pauses = []
    for _ in range(count):
        standing.failed(100, "", kind)
        pauses.append(standing.retry_at - 100)
    return pauses


# Pauses


def test_server_is_not_left_alone_before_it_fails() -> None:
    assert standing_of().retry_at == 0


def test_pauses_double_up_to_the_longest_where_a_server_is_gone() -> None:
    assert pauses_of(standing_of(), GONE, 5) == [1, 2, 4, 5, 5]


@pytest.mark.parametrize("kind", [SILENT, REFUSED])
def test_pauses_grow_to_half_a_minute_where_trying_again_does_not_help(kind: Failure) -> None:
    assert pauses_of(standing_of(), kind, 7) == [1, 2, 4, 8, 16, 30, 30]
    assert pauses_of(standing_of(pauses=(50, 60)), kind, 3) == [50, 60, 60]


def test_pauses_are_short_again_once_a_server_is_gone() -> None:
    standing = standing_of()
    pauses_of(standing, REFUSED, 6)
    assert pauses_of(standing, GONE, 2) == [5, 5]


def test_chance_shortens_a_pause_by_a_quarter_at_the_most() -> None:
    assert pauses_of(standing_of(1.0), GONE, 2) == [0.75, 1.5]


def test_connection_that_has_held_is_opened_again_at_once_and_the_pauses_begin_again() -> None:
    standing = standing_of()
    pauses_of(standing, GONE, 2)
    standing.connected(10)
    standing.failed(15.1, "")
    assert standing.retry_at == 15.1
    standing.failed(16, "")
    assert standing.retry_at == 17


@pytest.mark.parametrize("kind", [SILENT, REFUSED])
def test_connection_that_has_held_and_is_given_up_or_refused_is_a_failure(kind: Failure) -> None:
    standing = standing_of()
    pauses_of(standing, GONE, 2)
    standing.connected(10)
    standing.failed(50, "", kind)
    assert standing.retry_at == 51


@pytest.mark.parametrize("held", [0.0, 5.0])
def test_connection_that_was_closed_soon_is_a_failure_like_any_other(held: float) -> None:
    standing = standing_of()
    standing.failed(0, "")
    standing.connected(10)
    standing.failed(10 + held, "")
    assert standing.retry_at == 10 + held + 2


def test_time_before_a_failed_attempt_is_none_that_the_connection_has_held() -> None:
    standing = standing_of()
    standing.connected(0)
    standing.failed(1, "")
    standing.failed(100, "")
    assert standing.retry_at == 102


def test_server_that_fails_slowly_is_left_alone_for_longer() -> None:
    standing = standing_of()
    standing.failed(100, "", took=3)
    assert standing.retry_at == 112
    standing.failed(200, "", took=0.1)
    assert standing.retry_at == 202


@pytest.mark.parametrize("pauses", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0,), ("a", "b"), 5])
def test_pauses_that_make_no_sense_are_refused(pauses: Any) -> None:
    message = r"^retry_pauses is .*, not two numbers of seconds above 0, the second not smaller$"
    with pytest.raises(ValueError, match=message):
        standing_of(pauses=pauses)


@given(st.lists(chances, min_size=12, max_size=12), st.floats(0, 0.05))
def test_server_that_closes_at_once_is_connected_to_10_times_in_4_seconds_at_most(
    chance: list[float], held: float
) -> None:
    standing = Standing(iter(chance).__next__, DEFAULT_PAUSES)
    now = 50.0
    connects = 0
    while now < 54:
        connects += 1
        standing.connected(now)
        standing.failed(now + held, "")
        now = standing.retry_at
    assert connects <= 10


attempts = st.lists(st.tuples(chances, st.booleans(), st.floats(0, 100), st.sampled_from(Failure)), max_size=40)


@given(attempts, st.booleans())
def test_gone_server_is_back_within_a_second_and_any_other_within_half_a_minute(
    attempts: list[tuple[float, bool, float, Failure]], answers: bool
) -> None:
    standing = Standing(iter([chance for chance, *_rest in attempts]).__next__, DEFAULT_PAUSES)
    now = 50.0
    for _chance, connects, held, kind in attempts:
        if connects:
            standing.connected(now)
            if answers:
                standing.answered()
            now += held
        standing.failed(now, "", kind)
        assert now <= standing.retry_at <= now + (1 if kind is GONE else 30)
        now = standing.retry_at


# Trust


def test_server_that_fell_silent_is_a_suspect_until_it_answers_on_another_connection() -> None:
    standing = standing_of()
    standing.connected(0)
    assert not standing.suspect
    standing.failed(40, "", SILENT)
    assert standing.suspect
    standing.connected(50)
    standing.failed(51, "", GONE)
    standing.failed(52, "", REFUSED)
    standing.connected(60)
    assert standing.suspect
    standing.answered()
    assert not standing.suspect
    standing.failed(100, "", GONE)
    assert not standing.suspect


def test_connection_on_trial_that_is_closed_is_not_opened_again_at_once_however_long_it_held() -> None:
    standing = standing_of()
    standing.failed(0, "", SILENT)
    standing.connected(1)
    standing.failed(100, "", GONE)
    assert standing.retry_at == 102


# Endpoints


def test_endpoint_that_answered_comes_first_and_the_others_stay_in_order() -> None:
    standing = standing_of()
    assert standing.order("abc") == ["a", "b", "c"]
    standing.connected(0, "b")
    standing.failed(1, "")
    assert standing.order("abc") == ["b", "a", "c"]
    assert standing.order("ac") == ["a", "c"]


def test_endpoint_that_fell_silent_comes_last_until_another_does() -> None:
    standing = standing_of()
    standing.connected(0, "a")
    standing.failed(40, "", SILENT)
    assert standing.order("abc") == ["b", "c", "a"]
    standing.connected(50, "b")
    standing.failed(55, "", SILENT)
    assert standing.order("abc") == ["a", "c", "b"]
    standing.failed(60, "", SILENT)  # there was no connection, so that nothing is known of any endpoint
    assert standing.order("abc") == ["a", "c", "b"]


def test_endpoint_of_a_connection_on_trial_has_not_answered() -> None:
    standing = standing_of()
    standing.failed(0, "", SILENT)
    standing.connected(1, "b")
    assert standing.order("ab") == ["a", "b"]
    standing.answered()
    assert standing.order("ab") == ["b", "a"]


# What is logged


def test_server_that_is_away_is_warned_of_once_and_then_once_a_minute() -> None:
    standing = standing_of()
    warnings = [(now, text) for now in range(100, 300, 10) if (text := standing.failed(now, "refused"))]
    assert warnings == [
        (100, "refused"),
        (160, "refused; away for 60 s"),
        (220, "refused; away for 120 s"),
        (280, "refused; away for 180 s"),
    ]


def test_connection_is_told_once_and_again_after_a_warning() -> None:
    standing = standing_of()
    assert standing.connected(0) == "connected"
    assert standing.failed(10, "closed") == "closed"
    assert standing.failed(11, "refused") is None
    assert standing.connected(12) == "connected again"
    assert standing.failed(13, "closed") is None
    assert standing.connected(14) is None
    assert standing.failed(80, "closed") == "closed"
    assert standing.connected(81) == "connected again"


def test_server_on_trial_is_connected_once_it_answers() -> None:
    standing = standing_of()
    standing.connected(0)
    assert standing.answered() is None
    assert standing.failed(40, "silent", SILENT) == "silent"
    assert standing.connected(50) is None
    assert standing.answered() == "connected again"


def test_loss_that_concerns_nobody_is_not_warned_of() -> None:
    standing = standing_of()
    standing.connected(0)
    assert standing.failed(10, "closed", quiet=True) is None
    assert standing.connected(11) is None
    standing.failed(20, "closed", quiet=True)
    assert standing.failed(20.5, "refused") == "refused"


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans(), st.sampled_from(Failure)), max_size=40))
def test_warnings_are_a_minute_apart_and_each_is_followed_by_one_end(
    attempts: list[tuple[int, bool, Failure]],
) -> None:
    standing = standing_of(0.5)
    now = 0
    lines: list[tuple[int, bool]] = []
    for pause, connects, kind in attempts:
        now += pause
        if connects and (standing.connected(now) or standing.answered()):
            lines.append((now, False))
        if standing.failed(now, "away", kind):
            lines.append((now, True))
    warned = [when for when, warning in lines if warning]
    assert all(later - sooner >= 60 for sooner, later in pairwise(warned))
    told = [warning for _when, warning in lines]
    assert all(sooner or later for sooner, later in pairwise(told)), "two ends without a warning between them"
