"""Programs of others that interop tests run: find one, or skip."""

import os
import shutil
from typing import NoReturn

import pytest

REQUIRE_VARIABLE = "GEARPROTO_REQUIRE_INTEROP"
"""With the value 1 in the environment, what would skip an interop test fails it."""

_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")  # daemons; not on every user's PATH


def find(program: str) -> str | None:
    """Return the path of a program, or None where it is not installed."""
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(_SYSTEM_FOLDERS))


def require(program: str) -> str:
    """Return the path of a program; without it, skip the test, or fail it where interop is required."""
    path = find(program)
    if path is None:
        unavailable(f"{program} is not installed")
    return path


def unavailable(reason: str) -> NoReturn:
    """Skip the running test, or fail it where interop is required."""
    __tracebackhide__ = True
    if os.environ.get(REQUIRE_VARIABLE) == "1":
        pytest.fail(f"{reason}, and {REQUIRE_VARIABLE}=1", pytrace=False)
    pytest.skip(reason)
