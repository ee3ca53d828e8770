"""The inputs that are kept for each target: what reaches every part of the code, and what has found a fault once.

They stand in ``TARGET.txt`` in this directory, one a line, as Python writes bytes. To add a finding, append its line.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Iterable
from pathlib import Path

__all__ = ["file_of", "keep", "kept"]


def file_of(target: str) -> Path:
    """Return where the inputs of a target are kept."""
    return Path(__file__).with_name(f"{target}.txt")


def kept(target: str) -> list[bytes]:
    """Return the inputs of a target."""
    return [literal_eval(line) for line in file_of(target).read_text("ascii").splitlines()]


def keep(target: str, inputs: Iterable[bytes]) -> int:
    """Add inputs that are not kept yet; return how many."""
    old = kept(target)
    new = sorted(set(inputs) - set(old), key=lambda data: (len(data), data))
    lines = "".join(f"{data!r}\n" for data in (*old, *new))
    file_of(target).write_text(lines, "ascii")
    return len(new)
