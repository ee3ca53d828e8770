from dataclasses import dataclass
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.client import Candidates, Policy, ServerChooser, Try, WaitUntil

NOW = 100.0
NEVER = float("inf")


@dataclass
class Standing:
    """What a choice depends on."""

    connected: bool = False
    retry_at: float = 0.0
    suspect: bool = False


UP = Standing(connected=True)
NEW = Standing()

standings = st.one_of(
    st.builds(Standing, st.booleans(), st.floats(0, 200)),
    st.builds(Standing, st.just(False), st.floats(0, 200), st.just(True)),
)
policies = st.sampled_from(Policy)
uniques = st.binary(max_size=64)


def walk(candidates: Candidates, until: float = NEVER) -> list[int]:
    """Return the servers that are tried, with all the time that it takes."""
    now = NOW
    order = []
    while (step := candidates.next(now, until)) is not None:
        if isinstance(step, Try):
            order.append(step.index)
        else:
            assert now < step.when <= until
            now = step.when
    return order


def walks(policy: Policy | str, servers: list[Standing], *uniques: bytes) -> list[list[int]]:
    """Return how several jobs go through the servers, one after the other."""
    chooser = ServerChooser(servers, policy)
    return [walk(chooser.candidates(unique)) for unique in uniques]


def test_ordered_goes_to_the_first_and_then_to_the_others() -> None:
    assert walks("ordered", [NEW, NEW, NEW], b"", b"u") == [[0, 1, 2], [0, 1, 2]]


def test_ordered_stays_with_the_server_that_it_is_connected_to() -> None:
    assert walks(Policy.ORDERED, [NEW, NEW, UP], b"") == [[2, 0, 1]]
    assert walks(Policy.ORDERED, [NEW, UP, UP], b"") == [[1, 2, 0]]


def test_round_robin_begins_with_each_server_in_turn() -> None:
    assert walks("round_robin", [NEW, UP, NEW], b"", b"u", b"", b"") == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]


def test_unique_hash_takes_jobs_without_a_unique_in_turn() -> None:
    start = (crc32(b"42") >> 16 & 0x7FFF) % 3
    assert walks("unique_hash", [NEW, NEW, NEW], b"", b"42", b"", b"") == [
        [0, 1, 2],
        [start, (start + 1) % 3, (start + 2) % 3],
        [1, 2, 0],
        [2, 0, 1],
    ]


# crc32 of the unique, as other programs print it: 0x3610a686, 0x3224b088, 0xe8b7be43, 0x352441c2
@pytest.mark.parametrize(("unique", "value"), [(b"hello", 0x3610), (b"42", 0x3224), (b"a", 0x68B7), (b"abc", 0x3524)])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_unique_hash_is_the_rule_of_the_perl_client(unique: bytes, value: int, count: int) -> None:
    assert walks("unique_hash", [NEW] * count, unique)[0][0] == value % count


@given(uniques, st.lists(standings, min_size=1, max_size=5), st.lists(uniques, max_size=5))
def test_unique_hash_of_a_unique_depends_on_nothing_but_the_number_of_servers(
    unique: bytes, servers: list[Standing], before: list[bytes]
) -> None:
    chooser = ServerChooser(servers, Policy.UNIQUE_HASH)
    for other in before:
        chooser.candidates(other)
    if unique:
        fresh = [Standing() for _ in servers]
        expected = ServerChooser(fresh, Policy.UNIQUE_HASH).candidates(unique).next(NOW, NEVER)
        for standing in servers:
            standing.connected = True
        assert chooser.candidates(unique).next(NOW, NEVER) == expected


@pytest.mark.parametrize("policy", Policy)
def test_only_server_is_the_choice_of_every_policy(policy: Policy) -> None:
    assert walks(policy, [NEW], b"", b"u") == [[0], [0]]


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="'nearest' is not a valid Policy"):
        ServerChooser([NEW], "nearest")


def test_server_that_failed_lately_is_passed_over() -> None:
    failed = Standing(retry_at=NOW + 1)
    assert walks("ordered", [failed, NEW, failed], b"") == [[1]]


def test_server_that_is_connected_is_not_passed_over() -> None:
    assert walks("ordered", [Standing(connected=True, retry_at=NOW + 1)], b"") == [[0]]


