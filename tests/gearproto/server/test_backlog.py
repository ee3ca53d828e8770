"""`gearproto.server.backlog`: output that peers have not taken, and which peers have to go for it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.server.backlog import Backlog, Backlogs

BUFFER = 10  # bytes that the socket's buffer holds in these tests


def some(**options: float) -> Backlogs[str]:
    return Backlogs(**{"pause_at": 5, "max_unsent": 100, "max_behind": 1000, **options})  # type: ignore[arg-type]


def begun(backlogs: Backlogs[str], size: int, *, peer: str = "peer", now: float = 0.0) -> Backlog:
    """Begin a backlog at a socket that is full at once."""
    backlog = backlogs.begin(peer, [bytes(size)], size)
    assert backlogs.rest(peer, backlog, BUFFER, now, full=True) is None
    return backlog


def drained(backlogs: Backlogs[str], size: int, *, peer: str = "peer", now: float = 0.0) -> Backlog:
    """Begin a backlog of this size, at a socket that has drained, and is full again."""
    backlog = begun(backlogs, size + BUFFER, peer=peer, now=now)
    backlogs.sent(peer, backlog, BUFFER, now)
    assert backlogs.rest(peer, backlog, BUFFER, now, full=True) is None
    return backlog


def add(backlogs: Backlogs[str], backlog: Backlog, size: int, now: float, *, peer: str = "peer") -> str | None:
    return backlogs.add(peer, backlog, [bytes(size)], size, now)


# What is kept


@given(
    st.lists(st.integers(1, 30) | st.integers(65_000, 140_000), max_size=12),
    st.integers(1000, 200_000),
)
def test_all_that_is_queued_is_taken_in_its_order(sizes: list[int], limit: int) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    half = len(pieces) // 2
    backlog = Backlog(pieces[:half], sum(map(len, pieces)))
    backlog.extend(pieces[half:])
    taken = []
    while data := backlog.take(limit):
        assert len(data) <= max(limit, 65_536)
        taken.append(bytes(data))
    assert b"".join(taken) == b"".join(pieces)


def test_small_pieces_are_taken_together_and_big_ones_are_not_copied() -> None:
    big = bytes(70_000)
    backlog = Backlog([b"a", b"b", big, b"c"], 70_003)
    assert backlog.take() == b"ab"
    assert backlog.take() is big
    assert backlog.take() == b"c"
    assert backlog.take() == b""


def test_shared_pieces_count_for_each_peer_that_has_to_get_them() -> None:
    backlogs, piece = some(), bytes(30)
    for peer in ("a", "b"):
        backlogs.begin(peer, [piece] * 3, 90)
    assert backlogs.size == 180
    backlogs.end("a")
    assert (backlogs.size, set(backlogs.open)) == (90, {"b"})
    backlogs.end("b")
    backlogs.end("b")
    assert (backlogs.size, set(backlogs.open)) == (0, set())


def test_requests_wait_past_pause_at() -> None:
    backlogs = some(pause_at=5)
    assert not backlogs.keeps_waiting("peer")
    backlog = begun(backlogs, 6)
    assert backlogs.keeps_waiting("peer")
    backlogs.sent("peer", backlog, 1, 0.0)
    assert not backlogs.keeps_waiting("peer")


def test_peer_that_takes_nothing_has_to_go_when_more_comes_past_the_limit() -> None:
    backlogs = some()
    backlog = begun(backlogs, 60)
    assert add(backlogs, backlog, 40, 1.0) is None  # the limit itself
    assert not backlogs.may_be_stuck(backlog)
    assert add(backlogs, backlog, 1, 2.0) is None
    assert backlogs.may_be_stuck(backlog)
    assert add(backlogs, backlog, 1, 3.0) == "102 bytes unread, limit 100"
    assert backlogs.size == 101


def test_several_big_results_at_once_are_no_reason() -> None:
    backlogs = some()
    backlog = begun(backlogs, 90, now=7.0)
    for now in (7.0, 7.005, 7.01, 7.015):
        assert add(backlogs, backlog, 90, now) is None
    backlogs = some()
    begun(backlogs, 500)


def test_but_not_more_than_a_peer_may_fall_behind() -> None:
    backlogs = some()
    backlog = begun(backlogs, 900)
    assert add(backlogs, backlog, 101, 0.0) == "1001 bytes unread, limit 1000"
    backlogs = some()
    backlog = backlogs.begin("peer", [bytes(1001)], 1001)
    assert backlogs.rest("peer", backlog, BUFFER, 0.0, full=True) == "1001 bytes unread, limit 1000"


def test_peer_past_the_limit_that_takes_nothing_has_to_go_soon() -> None:
    backlogs = some(drain_timeout=1.0)
    begun(backlogs, 101, now=50.0)
    assert backlogs.next_deadline() == 51.0
    assert list(backlogs.overdue(50.9)) == []
    assert list(backlogs.overdue(51.0)) == [("peer", "101 bytes unread, limit 100: it has read nothing for 1 s")]


def test_peer_for_which_there_was_no_time_is_judged_all_the_same() -> None:
    backlogs = some()
    backlog = backlogs.begin("peer", [bytes(150)], 150)
    backlogs.sent("peer", backlog, 10, 3.0)
    assert backlogs.rest("peer", backlog, BUFFER, 3.0, full=False) is None
    assert backlogs.next_deadline() == 4.0
    backlog = backlogs.begin("peer", [bytes(1001)], 1001)
    assert backlogs.rest("peer", backlog, BUFFER, 3.0, full=False) == "1001 bytes unread, limit 1000"


def test_what_a_growing_buffer_takes_does_not_pass_for_reading() -> None:
    backlogs = some()
    backlog = begun(backlogs, 150)
    for now in (1.0, 2.0):
        backlogs.sent("peer", backlog, BUFFER // 2 - 1, now)
        assert backlogs.rest("peer", backlog, BUFFER, now, full=True) is None
        assert not backlog.drained
    assert add(backlogs, backlog, 20, 3.0) is None  # it has moved, and may have half as much again
    assert add(backlogs, backlog, 1, 4.0) == "163 bytes unread, limit 100"


def test_what_the_socket_takes_before_it_is_full_does_not_pass_for_reading() -> None:
    backlogs = some()
    backlog = backlogs.begin("peer", [bytes(200)], 200)
    backlogs.sent("peer", backlog, 5 * BUFFER, 0.0)
    for _ in range(2):
        assert backlogs.rest("peer", backlog, BUFFER, 0.0, full=True) is None
    assert not backlog.drained


def test_peer_within_the_limit_may_stay_as_it_is_for_ever() -> None:
    backlogs = some()
    begun(backlogs, 100)
    assert backlogs.next_deadline() is None
    assert list(backlogs.overdue(1e9)) == []


# A peer that reads


def test_peer_that_reads_may_fall_behind() -> None:
    backlogs = some()
    backlog = drained(backlogs, 90)
    for now in range(1, 10):
        assert add(backlogs, backlog, 100, now) is None
    assert backlog.size == 990
    assert add(backlogs, backlog, 11, 10.0) == "1001 bytes unread, limit 1000"


def test_peer_that_has_fallen_behind_has_to_make_progress() -> None:
    backlogs = some(stall_timeout=10.0)
    backlog = drained(backlogs, 500, now=100.0)
    for now in (100.0, 109.0, 118.0):
        backlogs.sent("peer", backlog, 1, now)
        assert backlogs.next_deadline() == now + 10.0
        assert list(backlogs.overdue(now + 9.9)) == []
    assert list(backlogs.overdue(128.0)) == [("peer", "497 bytes unread, limit 100: it has read nothing for 10 s")]
    backlogs.sent("peer", backlog, 397, 128.0)
    assert backlogs.next_deadline() is None


def test_pause_before_the_limit_was_passed_does_not_count() -> None:
    backlogs = some(stall_timeout=10.0)
    backlog = drained(backlogs, 90, now=0.0)
    assert add(backlogs, backlog, 50, 1000.0) is None
    assert backlogs.next_deadline() == 1010.0


def test_deadline_is_that_of_the_peer_that_has_to_go_first() -> None:
    backlogs = some(stall_timeout=10.0, drain_timeout=1.0)
    drained(backlogs, 500, peer="a", now=0.0)
    begun(backlogs, 500, peer="b", now=5.0)
    assert backlogs.next_deadline() == 6.0
    backlogs.end("b")
    assert backlogs.next_deadline() == 10.0
    backlogs.end("a")
    assert backlogs.next_deadline() is None


def test_limit_for_peers_that_read_is_never_below_the_other() -> None:
    backlogs = some(max_behind=10)
    backlog = drained(backlogs, 60)
    assert add(backlogs, backlog, 40, 1.0) is None
    assert add(backlogs, backlog, 1, 2.0) == "101 bytes unread, limit 100"


@pytest.mark.parametrize("read", [0, 1])
@given(steps=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40), st.floats(0.03, 3)), max_size=60))
def test_no_peer_has_more_than_it_may(read: int, steps: Iterable[tuple[int, int, float]]) -> None:
    """Whatever comes and is taken: who takes nothing has at most its limit and a piece, anybody what it may."""
    backlogs = some()
    backlog = begun(backlogs, 1)
    now = 0.0
    for size, taken, pause in steps:
        now += pause
        if count := min(taken * read, backlog.size):
            backlogs.sent("peer", backlog, count, now)
        gone = backlogs.rest("peer", backlog, BUFFER, now, full=True) or add(backlogs, backlog, size, now)
        if gone is not None or list(backlogs.overdue(now)):
            assert backlog.size + size > 100  # nobody goes for less
            return
        assert backlog.size == backlogs.size <= (1000 if read else 160)
