"""`gearproto.server.answers`: answers to text commands leave once they are whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gearproto.packets import SubmitJobBg
from gearproto.server.answers import Answer
from tests.harness.engine import Bench


@given(st.lists(st.integers(1, 3_000_000), max_size=8), st.integers(1, 200_000), st.integers(1, 9_000_000))
def test_answer_is_made_in_steps_and_nothing_of_it_is_lost(sizes: list[int], work: int, limit: int) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    answer, taken = Answer(iter(pieces)), []
    largest = max(sizes, default=0)
    ended = False
    while not ended:
        held = answer.size
        done = answer.make(work, limit)
        assert held <= answer.size < limit + largest + 1
        assert (answer.size - held) >> 5 <= done < work + largest // 32 + 13
        ended = answer.ended
        if ended or answer.size >= limit:
            size, chunks = answer.size, answer.take()
            assert answer.size == 0
            assert sum(map(len, chunks)) == size
            assert all(len(chunk) >= 4 * 1024 * 1024 for chunk in chunks[:-1])
            taken += chunks
    assert b"".join(taken) == b"".join(pieces)


def test_long_answer_leaves_in_big_chunks() -> None:
    answer = Answer(iter([bytes(1024 * 1024)] * 10))
    answer.make(10**9, 10**9)
    assert answer.size == 10 * 1024 * 1024
    assert [len(chunk) // (1024 * 1024) for chunk in answer.take()] == [4, 4, 2]


def test_steps_without_bytes_and_short_pieces_cost_time_too() -> None:
    answer = Answer(iter([b""] * 10 + [b"\n"] * 10))
    assert answer.make(4, 10**9) == 4
    assert answer.make(6, 10**9) == 6
    assert answer.size == 0
    assert answer.make(10**9, 10**9) >= 100
    assert answer.take() == [b"\n" * 10]


def with_jobs(count: int, **options: int) -> tuple[Bench, bytes]:
    """Return an engine with jobs, and what it has to answer to ``show jobs``."""
    bench = Bench(checked=False, **options)
    client = bench.connect()
    handles = [client.submit(SubmitJobBg(b"f", b"", b"")) for _ in range(count)]
    return bench, b"".join([handle + b"\t0\t0\t1\n" for handle in handles]) + b".\n"


def test_answer_that_takes_several_turns_leaves_in_one_piece() -> None:
    bench, answer = with_jobs(3000)
    bench.engine.work_limit = 100
    admin = bench.connect()
    turns = 0
    assert admin.send(b"show jobs\n").raw() == b""
    while not (got := admin.raw()):
        assert list(bench.engine.paused_peers()) == [admin.id]
        bench.engine.resume(admin.id, bench.now)
        bench.settle()
        turns += 1
    assert turns > 3
    assert got == answer
    assert not bench.engine.paused_peers()


def test_answer_past_its_limit_leaves_in_parts() -> None:
    bench, answer = with_jobs(3000, max_text_size=20_000, max_output_size=1000)
    admin = bench.connect()
    parts = [admin.send(b"show jobs\n").raw()]
    while bench.engine.paused_peers():
        bench.engine.resume(admin.id, bench.now)
        bench.settle()
        parts.append(admin.raw())
    assert b"".join(parts) == answer
    assert all(20_000 <= len(part) < 40_000 for part in parts[:-1])
