"""What a target reaches: the steps from line to line in `gearproto`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import gearproto

from .targets import Target

__all__ = ["new_reach", "reached"]

_ROOT: Final = str(Path(gearproto.__file__).parent)

Step = tuple[str, int, int]


def reached(target: Target, data: bytes) -> set[Step]:
    """Run a target, and return the steps that it has taken: file, line, and the line before in the same call."""
    steps: set[Step] = set()
    last: dict[int, int] = {}

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(_ROOT):
            return None
        steps.add((name, last.get(id(frame), 0) if event == "line" else 0, frame.f_lineno))
        last[id(frame)] = frame.f_lineno
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        target(data)
    finally:
        sys.settrace(before)
    return steps


def new_reach(target: Target, kept: Iterable[bytes], found: Iterable[bytes]) -> list[bytes]:
    """Return those of the found inputs that reach what no other does, the smallest first."""
    seen: set[Step] = set()
    for data in kept:
        seen |= reached(target, data)
    new = []
    for data in sorted(found, key=lambda data: (len(data), data)):
        steps = reached(target, data)
        if not steps <= seen:
            seen |= steps
            new.append(data)
    return new
