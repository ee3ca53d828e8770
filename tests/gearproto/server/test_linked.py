"""Lists that are gone through in steps while things come and go."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from gearproto.server.linked import Linked, LinkedList


class Thing(Linked):
    pass


def everything(linked: LinkedList[Thing]) -> list[Thing]:
    return list(linked.walk(10**6))


def test_things_come_in_the_order_in_which_they_were_added() -> None:
    things = [Thing() for _ in range(1000)]
    linked: LinkedList[Thing] = LinkedList()
    for thing in things:
        linked.add(thing)
    assert everything(linked) == things
    for thing in things[100:900]:
        linked.remove(thing)
    assert everything(linked) == things[:100] + things[900:]
    for thing in things[:100] + things[900:]:
        linked.remove(thing)
    assert everything(linked) == []


@given(st.lists(st.integers(0, 2000), max_size=60), st.data())
def test_walk_yields_what_was_there_at_its_begin_and_is_still_there(moves: list[int], data: st.DataObject) -> None:
    linked: LinkedList[Thing] = LinkedList()
    there: dict[Thing, None] = {}
    walks: list[tuple[Iterator[Thing], list[Thing], list[Thing]]] = []

    def add(count: int) -> None:
        for _ in range(count):
            thing = Thing()
            linked.add(thing)
            there[thing] = None

    add(data.draw(st.integers(0, 1000)))
    for move in moves:
        kind = move % 4
        if kind == 0:
            add(move // 4)
        elif kind == 1:
            for thing in list(there)[move // 8 : move // 4]:
                linked.remove(thing)
                del there[thing]
        elif kind == 2:
            walks.append((linked.walk(len(there)), list(there), []))
            steps(walks[-1], 1, there)  # a walk begins with its first step
        elif walks:
            steps(walks[move % len(walks)], move // 4, there)
    for walk in walks:
        steps(walk, len(there) + 1, there)
        _walk, at_begin, seen = walk
        expected = [thing for thing in at_begin if thing in there]
        assert [thing for thing in seen if thing in set(expected)] == expected
        assert len(set(seen)) == len(seen)
    assert everything(linked) == list(there)


def steps(walk: tuple[Iterator[Thing], list[Thing], list[Thing]], count: int, there: dict[Thing, None]) -> None:
    iterator, _at_begin, seen = walk
    for _ in range(count):
        thing = next(iterator, None)
        if thing is None:
            return
        assert thing in there
        seen.append(thing)


def test_walk_ends_though_things_keep_coming() -> None:
    linked: LinkedList[Thing] = LinkedList()
    linked.add(Thing())
    count = 0
    for _thing in linked.walk(1):
        count += 1
        for _ in range(300):
            linked.add(Thing())
    assert count == 1
