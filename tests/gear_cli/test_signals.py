"""Signals that have to wait."""

import signal
import threading
from collections.abc import Iterator

import pytest

from gear_cli.signals import undisturbed


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Note what the handlers of signals are called with."""
    numbers: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _frame: numbers.append(number))
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_wait_and_are_handled_in_their_order(handled: list[int]) -> None:
    with undisturbed():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        assert handled == []
    assert handled == [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]
    signal.raise_signal(signal.SIGINT)
    assert handled[3:] == [signal.SIGINT]


def test_interrupt_is_raised_once_the_block_is_left() -> None:
    done = []

    def run() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("the block")
        done.append("what follows")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert done == ["the block"]


def test_ignored_signal_stays_ignored(handled: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with undisturbed():
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


def test_other_threads_change_nothing(handled: list[int]) -> None:
    def block() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert handled == [signal.SIGINT]
