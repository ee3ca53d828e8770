"""Plays many schedules, in several processes."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Iterator
from typing import Final, NamedTuple

from .simulation import run_schedule

__all__ = ["Block", "play_many"]

_BLOCK: Final = 50  # schedules that a process plays before it reports


class Block(NamedTuple):
    """What came of some schedules.

    Attributes:
        schedules: how many have kept every promise.
        steps: how much has happened in them.
        submissions: how many jobs were submitted.
        failure: what broke a promise in the next one; empty if there was nothing.
    """

    schedules: int
    steps: int
    submissions: int
    failure: str


def _play(seeds: range) -> Block:
    steps = submissions = 0
    for number, seed in enumerate(seeds):
        try:
            simulation = run_schedule(seed)
        except Exception as error:
            return Block(number, steps, submissions, "".join(traceback.format_exception_only(error)))
        steps += len(simulation.trace)
        submissions += len(simulation.submissions)
    return Block(len(seeds), steps, submissions, "")


def _blocks(first: int, count: int) -> Iterator[range]:
    for start in range(first, first + count, _BLOCK):
        yield range(start, min(start + _BLOCK, first + count))


def play_many(first: int, count: int, processes: int) -> Iterator[Block]:
    """Play schedules in several processes, and yield what came of them, in their order.

    Args:
        first: seed of the first.
        count: how many.
        processes: how many play at once.
    """
    if processes == 1:
        yield from map(_play, _blocks(first, count))
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(_play, _blocks(first, count))
