"""The cycle of asking for jobs, going to sleep and waking up."""

from __future__ import annotations

import pytest

from gearproto.packets import NoJob, Noop
from gearproto.worker import ASSIGNMENTS, Grab, grab_cycle


@pytest.mark.parametrize("asks_when_woken", [True, False])
def test_everything_that_may_come_has_a_meaning_in_every_state(asks_when_woken: bool) -> None:
    cycle = grab_cycle(asks_when_woken=asks_when_woken)
    assert set(cycle) == {(state, received) for state in Grab for received in (Noop, NoJob, *ASSIGNMENTS)}


@pytest.mark.parametrize("asks_when_woken", [True, False])
def test_a_packet_is_sent_only_where_the_state_changes_with_it(asks_when_woken: bool) -> None:
    for (before, received), (after, answer) in grab_cycle(asks_when_woken=asks_when_woken).items():
        assert not answer or after is not before, (before, received)
        assert answer or after in (before, Grab.IDLE), (before, received)


def test_only_whether_a_wake_up_makes_a_worker_ask_differs() -> None:
    one, several = grab_cycle(asks_when_woken=True), grab_cycle(asks_when_woken=False)
    assert {key for key in one if one[key] != several[key]} == {(Grab.ASLEEP, Noop)}
    assert one[Grab.ASLEEP, Noop] == (Grab.ASKED, True)
    assert several[Grab.ASLEEP, Noop] == (Grab.IDLE, False)
