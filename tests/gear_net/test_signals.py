"""`receiving_signals`: no signal falls between the receiver and the handler that was there before it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from types import FrameType

import pytest

from gear_net import signals
from gear_net.signals import SIGNALS, receiving_signals


@pytest.fixture
def reached() -> Iterator[list[int]]:
    """The signals that reach handlers of the application, so that none ends the test process."""
    reached: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: reached.append(number)) for number in SIGNALS}
    yield reached
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def signal_on_leaving() -> Iterator[None]:
    """Let SIGTERM come while the handlers are put back."""

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code is signals._put_back.__code__:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGTERM)

    sys.setprofile(profile)
    yield
    sys.setprofile(None)


@pytest.mark.usefixtures("signal_on_leaving")
def test_signal_that_comes_while_the_last_receiver_leaves_is_still_received(reached: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    received: list[int] = []
    with receiving_signals(lambda number, _frame: received.append(number)):
        pass
    assert received == [signal.SIGTERM]
    assert reached == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("signal_on_leaving")
def test_receiver_that_raises_while_it_leaves_leaves_the_handlers_as_they_were(reached: list[int]) -> None:
    def receive(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(KeyboardInterrupt), receiving_signals(receive):
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before
    signal.raise_signal(signal.SIGINT)
    assert reached == [signal.SIGTERM, signal.SIGINT]
