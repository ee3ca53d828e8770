"""What something costs, in function calls: a figure that does not depend on the machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType

__all__ = ["calls"]


def calls(action: Callable[[], object]) -> int:
    """Count the function calls that an action makes, those of built-in functions included.

    The garbage collector is off meanwhile: what it calls, such as Hypothesis's callback, depends on what was before.
    """
    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before, collecting = sys.getprofile(), gc.isenabled()
    gc.disable()
    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()
    return count
