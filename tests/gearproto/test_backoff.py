import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.backoff import DEFAULT_PAUSES, Backoff

chances = st.floats(0, 1)


def backoff(chance: float = 0.0, pauses: tuple[float, float] = (1.0, 5.0)) -> Backoff:
    """Return a backoff whose chance is always the same."""
    return Backoff(lambda: chance, pauses)


def test_server_is_not_left_alone_before_it_fails() -> None:
    assert backoff().retry_at == 0


def test_pauses_double_up_to_the_longest() -> None:
    pause = backoff()
    pauses = []
    for _ in range(5):
        pause.failed(100)
        pauses.append(pause.retry_at - 100)
    assert pauses == [1, 2, 4, 5, 5]


def test_chance_shortens_a_pause_by_a_quarter_at_the_most() -> None:
    pause = backoff(1.0)
    pause.failed(100)
    assert pause.retry_at == 100.75
    pause.failed(100)
    assert pause.retry_at == 101.5


def test_connection_that_has_held_is_opened_again_at_once_and_the_pauses_begin_anew() -> None:
    pause = backoff()
    pause.failed(0)
    pause.failed(0)
    pause.connected(10)
    pause.failed(15.1)
    assert pause.retry_at == 15.1
    pause.failed(16)
    assert pause.retry_at == 17


@pytest.mark.parametrize("held", [0.0, 5.0])
def test_connection_that_was_closed_soon_is_a_failure_like_any_other(held: float) -> None:
    pause = backoff()
    pause.failed(0)
    pause.connected(10)
    pause.failed(10 + held)
    assert pause.retry_at == 10 + held + 2


def test_time_before_a_failed_attempt_is_none_that_the_connection_has_held() -> None:
    pause = backoff()
    pause.connected(0)
    pause.failed(1)
    pause.failed(100)
    assert pause.retry_at == 102


def test_server_that_fails_slowly_is_left_alone_for_longer() -> None:
    pause = backoff()
    pause.failed(100, took=3)
    assert pause.retry_at == 112
    pause.failed(200, took=0.1)
    assert pause.retry_at == 202


@pytest.mark.parametrize("pauses", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_pauses_that_make_no_sense_are_refused(pauses: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^the first pause of .* make no sense$"):
        Backoff(lambda: 0.0, pauses)


@given(st.lists(chances, min_size=12, max_size=12), st.floats(0, 0.05))
def test_server_that_closes_at_once_is_connected_to_10_times_in_4_seconds_at_most(
    chance: list[float], held: float
) -> None:
    pause = Backoff(iter(chance).__next__, DEFAULT_PAUSES)
    now = 50.0
    connects = 0
    while now < 54:
        connects += 1
        pause.connected(now)
        pause.failed(now + held)
        now = pause.retry_at
    assert connects <= 10


@given(st.lists(st.tuples(chances, st.booleans(), st.floats(0, 100)), max_size=40))
def test_server_that_fails_fast_is_back_within_a_second(attempts: list[tuple[float, bool, float]]) -> None:
    pause = Backoff(iter([chance for chance, _connects, _held in attempts]).__next__, DEFAULT_PAUSES)
    now = 50.0
    for _chance, connects, held in attempts:
        if connects:
            pause.connected(now)
            now += held
        pause.failed(now)
        assert now <= pause.retry_at <= now + 1
        now = pause.retry_at
