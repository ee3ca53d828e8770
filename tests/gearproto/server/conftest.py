"""An engine for each test."""

from __future__ import annotations

import pytest

from tests.harness.engine import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()
