"""`gearproto.server.trimming`: when memory is given back."""

from __future__ import annotations

from gearproto.server.trimming import Trimming

MIB = 1024 * 1024


def test_memory_is_given_back_once_the_server_holds_much_less_and_is_idle() -> None:
    trimming = Trimming(step=64 * MIB, idle=1.0)
    for held in (10 * MIB, 200 * MIB, 137 * MIB):
        assert not trimming.note(held, 0, 0.0)
        assert trimming.due is None
    assert not trimming.note(136 * MIB, 0, 5.0)
    assert trimming.due == 6.0
    assert not trimming.note(100 * MIB, 0, 5.9)
    assert trimming.note(90 * MIB, 0, 6.0)
    assert trimming.due is None
    assert not trimming.note(27 * MIB, 0, 7.0)  # less than 64 MiB below what it was then
    assert trimming.due is None
    assert not trimming.note(26 * MIB, 0, 8.0)
    assert trimming.due == 9.0


def test_busy_server_keeps_its_memory() -> None:
    trimming = Trimming(step=64 * MIB, idle=1.0)
    trimming.note(100 * MIB, 0, 0.0)
    received = 0
    for now in range(1, 5):
        received += MIB
        assert not trimming.note(0, received, float(now))
        assert trimming.due == now + 1.0
    assert not trimming.note(0, received + 1000, 4.5)
    assert trimming.note(0, received + 1000, 5.0)


def test_memory_that_is_used_again_is_kept() -> None:
    trimming = Trimming(step=64 * MIB, idle=1.0)
    trimming.note(100 * MIB, 0, 0.0)
    trimming.note(0, 0, 1.0)
    assert trimming.due == 2.0
    assert not trimming.note(80 * MIB, 0, 3.0)
    assert trimming.due is None


def test_what_is_held_has_to_be_noted_only_when_it_leaves_its_bounds() -> None:
    trimming = Trimming(step=64 * MIB)
    assert trimming.low < 0 < trimming.high
    trimming.note(100 * MIB, 0, 0.0)
    assert trimming.low == 36 * MIB
    assert 100 * MIB < trimming.high <= 102 * MIB
