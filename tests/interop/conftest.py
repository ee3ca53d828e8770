"""Job servers and connections for the tests against programs of others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gearproto.packets import CanDo
from tests.harness.raw import RawConnection
from tests.harness.servers import Kind, RunningServer, poll_until, running


class Site:
    """One job server, and any number of connections to it."""

    def __init__(self, server: RunningServer, stack: contextlib.ExitStack) -> None:
        self.server = server
        self._stack = stack
        self._watcher = self.connect()

    def connect(self) -> RawConnection:
        """Open another connection."""
        return self._stack.enter_context(RawConnection(self.server))

    def worker(self, *functions: bytes) -> RawConnection:
        """Open a connection that can run functions."""
        worker = self.connect()
        worker.send(*map(CanDo, functions))
        worker.expect_nothing()
        return worker

    def leave(self, connection: RawConnection) -> None:
        """Close a connection, and wait until the server knows."""
        count = len(self._watcher.ask_rows(b"workers"))
        connection.close()
        poll_until(lambda: len(self._watcher.ask_rows(b"workers")) < count, "the server knows that a peer has gone")


StartSite = Callable[..., Site]


@pytest.fixture(params=["ours", pytest.param("gearmand", marks=pytest.mark.interop("gearmand"))])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of server in turn."""
    kind: Kind = request.param
    return kind


@pytest.fixture
def start(kind: Kind) -> Iterator[StartSite]:
    """Start a server of the kind: ``start(*arguments_of_gearmand, **options_of_ours)``."""
    with contextlib.ExitStack() as stack:

        def start_site(*arguments: str, **options: Any) -> Site:
            return Site(stack.enter_context(running(kind, *arguments, **options)), stack)

        yield start_site


@pytest.fixture
def site(start: StartSite) -> Site:
    """A new server of each kind in turn."""
    return start()


@pytest.fixture
def start_ours() -> Iterator[StartSite]:
    """Start our server: ``start_ours(**options)``."""
    with contextlib.ExitStack() as stack:

        def start_site(**options: Any) -> Site:
            return Site(stack.enter_context(running("ours", **options)), stack)

        yield start_site


@pytest.fixture
def ours(start_ours: StartSite) -> Site:
    """A new server of ours."""
    return start_ours()
