"""Checks the seconds that users give: as timeouts of calls, and as settings of clients, workers and connections.

>>> checked_timeout(5)
5.0
>>> checked_timeout(math.inf) is checked_timeout(None) is None
True
>>> setting("connect_timeout", -1)
Traceback (most recent call last):
...
ValueError: connect_timeout is -1 s, which has to be 0 or more
"""

from __future__ import annotations

import math

__all__ = ["checked_timeout", "deadline", "setting"]


def checked_timeout(timeout: float | None) -> float | None:
    """Return how many seconds a wait may take; None for no limit.

    Args:
        timeout: the seconds that the user gives. None and infinity mean no limit, negative numbers no time at all.

    Raises:
        ValueError: it is not a number.
    """
    if timeout is None:
        return None
    seconds = _number("timeout", timeout)
    return None if seconds == math.inf else max(0.0, seconds)


def deadline(timeout: float | None, now: float) -> float:
    """Return when a wait that begins now is over, in the time of `now`; infinity for no limit.

    Raises as `checked_timeout`.

    Args:
        timeout: as for `checked_timeout`.
        now: monotonic time in seconds.
    """
    seconds = checked_timeout(timeout)
    return math.inf if seconds is None else now + seconds


def setting(name: str, seconds: float, *, above_0: bool = False) -> float:
    """Return a number of seconds that is a setting; infinity means never, or no limit.

    Args:
        name: what it is called.
        seconds: what the user gives.
        above_0: whether 0 is not allowed.

    Raises:
        ValueError: it is not a number, or too small.
    """
    number = _number(name, seconds)
    if number < 0 or (above_0 and not number):
        raise ValueError(f"{name} is {seconds:g} s, which has to be {'above 0' if above_0 else '0 or more'}")
    return number


def _number(name: str, seconds: float) -> float:
    try:
        number = float(seconds + 0.0)  # text is not accepted, although float() alone would
    except TypeError:
        raise ValueError(f"{name} is {seconds!r}, which is not a number of seconds") from None
    except OverflowError:  # an integer of hundreds of digits
        return math.inf if seconds > 0 else -math.inf
    if math.isnan(number):
        raise ValueError(f"{name} is nan, which is not a number of seconds")
    return number
