"""Servers, clients and workers for the tests of the documented ``gear`` API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from gear_sync import gear
from tests.harness.gear_api import GearServer, Shop
from tests.harness.raw import RawConnection


@pytest.fixture
def shop() -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(stack)


@pytest.fixture
def server(shop: Shop) -> gear.Server:
    return shop.server(gear.Server(0))


@pytest.fixture
def raw(server: gear.Server) -> Iterator[Callable[[], RawConnection]]:
    """Open connections to the server that hide nothing."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(RawConnection(GearServer(server)))
