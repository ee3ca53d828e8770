from hypothesis import given
from hypothesis import strategies as st

from gearproto.server.deadlines import Deadline, Deadlines
from tests.harness.counting import calls

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
        assert len(deadlines.heap) + len(deadlines.old) <= 2.3 * len(deadlines) + 130
    while (item := deadlines.peek()) is not None:
        assert deadlines.pop_due(1000.0) == item
        kept.remove(min(kept, key=lambda index: index * 7 % 1000))
    assert kept == []
    assert len(deadlines) == 0


@given(st.data())
def test_items_come_in_their_order_whatever_is_added_and_cancelled_meanwhile(data: st.DataObject) -> None:
    deadlines = Deadlines[int]()
    there: dict[int, tuple[float, Deadline[int]]] = {}
    count = data.draw(st.sampled_from([10, 100, 250]))
    random = data.draw(st.randoms(use_true_random=False))
    for number in range(count):
        when = float(random.randrange(50))
        there[number] = when, deadlines.add(when, number)
        if random.random() < 0.1:
            earliest = min(there, key=lambda index: (there[index][0], index))
            assert deadlines.peek() == earliest
            assert deadlines.next() == there[earliest][0]
        for _ in range(random.choice([0, 0, 1, 2])):
            if there:
                deadlines.cancel(there.pop(random.choice(list(there)))[1])
        assert len(deadlines) == len(there)
    order = sorted(there, key=lambda index: (there[index][0], index))
    assert [deadlines.pop_due(50.0) for _ in order] == order


def test_no_call_takes_long_however_much_has_been_cancelled() -> None:
    def longest(count: int) -> int:
        deadlines = Deadlines[int]()
        entries = [deadlines.add(float(number), number) for number in range(count)]
        most = 0
        for number in range(1, count * 3 // 4):
            most = max(most, calls(lambda number=number: deadlines.cancel(entries[number])))  # type: ignore[misc]
        most = max(most, calls(lambda: deadlines.pop_due(0.0)))
        while deadlines.next() != count * 3 // 4:
            most = max(most, calls(lambda: deadlines.pop_due(0.0)))
        return most

    assert longest(6_000) <= longest(1_000) <= 200


def test_times_may_be_told_by_another_clock() -> None:
    deadlines = Deadlines[str]()
    deadlines.add(1_700_000_002.3, "a")
    offset = 1_700_000_000.1
    when = deadlines.next()
    assert when is not None
    assert deadlines.pop_due(when - offset - 0.001, offset) is None
    assert deadlines.pop_due(when - offset, offset) == "a"
