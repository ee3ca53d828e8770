"""`gearproto.server.turns`: what one turn of a server may cost."""

from __future__ import annotations

import pytest

from gearproto.server.turns import READ_TIME, SEND_TIME, Turns


@pytest.mark.parametrize("busy", [0, 1, 10, 1000, 100_000])
def test_work_is_shared_out_among_those_who_have_some(busy: int) -> None:
    turns = Turns()
    turns.begin(busy)
    assert turns.work_limit >= 16  # everybody gets something done
    assert turns.work_limit * busy <= max(2048, 16 * busy)
    assert turns.resumes >= 4
    assert turns.resumes * turns.work_limit <= max(2048, 4 * 2048)
    assert turns.max_read == (256 * 1024 if busy < 16 else 64 * 1024)


def test_turn_has_time_for_everything_and_lasts_no_50_milliseconds() -> None:
    assert 0.0 < READ_TIME < SEND_TIME < 0.05
