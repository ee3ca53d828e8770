from hypothesis import given
from hypothesis import strategies as st

from gearproto.server.deadlines import Deadline, Deadlines

times = st.integers(0, 9).map(float)


def drained(deadlines: Deadlines[int], now: float) -> list[int]:
    return list(iter(lambda: deadlines.pop_due(now), None))


def test_nothing_is_due_where_there_is_nothing() -> None:
    deadlines = Deadlines[int]()
    assert deadlines.next() is None
    assert deadlines.pop_due(1e9) is None
    assert len(deadlines) == 0


@given(st.lists(times), times)
def test_items_come_when_they_are_due_by_time_and_then_by_age(whens: list[float], now: float) -> None:
    deadlines = Deadlines[int]()
    for index, when in enumerate(whens):
        deadlines.add(when, index)
    assert deadlines.next() == min(whens, default=None)
    order = sorted(range(len(whens)), key=whens.__getitem__)
    assert drained(deadlines, now) == [index for index in order if whens[index] <= now]
    assert len(deadlines) == sum(when > now for when in whens)
    assert drained(deadlines, 9.0) == [index for index in order if whens[index] > now]


@given(st.lists(st.tuples(times, st.booleans())), times)
def test_cancelled_items_never_come(items: list[tuple[float, bool]], now: float) -> None:
    deadlines = Deadlines[int]()
    entries = [deadlines.add(when, index) for index, (when, _) in enumerate(items)]
    for entry, (_, cancelled) in zip(entries, items, strict=True):
        if cancelled:
            deadlines.cancel(entry)
            deadlines.cancel(entry)
    left = [index for index, (_, cancelled) in enumerate(items) if not cancelled]
    assert len(deadlines) == len(left)
    assert deadlines.next() == min((items[index][0] for index in left), default=None)
    assert sorted(drained(deadlines, now)) == [index for index in left if items[index][0] <= now]


def test_cancelling_what_was_due_changes_nothing() -> None:
    deadlines = Deadlines[int]()
    entry = deadlines.add(1.0, 1)
    deadlines.add(2.0, 2)
    assert deadlines.pop_due(1.0) == 1
    deadlines.cancel(entry)
    assert len(deadlines) == 1
    assert deadlines.next() == 2.0


@given(st.lists(st.integers(0, 999), unique=True))
def test_many_cancelled_items_are_swept_and_the_others_keep_their_order(kept: list[int]) -> None:
    deadlines = Deadlines[int]()
    entries = [deadlines.add(float(index * 7 % 1000), index) for index in range(1000)]
    for index in set(range(1000)).difference(kept):
        deadlines.cancel(entries[index])
        assert len(deadlines._heap) <= 2 * len(deadlines) + 130
    assert drained(deadlines, 1000.0) == sorted(kept, key=lambda index: index * 7 % 1000)


def test_entries_compare_by_time_and_then_by_age() -> None:
    early, late, later = Deadline(1.0, 3, "a"), Deadline(2.0, 1, "b"), Deadline(2.0, 2, "c")
    assert sorted([later, late, early]) == [early, late, later]
