"""Tells a process from its forked children, for less than asking the system for a process id costs (0.3 us a call)."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["FORKS"]


class Forks:
    """Counts forks.

    Attributes:
        count: how often this process and its ancestors have been forked. A child has one more than its parent.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.count += 1


FORKS: Final = Forks()
"""Those of this process."""
