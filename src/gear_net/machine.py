"""The machine's memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["give_memory_back", "machine_memory"]

_CGROUPS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_UNKNOWN: Final = 4 * 1024**3


def machine_memory(cgroups: Iterable[Path] = _CGROUPS) -> int:
    """Return the bytes of memory that this process may use: those of the machine, or of its container.

    Args:
        cgroups: files that hold the limit of a container.
    """
    try:
        sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):  # not every system tells
        sizes = [_UNKNOWN]
    for path in cgroups:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:  # no such limit here
            continue
        if text.isdigit():  # "max" otherwise
            sizes.append(int(text))
    return min(sizes)


def give_memory_back() -> None:
    """Give memory that the C library keeps for later use back to the system, in a thread: it may take a while."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # not every C library has this
            trim = ctypes.CDLL(None).malloc_trim  # lets other threads run meanwhile
            threading.Thread(target=trim, args=(0,), name="gear trim", daemon=True).start()
