"""`gearproto.server.log_limit`: how many log lines peers may cause."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gearproto.server.log_limit import LogLimit


def test_lines_past_the_burst_come_one_for_each_interval_and_tell_how_many_were_left_out() -> None:
    limit = LogLimit(burst=3, interval=5.0)
    assert [limit.admit("tls", 100.0) for _ in range(6)] == [0, 0, 0, None, None, None]
    assert limit.admit("tls", 104.9) is None
    assert [limit.admit("tls", 105.0) for _ in range(2)] == [4, None]
    assert [limit.admit("tls", 115.0) for _ in range(3)] == [1, 0, None]


def test_topics_do_not_silence_each_other() -> None:
    limit = LogLimit(burst=1)
    assert [limit.admit(topic, 0.0) for topic in ("tls", "tls", "full", "full")] == [0, None, 0, None]


def test_quiet_topic_may_burst_again() -> None:
    limit = LogLimit(burst=2, interval=1.0)
    for start in (0.0, 1000.0, 2000.0):
        assert [limit.admit("tls", start) for _ in range(3)].count(None) == 1


@given(st.lists(st.floats(0, 3), max_size=200), st.integers(1, 5))
def test_no_stretch_of_time_has_more_lines_than_the_burst_and_one_for_each_interval(
    pauses: list[float], burst: int
) -> None:
    limit = LogLimit(burst=burst, interval=1.0)
    now, lines, admitted, left_out = 0.0, 0, list[float](), 0
    for pause in pauses:
        now += pause
        lines += 1
        if (missing := limit.admit("x", now)) is not None:
            admitted.append(now)
            left_out += missing
    for index, first in enumerate(admitted):
        for count, last in enumerate(admitted[index:], 1):
            assert count <= burst + (last - first) + 1
    assert len(admitted) + left_out <= lines
