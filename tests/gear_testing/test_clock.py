"""The virtual clock."""

from __future__ import annotations

from math import inf

from gear_testing.clock import VirtualClock


def test_things_happen_at_their_time_and_in_order() -> None:
    clock = VirtualClock(100.0)
    seen: list[tuple[float, str]] = []
    clock.after(2, lambda: seen.append((clock(), "second")))
    clock.at(101, lambda: seen.append((clock(), "first")))
    clock.at(102, lambda: seen.append((clock(), "third")))
    clock.at(50, lambda: seen.append((clock(), "late")))
    clock.advance(1.5)
    assert seen == [(100.0, "late"), (101.0, "first")]
    assert clock() == 101.5
    clock.advance(1)
    assert seen[2:] == [(102.0, "second"), (102.0, "third")]


def test_what_happens_may_ask_for_more() -> None:
    clock = VirtualClock()
    seen: list[float] = []

    def again() -> None:
        seen.append(clock())
        clock.after(1, again)

    clock.after(1, again)
    clock.advance(3)
    assert seen == [1.0, 2.0, 3.0]
    assert clock.next() == 4.0


def test_nothing_to_come_is_never() -> None:
    assert VirtualClock().next() == inf
