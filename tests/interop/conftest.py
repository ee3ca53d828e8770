"""Job servers and connections for the tests against programs of others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.harness.servers import Kind, running
from tests.harness.sites import TcpSite


@pytest.fixture(params=["ours", pytest.param("gearmand", marks=pytest.mark.interop("gearmand"))])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of server in turn."""
    kind: Kind = request.param
    return kind


@pytest.fixture
def ours() -> Iterator[TcpSite]:
    """A new server of ours."""
    with contextlib.ExitStack() as stack:
        yield TcpSite(stack.enter_context(running("ours")), stack)
