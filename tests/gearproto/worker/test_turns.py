"""Which of several servers is asked for a job next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gearproto.worker import Grab, GrabTurns

TIMEOUT = 2.0


class Servers:
    """Servers by number, in any state, and the turns of their connections."""

    def __init__(self, count: int) -> None:
        self.states = dict.fromkeys(range(count), Grab.IDLE)
        self.turns = GrabTurns[int](self.states.__getitem__, TIMEOUT)
        for server in range(count):
            self.turns.add(server)

    def ask(self, wanted: int, now: float = 0.0, *, but: tuple[int, ...] = ()) -> list[int]:
        """Ask the servers whose turn it is."""
        asked = self.turns.take(wanted, now, lambda server: server not in but)
        for server in asked:
            self.states[server] = Grab.ASKED
        return asked


@given(st.integers(1, 4), st.integers(0, 6))
def test_no_more_are_asked_than_jobs_are_wanted_and_none_twice(count: int, wanted: int) -> None:
    servers = Servers(count)
    assert servers.ask(wanted) == list(range(min(count, wanted)))
    assert servers.ask(wanted) == []


def test_those_that_were_not_asked_for_longest_come_first() -> None:
    servers = Servers(3)
    turns = []
    for _ in range(4):
        (server,) = servers.ask(1)
        servers.states[server] = Grab.IDLE
        turns.append(server)
    assert turns == [0, 1, 2, 0]
    assert list(servers.turns) == [1, 2, 0]


def test_only_idle_servers_that_may_be_asked_are() -> None:
    servers = Servers(4)
    servers.states[0] = Grab.ASLEEP
    servers.states[1] = Grab.ASKED
    assert servers.ask(4, but=(2,)) == [3]


def test_server_that_was_asked_makes_room_when_it_answers_or_takes_too_long() -> None:
    servers = Servers(3)
    assert servers.ask(1) == [0]
    assert (servers.turns.next_deadline(), servers.turns.awaiting) == (TIMEOUT, True)
    assert servers.ask(1, 1.0) == []
    servers.states[0] = Grab.ASLEEP
    assert servers.ask(1, 1.5) == [1]
    assert servers.turns.next_deadline() == 1.5 + TIMEOUT
    assert servers.ask(1, 1.5 + TIMEOUT) == [2]


def test_server_that_is_gone_is_not_waited_for() -> None:
    servers = Servers(2)
    assert servers.ask(2) == [0, 1]
    servers.turns.remove(0)
    servers.turns.remove(0)
    servers.turns.remove(1)
    assert (servers.turns.next_deadline(), servers.turns.awaiting, list(servers.turns)) == (None, False, [])
