"""Each event loop in turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.loops import STRICT_LOOPS, Loop, anyio_backend_of, asking_nothing_in_callbacks


@pytest.fixture(params=STRICT_LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    with asking_nothing_in_callbacks():
        yield request.param


@pytest.fixture
def anyio_backend(loop: Loop) -> Any:
    return anyio_backend_of(loop)