def test_where_all_have_failed_the_first_that_may_be_tried_again_is_waited_for() -> None:
    servers = [Standing(retry_at=NOW + 2), Standing(retry_at=NOW + 1)]
    candidates = ServerChooser(servers, "ordered").candidates()
    assert candidates.next(NOW, NOW + 1) == WaitUntil(NOW + 1)
    assert candidates.next(NOW + 1, NEVER) == Try(1)
    assert candidates.next(NOW + 1, NEVER) is None


def test_nothing_is_waited_for_that_comes_too_late() -> None:
    servers = [Standing(retry_at=NOW + 2), Standing(retry_at=NOW + 3)]
    assert ServerChooser(servers, "ordered").candidates().next(NOW, NOW + 1.9) is None


def test_server_that_fails_while_others_are_tried_is_passed_over() -> None:
    servers = [Standing(), Standing()]
    candidates = ServerChooser(servers, "ordered").candidates()
    assert candidates.next(NOW, NEVER) == Try(0)
    servers[1].retry_at = NOW + 1
    assert candidates.next(NOW, NEVER) is None


@given(policies, st.lists(standings, min_size=1, max_size=6), uniques, st.floats(NOW, 200))
def test_suspects_come_after_all_others_that_can_be_tried(
    policy: Policy, servers: list[Standing], unique: bytes, until: float
) -> None:
    candidates = ServerChooser(servers, policy).candidates(unique)
    now = NOW
    left = set(range(len(servers)))
    while (step := candidates.next(now, until)) is not None:
        sound = [index for index in left if not servers[index].suspect]
        if isinstance(step, Try):
            left.remove(step.index)
            if servers[step.index].suspect:
                assert not any(servers[index].connected or servers[index].retry_at <= now for index in sound)
        else:
            in_time = [index for index in sound if servers[index].retry_at <= until]
            assert step.when == min(servers[index].retry_at for index in in_time or left)
            now = step.when


def test_only_suspects_are_tried_if_there_are_no_others() -> None:
    servers = [Standing(suspect=True), Standing(suspect=True, retry_at=NOW + 1)]
    assert walks("ordered", servers, b"") == [[0]]
    assert walks("ordered", servers[1:], b"") == [[0]]


@pytest.mark.parametrize("policy", Policy)
def test_suspects_are_connected_to_on_the_side_unless_the_order_is_fixed(policy: Policy) -> None:
    servers = [Standing(suspect=True), Standing(suspect=True, retry_at=NOW + 1), NEW, UP]
    chooser = ServerChooser(servers, policy)
    fixed = policy is Policy.ORDERED
    assert chooser.on_the_side(NOW) == ([] if fixed else [0])
    assert chooser.on_the_side(NOW + 1) == ([] if fixed else [0, 1])


@given(policies, st.lists(standings, min_size=1, max_size=6), st.lists(uniques, min_size=1, max_size=4))
def test_each_server_is_tried_once_at_most_and_one_at_least(
    policy: Policy, servers: list[Standing], uniques: list[bytes]
) -> None:
    for order in walks(policy, servers, *uniques):
        assert order
        assert len(set(order)) == len(order)
        usable = {index for index, server in enumerate(servers) if server.connected or server.retry_at <= NOW}
        assert set(order) >= usable


@given(policies, st.data())
def test_walk_ends_however_the_servers_change_meanwhile(policy: Policy, data: st.DataObject) -> None:
    servers = data.draw(st.lists(standings, min_size=1, max_size=5))
    candidates = ServerChooser(servers, policy).candidates(data.draw(uniques))
    now = NOW
    tried: list[int] = []
    for _ in range(30):
        step = candidates.next(now, NEVER)
        if step is None:
            break
        if isinstance(step, Try):
            tried.append(step.index)
        else:
            now = step.when
        changed = data.draw(st.sampled_from(servers))
        changed.connected = data.draw(st.booleans())
        changed.retry_at = now + data.draw(st.sampled_from([0.0, 0.1, 0.8]))
    assert len(set(tried)) == len(tried) <= len(servers)


@given(st.lists(standings, min_size=1, max_size=5), policies, st.data())
def test_query_goes_in_order_or_to_the_one_it_is_meant_for_whatever_the_policy(
    servers: list[Standing], policy: Policy, data: st.DataObject
) -> None:
    chooser = ServerChooser(servers, policy)
    index = data.draw(st.sampled_from(range(len(servers))))
    assert chooser.only(index).next(NEVER, NEVER) == Try(index)
    expected = ServerChooser(servers, Policy.ORDERED).candidates()
    ways = chooser.in_order(), expected
    for _ in servers:
        first, second = (way.next(NEVER, NEVER) for way in ways)
        assert first == second
